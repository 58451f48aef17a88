//! The only door to disk for our own state.
//!
//! Everything that jin-txn writes, renames, links or removes goes through here, so that the order of
//! effects can be read (and faults injected) in one place. We trust `fsync`: after it returned, the
//! bytes survive a crash of the process. A failed `fsync` is never retried on the same file.
//!
//! No symbolic link is followed on the way: see [`crate::fs::door`]. Callers that work where the user says (a template, a
//! directory of hooks) follow the links there once, with [`real`].
//!
//! Limit: files and directories only; locks live in [`crate::state::directory`].
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};

use crate::fs::access::{self, Access, Purpose};
use crate::fs::create::create;
use crate::fs::door::{self, place};
use crate::fs::named::{self, at};

pub(crate) use crate::fs::create::{create_dir, make_dirs};
use crate::util::text::shown;

/// The same path without links in the directories that it lies in. For what lies where the user says, and for nothing else.
pub(crate) fn real(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real_dir(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The same directory, which need not exist, without links. For what lies where the user says, and for nothing else.
pub(crate) fn real_dir(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|dir| Some((dir, fs::canonicalize(dir).ok()?)));
    let whole = found
        .and_then(|(dir, real)| Some(real.components().chain(path.strip_prefix(dir).ok()?.components()).collect()));
    whole.unwrap_or_else(|| path.to_owned())
}

/// Makes the *names* in `dir` durable (created, renamed and removed entries).
pub(crate) fn fsync_dir(dir: &Path) -> io::Result<()> {
    let open = File::from(door::open_dir(dir)?);
    match named::sync_all(dir, &open) {
        // Some file systems (network, FUSE) cannot sync a directory.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => at(dir, sync_filesystem(&open)),
        other => other,
    }
}

/// Makes everything on the file system of `file` durable: contents, names, sizes, whoever wrote them. One call does for
/// all objects, locks and directories of a transaction what one fsync for each would do.
#[expect(clippy::disallowed_methods, reason = "callers name the file")]
pub(crate) fn sync_filesystem(file: &File) -> io::Result<()> {
    match rustix::fs::syncfs(file) {
        // Not there: all file systems then. Linux waits until the disks have answered, but tells no errors.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {
            rustix::fs::sync();
            file.sync_all()
        }
        other => Ok(other?),
    }
}

/// The same for the file system that `path` lies on.
pub(crate) fn sync_filesystem_of(path: &Path) -> io::Result<()> {
    at(path, named::open(path).and_then(|file| sync_filesystem(&file)))
}

/// Makes the content of the file at `path` durable.
pub(crate) fn fsync_file(path: &Path) -> io::Result<()> {
    named::sync_all(path, &at(path, door::open(path, OFlags::RDONLY, 0))?)
}

/// Opens a file of our own: a regular one that lies where it should. What somebody put in its place is refused: a link would
/// lead out of the repository, a FIFO would keep us waiting for ever.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_regular(path, options).map(|(file, _)| file)
}

/// As [`open_own`], and what is known of the file then.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<(File, fs::Metadata)> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open flags fit into an int");
    let no_file = || io::Error::other(format!("{} is not a regular file", shown(path)));
    let is_other = || fs::symlink_metadata(path).is_ok_and(|m| !m.is_file());
    match options.custom_flags(flags).open(path) {
        Ok(file) => {
            let metadata = at(path, file.metadata())?;
            if metadata.is_file() { Ok((file, metadata)) } else { Err(no_file()) }
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound && is_other() => Err(no_file()),
        Err(e) => at(path, Err(e)),
    }
}

/// Opens the regular file `path`; links are not followed.
fn open_itself(path: &Path, flags: OFlags) -> io::Result<(File, fs::Metadata)> {
    let no_file = || io::Error::other(format!("{} is not a regular file", shown(path)));
    let is_other = || fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
    let opened = door::open(path, flags, 0).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => error,
        _ if is_other() => no_file(),
        _ => error,
    })?;
    let metadata = at(path, opened.metadata())?;
    if metadata.is_file() { Ok((opened, metadata)) } else { Err(no_file()) }
}

