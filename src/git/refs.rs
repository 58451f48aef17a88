//! Refs of the files backend, read as they lie on disk.
//!
//! A ref's *visible value* is its loose file's content, else its entry in `packed-refs`, else
//! [`Value::Absent`]. Names are canonical: the ref's path below the common directory, so that
//! `HEAD` of a linked worktree is `worktrees/<name>/HEAD`, whoever asks.
//!
//! Limit: reftable repositories are read through git only (see [`crate::git::command`]).

use crate::named as fs;
use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use super::name::{BadName, RefName, escape, unescape};
use super::oid::Oid;
use super::repository::{RefFormat, Repository};

/// The value of a ref. `Absent` is a value like any other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// There is no such ref.
    Absent,
    /// It names an object.
    Oid(Oid),
    /// It points to another ref.
    Symref(RefName),
    /// There is a file, but its content is no value: empty, cut or garbage.
    Broken,
}

impl Value {
    /// Parses the content of a loose ref file (or of a complete lock file).
    #[must_use]
    pub fn of_file(content: &[u8]) -> Value {
        let text = content.trim_ascii_end();
        if let Some(target) = text.strip_prefix(b"ref:") {
            return RefName::parse(target.trim_ascii()).map_or(Value::Broken, Value::Symref);
        }
        Oid::parse(text).map_or(Value::Broken, Value::Oid)
    }

    /// Parses a value as the hook's stdin has it: zeros are `Absent`, `ref:<target>` a symref.
    ///
    /// # Errors
    /// It is neither.
    pub fn of_payload(text: &[u8]) -> Result<Value, BadName> {
        if let Some(target) = text.strip_prefix(b"ref:") {
            return RefName::parse(target).map(Value::Symref);
        }
        match Oid::parse(text) {
            Some(oid) if oid.is_null() => Ok(Value::Absent),
            Some(oid) => Ok(Value::Oid(oid)),
            None => Err(BadName::new(text, "an object name was expected")),
        }
    }

    /// The object that it names, if it does.
    #[must_use]
    pub fn oid(&self) -> Option<&Oid> {
        if let Value::Oid(oid) = self { Some(oid) } else { None }
    }

    fn to_text(&self) -> Cow<'_, str> {
        match self {
            Value::Absent => Cow::Borrowed("absent"),
            Value::Broken => Cow::Borrowed("broken"),
            Value::Oid(oid) => Cow::Owned(oid.hex().to_owned()),
            Value::Symref(target) => Cow::Owned(format!("ref: {target}")),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Oid(oid) => serializer.serialize_str(&oid.hex()),
            other => serializer.serialize_str(&other.to_text()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match text.as_ref() {
            "absent" => return Ok(Value::Absent),
            "broken" => return Ok(Value::Broken),
            _ => {}
        }
        if let Some(target) = text.strip_prefix("ref: ") {
            let bytes = unescape(target).ok_or_else(|| de::Error::custom("a symref with a broken escape"))?;
            return RefName::parse(&bytes).map(Value::Symref).map_err(de::Error::custom);
        }
        Oid::parse(text.as_bytes()).map(Value::Oid).ok_or_else(|| de::Error::custom("a ref value that is none"))
    }
}

/// Identity of a file: a later file with the same inode differs in size or times.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[i64; 4]", into = "[i64; 4]")]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// Status change time, nanoseconds since the epoch.
    pub ctime: i64,
}

impl From<[i64; 4]> for FileId {
    fn from([ino, size, mtime, ctime]: [i64; 4]) -> Self {
        FileId { ino: ino.cast_unsigned(), size: size.cast_unsigned(), mtime, ctime }
    }
}

impl From<FileId> for [i64; 4] {
    fn from(id: FileId) -> Self {
        [id.ino.cast_signed(), id.size.cast_signed(), id.mtime, id.ctime]
    }
}

impl FileId {
    /// The identity in `metadata`.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> FileId {
        FileId {
            ino: metadata.ino(),
            size: metadata.len(),
            mtime: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            ctime: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
        }
    }

    /// The identity of what lies at `path` (links are not followed); `None` when nothing does.
    ///
    /// # Errors
    /// What the file system said, other than "not there".
    pub fn at(path: &Path) -> io::Result<Option<FileId>> {
        absent_is_none(fs::symlink_metadata(path)).map(|m| m.as_ref().map(FileId::of))
    }

    /// The same file, perhaps renamed since: a rename keeps inode, size and mtime, but not ctime.
    #[must_use]
    pub fn is_same_file(&self, other: &FileId) -> bool {
        (self.ino, self.size, self.mtime) == (other.ino, other.size, other.mtime)
    }
}

