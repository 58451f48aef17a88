//! Keeping objects from a `git gc` inside of a run, and putting back what one took.
//!
//! A pack with a `.keep` file beside it stays; a loose object that has a second name can be put back. Both together are
//! everything that the repository had when the run began.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::durable;
use crate::git::refs::{absent_is_none, read_small};
use crate::git::{Repository, command};
use crate::marker::Listing;
use crate::named as fs;
use crate::state_dir::{StateDir, TxId};
use crate::wal::Origin;

/// The content of our `.keep` files.
const KEEP: &[u8] = b"jin-txn run\n";

fn links(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("objects")
}

/// Gives every loose object a second name, and every pack a `.keep`.
///
/// # Errors
/// What the file system said.
pub fn protect(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    let objects = repo.common_dir.join("objects");
    let root = links(state, id);
    durable::create_dirs(&root, 0o777)?;
    for fan in loose_dirs(&objects)? {
        let to = root.join(fan.file_name().unwrap_or_default());
        let mut made = false;
        for entry in fs::read_dir(&fan)? {
            let entry = entry?;
            if !is_object_name(entry.file_name().as_bytes()) {
                continue;
            }
            if !made {
                durable::create_dirs(&to, 0o777)?;
                made = true;
            }
            match durable::keep_second(&entry.path(), &to.join(entry.file_name())) {
                // A gc is at work: what it takes now was not needed when it began.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    for pack in packs(repo, "pack")? {
        match durable::create_new(&pack.with_extension("keep"), KEEP) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Takes our `.keep` files away, unless another run than `id` still needs them.
///
/// # Errors
/// What the file system said.
pub fn release(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    for entry in Listing::read(state.path())?.markers.into_iter().filter(|m| m.id != id) {
        // One that cannot be read may be a run's.
        if entry.read().map_or(true, |marker| marker.is_some_and(|m| m.origin == Origin::Run)) {
            return Ok(());
        }
    }
    for keep in packs(repo, "keep")? {
        if read_small(&keep)?.is_some_and(|(content, _)| content == KEEP) {
            durable::remove_file(&keep)?;
        }
    }
    Ok(())
}

/// Puts back the loose objects that are nowhere any more.
///
/// # Errors
/// git fails, or what the file system said.
pub fn restore(repo: &Repository, program: &Path, state: &StateDir, id: TxId) -> anyhow::Result<usize> {
    let objects = repo.common_dir.join("objects");
    let mut gone = Vec::new();
    for fan in loose_dirs(&links(state, id))? {
        for entry in fs::read_dir(&fan)? {
            let entry = entry?;
            let name = entry.file_name();
            let place = objects.join(fan.file_name().unwrap_or_default()).join(&name);
            if absent_is_none(fs::symlink_metadata(&place))?.is_none() {
                let oid = format!("{}{}", fan.file_name().unwrap_or_default().display(), name.display());
                gone.push((oid, entry.path(), place));
            }
        }
    }
    let known = sizes(repo, program, gone.iter().map(|(oid, _, _)| oid.as_str()))?;
    let mut count = 0;
    for ((_, from, place), _) in gone.iter().zip(known).filter(|(_, size)| size.is_none()) {
        durable::create_dirs(place.parent().unwrap_or(&objects), 0o777)?;
        match durable::keep_second(from, place) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).context("cannot put an object back");
            }
            _ => count += 1,
        }
    }
    Ok(count)
}

/// The sizes of objects, in order; `None` for those that the repository does not have.
///
/// # Errors
/// git fails.
pub fn sizes<'o>(
    repo: &Repository,
    program: &Path,
    oids: impl Iterator<Item = &'o str>,
) -> anyhow::Result<Vec<Option<u64>>> {
    let mut input = String::new();
    for oid in oids {
        input.push_str(oid);
        input.push('\n');
    }
    if input.is_empty() {
        return Ok(Vec::new());
    }
    let args = ["cat-file", "--batch-check=%(objectsize)"];
    let ran = command::run(program, &repo.git_dir, &args, input.as_bytes(), None)?;
    anyhow::ensure!(ran.success, "git cat-file failed: {}", ran.stderr);
    Ok(String::from_utf8_lossy(&ran.stdout).lines().map(|line| line.parse().ok()).collect())
}

fn loose_dirs(objects: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Some(entries) = absent_is_none(fs::read_dir(objects))? else { return Ok(Vec::new()) };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.len() == 2 && name.as_bytes().iter().all(u8::is_ascii_hexdigit) && entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn is_object_name(name: &[u8]) -> bool {
    matches!(name.len(), 38 | 62) && name.iter().all(u8::is_ascii_hexdigit)
}

fn packs(repo: &Repository, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let Some(entries) = absent_is_none(fs::read_dir(repo.common_dir.join("objects/pack")))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}
