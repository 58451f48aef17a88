//! Objects, as far as a power cut may damage them: loose files that are empty or cut, and histories with holes.
//!
//! A loose object is its own proof: what it inflates to hashes to its name. Of packs git syncs the content before it
//! names them, so they are only looked at through git.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::Oid;
use super::command;
use super::refs::absent_is_none;

/// The loose objects below `common_dir` that came (or were renewed) at `since` (Unix seconds) or later and do not
/// inflate to what their name says.
///
/// # Errors
/// A directory or file cannot be read.
pub fn corrupt_loose(common_dir: &Path, since: u64) -> io::Result<Vec<PathBuf>> {
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let mut corrupt = Vec::new();
    let Some(fan_out) = absent_is_none(fs::read_dir(common_dir.join("objects")))? else { return Ok(corrupt) };
    for dir in fan_out {
        let dir = dir?;
        let name = dir.file_name();
        let is_fan_out = name.len() == 2 && is_hex(name.as_bytes());
        if !is_fan_out || dir.metadata()?.ctime() < since {
            continue;
        }
        for object in fs::read_dir(dir.path())? {
            let object = object?;
            let rest = object.file_name();
            let is_object = matches!(rest.len(), 38 | 62) && is_hex(rest.as_bytes());
            if is_object && object.metadata()?.ctime() >= since {
                let oid = [name.as_bytes(), rest.as_bytes()].concat();
                if !is_intact(&object.path(), &oid)? {
                    corrupt.push(object.path());
                }
            }
        }
    }
    corrupt.sort();
    Ok(corrupt)
}

fn is_hex(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_hexdigit)
}

fn is_intact(path: &Path, oid: &[u8]) -> io::Result<bool> {
    let Some(file) = absent_is_none(File::open(path))? else { return Ok(true) };
    let mut sum = if oid.len() == 40 { Sum::Sha1(Sha1::new()) } else { Sum::Sha256(Sha256::new()) };
    match io::copy(&mut ZlibDecoder::new(file), &mut sum) {
        Ok(_) => Ok(sum.hex().as_bytes() == oid),
        // The stream is cut or garbage. Anything else is about the disk, not about the object.
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(false),
        Err(e) if e.raw_os_error().is_none() => Ok(false),
        Err(e) => Err(e),
    }
}

enum Sum {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Sum {
    fn hex(self) -> String {
        let bytes = match self {
            Sum::Sha1(sum) => sum.finalize().to_vec(),
            Sum::Sha256(sum) => sum.finalize().to_vec(),
        };
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sum::Sha1(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks for objects with holes behind them.
pub struct Closure<'r> {
    program: &'r Path,
    git_dir: &'r Path,
    known: Vec<Oid>,
}

impl<'r> Closure<'r> {
    /// `known`: objects whose history is taken as whole, so that only what is new is walked.
    ///
    /// # Errors
    /// git cannot be started.
    pub fn new(program: &'r Path, git_dir: &'r Path, known: Vec<Oid>) -> anyhow::Result<Self> {
        let present = present(program, git_dir, &known)?;
        let known = known.into_iter().filter(|oid| present.contains(oid)).collect();
        Ok(Closure { program, git_dir, known })
    }

    /// Is everything there that these objects reach?
    ///
    /// # Errors
    /// git cannot be started.
    pub fn is_whole(&self, wanted: &[Oid]) -> anyhow::Result<bool> {
        if wanted.is_empty() {
            return Ok(true);
        }
        if present(self.program, self.git_dir, wanted)?.len() < wanted.iter().collect::<HashSet<_>>().len() {
            return Ok(false);
        }
        let positive = wanted.iter().map(|oid| format!("{}\n", oid.as_str()));
        let negative = self.known.iter().map(|oid| format!("^{}\n", oid.as_str()));
        let stdin: String = positive.chain(negative).collect();
        // A commit-graph may know commits whose objects are gone.
        let args = ["-c", "core.commitGraph=false", "rev-list", "--objects", "--quiet", "--stdin"];
        Ok(command::run(self.program, self.git_dir, &args, stdin.as_bytes(), None)?.success)
    }
}

/// Those of `oids` that the repository has.
///
/// # Errors
/// git cannot be started.
pub fn present(program: &Path, git_dir: &Path, oids: &[Oid]) -> anyhow::Result<HashSet<Oid>> {
    if oids.is_empty() {
        return Ok(HashSet::new());
    }
    let stdin: String = oids.iter().map(|oid| format!("{}\n", oid.as_str())).collect();
    let args = ["cat-file", "--batch-check=%(objectname) %(objecttype)"];
    let ran = command::run(program, git_dir, &args, stdin.as_bytes(), None)?;
    let found = ran.stdout.split(|b| *b == b'\n').filter(|line| !line.ends_with(b" missing"));
    Ok(found.filter_map(|line| Oid::parse(line.split(|b| *b == b' ').next()?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_does_not_hash_to_its_name_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let object = |content: &[u8]| {
            let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            deflated.write_all(content).unwrap();
            deflated.finish().unwrap()
        };
        let good = object(b"blob 6\0hello\n");
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join("objects").join(&name[..2]).join(&name[2..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().write_all(bytes).unwrap();
            path
        };
        put("ce013625030ba8dba906f756967f9e9ca394464a", &good);
        let bad = [
            put("ce013625030ba8dba906f756967f9e9ca394464b", &good),
            put("aa00000000000000000000000000000000000000", b""),
            put("ab00000000000000000000000000000000000000", &good[..good.len() - 3]),
            put("ac00000000000000000000000000000000000000", &vec![0; good.len()]),
            put("ad00000000000000000000000000000000000000", b"not compressed at all"),
        ];
        put("ae/tmp_obj_x".trim(), b"no object");
        let mut bad = bad.to_vec();
        bad.sort();
        assert_eq!(corrupt_loose(dir.path(), 0).unwrap(), bad);
        assert_eq!(corrupt_loose(dir.path(), u64::MAX).unwrap(), Vec::<PathBuf>::new(), "all of them are older");
    }
}
