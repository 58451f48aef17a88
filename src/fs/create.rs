//! New files and directories: they get their names when everybody who needs them may use them.
//!
//! ```text
//! a directory that only we write to   the system makes it right: one call
//! a shared one, or another user's     made without a name (a directory: under another one), given access, named
//! ```
//! So a process that is killed at any point leaves nothing that refuses the others.
//!
//! Limit: a file system that knows no files without a name shows a file a moment before the others may use it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::fs::access::{self, Access, Purpose};
use crate::fs::door::{self, Place, place};
use crate::fs::named::at;

/// Creates the file `path`, which must not exist, with `bytes`, and syncs nothing.
pub(crate) fn create(path: &Path, purpose: Purpose, bytes: &[u8]) -> io::Result<File> {
    let place = place(path)?;
    let access = Access::in_directory(&place)?;
    if !access.is_plain()
        && let Some(mut file) = place.create_unnamed(created_with(purpose))?
    {
        at(path, access.give(&file, purpose).and_then(|()| file.write_all(bytes)))?;
        if place.give_to(&file)? {
            return Ok(file);
        }
    }
    let mut file = place.create(created_with(purpose))?;
    if !access.is_plain() {
        at(path, access.give(&file, purpose))?;
    }
    at(path, file.write_all(bytes))?;
    Ok(file)
}

/// The mode that the umask is taken from.
fn created_with(purpose: Purpose) -> u32 {
    if purpose == Purpose::State { 0o600 } else { 0o666 }
}

/// Creates a directory and those above it that are missing, each with the access that the one above it gives.
pub(crate) fn make_dirs(path: &Path, purpose: Purpose) -> io::Result<()> {
    match door::open_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found.map(|_| ()),
    }
    if path.parent().is_some() {
        make_dirs(access::parent(path), purpose)?;
    }
    match make_dir(path, purpose) {
        // One that another process makes at the same time is as good.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => door::open_dir(path).map(|_| ()),
        made => made,
    }
}

/// Creates the directory `path` of our state; where anything is already there is none made.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    make_dir(path, Purpose::State)
}

fn make_dir(path: &Path, purpose: Purpose) -> io::Result<()> {
    let mode = if purpose == Purpose::State { 0o700 } else { 0o777 };
    let place = place(path)?;
    let access = Access::in_directory(&place)?;
    if access.is_plain() {
        return place.make_dir(mode);
    }
    // A directory gets its name when everybody who needs it may use it. (There are no directories without a name.)
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".jin-tmp.{}", std::process::id()));
    let aside = door::place(&access::parent(path).join(name))?;
    discard_dir(&aside);
    aside.make_dir(mode)?;
    let open = aside.open_directory();
    open.and_then(|directory| access.give(&directory, purpose))
        .and_then(|()| aside.rename_new_directory(&place))
        .inspect_err(|_| discard_dir(&aside))
}

fn discard_dir(aside: &Place) {
    if aside.remove_dir().is_err() {
        // An empty directory that git does not look at.
    }
}
