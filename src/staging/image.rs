//! What a file is, by the name that git gives its bytes.

use std::fs::File;
use std::io;

use crate::fs::beneath::{Kind, Parent, Stat};
use crate::git::hash::Hash;
use crate::wal::{FileImage, FileMode};

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A file or a link.
    File(FileImage, Stat),
    /// Something that is no file: a directory, a fifo.
    Odd(Kind),
}

impl Found {
    /// The image, `None` for nothing; an error for what is no file.
    pub(crate) fn image(&self) -> Result<Option<FileImage>, Kind> {
        match self {
            Found::Nothing => Ok(None),
            Found::File(image, _) => Ok(Some(*image)),
            Found::Odd(kind) => Err(*kind),
        }
    }
}

/// Looks at what lies where `parent` leads, and reads it.
pub(crate) fn look(parent: &Parent, hash: Hash) -> io::Result<Found> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let Some(stat) = parent.stat()? else { return Ok(Found::Nothing) };
        let blob = match stat.kind {
            Kind::Symlink => parent.read_link()?.map(|target| hash.blob(&target)),
            Kind::File => match parent.open()? {
                Some(mut file) => hash.copy_blob(&mut file, stat.id.size, &mut io::sink())?,
                None => None,
            },
            odd => return Ok(Found::Odd(odd)),
        };
        // Read while nobody wrote: the same file with the same times before and after.
        if let Some(blob) = blob
            && parent.stat()? == Some(stat)
        {
            return Ok(Found::File(FileImage { blob, mode: mode_of(&stat) }, stat));
        }
    }
    Err(io::Error::other("it changes while it is being read"))
}

/// git's mode of a file or link.
pub(crate) fn mode_of(stat: &Stat) -> FileMode {
    match stat.kind {
        Kind::Symlink => FileMode::Symlink,
        _ if stat.mode & 0o100 != 0 => FileMode::Executable,
        _ => FileMode::Plain,
    }
}

/// The size of an open regular file.
pub(crate) fn regular_size(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(io::Error::other("it is not a regular file")) }
}
