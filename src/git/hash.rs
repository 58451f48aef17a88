//! The hash functions by which git names objects and checks its index.

use std::io::{self, Read, Write};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::git::Oid;

/// How a repository names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// 40 hex digits.
    Sha1,
    /// 64 hex digits.
    Sha256,
}

/// A hash over what is written to it.
pub(crate) struct Hasher(Sum);

enum Sum {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    /// The hash of all that was written.
    pub(crate) fn finish(self) -> Oid {
        match self.0 {
            Sum::Sha1(sum) => Oid::Sha1(sum.finalize().into()),
            Sum::Sha256(sum) => Oid::Sha256(sum.finalize().into()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Sum::Sha1(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Hash {
    /// The one that this object is named by.
    pub(crate) fn of(oid: &Oid) -> Hash {
        match oid {
            Oid::Sha1(_) => Hash::Sha1,
            Oid::Sha256(_) => Hash::Sha256,
        }
    }

    /// Begins a hash.
    pub(crate) fn start(self) -> Hasher {
        Hasher(match self {
            Hash::Sha1 => Sum::Sha1(Sha1::new()),
            Hash::Sha256 => Sum::Sha256(Sha256::new()),
        })
    }

    fn start_blob(self, size: u64) -> Hasher {
        let mut hasher = self.start();
        hasher.update(format!("blob {size}\0").as_bytes());
        hasher
    }

    /// The name of the blob with these bytes.
    pub(crate) fn blob(self, bytes: &[u8]) -> Oid {
        let mut hasher = self.start_blob(bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Copies `size` bytes of `from` to `to` and names what was copied; `None` when there were more or fewer.
    pub(crate) fn copy_blob(self, from: &mut impl Read, size: u64, to: &mut impl Write) -> io::Result<Option<Oid>> {
        let mut hasher = self.start_blob(size);
        let mut buffer = vec![0; 1 << 16];
        let mut copied = 0;
        loop {
            let n = match from.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if n == 0 {
                return Ok((copied == size).then(|| hasher.finish()));
            }
            copied += n as u64;
            if copied > size {
                return Ok(None);
            }
            hasher.update(&buffer[..n]);
            to.write_all(&buffer[..n])?;
        }
    }
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
        let copy = |size| Hash::Sha1.copy_blob(&mut b"four".as_slice(), size, &mut io::sink()).unwrap().is_some();
        assert_eq!([copy(3), copy(4), copy(5)], [false, true, false]);
    }
}
