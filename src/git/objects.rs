//! Objects, as far as a power cut may damage them: loose files that are empty or cut, and histories with holes.
//!
//! A loose object is its own proof: what it inflates to hashes to its name. Of packs git syncs the content before it
//! names them, so they are only looked at through git.

use crate::fs::named as fs;
use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::absent_is_none;
use crate::git::cat_file::present;
use crate::git::hash::Hash;
use crate::git::{ConfigQuery, Git, Oid, Plumbing};
use flate2::read::ZlibDecoder;

/// The loose objects below `common_dir` that came (or were renewed) at `since` (Unix seconds) or later and do not
/// inflate to what their name says. Calls `each` for every directory of objects that has been read.
pub(crate) fn corrupt_loose(common_dir: &Path, since: u64, each: impl Fn()) -> io::Result<Vec<PathBuf>> {
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let mut corrupt = Vec::new();
    let Some(fan_out) = absent_is_none(fs::read_dir(common_dir.join("objects")))? else { return Ok(corrupt) };
    for dir in fan_out {
        let dir = dir?;
        let name = dir.file_name();
        let is_fan_out = name.len() == 2 && is_hex(name.as_bytes());
        let is_new = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|m| m.ctime() >= since);
        if !is_fan_out || !is_new(&dir) {
            continue;
        }
        // What vanishes meanwhile (gc is at work) or may not be read is not ours to judge.
        for object in fs::read_dir(dir.path()).into_iter().flatten().flatten() {
            let rest = object.file_name();
            let is_object = matches!(rest.len(), 38 | 62) && is_hex(rest.as_bytes());
            if is_object && is_new(&object) {
                let oid = [name.as_bytes(), rest.as_bytes()].concat();
                if is_intact(&object.path(), &oid).is_ok_and(|intact| !intact) {
                    corrupt.push(object.path());
                }
            }
        }
        each();
    }
    corrupt.sort();
    Ok(corrupt)
}

fn is_hex(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_hexdigit)
}

fn is_intact(path: &Path, oid: &[u8]) -> io::Result<bool> {
    let Some(file) = absent_is_none(fs::open(path))? else { return Ok(true) };
    let mut hasher = if oid.len() == 40 { Hash::Sha1 } else { Hash::Sha256 }.start();
    match io::copy(&mut ZlibDecoder::new(file), &mut hasher) {
        Ok(_) => Ok(Oid::parse(oid) == Some(hasher.finish())),
        // The stream is cut or garbage. Anything else is about the disk, not about the object.
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(false),
        Err(e) if e.raw_os_error().is_none() => Ok(false),
        Err(e) => Err(e),
    }
}

/// Is everything there that an object reaches?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Yes.
    Yes,
    /// No: git named an object that is missing, and a second look confirmed it.
    No,
    /// It cannot be told: git failed otherwise, or the objects are partly elsewhere.
    Unknown,
}

/// Looks for objects with holes behind them.
pub(crate) struct Closure {
    git: Git,
    known: Vec<Oid>,
    all_here: bool,
}

impl Closure {
    /// `known`: objects whose history is taken as whole, so that only what is new is walked. `all_here`: see
    /// [`are_all_here`].
    pub(crate) fn new(git: Git, known: Vec<Oid>, all_here: bool) -> anyhow::Result<Self> {
        let known = match (all_here, present(&git, &known)?) {
            (true, Some(there)) => known.into_iter().filter(|oid| there.contains(oid)).collect(),
            _ => Vec::new(),
        };
        Ok(Closure { git, known, all_here })
    }

    /// Those of `oids` that are certainly not there.
    pub(crate) fn missing(&self, oids: &[Oid]) -> anyhow::Result<HashSet<Oid>> {
        if !self.all_here {
            return Ok(HashSet::new());
        }
        let there = present(&self.git, oids)?;
        Ok(there.map_or_else(HashSet::new, |there| oids.iter().filter(|oid| !there.contains(oid)).copied().collect()))
    }

    /// Is everything there that these objects reach?
    pub(crate) fn ask(&self, wanted: &[Oid]) -> anyhow::Result<Whole> {
        if !self.all_here {
            return Ok(Whole::Unknown);
        }
        match present(&self.git, wanted)? {
            None => return Ok(Whole::Unknown),
            Some(there) if wanted.iter().any(|oid| !there.contains(oid)) => return Ok(Whole::No),
            Some(_) => {}
        }
        // What was taken as whole may have the hole: then it has to do without.
        let found = self.walk(wanted, &self.known)?;
        if found == Whole::Yes || self.known.is_empty() { Ok(found) } else { self.walk(wanted, &[]) }
    }

    fn walk(&self, wanted: &[Oid], known: &[Oid]) -> anyhow::Result<Whole> {
        if wanted.is_empty() {
            return Ok(Whole::Yes);
        }
        let positive = wanted.iter().map(|oid| format!("{oid}\n"));
        let negative = known.iter().map(|oid| format!("^{oid}\n"));
        let stdin: String = positive.chain(negative).collect();
        // A commit-graph may know commits whose objects are gone.
        let walk = self.git.command(Plumbing::Walk).config("core.commitGraph", "false");
        let ran = walk.stdin(stdin).run()?;
        if ran.success {
            return Ok(Whole::Yes);
        }
        // git may have failed for any reason: only an object that it names, and that is not there, is proof.
        let words = ran.stderr.split(|c: char| !c.is_ascii_alphanumeric());
        let named: Vec<Oid> = words.filter_map(|word| Oid::parse(word.as_bytes())).collect();
        let gone = present(&self.git, &named)?.is_some_and(|t| named.iter().any(|o| !t.contains(o)));
        Ok(if gone { Whole::No } else { Whole::Unknown })
    }
}

/// Has this repository all of its objects itself? A partial clone leaves some on a server, and alternates may lie on a disk
/// that is not mounted: what is missing there is not lost.
pub(crate) fn are_all_here(git: &Git, common_dir: &Path) -> anyhow::Result<bool> {
    let objects = common_dir.join("objects");
    if let Some(text) = absent_is_none(fs::read(objects.join("info/alternates")))? {
        let paths = text.split(|b| *b == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        let is_there = |line: &[u8]| objects.join(Path::new(std::ffi::OsStr::from_bytes(line))).is_dir();
        if !paths.into_iter().all(is_there) {
            return Ok(false);
        }
    }
    let settings = r"^(extensions\.partialclone|remote\..*\.promisor)$";
    Ok(!git.run(Plumbing::Config(ConfigQuery::NamesMatching(settings)))?.success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
            crate::fs::durable::create_dirs(path.parent().unwrap(), 0o777).unwrap();
            crate::fs::durable::create_new(&path, bytes).unwrap();
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
        put("aetmp_obj_x", b"no object");
        let mut bad = bad.to_vec();
        bad.sort();
        assert_eq!(corrupt_loose(dir.path(), 0, || ()).unwrap(), bad);
        assert_eq!(corrupt_loose(dir.path(), u64::MAX, || ()).unwrap(), Vec::<PathBuf>::new(), "all of them are older");
    }
}
