//! The scripts in a hooks directory: how ours look, and whose one is.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use camino::Utf8Path;

use crate::fs::named;
use crate::hook::chain::{ASIDE, END_ALONE};
use crate::util::text::shell_quoted;

/// How a hook manager (pre-commit) calls the hook whose place it took.
pub(super) const LEGACY: &str = ".legacy";

/// What the name of a hook ends in that got ours in front of its lines: as it was before.
pub(super) const WHOLE: &str = ".whole";

/// In every script of ours, on the second line.
pub(super) const MARK: &str = "# Written by `jin-txn install`";

/// How our part of a script ends that has another hook behind it.
pub(super) const END_OF_BOTH: &str = "\nexec \"$other\" \"$@\"\n";

/// In what a hook manager (git-branchless) adds to hooks.
pub(super) const ADDED: &[u8] = b"## START BRANCHLESS CONFIG";

/// The first line of our scripts.
pub(super) const SHELL: &[u8] = b"#!/bin/sh\n";

/// Where the hooks go that were in `directory`.
pub(crate) fn aside_directory(directory: &Path) -> PathBuf {
    with(directory, ASIDE)
}

pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Is this hook ours: a script, or a link to a jin-txn, wherever that lies (or lay)?
pub(crate) fn is_ours(path: &Path) -> bool {
    is_ours_with(path, || beginning(path))
}

/// The same, where what a script begins with may be known already.
pub(super) fn is_ours_with(path: &Path, text: impl FnOnce() -> String) -> bool {
    let is_this = |target: &PathBuf| std::env::current_exe().is_ok_and(|exe| exe == *target);
    let is_named = |target: &PathBuf| target.file_name().is_some_and(|n| n.to_string_lossy().starts_with("jin-txn"));
    match fs::read_link(path) {
        Ok(target) => is_named(&target) || is_this(&target),
        Err(_) => text().lines().nth(1).is_some_and(|line| line.starts_with(MARK)),
    }
}

/// Does somebody's hook call ours?
pub(crate) fn calls_us(directory: &Path, name: &str) -> bool {
    calls_us_with(directory, name, &beginning(&directory.join(name)))
}

pub(super) fn calls_us_with(directory: &Path, name: &str, text: &str) -> bool {
    (text.contains("jin-txn") && text.contains(&format!("hook {name}"))) || is_called_as_legacy(directory, name)
}

pub(super) fn is_called_as_legacy(directory: &Path, name: &str) -> bool {
    let hook = directory.join(name);
    !is_ours(&hook) && is_ours(&with(&hook, LEGACY)) && beginning(&hook).contains("pre-commit")
}

/// Is this a script of ours with another hook behind it?
pub(super) fn runs_another(hook: &Path) -> bool {
    is_ours(hook) && beginning(hook).contains(&END_OF_BOTH[1..])
}

/// A hook that git runs, and that a shell reads.
pub(super) fn shell_script(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let text = (metadata.is_file() && metadata.mode() & 0o111 != 0).then(|| read(path).ok())??;
    let first = text.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    let words: Vec<_> = first.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let shells = [&b"sh"[..], b"bash", b"dash", b"ksh", b"zsh"];
    let is_shell = |word: &&[u8]| word.rsplit(|byte| *byte == b'/').next().is_some_and(|end| shells.contains(&end));
    words.iter().any(is_shell).then_some(text)
}

/// The hook that stepped aside, and behind it the lines that were added to ours since: what its manager would have made of it.
pub(super) fn fold(directory: &Path, name: &str) -> Option<Vec<u8>> {
    let hook = directory.join(name);
    let added = added_to(&hook).filter(|_| runs_another(&hook))?;
    let mut script = shell_script(&aside_directory(directory).join(name))?;
    if !script.ends_with(b"\n") {
        script.push(b'\n');
    }
    script.extend(added);
    Some(script)
}

