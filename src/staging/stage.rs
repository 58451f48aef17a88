//! Files on their way: after-images before they are put into place, before-images afterwards.
//!
//! `.jin/tx/<id>/file.<n>` is first the staged after-image of the n-th file; put into place by an exchange it leaves the
//! before-image there under the same name. When the transaction is over the directory is put away as a whole.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::beneath::{Parent, RelPath, Root};
use crate::fs::{FileId, absent_is_none, durable, named as fs};
use crate::git::Oid;
use crate::git::hash::Hash;
use crate::staging::image::regular_size;
use crate::state::{StateDir, TxId, kept};
use crate::util::clock::unix_time;
use crate::util::text::shown;
use crate::wal::FileMode;

/// Where the bytes of a file come from. For a symbolic link they are its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file's; for a symbolic link a link's target serves as well.
    File(PathBuf),
    /// A file's, and its permission bits, too.
    Exactly(PathBuf),
}

/// The name of the `index`-th file in the stage.
pub(crate) fn name(index: usize) -> RelPath {
    RelPath::parse(format!("file.{index}").as_bytes()).expect("a plain name")
}

/// The name that a before-image has for a moment where the file system cannot exchange two names.
pub(crate) fn second_name(index: usize) -> RelPath {
    RelPath::parse(format!("before.{index}").as_bytes()).expect("a plain name")
}

/// Makes the stage of `id` and opens it.
pub(crate) fn open_new(state: &StateDir, id: TxId) -> anyhow::Result<Root> {
    let dir = state.make_tx(id).with_context(|| format!("cannot create {}", shown(&state.tx(id))))?;
    Ok(Root::open_itself(&dir)?)
}

/// Opens the stage of `id`; `None` when it has none.
pub(crate) fn open(state: &StateDir, id: TxId) -> io::Result<Option<Root>> {
    absent_is_none(Root::open_itself(&state.tx(id)))
}

/// Writes the `index`-th after-image, unsynced, and says what it is.
pub(crate) fn write(
    stage: &Root,
    index: usize,
    source: &Source,
    mode: FileMode,
    hash: Hash,
) -> anyhow::Result<(Oid, FileId)> {
    let place = stage.parent(&name(index))?.context("the stage has gone")?;
    let cannot = || format!("cannot stage {}", shown(&place.whole()));
    let blob = match (mode, source) {
        (FileMode::Symlink, source) => {
            let target = target_of(source)?;
            place.symlink(&target).with_context(cannot)?;
            hash.blob(&target)
        }
        (_, Source::Bytes(bytes)) => {
            create(&place, mode).and_then(|mut file| file.write_all(bytes)).with_context(cannot)?;
            hash.blob(bytes)
        }
        (_, Source::File(path)) => {
            copy(path, &mut create(&place, mode).with_context(cannot)?, Some(&place.whole()), hash)?
        }
        (_, Source::Exactly(path)) => {
            let mut file = create(&place, mode).with_context(cannot)?;
            let blob = copy(path, &mut file, Some(&place.whole()), hash)?;
            let bits = fs::symlink_metadata(path)?.permissions().mode() & 0o777;
            file.set_permissions(fs::Permissions::from_mode(bits)).with_context(cannot)?;
            blob
        }
    };
    let staged = place.stat()?.context("a staged file has gone")?;
    Ok((blob, staged.id))
}

/// Takes back what was staged last: it would change nothing.
pub(crate) fn discard(stage: &Root, index: usize) -> io::Result<()> {
    match stage.parent(&name(index))? {
        Some(place) => place.unlink(),
        None => Ok(()),
    }
}

/// Makes the first `count` staged files durable, and their names.
pub(crate) fn sync(stage: &Root, count: usize) -> io::Result<()> {
    for index in 0..count {
        if let Some(place) = stage.parent(&name(index))?
            && let Some(file) = place.open()?
        {
            fs::sync_all(place.whole(), &file)?;
        }
    }
    stage.parent(&name(0))?.map_or(Ok(()), |place| place.fsync())
}