/// Reads a file of our own, which has at most `most` bytes: nobody lets us fill the memory.
pub(crate) fn read_own(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let (mut file, metadata) = open_itself(path, OFlags::RDONLY)?;
    let len = metadata.len();
    if len > most {
        return Err(io::Error::other(format!("{} is larger than {most} bytes", shown(path))));
    }
    // Who writes these holds a lock or replaces them: at the size that the file had there is nothing more to be read.
    let mut bytes = Vec::new();
    let len = usize::try_from(len).map_err(io::Error::other)?;
    bytes.try_reserve_exact(len).map_err(io::Error::other)?;
    bytes.resize(len, 0);
    let mut filled = 0;
    while filled < len {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return at(path, Err(e)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Publishes `bytes` under `dir/name`: the file appears whole or not at all, and never replaces one.
/// No fsync: what is published here is a hint that the log backs up.
pub(crate) fn publish_new(dir: &Path, tmp_name: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let tmp = write_tmp(dir, tmp_name, bytes)?;
    rename_new_here(&tmp, &dir.join(name)).inspect_err(|_| discard(&tmp))
}

/// Like [`publish_new`], but replaces a file of that name.
pub(crate) fn publish(dir: &Path, tmp_name: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let tmp = write_tmp(dir, tmp_name, bytes)?;
    let to = dir.join(name);
    at(&to, fs::rename(&tmp, &to)).inspect_err(|_| discard(&tmp))
}

fn write_tmp(dir: &Path, tmp_name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let tmp = dir.join(tmp_name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = match options.open(&tmp) {
        // Of an earlier process with our number, or whatever somebody put there: not to be written through.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            remove_file(&tmp)?;
            at(&tmp, options.open(&tmp))?
        }
        opened => at(&tmp, opened)?,
    };
    let access = Access::at(&tmp)?;
    at(&tmp, access.give(&file, Purpose::State).and_then(|()| file.write_all(bytes))).inspect_err(|_| discard(&tmp))?;
    Ok(tmp)
}

/// Best effort: a temporary file that stays behind is swept by recovery.
fn discard(path: &Path) {
    if fs::remove_file(path).is_err() {
        // Nothing is lost: recovery sweeps temporary files of processes that are gone.
    }
}

/// As [`rename_new`], within the state directory itself, which its users have verified: hooks move markers there, and a
/// system call for each costs every git command.
pub(crate) fn rename_new_here(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without RENAME_NOREPLACE (and old kernels): link refuses to replace as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            at(to, fs::hard_link(from, to))?;
            at(from, fs::remove_file(from))
        }
        Err(errno) => at(to, Err(errno.into())),
    }
}

/// As [`remove_file`], right in the state directory: see [`rename_new_here`].
pub(crate) fn remove_file_here(path: &Path) -> io::Result<()> {
    absent_is_fine(at(path, fs::remove_file(path)))
}

/// Renames `from` to `to` and fails with `AlreadyExists` when `to` is there.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    place(from)?.rename_new(&place(to)?)
}

/// Renames `from` over `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    place(from)?.rename(&place(to)?)
}

/// Gives the file `original` a second name; of a link the link itself gets it.
pub(crate) fn hard_link(original: &Path, link: &Path) -> io::Result<()> {
    place(original)?.link(&place(link)?)
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(place(path).and_then(|place| place.unlink()))
}

/// Removes a directory of ours with everything in it; one that is gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    absent_is_fine(place(path).and_then(|place| place.remove_tree()))
}

/// Removes a directory when it is empty; says whether it went.
pub(crate) fn remove_dir_if_empty(path: &Path) -> io::Result<bool> {
    match place(path).and_then(|place| place.remove_dir()) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates a directory and its parents with `mode` (before umask), outside of any repository.
pub(crate) fn create_dirs(path: &Path, mode: u32) -> io::Result<()> {
    match door::open_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        found => return found.map(|_| ()),
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dirs(parent, mode)?;
    }
    match place(path)?.make_dir(mode) {
        // Somebody was faster; what it is the next one who uses it sees.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => door::open_dir(path).map(|_| ()),
        made => made,
    }
}

/// Creates the state file `path`, which must not exist, with `bytes`, and syncs nothing.
pub(crate) fn create_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    create(path, Purpose::State, bytes)
}

/// The same for this user alone, whoever else may use the repository.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = place(path)?.create(0o600)?;
    at(path, file.write_all(bytes))
}

