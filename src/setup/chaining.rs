//! One hooks directory: ours in, whoever was there aside, and back again.
//!
//! A hook that was there moves to `<hooks directory>.before-jin-txn/<name>`: its name and the depth of its directory stay,
//! and everything else in the hooks directory is linked beside it, so that it finds what it looks for by `$0`. It is the
//! same file (inode, mode, times), which `take_back` renames into place again.
//!
//! Lines that somebody adds to a script of ours run after it, with git's input. Some managers (git-branchless) work like
//! that, and change or take out their lines in the file where they put them: where such lines are, the hook that was there
//! does not step aside, but gets ours in front of them, and what it was waits in `<name>.whole`.
//!
//! Killed anywhere, both come to the same end when run again: the one that was there has both names until ours has taken its
//! place by one rename.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;

use crate::fs::absent_is_none;
use crate::fs::durable;
use crate::fs::named;
use crate::hook::chain::{ASIDE, END_ALONE};
use crate::setup::hooks::{ALL_NAMES, NAMES};
use crate::util::text::{shell_quoted, shown};

/// How a hook manager (pre-commit) calls the hook whose place it took.
const LEGACY: &str = ".legacy";

/// How a hook manager (lefthook) calls the hook whose place it took, and which it does not run.
const DISPLACED: &str = ".old";

/// What the name of a hook ends in that got ours in front of its lines: as it was before.
const WHOLE: &str = ".whole";

/// In every script of ours, on the second line.
const MARK: &str = "# Written by `jin-txn install`";

/// How our part of a script ends that has another hook behind it.
const END_OF_BOTH: &str = "\nexec \"$other\" \"$@\"\n";

/// In what a hook manager (git-branchless) adds to hooks.
const ADDED: &[u8] = b"## START BRANCHLESS CONFIG";

/// Where the hooks go that were in `directory`.
#[must_use]
pub fn aside_directory(directory: &Path) -> PathBuf {
    with(directory, ASIDE)
}

/// Puts our hook `name` into `directory`. Somebody's that is there steps aside, unless it calls ours, or is one that others
/// add lines to.
///
/// # Errors
/// The directory cannot be read or written.
pub fn put(directory: &Path, name: &str, binary: &Utf8Path) -> anyhow::Result<()> {
    let hook = directory.join(name);
    let aside = aside_directory(directory).join(name);
    let there = fs::symlink_metadata(&hook).is_ok();
    let has_another = || fs::symlink_metadata(&aside).is_ok();
    if there && !is_ours(&hook) {
        if is_called_as_legacy(directory, name) {
            return write(&with(&hook, LEGACY), name, binary, has_another());
        }
        if calls_us(directory, name) {
            return Ok(());
        }
        let cannot = || format!("cannot move {} aside", hook.display());
        if let Some(script) = shell_script(&hook).filter(|text| contains(text, ADDED)) {
            step_aside(directory, name, &with(&aside, WHOLE)).with_context(cannot)?;
            return publish(&hook, name, binary, &script);
        }
        step_aside(directory, name, &aside).with_context(cannot)?;
        let displaced = with(&hook, DISPLACED);
        if is_ours(&displaced) {
            durable::remove_file(&displaced)?;
        }
    } else if let Some(together) = fold(directory, name) {
        publish(&hook, name, binary, &together)?;
        durable::rename(&aside, &with(&aside, WHOLE))?;
    } else if !runs_another(&hook) && added_to(&hook).is_some() && has_another() {
        // Killed before that rename.
        durable::rename(&aside, &with(&aside, WHOLE))?;
    }
    write(&hook, name, binary, has_another())
}

/// The hook that stepped aside, and behind it the lines that were added to ours since: what its manager would have made of it.
fn fold(directory: &Path, name: &str) -> Option<Vec<u8>> {
    let hook = directory.join(name);
    let added = added_to(&hook).filter(|_| runs_another(&hook))?;
    let mut script = shell_script(&aside_directory(directory).join(name))?;
    if !script.ends_with(b"\n") {
        script.push(b'\n');
    }
    script.extend(added);
    Some(script)
}