/// "Not there" in all its forms is `None`.
pub(crate) fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a reader sees of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The visible value.
    pub value: Value,
    /// The loose file, if there is one.
    pub loose: Option<FileId>,
    /// Is there an entry in `packed-refs`, and which? (read only when asked for or needed)
    pub packed: Option<Value>,
}

/// A ref as it was seen at some moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// Canonical name.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// The value now.
    pub value: Value,
    /// The loose file now, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
}

/// Reads refs of the files backend. `packed-refs` is read when first needed, and again when it is another file: between two
/// looks a `git pack-refs` may have moved a ref there and taken its loose file away.
pub struct RefStore<'r> {
    repo: &'r Repository,
    packed: RefCell<Option<PackedRefs>>,
    locked: bool,
}

impl<'r> RefStore<'r> {
    /// A reader for `repo`.
    #[must_use]
    pub fn new(repo: &'r Repository) -> Self {
        RefStore { repo, packed: RefCell::new(None), locked: false }
    }

    /// A reader of refs whose locks git holds, so that nobody moves them meanwhile: `packed-refs` is looked at once.
    #[must_use]
    pub fn under_locks(repo: &'r Repository) -> Self {
        RefStore { locked: true, ..RefStore::new(repo) }
    }

    /// The canonical name of a ref that git named from the worktree of `repo`.
    ///
    /// # Errors
    /// It is no valid name.
    pub fn canonical(&self, name: &[u8]) -> Result<RefName, BadName> {
        if let Some(main) = name.strip_prefix(b"main-worktree/") {
            return RefName::parse(main);
        }
        if name.starts_with(b"worktrees/") || !is_per_worktree(name) {
            return RefName::parse(name);
        }
        match self.repo.worktree_name() {
            None => RefName::parse(name),
            Some(worktree) => RefName::parse(name)
                .and_then(|_| RefName::parse(&[b"worktrees/".as_slice(), worktree, b"/", name].concat())),
        }
    }

    /// The path of the loose file.
    #[must_use]
    pub fn file(&self, name: &RefName) -> PathBuf {
        self.repo.common_dir.join(name.as_path())
    }

    /// The path of the lock file.
    #[must_use]
    pub fn lock(&self, name: &RefName) -> PathBuf {
        with_suffix(self.file(name), ".lock")
    }

    /// The path of the reflog: shared refs log into the common directory, others into their worktree's.
    #[must_use]
    pub fn log(&self, name: &RefName) -> PathBuf {
        log_path(&self.repo.common_dir, name)
    }

    /// What a reader sees of `name`.
    ///
    /// # Errors
    /// A file cannot be read for another reason than not being there.
    pub fn read(&self, name: &RefName) -> io::Result<Seen> {
        if let Some((content, id)) = read_small(&self.file(name))? {
            return Ok(Seen { value: Value::of_file(&content), loose: Some(id), packed: None });
        }
        let packed = self.packed_value(name)?;
        Ok(Seen { value: packed.clone().unwrap_or(Value::Absent), loose: None, packed })
    }

    /// HEAD of the worktree, as it is; `None` with a reftable, or when it has no sense.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn head(&self) -> io::Result<Option<Settled>> {
        let Ok(name) = self.canonical(b"HEAD") else { return Ok(None) };
        if self.repo.ref_format == RefFormat::Reftable {
            return Ok(None);
        }
        let Some((content, file)) = read_small(&self.file(&name))? else { return Ok(None) };
        let value = Value::of_file(&content);
        Ok((value != Value::Broken).then_some(Settled { name, value, file: Some(file) }))
    }

    /// The entry in `packed-refs`, whether or not a loose file hides it.
    ///
    /// # Errors
    /// `packed-refs` cannot be read.
    pub fn packed_value(&self, name: &RefName) -> io::Result<Option<Value>> {
        if !name.as_bytes().starts_with(b"refs/") {
            return Ok(None);
        }
        let path = self.repo.common_dir.join("packed-refs");
        let mut known = self.packed.borrow_mut();
        let packed = match known.take() {
            Some(packed) if self.locked || FileId::at(&path)? == packed.id => packed,
            _ => PackedRefs::load(&self.repo.common_dir)?,
        };
        let found = fs::at(&path, known.insert(packed).find(name.as_bytes()))?;
        Ok(found.map(Value::Oid))
    }
}