/// Creates the file `path`, which must not exist, with `bytes`. It is made in the state directory and about to get the name
/// `target` in the git directory: with the access that what it replaces there has, or else that its directory gives.
pub(crate) fn create_for(target: &Path, path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = place(path)?.create(0o666)?;
    let given = match absent(fs::symlink_metadata(target))?.filter(fs::Metadata::is_file) {
        Some(old) => access::copy(&old, &file),
        None => Access::at(target)?.give(&file, Purpose::Git),
    };
    at(path, given.and_then(|()| file.write_all(bytes)))?;
    Ok(file)
}

/// Gives a file that somebody else has made in the state directory, and that is about to get the name `target` in the git
/// directory, the access that the directory there gives.
pub(crate) fn share_as(path: &Path, target: &Path) -> io::Result<()> {
    let (file, _) = open_itself(path, OFlags::RDONLY)?;
    at(path, Access::at(target)?.give(&file, Purpose::Git))
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Copies what `source` holds into a new file at `path` in the state directory: shares the blocks where the file system can,
/// streams otherwise.
pub(crate) fn copy_new(source: &File, path: &Path) -> io::Result<File> {
    let mut copy = create_new(path, b"")?;
    if rustix::fs::ioctl_ficlone(&copy, source).is_err() {
        at(path, io::copy(&mut &*source, &mut copy))?;
    }
    Ok(copy)
}

/// As [`copy_new`], for an object of git.
pub(crate) fn copy_object(source: &File, path: &Path) -> io::Result<File> {
    let copy = copy_new(source, path)?;
    at(path, copy.metadata().and_then(|made| access::set_mode(&copy, &made, 0o444)))?;
    Ok(copy)
}

/// Sets the modification time of a file, in nanoseconds since the epoch.
pub(crate) fn set_modified(path: &Path, nanoseconds: i64) -> io::Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    at(path, open_itself(path, OFlags::WRONLY).and_then(|(file, _)| file.set_modified(time)))
}

/// Appends to a file of the git directory, makes it if need be, and syncs it.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match open_itself(path, OFlags::WRONLY | OFlags::APPEND) {
        Ok((mut file, _)) => at(path, file.write_all(bytes)).and_then(|()| named::sync_data(path, &file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => named::sync_data(path, &create(path, Purpose::Git, bytes)?),
        Err(e) => Err(e),
    }
}

/// Cuts a file to `len` bytes and syncs it.
pub(crate) fn truncate(path: &Path, len: u64) -> io::Result<()> {
    let (file, _) = open_itself(path, OFlags::WRONLY)?;
    at(path, file.set_len(len)).and_then(|()| named::sync_all(path, &file))
}

/// Empties a file that need not stay so if the machine stops. It asks the disk for no space.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    open_own(path, OpenOptions::new().write(true)).and_then(|file| at(path, file.set_len(0)))
}

/// Replaces the state file `path` with `bytes` durably: the old content or the new one, never a mixture.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use atomic_write_file::unix::OpenOptionsExt as _;
    let mut options = atomic_write_file::OpenOptions::new();
    let mut file = at(path, options.mode(0o600).preserve_mode(false).preserve_owner(false).open(path))?;
    at(path, Access::at(path)?.give(file.as_file(), Purpose::State).and_then(|()| file.write_all(bytes)))?;
    at(path, file.commit())
}

/// The same for a file that is not ours alone: as the umask says, or with the mode and owner of what it replaces.
pub(crate) fn replace_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = at(path, atomic_write_file::OpenOptions::new().open(path))?;
    at(path, file.write_all(bytes))?;
    at(path, file.commit())
}

/// Makes `link` a symbolic link to `target`, replacing what is there by one rename.
pub(crate) fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    let tmp = beside(link)?;
    let made = place(&tmp)?;
    made.symlink(target)?;
    at(&tmp, access::give_to_owner_of(made.entry()))?;
    rename(&tmp, link).inspect_err(|_| discard(&tmp))
}

/// Is `path` on a file system that only one machine can have mounted? Only there everybody who could work on it runs
/// on this machine, and another boot means that they are all dead.
pub(crate) fn is_local_disk(path: &Path) -> bool {
    // ext2/3/4, XFS, btrfs, tmpfs, F2FS, bcachefs, ZFS, overlayfs.
    const LOCAL: [u32; 8] =
        [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010, 0xCA45_1A4E, 0x2FC1_2FC1, OVERLAYFS];
    kind_of_filesystem(path).is_some_and(|kind| LOCAL.contains(&kind))
}