/// Is this a script of ours with another hook behind it?
fn runs_another(hook: &Path) -> bool {
    is_ours(hook) && beginning(hook).contains(&END_OF_BOTH[1..])
}

/// A hook that git runs, and that a shell reads.
fn shell_script(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let text = (metadata.is_file() && metadata.mode() & 0o111 != 0).then(|| fs::read(path).ok())??;
    let first = text.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    let words: Vec<_> = first.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let shells = [&b"sh"[..], b"bash", b"dash", b"ksh", b"zsh"];
    let is_shell = |word: &&[u8]| word.rsplit(|byte| *byte == b'/').next().is_some_and(|end| shells.contains(&end));
    words.iter().any(is_shell).then_some(text)
}

/// The lines behind ours in a script of ours, when there are any.
fn added_to(hook: &Path) -> Option<Vec<u8>> {
    if fs::read_link(hook).is_ok() || !is_ours(hook) {
        return None;
    }
    let text = fs::read(hook).ok()?;
    let added = text[end_of_ours(&text)?..].to_vec();
    (!added.trim_ascii().is_empty()).then_some(added)
}

/// Where our own part of a script of ours ends.
fn end_of_ours(text: &[u8]) -> Option<usize> {
    let ends = [END_ALONE, END_OF_BOTH].into_iter().filter_map(|end| Some(position(text, end.as_bytes())? + end.len()));
    ends.min()
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    position(text, part).is_some()
}

/// Does somebody add lines to the hooks here? Those who do cannot to a link.
fn others_add_lines(directory: &Path) -> bool {
    let hooks = fs::read_dir(directory).into_iter().flatten().flatten();
    let scripts =
        hooks.filter(|hook| hook.file_type().is_ok_and(|kind| kind.is_file()) && !is_sample(&hook.file_name()));
    scripts.into_iter().any(|hook| contains(beginning(&hook.path()).as_bytes(), ADDED))
}

/// Gives the hook the name `aside` as well.
fn step_aside(directory: &Path, name: &str, aside: &Path) -> anyhow::Result<()> {
    let (hook, beside) = (directory.join(name), aside_directory(directory));
    if fs::symlink_metadata(&beside).is_err() {
        durable::create_dirs(&beside, 0o777)?;
        durable::share_like_directory(&beside)?;
        if !directory.ancestors().any(|dir| dir.join("objects").is_dir() && dir.join("HEAD").exists()) {
            // In a worktree: `git status` must not show it.
            durable::replace(&beside.join(".gitignore"), b"*\n")?;
        }
    }
    anyhow::ensure!(fs::symlink_metadata(&beside)?.is_dir(), "{} is not a directory", beside.display());
    if fs::symlink_metadata(aside).is_ok() {
        if is_same(&hook, aside) {
            durable::remove_file(aside)?;
        } else {
            // Replaced by the new one, but not ours to throw away.
            let mut older = (1..).map(|n| beside.join(format!("{name}.older-{n}")));
            let older = older.find(|path| fs::symlink_metadata(path).is_err());
            durable::rename_new(aside, &older.context("there is always another number")?)?;
        }
    }
    link_neighbours(directory, &beside)?;
    match durable::hard_link(&hook, aside) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => durable::rename_new(&hook, aside)?,
        other => other?,
    }
    Ok(durable::fsync_dir(&beside)?)
}

/// What a hook finds in its own directory it still finds there.
fn link_neighbours(directory: &Path, beside: &Path) -> anyhow::Result<()> {
    for name in neighbours(directory)? {
        let link = beside.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            durable::symlink(&neighbour(directory, &name), &link)?;
        }
    }
    Ok(())
}