/// The blob that a source would be, without staging it.
pub(crate) fn blob_of(source: &Source, mode: FileMode, hash: Hash) -> anyhow::Result<Oid> {
    match (mode, source) {
        (FileMode::Symlink, source) => Ok(hash.blob(&target_of(source)?)),
        (_, Source::Bytes(bytes)) => Ok(hash.blob(bytes)),
        (_, Source::File(path) | Source::Exactly(path)) => copy(path, &mut io::sink(), None, hash),
    }
}

fn create(place: &Parent, mode: FileMode) -> io::Result<File> {
    place.create_new(if mode == FileMode::Executable { 0o777 } else { 0o666 })
}

fn target_of(source: &Source) -> anyhow::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let target = match source {
        Source::Bytes(bytes) => bytes.clone(),
        Source::File(path) | Source::Exactly(path) => match fs::read_link(path) {
            Ok(target) => target.into_os_string().into_vec(),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                let mut bytes = Vec::new();
                copy_bounded(path, &mut bytes)?;
                bytes
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", shown(path))),
        },
    };
    anyhow::ensure!(
        !target.is_empty() && !target.contains(&0) && target.len() < 4096,
        "a symbolic link has a target of 1 to 4095 bytes without a NUL"
    );
    Ok(target)
}

fn copy_bounded(path: &Path, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    let (mut file, size) = open_source(path)?;
    anyhow::ensure!(size < 4096, "{} is too long for the target of a symbolic link", shown(path));
    io::copy(&mut file, bytes).with_context(|| format!("cannot read {}", shown(path)))?;
    Ok(())
}

fn copy(path: &Path, to: &mut impl Write, place: Option<&Path>, hash: Hash) -> anyhow::Result<Oid> {
    let (mut file, size) = open_source(path)?;
    // Either of the two may be what fails.
    let copied = hash.copy_blob(&mut file, size, to).with_context(|| match place {
        Some(place) => format!("cannot copy {} to {}", shown(path), shown(place)),
        None => format!("cannot read {}", shown(path)),
    })?;
    copied.with_context(|| format!("{} changes while it is being copied", shown(path)))
}

fn open_source(path: &Path) -> anyhow::Result<(File, u64)> {
    // NONBLOCK: a fifo in the place of a file must not hang us.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("open flags fit into an int");
    let opened = File::options().read(true).custom_flags(nonblock).open(path);
    let sized = opened.and_then(|file| regular_size(&file).map(|size| (file, size)));
    sized.with_context(|| format!("cannot read {}", shown(path)))
}

/// Takes a stage out of the way when its transaction is over: what was replaced or removed is kept in quarantine, so that
/// it can be put back as long as the log remembers the transaction.
pub(crate) fn put_away(state: &StateDir, id: TxId) -> io::Result<()> {
    let dir = state.tx(id);
    let Some(mut entries) = absent_is_none(fs::read_dir(&dir))? else { return Ok(()) };
    let is_file = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|n| n.starts_with("file.") || n.starts_with("before."))
    };
    let mut has_files = false;
    while let Some(entry) = entries.next().filter(|_| !has_files) {
        has_files |= is_file(&entry?);
    }
    if !has_files {
        return kept::put_away(state, id);
    }
    let kept = state.quarantine().join(format!("{}-{}", unix_time(), kept_suffix(id)));
    match durable::rename_new(&dir, &kept) {
        // Within one second, the same id: an earlier run was killed after it had made a new stage. Nothing is lost there.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => durable::remove_tree(&dir),
        other => other,
    }
}

fn kept_suffix(id: TxId) -> String {
    format!("files.{id}")
}

/// Where the before-images of `id` are kept.
pub(crate) fn kept(state: &StateDir, id: TxId) -> io::Result<Option<PathBuf>> {
    let Some(entries) = absent_is_none(fs::read_dir(state.quarantine()))? else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().and_then(|n| n.split_once('-')).is_some_and(|(_, rest)| rest == kept_suffix(id)) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