/// Does the time of birth of what lies at `path` never change? overlayfs changes that of a directory at copy-up, and other
/// machines may see another one.
pub(crate) fn has_stable_births(path: &Path) -> bool {
    is_local_disk(path) && kind_of_filesystem(path) != Some(OVERLAYFS)
}

const OVERLAYFS: u32 = 0x794C_7630;

fn kind_of_filesystem(path: &Path) -> Option<u32> {
    // The kernel's magic numbers have 32 bits; the field's type differs from platform to platform.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    rustix::fs::statfs(path).ok().map(|s| s.f_type as u32)
}

/// Gives the regular file `original` a second name, or copies it where the file system or the kernel's policy refuses links.
///
/// Anything else, a link above all, is [`io::ErrorKind::InvalidInput`]: what it leads to is not ours to copy. Who may not read
/// the original does not get to read the copy.
pub(crate) fn keep_second(original: &Path, second: &Path) -> io::Result<()> {
    let (from, to) = (place(original)?, place(second)?);
    let is_file = |place: &door::Place| Ok::<_, io::Error>(place.stat()?.is_none_or(|s| s.kind == door::Kind::File));
    let no_file = || {
        let what = format!("{} is not a regular file: it is not kept", shown(original));
        io::Error::new(io::ErrorKind::InvalidInput, what)
    };
    if !is_file(&from)? {
        return Err(no_file());
    }
    match from.link(&to) {
        // Swapped at the last moment: what has the second name is a link itself, and leads nowhere from here.
        Ok(()) if !is_file(&to)? => absent_is_fine(to.unlink()).and(Err(no_file())),
        Err(e) if !matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            let (file, _) = open_itself(original, OFlags::RDONLY)?;
            copy_new(&file, second).map(|_| ())
        }
        other => other,
    }
}

/// As [`keep_second`], of a file that has just been seen to be regular, right in the git directory, with a second name right in
/// the state directory: see [`rename_new_here`].
pub(crate) fn keep_second_here(original: &Path, second: &Path) -> io::Result<()> {
    // Of a link, were it one by now, the link itself gets the name, and nobody reads it.
    fs::hard_link(original, second).or_else(|_| keep_second(original, second))
}

/// Puts the program `bytes` (a script) at `path` by one rename, durably. What was there is replaced, and nobody loses or gets
/// the permission to read or run it by that, but those who may write to the directory.
pub(crate) fn publish_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let access = Access::at(path)?;
    let old = absent(fs::symlink_metadata(path))?.filter(fs::Metadata::is_file);
    let tmp = beside(path)?;
    let mut file = at(&tmp, OpenOptions::new().write(true).create_new(true).mode(0o700).open(&tmp))?;
    let given = at(&tmp, access.give_program(&file, old.as_ref()));
    given
        .and_then(|()| at(&tmp, file.write_all(bytes)))
        .and_then(|()| named::sync_all(&tmp, &file))
        .inspect_err(|_| discard(&tmp))?;
    drop(file);
    rename(&tmp, path).inspect_err(|_| discard(&tmp))
}

/// A name beside `path` that nobody else uses, and that is free.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(format!(".jin-tmp.{}", std::process::id()));
    let tmp = PathBuf::from(tmp);
    remove_file(&tmp)?;
    Ok(tmp)
}

/// Takes the permission to write a file away from everybody, if it is ours to take.
pub(crate) fn make_read_only(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & 0o222 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o222)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied || e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Ok(())
        }
        other => at(path, other),
    }
}

/// Sets the modification time of a directory (Unix seconds and nanoseconds).
pub(crate) fn set_directory_modified(directory: &Path, (seconds, nanoseconds): (i64, i64)) -> io::Result<()> {
    let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let modified = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: omit, last_modification: modified };
    let set = rustix::fs::utimensat(CWD, directory, &times, rustix::fs::AtFlags::empty());
    at(directory, set.map_err(Into::into))
}

/// Copies everything below `from` to below `to`: directories, files with their modes, links as links.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in named::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            create_dirs(&target, 0o777)?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            at(&target, std::os::unix::fs::symlink(named::read_link(&source)?, &target))?;
        } else if kind.is_file() {
            at(&target, fs::copy(&source, &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_made_durable_by_syncing_its_file_system() {
        let path = PathBuf::from(format!("/proc/{}", std::process::id()));
        let unsyncable = File::open(&path).unwrap();
        assert_eq!(unsyncable.sync_all().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fsync_dir(&path).unwrap();
    }
}
