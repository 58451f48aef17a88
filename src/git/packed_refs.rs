//! `packed-refs`, read without git: by binary search, and of a large one only what the search comes by.

use crate::fs::named as fs;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::fs::{FileId, absent_is_none};
use crate::git::oid::Oid;

/// `packed-refs`. git writes it sorted by name and says so in the header: of a large one only what a search comes by is
/// read, so that neither time nor memory of a hook grow with refs that it has nothing to do with.
pub struct PackedRefs {
    /// All of it; of a large one nothing.
    text: Vec<u8>,
    sorted: bool,
    large: Option<Large>,
    /// The file; `None` when there is none.
    pub(super) id: Option<FileId>,
}

impl PackedRefs {
    /// More than this is not read at once.
    const SMALL: u64 = 64 << 10;

    /// Opens the file below `common_dir`.
    pub(super) fn load(common_dir: &Path) -> io::Result<PackedRefs> {
        let path = common_dir.join("packed-refs");
        let Some(file) = absent_is_none(fs::open(&path))? else {
            return Ok(PackedRefs { text: Vec::new(), sorted: true, large: None, id: None });
        };
        let metadata = fs::at(&path, file.metadata())?;
        let (id, len) = (Some(FileId::of(&metadata)), metadata.len());
        let mut text = Vec::new();
        if len > Self::SMALL {
            let mut header = vec![0; BLOCK];
            fs::at(&path, file.read_exact_at(&mut header, 0))?;
            if PackedRefs::of(header).sorted {
                return Ok(PackedRefs { text, sorted: true, large: Some(Large::of(file, len)), id });
            }
        }
        fs::read_at_most(&path, &file, &mut text)?;
        Ok(PackedRefs { id, ..PackedRefs::of(text) })
    }

    /// Takes the content of the file.
    #[must_use]
    pub fn of(text: Vec<u8>) -> PackedRefs {
        let header = text.split(|b| *b == b'\n').next().unwrap_or_default();
        let sorted = header.starts_with(b"# pack-refs with:") && header.ends_with(b" sorted ")
            || header.split(|b| *b == b' ').any(|word| word == b"sorted");
        PackedRefs { text, sorted, large: None, id: None }
    }

    /// Every entry of the file below `common_dir`.
    pub(super) fn entries(common_dir: &Path) -> io::Result<Vec<(Vec<u8>, Oid)>> {
        let text = absent_is_none(fs::read(common_dir.join("packed-refs")))?.unwrap_or_default();
        Ok(text.split(|b| *b == b'\n').filter_map(entry).map(|(oid, name)| (name.to_owned(), oid)).collect())
    }

    /// The value of the entry `name`.
    pub fn find(&self, name: &[u8]) -> io::Result<Option<Oid>> {
        if let Some(large) = &self.large {
            return large.find(name);
        }
        if self.sorted {
            return Ok(search(&self.text, name));
        }
        let mut lines = self.text.split(|b| *b == b'\n');
        Ok(lines.find_map(|l| entry(l).filter(|e| e.1 == name)).map(|e| e.0))
    }
}

/// So much may lie between two entries that a search finds; names are far shorter.
const MOST_BETWEEN: usize = 1 << 24;

/// How much of a large `packed-refs` is read at a time.
const BLOCK: usize = 4096;

/// A `packed-refs` of which only what searches come by is read.
struct Large {
    file: File,
    len: u64,
    /// Where searches that had come down to these bounds found an entry: most have the first bounds in common.
    landmarks: RefCell<BTreeMap<(u64, u64), Landmark>>,
}

/// An entry amid a file.
struct Landmark {
    oid: Oid,
    name: Vec<u8>,
    start: u64,
    end: u64,
}

impl Large {
    /// So many landmarks are kept; each has a name.
    const MOST: usize = 1 << 11;

    fn of(file: File, len: u64) -> Large {
        Large { file, len, landmarks: RefCell::default() }
    }

    /// Binary search: go to the middle, find an entry nearby, until little enough is left to be read.
    fn find(&self, name: &[u8]) -> io::Result<Option<Oid>> {
        let (mut low, mut high) = (0, self.len);
        let mut landmarks = self.landmarks.borrow_mut();
        while high - low > BLOCK as u64 {
            if landmarks.len() == Self::MOST {
                landmarks.clear();
            }
            let found = match landmarks.entry((low, high)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => match self.landmark(low + (high - low) / 2, high)? {
                    Some(new) => unknown.insert(new),
                    None => break,
                },
            };
            match found.name.as_slice().cmp(name) {
                Ordering::Equal => return Ok(Some(found.oid)),
                Ordering::Less => low = found.end,
                Ordering::Greater => high = found.start,
            }
        }
        let len = usize::try_from(high - low).map_err(io::Error::other)?;
        let (mut block, mut long) = ([0; BLOCK], Vec::new());
        let rest = if len <= BLOCK {
            &mut block[..len]
        } else {
            if len > MOST_BETWEEN {
                return Err(io::Error::other("packed-refs is damaged: no entry is where one has to be"));
            }
            long.resize(len, 0);
            &mut long
        };
        self.file.read_exact_at(rest, low)?;
        Ok(search(rest, name))
    }

