//! New files and directories: they get their names when everybody who needs them may use them.
//!
//! ```text
//! a directory that only we write to   the system makes it right: one call
//! a shared one, or another user's     made without a name (a directory: under another one), given access, named
//! ```
//! So a process that is killed at any point leaves nothing that refuses the others.
//!
//! Limit: a file system that knows no files without a name shows a file a moment before the others may use it.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use crate::fs::access::{self, Access, Purpose};
use crate::fs::named::{self, at};

/// Creates the file `path`, which must not exist, with `bytes`, and syncs nothing.
pub(crate) fn create(path: &Path, purpose: Purpose, bytes: &[u8]) -> io::Result<File> {
    let access = Access::at(path)?;
    if !access.is_plain()
        && let Some(file) = create_unnamed(path, purpose, &access, bytes)?
    {
        return Ok(file);
    }
    let mode = created_with(purpose);
    let mut file = at(path, OpenOptions::new().write(true).create_new(true).mode(mode).open(path))?;
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

/// `None` where a file without a name cannot be made, or not be given one.
fn create_unnamed(path: &Path, purpose: Purpose, access: &Access, bytes: &[u8]) -> io::Result<Option<File>> {
    let Some(mut file) = open_unnamed(path, created_with(purpose))? else { return Ok(None) };
    at(path, access.give(&file, purpose).and_then(|()| file.write_all(bytes)))?;
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::EXIST) => at(path, Err(io::ErrorKind::AlreadyExists.into())),
        Err(_) => Ok(None),
    }
}

/// A file without a name, in the directory of `path`; `None` where the file system knows none.
fn open_unnamed(path: &Path, mode: u32) -> io::Result<Option<File>> {
    use rustix::io::Errno;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(access::parent(path), flags, Mode::from_raw_mode(mode)) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOTSUP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(errno) => at(path, Err(errno.into())),
    }
}

/// Creates a directory and those above it that are missing, each with the access that the one above it gives.
pub(crate) fn make_dirs(path: &Path, purpose: Purpose) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    match make_dir(path, purpose) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            make_dirs(access::parent(path), purpose)?;
            make_dir(path, purpose)
        }
        made => made,
    }
}

/// One that another process makes at the same time is as good.
fn make_dir(path: &Path, purpose: Purpose) -> io::Result<()> {
    let access = Access::at(path)?;
    let made = if access.is_plain() { mkdir(path, purpose) } else { make_dir_aside(path, purpose, &access) };
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && named::metadata(path)?.is_dir() => Ok(()),
        made => made,
    }
}

fn mkdir(path: &Path, purpose: Purpose) -> io::Result<()> {
    at(path, DirBuilder::new().mode(if purpose == Purpose::State { 0o700 } else { 0o777 }).create(path))
}

/// A directory gets its name when everybody who needs it may use it. (There are no directories without a name.)
fn make_dir_aside(path: &Path, purpose: Purpose, access: &Access) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".jin-tmp.{}", std::process::id()));
    let aside = access::parent(path).join(name);
    discard_dir(&aside);
    mkdir(&aside, purpose)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&aside, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|directory| access.give(&File::from(directory), purpose))
        .and_then(|()| rename_new_dir(&aside, path))
        .inspect_err(|_| discard_dir(&aside))
}

/// Without `RENAME_NOREPLACE` only an empty directory would be replaced.
fn rename_new_dir(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            at(to, fs::rename(from, to))
        }
        other => at(to, other.map_err(Into::into)),
    }
}

fn discard_dir(path: &Path) {
    if fs::remove_dir(path).is_err() {
        // An empty directory that git does not look at.
    }
}
