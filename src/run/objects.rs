//! Keeping objects from a `git gc` inside of a run, and putting back what one took.
//!
//! Loose objects and packs get a second name: all together they are everything that the repository had when the run began.
//! Never a `.keep` file: a `git repack` that has made its list of packs to replace, and then finds one of them kept, leaves its
//! objects out of the new pack and removes it all the same.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::access::Purpose;
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::cat_file::sizes;
use crate::git::{Git, Oid, Repository};
use crate::state::{StateDir, TxId};

/// How often a gc may come in between before it is left alone: what it packs anew meanwhile it has not removed.
const LOOKS: usize = 5;

/// By this git finds a pack: it goes last, so that the others are there.
const INDEX: &str = "idx";

fn links(state: &StateDir, id: TxId) -> PathBuf {
    state.tx(id).join("objects")
}

/// Where the objects of the repository are. Of a link, its real place: second names, and what gets one there again, take nothing
/// away.
fn objects_of(repo: &Repository) -> io::Result<PathBuf> {
    fs::canonicalize(repo.common_dir.join("objects"))
}

fn packs_of(objects: &Path) -> PathBuf {
    objects.join("pack")
}

/// Gives every loose object and every pack a second name.
pub(crate) fn protect(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    let objects = objects_of(repo)?;
    let root = links(state, id);
    durable::make_dirs(&packs_of(&root), Purpose::State)?;
    let mut before = pack_files(&objects)?;
    for _ in 0..LOOKS {
        keep_loose(&objects, &root)?;
        for name in &before {
            keep(&packs_of(&objects).join(name), &packs_of(&root).join(name))?;
        }
        // A gc at work makes its new pack before it removes anything.
        let now = pack_files(&objects)?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(())
}

fn keep_loose(objects: &Path, root: &Path) -> anyhow::Result<()> {
    for fan in loose_dirs(objects)? {
        let to = root.join(fan.file_name().unwrap_or_default());
        let mut made = false;
        let Some(entries) = absent_is_none(fs::read_dir(&fan))? else { continue };
        for entry in entries {
            let entry = entry?;
            if !is_object_name(entry.file_name().as_bytes()) {
                continue;
            }
            if !made {
                durable::make_dirs(&to, Purpose::State)?;
                made = true;
            }
            keep(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn keep(original: &Path, second: &Path) -> anyhow::Result<()> {
    match durable::keep_second(original, second) {
        // ResolvedRef already; or a gc is at work: what it takes now is in a new pack, or was not needed when it began.
        // What is no file is no object.
        Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Takes the second names of packs away that are there: of a snapshot that is only kept for a human they would be most of its size.
pub(crate) fn forget_packs(repo: &Repository, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    let root = links(state, id);
    let there = pack_files(&objects_of(repo)?)?;
    for name in pack_files(&root)?.intersection(&there) {
        durable::remove_file(&packs_of(&root).join(name))?;
    }
    Ok(())
}

/// Puts back the packs that are gone, and the loose objects that are nowhere any more.
pub(crate) fn restore(repo: &Repository, git: &Git, state: &StateDir, id: TxId) -> anyhow::Result<()> {
    let objects = objects_of(repo)?;
    let root = links(state, id);
    for name in in_order(pack_files(&root)?) {
        put_back(id, &packs_of(&root).join(&name), &packs_of(&objects).join(&name))?;
    }
    let mut gone = Vec::new();
    for fan in loose_dirs(&root)? {
        for entry in fs::read_dir(&fan)? {
            let entry = entry?;
            let name = entry.file_name();
            let place = objects.join(fan.file_name().unwrap_or_default()).join(&name);
            if absent_is_none(fs::symlink_metadata(&place))?.is_none() {
                let oid = [fan.file_name().unwrap_or_default().as_bytes(), name.as_bytes()].concat();
                // Only what has the name of an object is one.
                gone.extend(Oid::parse(&oid).map(|oid| (oid, entry.path(), place)));
            }
        }
    }
    let known = sizes(&git.at(&repo.git_dir), gone.iter().map(|(oid, _, _)| *oid))?;
    for ((oid, from, place), size) in gone.iter().zip(known) {
        if size.is_none() || is_empty_tree(oid) {
            put_back(id, from, place)?;
        }
    }
    Ok(())
}

/// git knows it without having it, and misses it all the same (`git fsck`).
fn is_empty_tree(oid: &Oid) -> bool {
    const EMPTY: [&str; 2] = [
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    ];
    EMPTY.contains(&&*oid.hex())
}

/// A copy, where there can be no second name, is made under a name that git takes for no object: nobody is to see half of one.
fn put_back(id: TxId, from: &Path, place: &Path) -> anyhow::Result<()> {
    use std::io::ErrorKind::AlreadyExists;
    if absent_is_none(fs::symlink_metadata(place))?.is_some() {
        return Ok(());
    }
    durable::make_dirs(place.parent().unwrap_or(place), Purpose::Git)?;
    let put = durable::hard_link(from, place).or_else(|error| match error.kind() {
        AlreadyExists => Ok(()),
        _ => {
            // Objects may lie on another file system. A gc removes what is left of that name.
            let ready = place.with_file_name(format!("tmp_obj_jin-{id}"));
            durable::remove_file(&ready)?;
            fs::sync_all(&ready, &durable::copy_object(&fs::open(from)?, &ready)?)?;
            durable::rename_new(&ready, place)
        }
    });
    match put {
        Err(e) if e.kind() != AlreadyExists => Err(e).context("cannot put an object back"),
        _ => Ok(()),
    }
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

/// The files of all packs, by name.
fn pack_files(objects: &Path) -> anyhow::Result<BTreeSet<OsString>> {
    let Some(entries) = absent_is_none(fs::read_dir(packs_of(objects)))? else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let is_kept = Path::new(&name).extension().is_some_and(|e| e == "keep" || e == "lock");
        if name.as_bytes().starts_with(b"pack-") && !is_kept {
            found.insert(name);
        }
    }
    Ok(found)
}

fn in_order(names: BTreeSet<OsString>) -> impl Iterator<Item = OsString> {
    let (last, first): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| Path::new(name).extension().is_some_and(|e| e == INDEX));
    first.into_iter().chain(last)
}
