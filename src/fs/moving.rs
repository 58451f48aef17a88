//! Moving something aside wherever its new place is, and telling what will not move however often it is tried.

use std::io;
use std::path::Path;

use crate::fs::access::Purpose;
use crate::fs::{door, durable, named};

/// As [`durable::rename_new`], also to another file system, and of a directory that overlayfs cannot rename: a copy first, synced, and
/// then the original goes, entry by entry. Cut in between, something is there twice.
pub(crate) fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    let original = door::place(from)?;
    match original.rename_new(&door::place(to)?) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => match original.stat()?.map(|stat| stat.kind) {
            Some(door::Kind::Directory) => {
                durable::make_dirs(to, Purpose::State)?;
                for (name, _) in door::entries(from)?.into_iter().flatten() {
                    move_new(&from.join(&name), &to.join(&name))?;
                }
                original.remove_dir()
            }
            Some(door::Kind::Symlink) => {
                door::place(to)?.symlink(&named::read_link(from)?)?;
                original.unlink()
            }
            Some(door::Kind::File) => {
                let Some(file) = original.open()? else { return Err(error) };
                named::sync_all(to, &durable::copy_new(&file, to)?)?;
                durable::fsync_dir(to.parent().unwrap_or(Path::new("/")))?;
                original.unlink()
            }
            _ => Err(error),
        },
        done => done,
    }
}

/// Does the same call fail the same way the next time, whoever waits: by permissions, by the length of a name, by what is mounted
/// where? A disk that is full or broken is no such thing, nor is a link in the place of a directory.
pub(crate) fn is_permanent(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, InvalidFilename, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let permanent = [CrossesDevices, InvalidFilename, PermissionDenied, ReadOnlyFilesystem, ResourceBusy];
    kind.is_some_and(|kind| permanent.contains(&kind))
}
