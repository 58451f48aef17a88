//! One hooks directory: ours in, whoever was there aside, and back again.
//!
//! A hook that was there moves to `<hooks directory>.before-jin-txn/<name>`: its name and the depth of its directory stay,
//! and everything else in the hooks directory is linked beside it, so that it finds what it looks for by `$0`. It is the
//! same file (inode, mode, times), which `take_back` renames into place again.
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

use super::{NAMES, shell_quoted};
use crate::durable;
use crate::git::refs::absent_is_none;
use crate::hook::foreign::ASIDE;
use crate::named;

/// How a hook manager (pre-commit) calls the hook whose place it took.
const LEGACY: &str = ".legacy";

/// How a hook manager (lefthook) calls the hook whose place it took, and which it does not run.
const DISPLACED: &str = ".old";

/// In every script of ours.
const MARK: &str = "# Written by `jin-txn install`";

/// Where the hooks go that were in `directory`.
#[must_use]
pub fn aside_directory(directory: &Path) -> PathBuf {
    with(directory, ASIDE)
}

/// Puts our hook `name` into `directory`. Somebody's that is there steps aside, unless it calls ours.
///
/// # Errors
/// The directory cannot be read or written.
pub fn put(directory: &Path, name: &str, binary: &Utf8Path) -> anyhow::Result<()> {
    let hook = directory.join(name);
    let aside = aside_directory(directory).join(name);
    let there = fs::symlink_metadata(&hook).is_ok();
    if there && !is_ours(&hook) {
        if is_called_as_legacy(directory, name) {
            return write(&with(&hook, LEGACY), name, binary, fs::symlink_metadata(&aside).is_ok());
        }
        if calls_us(directory, name) {
            return Ok(());
        }
        step_aside(directory, name).with_context(|| format!("cannot move {} aside", hook.display()))?;
        let displaced = with(&hook, DISPLACED);
        if is_ours(&displaced) {
            durable::remove_file(&displaced)?;
        }
    }
    write(&hook, name, binary, fs::symlink_metadata(&aside).is_ok())
}

fn step_aside(directory: &Path, name: &str) -> anyhow::Result<()> {
    let (hook, beside) = (directory.join(name), aside_directory(directory));
    let aside = beside.join(name);
    if fs::symlink_metadata(&beside).is_err() {
        durable::create_dirs(&beside, 0o777)?;
        durable::share_like_directory(&beside)?;
        if !directory.ancestors().any(|dir| dir.join("objects").is_dir() && dir.join("HEAD").exists()) {
            // In a worktree: `git status` must not show it.
            durable::replace(&beside.join(".gitignore"), b"*\n")?;
        }
    }
    anyhow::ensure!(fs::symlink_metadata(&beside)?.is_dir(), "{} is not a directory", beside.display());
    if fs::symlink_metadata(&aside).is_ok() {
        if is_same(&hook, &aside) {
            durable::remove_file(&aside)?;
        } else {
            // Replaced by the new one, but not ours to throw away.
            let mut older = (1..).map(|n| beside.join(format!("{name}.older-{n}")));
            let older = older.find(|path| fs::symlink_metadata(path).is_err());
            durable::rename_new(&aside, &older.context("there is always another number")?)?;
        }
    }
    link_neighbours(directory, &beside)?;
    match durable::hard_link(&hook, &aside) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => durable::rename_new(&hook, &aside)?,
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
    Ok(names?.into_iter().filter(|name| !NAMES.iter().any(|ours| name == ours) && !is_sample(name)).collect())
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
    let waits = fs::symlink_metadata(&aside).is_ok();
    match ours {
        Some(ours) if waits => durable::rename(&aside, &ours)?,
        Some(ours) => durable::remove_file(&ours).with_context(|| format!("cannot remove {}", ours.display()))?,
        None if waits => return Ok(Some(aside)),
        None => {}
    }
    Ok(None)
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

/// Writes our hook unless it is there already.
fn write(path: &Path, name: &str, binary: &Utf8Path, has_another: bool) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if name == NAMES[0] && !has_another {
        if fs::read_link(path).ok().as_deref() != Some(binary.as_std_path()) {
            durable::symlink(binary.as_std_path(), path).with_context(cannot)?;
        }
        return Ok(());
    }
    let text = script(name, binary, has_another);
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 == 0o111);
    if !is_file || !fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        durable::publish_program(path, text.as_bytes()).with_context(cannot)?;
    }
    Ok(())
}

/// Ours first: what git may not do without a record is refused before anybody else is asked.
fn script(name: &str, binary: &Utf8Path, has_another: bool) -> String {
    let binary = shell_quoted(binary.as_str());
    if !has_another {
        return format!(
            "#!/bin/sh\n{MARK}; `jin-txn uninstall` takes it out again.\n\
             [ -x {binary} ] || exit 0\nexec {binary} hook {name} \"$@\"\n"
        );
    }
    format!(
        "#!/bin/sh\n{MARK}: first jin-txn, then the hook that was here before.\n\
         # `jin-txn uninstall` takes it out again and puts that one back.\n\
         other=${{0%/*}}{ASIDE}/{name}\n\
         [ -x {binary} ] && exec {binary} hook --then \"$other\" {name} \"$@\"\n\
         [ -x \"$other\" ] || exit 0\nexec \"$other\" \"$@\"\n"
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
    NAMES.iter().any(|name| beginning(&directory.join(name)).contains("call_lefthook run"))
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
        let shown = super::shown(&path);
        return Some(format!("the {name} hook is somebody else's ({shown}): run `jin-txn install`, then both run"));
    }
    let program = fs::read_link(&path).ok().or_else(|| program(&text));
    if program.is_some_and(|program| !program.exists()) {
        return Some(format!("the {name} hook points to a jin-txn that is gone: run `jin-txn install`"));
    }
    let executable = fs::metadata(&path).is_ok_and(|m| m.mode() & 0o111 != 0);
    (!executable).then(|| format!("the {name} hook is not executable: run `jin-txn install`"))
}

/// The program that a script of ours runs.
fn program(script: &str) -> Option<PathBuf> {
    let line = script.lines().find_map(|line| line.strip_prefix("[ -x '"))?;
    let quoted = line.split_once("' ] ")?.0;
    Some(PathBuf::from(quoted.replace(r"'\''", "'")))
}
