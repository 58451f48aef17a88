//! Refs of the files backend, read as they lie on disk.
//!
//! A ref's *visible value* is its loose file's content, else its entry in `packed-refs`, else
//! [`Value::Absent`]. Names are canonical: the ref's path below the common directory, so that
//! `HEAD` of a linked worktree is `worktrees/<name>/HEAD`, whoever asks.
//!
//! Where git follows a link we do, to read: refs in a linked directory (`git-new-workdir`), a symbolic ref that is a link. A
//! FIFO or a device in the place of a ref is [`Value::Broken`].
//!
//! Limit: reftable repositories are read through git only (see [`crate::git::exec`]).

use crate::fs::named as fs;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fs::{FileId, absent_is_none, read_ref, with_suffix};
pub(crate) use crate::git::name::{BadName, RefName};
use crate::git::oid::Oid;
use crate::git::packed_refs::PackedRefs;
use crate::git::repository::{RefFormat, Repository};
use crate::util::text::unescape;

/// The value of a ref. `Absent` is a value like any other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// There is no such ref.
    Absent,
    /// It names an object.
    Oid(Oid),
    /// It points to another ref, which may be one that we only read (`RefName::parse_target`).
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
            return RefName::parse_target(target.trim_ascii()).map_or(Value::Broken, Value::Symref);
        }
        Oid::parse(text).map_or(Value::Broken, Value::Oid)
    }

    /// Parses a value as the hook's stdin has it: zeros are `Absent`, `ref:<target>` a symref.
    #[must_use]
    pub fn of_payload(text: &[u8]) -> Value {
        if let Some(target) = text.strip_prefix(b"ref:") {
            return RefName::parse_target(target).map_or(Value::Broken, Value::Symref);
        }
        match Oid::parse(text) {
            Some(oid) if oid.is_null() => Value::Absent,
            Some(oid) => Value::Oid(oid),
            None => Value::Broken,
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
            return RefName::parse_target(&bytes).map(Value::Symref).map_err(de::Error::custom);
        }
        Oid::parse(text.as_bytes()).map(Value::Oid).ok_or_else(|| de::Error::custom("a ref value that is none"))
    }
}

/// What a reader sees of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedRef {
    /// The visible value.
    pub value: Value,
    /// The loose file, if there is one.
    pub loose: Option<FileId>,
    /// Is there an entry in `packed-refs`, and which? (read only when asked for or needed)
    pub packed: Option<Value>,
}

/// A ref as it was seen at some moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefSnapshot {
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
pub(crate) struct RefStore<'r> {
    repo: &'r Repository,
    packed: RefCell<Option<PackedRefs>>,
    locked: bool,
}

impl<'r> RefStore<'r> {
    /// A reader for `repo`.
    pub(crate) fn new(repo: &'r Repository) -> Self {
        RefStore { repo, packed: RefCell::new(None), locked: false }
    }

    /// A reader of refs whose locks git holds, so that nobody moves them meanwhile: `packed-refs` is looked at once.
    pub(crate) fn under_locks(repo: &'r Repository) -> Self {
        RefStore { locked: true, ..RefStore::new(repo) }
    }

    /// The canonical name of a ref that git named from the worktree of `repo`.
    pub(crate) fn canonical(&self, name: &[u8]) -> Result<RefName, BadName> {
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
    pub(crate) fn file(&self, name: &RefName) -> PathBuf {
        self.repo.common_dir.join(name.as_path())
    }

    /// The path of the lock file.
    pub(crate) fn lock(&self, name: &RefName) -> PathBuf {
        with_suffix(self.file(name), ".lock")
    }

    /// The path of the reflog: shared refs log into the common directory, others into their worktree's.
    pub(crate) fn log(&self, name: &RefName) -> PathBuf {
        log_path(&self.repo.common_dir, name)
    }

    /// What a reader sees of `name`.
    pub(crate) fn read(&self, name: &RefName) -> io::Result<ResolvedRef> {
        if let Some((content, id)) = read_ref(&self.file(name))? {
            return Ok(ResolvedRef { value: Value::of_file(&content), loose: Some(id), packed: None });
        }
        let packed = self.packed_value(name)?;
        Ok(ResolvedRef { value: packed.clone().unwrap_or(Value::Absent), loose: None, packed })
    }

    /// HEAD of the worktree, as it is; `None` with a reftable, or when it has no sense.
    pub(crate) fn head(&self) -> io::Result<Option<RefSnapshot>> {
        let Ok(name) = self.canonical(b"HEAD") else { return Ok(None) };
        if self.repo.ref_format == RefFormat::Reftable {
            return Ok(None);
        }
        let Some((content, file)) = read_ref(&self.file(&name))? else { return Ok(None) };
        let value = Value::of_file(&content);
        Ok((value != Value::Broken).then_some(RefSnapshot { name, value, file: Some(file) }))
    }

    /// Every ref below `refs/` of the repository and of this worktree, with its value. Loose ones are read first: one that
    /// `git pack-refs` moves meanwhile is found among the packed ones.
    pub(crate) fn all(&self) -> io::Result<BTreeMap<RefName, Value>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![self.repo.common_dir.join("refs")];
        if self.repo.git_dir != self.repo.common_dir {
            dirs.push(self.repo.git_dir.join("refs"));
        }
        while let Some(dir) = dirs.pop() {
            let Some(entries) = absent_is_none(fs::read_dir(&dir))? else { continue };
            for entry in entries {
                let path = fs::at(&dir, entry)?.path();
                match absent_is_none(fs::symlink_metadata(&path))? {
                    None => continue,
                    Some(metadata) if metadata.is_dir() => {
                        dirs.push(path);
                        continue;
                    }
                    Some(_) => {}
                }
                let inside = path.strip_prefix(&self.repo.common_dir).unwrap_or(&path);
                let name = RefName::parse(inside.as_os_str().as_bytes()).ok();
                let name = name.filter(|name| !name.as_bytes().ends_with(b".lock"));
                if let Some((name, (content, _))) = name.zip(read_ref(&path)?) {
                    found.insert(name, Value::of_file(&content));
                }
            }
        }
        for (name, oid) in PackedRefs::entries(&self.repo.common_dir)? {
            if let Ok(name) = RefName::parse(&name) {
                found.entry(name).or_insert(Value::Oid(oid));
            }
        }
        Ok(found)
    }

    /// The entry in `packed-refs`, whether or not a loose file hides it.
    pub(crate) fn packed_value(&self, name: &RefName) -> io::Result<Option<Value>> {
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
pub(crate) fn is_per_worktree(name: &[u8]) -> bool {
    let own = [b"refs/bisect/".as_slice(), b"refs/worktree/", b"refs/rewritten/"];
    !name.starts_with(b"refs/") || own.iter().any(|prefix| name.starts_with(prefix))
}

/// The reflog of the ref `name` below `common_dir`.
pub(crate) fn log_path(common_dir: &Path, name: &RefName) -> PathBuf {
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
    fn an_empty_or_cut_ref_file_is_broken_not_absent() {
        for content in [b"".as_slice(), b"\0\0\0", b"abc\n", b"ref: ../x\n"] {
            assert_eq!(Value::of_file(content), Value::Broken, "{content:?}");
        }
        assert_eq!(Value::of_file(b"ref: refs/heads/x\n"), Value::Symref(RefName::parse(b"refs/heads/x").unwrap()));
    }
}