fn neighbours(directory: &Path) -> io::Result<Vec<OsString>> {
    let names: io::Result<Vec<OsString>> = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect();
    Ok(names?.into_iter().filter(|name| !ALL_NAMES.iter().any(|ours| name == ours) && !is_sample(name)).collect())
}

fn is_sample(name: &OsString) -> bool {
    name.to_string_lossy().ends_with(".sample")
}

fn neighbour(directory: &Path, name: &OsString) -> PathBuf {
    Path::new("..").join(directory.file_name().unwrap_or_default()).join(name)
}

/// Takes our hook `name` out of `directory` and puts back what was there. Says what had to stay aside.
///
/// # Errors
/// The directory cannot be read or written.
pub fn take_back(directory: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let hook = directory.join(name);
    let aside = aside_directory(directory).join(name);
    let waits = fs::symlink_metadata(&aside).is_ok();
    let ours = [hook.clone(), with(&hook, LEGACY)].into_iter().find(|path| is_ours(path));
    // A manager that was there before us, and took our place: both are its own.
    if waits && is_same(&hook, &aside) {
        durable::remove_file(&aside)?;
    }
    let displaced = with(&hook, DISPLACED);
    if is_ours(&displaced) {
        durable::remove_file(&displaced)?;
    }
    let whole = with(&aside, WHOLE);
    if fs::symlink_metadata(&whole).is_ok() && is_same(&hook, &whole) {
        durable::remove_file(&whole)?;
    }
    let waits = fs::symlink_metadata(&aside).is_ok();
    if let Some(ours) = &ours
        && let Some(theirs) = theirs(directory, name, ours)
    {
        if fs::read(&whole).is_ok_and(|whole| whole == theirs) {
            durable::rename(&whole, ours)?;
        } else {
            durable::publish_program(ours, &theirs)?;
            for replaced in [whole, aside].iter().filter(|path| fs::symlink_metadata(path).is_ok()) {
                durable::remove_file(replaced)?;
            }
        }
        return Ok(None);
    }
    if let Some(added) = ours.as_deref().and_then(added_to) {
        // They cannot stand behind what comes back.
        durable::replace(&with(&aside, ".added"), &added)?;
    }
    match ours {
        Some(ours) if waits => durable::rename(&aside, &ours)?,
        Some(ours) => durable::remove_file(&ours).with_context(|| format!("cannot remove {}", ours.display()))?,
        None if waits => return Ok(Some(aside)),
        None => {}
    }
    Ok(None)
}

/// Is ours in front of the lines of the hook that was there?
#[must_use]
pub fn is_in_front(directory: &Path, name: &str) -> bool {
    fs::symlink_metadata(with(&aside_directory(directory).join(name), WHOLE)).is_ok()
}

/// What is left of a script of ours when our own part is taken out, `None` when that is nothing.
fn theirs(directory: &Path, name: &str, ours: &Path) -> Option<Vec<u8>> {
    let added = added_to(ours)?;
    if runs_another(ours) {
        return fold(directory, name);
    }
    let text = fs::read(ours).ok()?;
    let mut theirs = text[..=position(&text, b"\n")?].to_vec();
    theirs.extend(added);
    Some(theirs)
}

/// Removes the directory beside `directory` when no hook is in it any more. Says what is left in it.
///
/// # Errors
/// It cannot be read or written.
pub fn clear(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let beside = aside_directory(directory);
    let Some(entries) = absent_is_none(fs::read_dir(&beside))? else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        let linked = fs::read_link(&path).is_ok_and(|target| target == neighbour(directory, &name));
        if !linked && name != ".gitignore" {
            left.push(path);
        }
    }
    if left.is_empty() {
        durable::remove_tree(&beside)?;
    }
    left.sort();
    Ok(left)
}