/// Refs that every worktree has its own of (git's `is_per_worktree_ref` and pseudo-refs).
#[must_use]
pub fn is_per_worktree(name: &[u8]) -> bool {
    let own = [b"refs/bisect/".as_slice(), b"refs/worktree/", b"refs/rewritten/"];
    !name.starts_with(b"refs/") || own.iter().any(|prefix| name.starts_with(prefix))
}

/// The reflog of the ref `name` below `common_dir`.
#[must_use]
pub fn log_path(common_dir: &Path, name: &RefName) -> PathBuf {
    let bytes = name.as_bytes();
    if let Some(rest) = bytes.strip_prefix(b"worktrees/")
        && let Some(slash) = rest.iter().position(|b| *b == b'/')
    {
        let (worktree, own) = (&rest[..slash], &rest[slash + 1..]);
        let base = common_dir.join("worktrees").join(OsStr::from_bytes(worktree));
        return base.join("logs").join(OsStr::from_bytes(own));
    }
    common_dir.join("logs").join(name.as_path())
}

/// `path` with `suffix` appended to its last component.
#[must_use]
pub fn with_suffix(path: PathBuf, suffix: &str) -> PathBuf {
    let mut name = path.into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads a file that should be small, with its identity; `None` when there is no such *file*.
///
/// # Errors
/// What the file system said, other than "not there" and "is a directory".
pub fn read_small(path: &Path) -> io::Result<Option<(Vec<u8>, FileId)>> {
    // NONBLOCK: a FIFO in the place of a ref must not hang us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).map(File::from);
    let Some(mut file) = absent_is_none(fs::at(path, opened.map_err(Into::into)))? else {
        return Ok(None);
    };
    let metadata = fs::at(path, file.metadata())?;
    if metadata.is_dir() {
        return Ok(None);
    }
    let mut buffer = [0; 4096];
    let mut len = 0;
    // At the size that the file had nothing more is to be expected: no read for the end alone.
    while len < buffer.len() && (len == 0 || (len as u64) < metadata.len()) {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return fs::at(path, Err(e)),
        }
    }
    Ok(Some((buffer[..len].to_vec(), FileId::of(&metadata))))
}

/// `packed-refs`. git writes it sorted by name and says so in the header: of a large one only what a search comes by is
/// read, so that neither time nor memory of a hook grow with refs that it has nothing to do with.
pub struct PackedRefs {
    /// All of it; of a large one nothing.
    text: Vec<u8>,
    sorted: bool,
    large: Option<Large>,
    /// The file; `None` when there is none.
    id: Option<FileId>,
}

impl PackedRefs {
    /// More than this is not read at once.
    const SMALL: u64 = 64 << 10;

    fn load(common_dir: &Path) -> io::Result<PackedRefs> {
        let path = common_dir.join("packed-refs");
        let Some(mut file) = absent_is_none(fs::open(&path))? else {
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
        fs::at(&path, file.read_to_end(&mut text))?;
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

    /// The value of the entry `name`.
    ///
    /// # Errors
    /// The file cannot be read.
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
    #[allow(clippy::disallowed_methods)]
    fn a_ref_that_is_packed_between_two_looks_is_not_absent() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().to_owned();
        std::fs::create_dir_all(dir.join("refs/heads")).unwrap();
        let oid = "a".repeat(40);
        std::fs::write(dir.join("refs/heads/x"), format!("{oid}\n")).unwrap();
        let repo = Repository { git_dir: dir.clone(), common_dir: dir.clone(), ref_format: RefFormat::Files };
        let refs = RefStore::new(&repo);
        let name = |text: &str| RefName::parse(text.as_bytes()).unwrap();
        assert_eq!(refs.read(&name("refs/heads/y")).unwrap().value, Value::Absent, "there is no packed-refs");
        std::fs::write(dir.join("packed-refs.new"), format!("# pack-refs with: sorted \n{oid} refs/heads/x\n"))
            .unwrap();
        std::fs::rename(dir.join("packed-refs.new"), dir.join("packed-refs")).unwrap();
        std::fs::remove_file(dir.join("refs/heads/x")).unwrap();
        let found = refs.read(&name("refs/heads/x")).unwrap();
        assert_eq!(found.value, Value::Oid(Oid::parse(oid.as_bytes()).unwrap()));
    }

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

    #[test]
    fn an_empty_or_cut_ref_file_is_broken_not_absent() {
        for content in [b"".as_slice(), b"\0\0\0", b"abc\n", b"ref: ../x\n"] {
            assert_eq!(Value::of_file(content), Value::Broken, "{content:?}");
        }
        assert_eq!(Value::of_file(b"ref: refs/heads/x\n"), Value::Symref(RefName::parse(b"refs/heads/x").unwrap()));
    }
}
