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

mod look;
mod script;

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;
use camino::Utf8Path;

use crate::fs::access::{Access, Purpose};
use crate::fs::{absent_is_none, durable};
use crate::setup::names::{ALL_NAMES, NAMES};
use crate::util::text::shown;

pub(crate) use look::{annex_hindered, hindered, is_in_front, is_restless, problem};
use script::*;
pub(crate) use script::{aside_directory, calls_us, is_ours};

/// How a hook manager (lefthook) calls the hook whose place it took, and which it does not run.
const DISPLACED: &str = ".old";

/// The directory beside a hooks directory has to be one: a link in its place would lead into the hooks of somebody else.
pub(crate) fn require_own_neighbour(directory: &Path) -> anyhow::Result<()> {
    let beside = aside_directory(directory);
    let found = absent_is_none(fs::symlink_metadata(&beside))?;
    let shown = crate::util::text::shown(&beside);
    anyhow::ensure!(
        found.is_none_or(|found| found.is_dir()),
        "{shown} is not a directory\nhint: nothing was changed; the hooks that were moved aside for jin-txn's belong there: look at it, then remove it"
    );
    Ok(())
}

/// Puts our hook `name` into `directory`. Somebody's that is there steps aside, unless it calls ours, or is one that others
/// add lines to.
pub(crate) fn put(directory: &Path, name: &str, binary: &Utf8Path) -> anyhow::Result<()> {
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
        let cannot = || format!("cannot move {} aside", shown(&hook));
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

/// Gives the hook the name `aside` as well.
fn step_aside(directory: &Path, name: &str, aside: &Path) -> anyhow::Result<()> {
    let (hook, beside) = (directory.join(name), aside_directory(directory));
    require_own_neighbour(directory)?;
    if fs::symlink_metadata(&beside).is_err() {
        durable::make_dirs(&beside, Purpose::Git)?;
        if !directory.ancestors().any(|dir| dir.join("objects").is_dir() && dir.join("HEAD").exists()) {
            // In a worktree: `git status` must not show it.
            durable::replace_public(&beside.join(".gitignore"), b"*\n")?;
        }
    }
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

fn neighbour(directory: &Path, name: &OsString) -> PathBuf {
    Path::new("..").join(directory.file_name().unwrap_or_default()).join(name)
}

/// Takes our hook `name` out of `directory` and puts back what was there. Says what had to stay aside.
pub(crate) fn take_back(directory: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
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
        if read(&whole).is_ok_and(|whole| whole == theirs) {
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
        durable::replace_public(&with(&aside, ".added"), &added)?;
    }
    match ours {
        Some(ours) if waits => durable::rename(&aside, &ours)?,
        Some(ours) => durable::remove_file(&ours).with_context(|| format!("cannot remove {}", shown(&ours)))?,
        None if waits => return Ok(Some(aside)),
        None => {}
    }
    Ok(None)
}

/// What is left of a script of ours when our own part is taken out, `None` when that is nothing.
fn theirs(directory: &Path, name: &str, ours: &Path) -> Option<Vec<u8>> {
    let added = added_to(ours)?;
    if runs_another(ours) {
        return fold(directory, name);
    }
    let text = read(ours).ok()?;
    let mut theirs = text[..=position(&text, b"\n")?].to_vec();
    theirs.extend(added);
    Some(theirs)
}

/// Removes the directory beside `directory` when no hook is in it any more. Says what is left in it.
pub(crate) fn clear(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
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
    let cannot = || format!("cannot write {}", shown(path));
    let added = added_to(path);
    let as_link = || !path.parent().is_some_and(others_add_lines);
    if name == NAMES[0] && !has_another && added.is_none() && as_link() {
        if fs::read_link(path).ok().as_deref() != Some(binary.as_std_path()) {
            durable::symlink(binary.as_std_path(), path).with_context(cannot)?;
        }
        return Ok(());
    }
    if !has_another {
        let first = read(path).ok().filter(|_| added.is_some());
        let first = first.as_deref().and_then(|text| text.split_inclusive(|b| *b == b'\n').next()).unwrap_or(SHELL);
        return publish(path, name, binary, &[first, &added.unwrap_or_default()].concat());
    }
    let text = [both(name, binary).as_bytes(), &added.unwrap_or_default()].concat();
    publish_text(path, &text).with_context(cannot)
}

/// Makes `path` the hook `script` with ours in front of its lines.
fn publish(path: &Path, name: &str, binary: &Utf8Path, script: &[u8]) -> anyhow::Result<()> {
    let after_first = position(script, b"\n").map_or(script.len(), |at| at + 1);
    let (first, rest) = script.split_at(after_first);
    let text = [first.trim_ascii_end(), b"\n", alone(name, binary).as_bytes(), rest].concat();
    publish_text(path, &text).with_context(|| format!("cannot write {}", shown(path)))
}

fn publish_text(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let access = Access::at(path)?;
    let is_right = |m: fs::Metadata| m.is_file() && m.mode() & 0o777 == access.program_over(&m);
    if !fs::symlink_metadata(path).is_ok_and(is_right) || !read(path).is_ok_and(|found| found == text) {
        durable::publish_program(path, text)?;
    }
    Ok(())
}