/// The lines behind ours in a script of ours, when there are any.
pub(super) fn added_to(hook: &Path) -> Option<Vec<u8>> {
    if fs::read_link(hook).is_ok() || !is_ours(hook) {
        return None;
    }
    let text = read(hook).ok()?;
    let added = text[end_of_ours(&text)?..].to_vec();
    (!added.trim_ascii().is_empty()).then_some(added)
}

/// Where our own part of a script of ours ends.
pub(super) fn end_of_ours(text: &[u8]) -> Option<usize> {
    let ends = [END_ALONE, END_OF_BOTH].into_iter().filter_map(|end| Some(position(text, end.as_bytes())? + end.len()));
    ends.min()
}

pub(super) fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    position(text, part).is_some()
}

/// Does somebody add lines to the hooks here? Those who do cannot to a link.
pub(super) fn others_add_lines(directory: &Path) -> bool {
    let hooks = fs::read_dir(directory).into_iter().flatten().flatten();
    let scripts =
        hooks.filter(|hook| hook.file_type().is_ok_and(|kind| kind.is_file()) && !is_sample(&hook.file_name()));
    scripts.into_iter().any(|hook| contains(beginning(&hook.path()).as_bytes(), ADDED))
}

pub(super) fn is_sample(name: &OsString) -> bool {
    name.to_string_lossy().ends_with(".sample")
}

pub(super) fn beginning(path: &Path) -> String {
    try_beginning(path).unwrap_or_default()
}

pub(super) fn try_beginning(path: &Path) -> io::Result<String> {
    const ENOUGH: u64 = 1 << 16;
    Ok(String::from_utf8_lossy(&read_at_most(path, ENOUGH)?).into_owned())
}

/// The whole of a hook.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    const LARGEST: u64 = 64 << 20;
    let bytes = read_at_most(path, LARGEST + 1)?;
    if bytes.len() as u64 > LARGEST { Err(not_a_hook(path)) } else { Ok(bytes) }
}

/// Hooks may be links. What is no regular file at their end is no hook, and a FIFO would keep us waiting.
fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("open flags fit into an int");
    let file = named::at(path, fs::OpenOptions::new().read(true).custom_flags(flags).open(path))?;
    let found = named::at(path, file.metadata())?;
    if !found.is_file() {
        return Err(not_a_hook(path));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(most)).unwrap_or_default() + 1);
    named::at(path, file.take(most).read_to_end(&mut bytes))?;
    Ok(bytes)
}

fn not_a_hook(path: &Path) -> io::Error {
    io::Error::other(format!("{} is not a hook", crate::util::text::shown(path)))
}

/// The same link, or the same content with the same mode.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| {
        let metadata = fs::symlink_metadata(path).ok()?;
        let content = if metadata.is_symlink() {
            fs::read_link(path).ok()?.into_os_string().into_encoded_bytes()
        } else {
            read(path).ok()?
        };
        Some((metadata.is_symlink(), metadata.permissions().mode() & 0o111, content))
    };
    look(one).is_some_and(|one| look(other).is_some_and(|other| one == other))
}

/// Without the first line. It is called twice: by git, and by us when lines follow. In between its pid stays.
pub(super) fn alone(name: &str, binary: &Utf8Path) -> String {
    let binary = shell_quoted(binary.as_str());
    format!(
        "{MARK}; `jin-txn uninstall` takes it out again. What follows below runs after it.\n\
         [ \"${{JIN_TXN_THEN-}}\" = $$ ] || [ ! -x {binary} ] || exec {binary} hook --rest \"$0\" {name} \"$@\"{}",
        END_ALONE
    )
}

/// Ours first: what git may not do without a record is refused before anybody else is asked.
pub(super) fn both(name: &str, binary: &Utf8Path) -> String {
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

/// The program that a script of ours runs.
pub(super) fn program(script: &str) -> Option<PathBuf> {
    let line = script.lines().find_map(|line| Some(line.split_once(" -x ")?.1))?;
    shlex::split(line)?.into_iter().next().map(PathBuf::from)
}