/// Writes our hook unless it is there already. Lines that were added to it stay.
fn write(path: &Path, name: &str, binary: &Utf8Path, has_another: bool) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let added = added_to(path);
    let as_link = || !path.parent().is_some_and(others_add_lines);
    if name == NAMES[0] && !has_another && added.is_none() && as_link() {
        if fs::read_link(path).ok().as_deref() != Some(binary.as_std_path()) {
            durable::symlink(binary.as_std_path(), path).with_context(cannot)?;
        }
        return Ok(());
    }
    if !has_another {
        let first = fs::read(path).ok().filter(|_| added.is_some());
        let first = first.as_deref().and_then(|text| text.split_inclusive(|b| *b == b'\n').next()).unwrap_or(SHELL);
        return publish(path, name, binary, &[first, &added.unwrap_or_default()].concat());
    }
    let text = [both(name, binary).as_bytes(), &added.unwrap_or_default()].concat();
    publish_text(path, &text).with_context(cannot)
}

/// The first line of our scripts.
const SHELL: &[u8] = b"#!/bin/sh\n";

/// Makes `path` the hook `script` with ours in front of its lines.
fn publish(path: &Path, name: &str, binary: &Utf8Path, script: &[u8]) -> anyhow::Result<()> {
    let after_first = position(script, b"\n").map_or(script.len(), |at| at + 1);
    let (first, rest) = script.split_at(after_first);
    let text = [first.trim_ascii_end(), b"\n", alone(name, binary).as_bytes(), rest].concat();
    publish_text(path, &text).with_context(|| format!("cannot write {}", path.display()))
}

fn publish_text(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 == 0o111);
    if !is_file || !fs::read(path).is_ok_and(|found| found == text) {
        durable::publish_program(path, text)?;
    }
    Ok(())
}

/// Without the first line. It is called twice: by git, and by us when lines follow. In between its pid stays.
fn alone(name: &str, binary: &Utf8Path) -> String {
    let binary = shell_quoted(binary.as_str());
    format!(
        "{MARK}; `jin-txn uninstall` takes it out again. What follows below runs after it.\n\
         [ \"${{JIN_TXN_THEN-}}\" = $$ ] || [ ! -x {binary} ] || exec {binary} hook --rest \"$0\" {name} \"$@\"{}",
        END_ALONE
    )
}

/// Ours first: what git may not do without a record is refused before anybody else is asked.
fn both(name: &str, binary: &Utf8Path) -> String {
    let binary = shell_quoted(binary.as_str());
    format!(
        "#!/bin/sh\n{MARK}: first jin-txn, then the hook that was here before.\n\
         # `jin-txn uninstall` takes it out again and puts that one back.\n\
         other=${{0%/*}}{ASIDE}/{name}\n\
         [ -x {binary} ] && exec {binary} hook --then \"$other\" {name} \"$@\"\n\
         [ -x \"$other\" ] || exit 0{}",
        END_OF_BOTH
    )
}

/// Is this hook ours: a script, or a link to a jin-txn, wherever that lies (or lay)?
#[must_use]
pub fn is_ours(path: &Path) -> bool {
    is_ours_with(path, || beginning(path))
}

/// The same, where what a script begins with may be known already.
fn is_ours_with(path: &Path, text: impl FnOnce() -> String) -> bool {
    let is_this = |target: &PathBuf| std::env::current_exe().is_ok_and(|exe| exe == *target);
    let is_named = |target: &PathBuf| target.file_name().is_some_and(|n| n.to_string_lossy().starts_with("jin-txn"));
    match fs::read_link(path) {
        Ok(target) => is_named(&target) || is_this(&target),
        Err(_) => text().lines().nth(1).is_some_and(|line| line.starts_with(MARK)),
    }
}

/// Does somebody's hook call ours?
#[must_use]
pub fn calls_us(directory: &Path, name: &str) -> bool {
    calls_us_with(directory, name, &beginning(&directory.join(name)))
}

