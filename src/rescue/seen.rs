//! What a diagnosis was made from: every file that says something, and which objects there were. Before anything is replaced, and again
//! under git's lock of it, it has to be what was seen. Where somebody is at work, nothing is decided.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{FileId, durable};
use crate::git::Repository;
use crate::util::text::shown;

/// Somebody has changed something since it was looked at.
#[derive(Debug, thiserror::Error)]
#[error("{0} has changed since it was looked at: somebody is at work in the repository")]
pub(crate) struct Changed(String);

/// What lay somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    id: Option<FileId>,
    content: Vec<u8>,
    names: Vec<OsString>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    common_dir: PathBuf,
    states: BTreeMap<PathBuf, State>,
}

/// Of a file that is not larger the content counts as well: an inode, a size and a time come back.
const SMALL: u64 = 4096;

impl State {
    fn of_file(path: &Path) -> anyhow::Result<State> {
        let id = FileId::at(path)?;
        // What is no file has no content.
        let content = if id.is_some() { durable::read_own(path, SMALL).unwrap_or_default() } else { Vec::new() };
        Ok(State { id, content, names: Vec::new() })
    }

    fn of_directory(entries: &[(OsString, Kind)]) -> State {
        let mut names: Vec<OsString> = entries.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        State { names, ..State::default() }
    }
}

impl Seen {
    /// Looks at everything that a diagnosis reads.
    pub(crate) fn take(repo: &Repository) -> anyhow::Result<Seen> {
        let mut seen = Seen { common_dir: repo.common_dir.clone(), states: BTreeMap::new() };
        for (name, kind) in door::entries(&repo.common_dir)?.unwrap_or_default() {
            let path = repo.common_dir.join(&name);
            match name.to_str() {
                Some("refs" | "logs" | "worktrees") if kind == Kind::Directory => seen.look_below(path)?,
                _ if kind == Kind::Directory => {}
                _ => seen.look_at(path)?,
            }
        }
        seen.look_at_objects(&repo.common_dir.join("objects"))?;
        Ok(seen)
    }

    fn look_at(&mut self, path: PathBuf) -> anyhow::Result<()> {
        let state = State::of_file(&path)?;
        self.states.insert(path, state);
        Ok(())
    }

    fn look_below(&mut self, dir: PathBuf) -> anyhow::Result<()> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            for (name, kind) in door::entries(&dir)?.unwrap_or_default() {
                let path = dir.join(name);
                if kind == Kind::Directory {
                    todo.push(path);
                } else {
                    self.look_at(path)?;
                }
            }
        }
        Ok(())
    }

    fn look_at_objects(&mut self, objects: &Path) -> anyhow::Result<()> {
        for (name, kind) in door::entries(objects)?.unwrap_or_default() {
            let dir = objects.join(&name);
            if kind == Kind::Directory && (name.as_bytes().len() == 2 || name == "pack" || name == "info") {
                let entries = door::entries(&dir)?.unwrap_or_default();
                self.states.insert(dir, State::of_directory(&entries));
            }
        }
        let (alternates, grafts) = (objects.join("info/alternates"), self.common_dir.join("info/grafts"));
        self.look_at(alternates)?;
        self.look_at(grafts)
    }

    /// Looks at what will be replaced, too.
    pub(crate) fn add(&mut self, paths: impl Iterator<Item = PathBuf>) -> anyhow::Result<()> {
        for path in paths {
            if !self.states.contains_key(&path) && !path.as_os_str().is_empty() {
                self.look_at(path)?;
            }
        }
        Ok(())
    }

    /// Is everything still what it was?
    ///
    /// # Errors
    /// [`Changed`].
    pub(crate) fn require_all(&self, repo: &Repository) -> anyhow::Result<()> {
        let mut now = Seen::take(repo)?;
        let is_in = |path: &PathBuf| self.states[path].names.is_empty() && !now.states.contains_key(path);
        let others: Vec<PathBuf> = self.states.keys().filter(|path| is_in(path)).cloned().collect();
        now.add(others.into_iter())?;
        let differs = |path: &&PathBuf| self.states.get(*path) != now.states.get(*path);
        let is_anything = |path: &&PathBuf| {
            [&self.states, &now.states].iter().any(|all| all.get(*path).is_some_and(|state| *state != State::default()))
        };
        let mut paths = self.states.keys().chain(now.states.keys());
        paths.find(|path| differs(path) && is_anything(path)).map_or(Ok(()), |path| Err(self.changed(path)))
    }

    /// Is what lies there still what was seen there, and `packed-refs`, behind a ref?
    ///
    /// # Errors
    /// [`Changed`].
    pub(crate) fn require(&self, path: &Path) -> anyhow::Result<()> {
        let packed = self.common_dir.join("packed-refs");
        let is_ref = path.starts_with(self.common_dir.join("refs"));
        for path in [Some(path), is_ref.then_some(packed.as_path())].into_iter().flatten() {
            if self.states.get(path).cloned().unwrap_or_default() != State::of_file(path)? {
                return Err(self.changed(path));
            }
        }
        Ok(())
    }

    /// What lies there is ours now.
    pub(crate) fn renew(&mut self, path: &Path) -> anyhow::Result<()> {
        self.look_at(path.to_owned())
    }

    fn changed(&self, path: &Path) -> anyhow::Error {
        Changed(shown(path.strip_prefix(&self.common_dir).unwrap_or(path))).into()
    }
}
