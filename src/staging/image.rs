//! What a file is, by the name that git gives its bytes.

use std::fs::File;
use std::io::{self, Read, Write};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::fs::beneath::{Kind, Parent, Stat};
use crate::git::Oid;
use crate::wal::{FileImage, FileMode};

/// How a repository names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// 40 hex digits.
    Sha1,
    /// 64 hex digits.
    Sha256,
}

/// What was found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file or a link.
    File(FileImage, Stat),
    /// Something that is no file: a directory, a fifo.
    Odd(Kind),
}

impl Found {
    /// The image, `None` for nothing; an error for what is no file.
    ///
    /// # Errors
    /// What it is.
    pub fn image(&self) -> Result<Option<FileImage>, Kind> {
        match self {
            Found::Nothing => Ok(None),
            Found::File(image, _) => Ok(Some(*image)),
            Found::Odd(kind) => Err(*kind),
        }
    }
}

enum Sum {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hash {
    /// The name of the blob with these bytes.
    #[must_use]
    pub fn blob(self, bytes: &[u8]) -> Oid {
        let mut sum = self.start(bytes.len() as u64);
        sum.update(bytes);
        sum.name()
    }

    /// Copies `size` bytes of `from` to `to` and names what was copied; `None` when there were more or fewer.
    ///
    /// # Errors
    /// One of them fails.
    pub fn copy(self, from: &mut impl Read, size: u64, to: &mut impl Write) -> io::Result<Option<Oid>> {
        let mut sum = self.start(size);
        let mut buffer = vec![0; 1 << 16];
        let mut copied = 0;
        loop {
            let n = match from.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if n == 0 {
                return Ok((copied == size).then(|| sum.name()));
            }
            copied += n as u64;
            if copied > size {
                return Ok(None);
            }
            sum.update(&buffer[..n]);
            to.write_all(&buffer[..n])?;
        }
    }

    fn start(self, size: u64) -> Sum {
        let header = format!("blob {size}\0");
        match self {
            Hash::Sha1 => Sum::Sha1(Sha1::new_with_prefix(header)),
            Hash::Sha256 => Sum::Sha256(Sha256::new_with_prefix(header)),
        }
    }
}

impl Sum {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Sha1(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
    }

    fn name(self) -> Oid {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = match self {
            Sum::Sha1(sum) => sum.finalize().to_vec(),
            Sum::Sha256(sum) => sum.finalize().to_vec(),
        };
        let hex: Vec<u8> =
            bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).collect();
        Oid::parse(&hex).expect("a digest has the digits of an object name")
    }
}

/// Looks at what lies where `parent` leads, and reads it.
///
/// # Errors
/// It cannot be read, or changes without end while it is read.
pub fn look(parent: &Parent, hash: Hash) -> io::Result<Found> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let Some(stat) = parent.stat()? else { return Ok(Found::Nothing) };
        let blob = match stat.kind {
            Kind::Symlink => parent.read_link()?.map(|target| hash.blob(&target)),
            Kind::File => match parent.open()? {
                Some(mut file) => hash.copy(&mut file, stat.id.size, &mut io::sink())?,
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
#[must_use]
pub fn mode_of(stat: &Stat) -> FileMode {
    match stat.kind {
        Kind::Symlink => FileMode::Symlink,
        _ if stat.mode & 0o100 != 0 => FileMode::Executable,
        _ => FileMode::Plain,
    }
}

/// The size of an open regular file.
///
/// # Errors
/// It is none, or cannot be looked at.
pub fn regular_size(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_have_the_names_that_git_gives_them() {
        for (bytes, sha1, sha256) in [
            (
                b"".as_slice(),
                "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
                "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
            ),
            (
                b"hello\n",
                "ce013625030ba8dba906f756967f9e9ca394464a",
                "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4",
            ),
        ] {
            assert_eq!(Hash::Sha1.blob(bytes).to_string(), sha1);
            assert_eq!(Hash::Sha256.blob(bytes).to_string(), sha256);
        }
    }

    #[test]
    fn a_file_that_grows_or_shrinks_while_it_is_copied_gets_no_name() {
        let copy = |size| Hash::Sha1.copy(&mut b"four".as_slice(), size, &mut io::sink()).unwrap().is_some();
        assert_eq!([copy(3), copy(4), copy(5)], [false, true, false]);
    }
}