    /// The first entry that lies wholly between `at` and `high`, and not too far.
    fn landmark(&self, at: u64, high: u64) -> io::Result<Option<Landmark>> {
        let mut block = [0; BLOCK];
        let room = usize::try_from(high - at).unwrap_or(BLOCK).min(BLOCK);
        self.file.read_exact_at(&mut block[..room], at)?;
        let mut start = at;
        // The first line is cut, or the end of the one before; the last one may be cut.
        for (number, line) in block[..room].split_inclusive(|b| *b == b'\n').enumerate() {
            let end = start + line.len() as u64;
            if number > 0
                && let Some((oid, name)) = line.strip_suffix(b"\n").and_then(entry)
            {
                return Ok(Some(Landmark { oid, name: name.to_owned(), start, end }));
            }
            start = end;
        }
        Ok(None)
    }
}

/// Binary search over a text: go to the middle, back to the start of its line, skip what is no entry.
fn search(text: &[u8], name: &[u8]) -> Option<Oid> {
    let (mut low, mut high) = (0, text.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = text[low..middle].iter().rposition(|b| *b == b'\n').map_or(low, |at| low + at + 1);
        // The first entry at or after `start`: comments and peeled lines (`^...`) are none.
        let mut at = start;
        let found = loop {
            if at >= high {
                break None;
            }
            let end = text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |n| at + n);
            match entry(&text[at..end]) {
                Some(found) => break Some((found, end + 1)),
                None => at = end + 1,
            }
        };
        match found {
            None => high = start,
            Some(((oid, here), next)) => match here.cmp(name) {
                Ordering::Equal => return Some(oid),
                Ordering::Less => low = next,
                Ordering::Greater => high = start,
            },
        }
    }
    None
}

/// `<oid> SP <name>`; comments, peeled values and garbage are no entries.
fn entry(line: &[u8]) -> Option<(Oid, &[u8])> {
    let space = line.iter().position(|b| *b == b' ')?;
    Some((Oid::parse(&line[..space])?, &line[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_ref_is_found_wherever_it_stands() {
        let oid = |n: usize| format!("{n:040x}");
        let mut text = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        for n in 0..100 {
            text += &format!("{} refs/heads/b{n:03}\n", oid(n));
            if n % 3 == 0 {
                text += &format!("^{}\n", oid(n + 1000));
            }
        }
        for sorted in [true, false] {
            let packed = PackedRefs { sorted, ..PackedRefs::of(text.clone().into_bytes()) };
            for n in 0..100 {
                let found = packed.find(format!("refs/heads/b{n:03}").as_bytes()).unwrap();
                assert_eq!(found, Oid::parse(oid(n).as_bytes()), "entry {n}, sorted {sorted}");
            }
            for missing in ["refs/heads/a", "refs/heads/b0005", "refs/heads/z", "# pack-refs"] {
                assert_eq!(packed.find(missing.as_bytes()).unwrap(), None, "{missing}");
            }
        }
        assert_eq!(search(b"", b"refs/heads/x"), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_ref_in_a_large_packed_refs_is_found_without_reading_it_all() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        // Names of all lengths, so that entries lie across the borders of blocks in every way.
        let name = |n: usize| format!("refs/heads/b{n:05}{}", "x".repeat(n % 97));
        for n in 0..5000 {
            text += &format!("{n:040x} {}\n", name(n));
            if n % 3 == 0 {
                text += &format!("^{n:040x}\n");
            }
        }
        std::fs::write(directory.path().join("packed-refs"), &text).unwrap();
        let packed = PackedRefs::load(directory.path()).unwrap();
        assert!(packed.large.is_some() && packed.text.is_empty(), "{} bytes are not kept in memory", text.len());
        for n in 0..5000 {
            let found = packed.find(name(n).as_bytes()).unwrap();
            assert_eq!(found, Oid::parse(format!("{n:040x}").as_bytes()), "entry {n}");
            assert_eq!(packed.find(format!("{}0", name(n)).as_bytes()).unwrap(), None, "behind entry {n}");
        }
        assert_eq!(packed.find(b"refs/heads/a").unwrap(), None, "before all");
        assert_eq!(packed.find(b"refs/heads/z").unwrap(), None, "behind all");
    }
}