fn calls_us_with(directory: &Path, name: &str, text: &str) -> bool {
    (text.contains("jin-txn") && text.contains(&format!("hook {name}"))) || is_called_as_legacy(directory, name)
}

fn is_called_as_legacy(directory: &Path, name: &str) -> bool {
    let hook = directory.join(name);
    !is_ours(&hook) && is_ours(&with(&hook, LEGACY)) && beginning(&hook).contains("pre-commit")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Does a hook manager work here that takes its places back whenever one of its hooks runs?
#[must_use]
pub fn is_restless(directory: &Path) -> bool {
    ALL_NAMES.iter().any(|name| beginning(&directory.join(name)).contains("call_lefthook run"))
}

fn beginning(path: &Path) -> String {
    try_beginning(path).unwrap_or_default()
}

fn try_beginning(path: &Path) -> io::Result<String> {
    const ENOUGH: u64 = 1 << 16;
    let mut bytes = Vec::new();
    named::at(path, fs::File::open(path).and_then(|file| file.take(ENOUGH).read_to_end(&mut bytes)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The same link, or the same content with the same mode.
fn is_same(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| {
        let metadata = fs::symlink_metadata(path).ok()?;
        let content = if metadata.is_symlink() {
            fs::read_link(path).ok()?.into_os_string().into_encoded_bytes()
        } else {
            fs::read(path).ok()?
        };
        Some((metadata.is_symlink(), metadata.permissions().mode() & 0o111, content))
    };
    look(one).is_some_and(|one| look(other).is_some_and(|other| one == other))
}

/// What is wrong with our hook in `directory`, and what to do.
#[must_use]
pub fn problem(directory: &Path, name: &str) -> Option<String> {
    let path = directory.join(name);
    if fs::symlink_metadata(&path).is_err() {
        return Some(format!("the {name} hook is missing: run `jin-txn install`"));
    }
    let text = match try_beginning(&path) {
        Ok(text) => text,
        // A link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Some(format!("the {name} hook cannot be read: {error}")),
    };
    let is_ours = is_ours_with(&path, || text.clone());
    if !is_ours && calls_us_with(directory, name, &text) {
        return None;
    }
    if !is_ours {
        let shown = shown(&path);
        return Some(format!("the {name} hook is somebody else's ({shown}): run `jin-txn install`, then both run"));
    }
    let program = fs::read_link(&path).ok().or_else(|| program(&text));
    if program.is_some_and(|program| !program.exists()) {
        return Some(format!("the {name} hook points to a jin-txn that is gone: run `jin-txn install`"));
    }
    let executable = fs::metadata(&path).is_ok_and(|m| m.mode() & 0o111 != 0);
    (!executable).then(|| format!("the {name} hook is not executable: run `jin-txn install`"))
}

/// Whose lines do not run because of our hook in `directory`, and what to do.
#[must_use]
pub fn hindered(directory: &Path, name: &str) -> Option<String> {
    let hook = directory.join(name);
    if name == NAMES[0] && is_ours(&hook) && fs::read_link(&hook).is_ok() && others_add_lines(directory) {
        return Some(format!(
            "git-branchless cannot add its lines to the {name} hook, which is a link: run `jin-txn install`, \
             then `git branchless init`"
        ));
    }
    let aside = aside_directory(directory).join(name);
    if !runs_another(&hook) || added_to(&hook).is_none() {
        return None;
    }
    let (hook, aside) = (shown(&hook), shown(&aside));
    Some(if fold(directory, name).is_some() {
        format!("lines that were added to {hook} do not run: run `jin-txn install`")
    } else {
        format!("lines that were added to {hook} do not run: move them to {aside}")
    })
}

/// The program that a script of ours runs.
fn program(script: &str) -> Option<PathBuf> {
    let line = script.lines().find_map(|line| Some(line.split_once(" -x ")?.1))?;
    shlex::split(line)?.into_iter().next().map(PathBuf::from)
}
