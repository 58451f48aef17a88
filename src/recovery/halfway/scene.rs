//! HEAD, index and worktree, compared with another commit.
//!
//! Every path that differs is compared by content, or by the stat data of the index, as git does. Raw bytes: no filter runs.
//! Files that are neither in one of the two commits nor in the index are not looked at: no command that switches touches them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use crate::fs::beneath::{Parent, RelPath};
use crate::git::cat_file::Batch;
use crate::git::hash::Hash;
use crate::git::index::{self, Tree};
use crate::git::{Git, Oid, Plumbing, Repository};
use crate::run::look;
use crate::staging::worktree::Worktree;

const SUBMODULE: u32 = 0o160_000;

/// No larger file is compared with the beginning of a blob.
const LARGEST: u64 = 64 << 20;

pub(super) struct Scene {
    pub(super) commit: Oid,
    /// The branch, or the commit.
    pub(super) name: String,
    /// Are there filters or line endings that make a file differ from its blob?
    pub(super) may_convert: bool,
    git: Git,
    head: Tree,
    /// What the index has at each path: of one in conflict more than one.
    staged: HashMap<Vec<u8>, Vec<Oid>>,
    /// The index's entries, but for those whose file is not as it says.
    unchanged: Tree,
    /// Paths of the index whose file differs from it.
    changed: Vec<Vec<u8>>,
    /// git does not look at these.
    flagged: HashSet<Vec<u8>>,
    worktree: Worktree,
    /// What has been read.
    read: HashMap<Vec<u8>, Now>,
}

/// What lies at a path.
#[derive(Clone, Copy)]
enum Now {
    Absent,
    Is(Oid),
    /// No file and no link, or behind a link.
    Other,
}

impl Now {
    fn is(self, entry: Option<&(u32, Oid)>) -> bool {
        match self {
            Now::Absent => entry.is_none(),
            Now::Is(oid) => entry.is_some_and(|(_, blob)| *blob == oid),
            Now::Other => false,
        }
    }
}

/// How the worktree relates to HEAD and to another commit, over the paths in which these or the worktree differ.
#[derive(Default)]
pub(super) struct Comparison {
    /// As in the other commit.
    pub(super) theirs: Vec<Vec<u8>>,
    /// As in HEAD, where the other commit differs.
    pub(super) ours: usize,
    /// Gone, or with the beginning of what the other has: git was about to write them.
    pub(super) cut: Vec<Vec<u8>>,
    /// Something else.
    pub(super) others: Vec<Vec<u8>>,
    /// Not compared.
    pub(super) unknown: usize,
    /// Of both, what is in neither HEAD nor the index: going back leaves them.
    pub(super) new: Vec<Vec<u8>>,
}

impl Comparison {
    /// The smaller, the better the other commit explains what is there.
    pub(super) fn rank(&self) -> (usize, Reverse<usize>, usize) {
        (self.others.len() + self.unknown, Reverse(self.theirs.len() + self.cut.len()), self.ours)
    }
}

impl Scene {
    /// `None` where there is no commit, or no index that can be read.
    pub(super) fn read(repo: &Repository, git: &Git, worktree: Worktree) -> anyhow::Result<Option<Scene>> {
        let git = git.worktree(&worktree.path);
        let resolved = git.run(Plumbing::Resolve("HEAD"))?;
        let Some(commit) = Oid::parse(resolved.stdout.trim_ascii()) else { return Ok(None) };
        let branch = git.run(Plumbing::Symref("HEAD"))?;
        let branch = String::from_utf8_lossy(branch.stdout.trim_ascii()).into_owned();
        let name = branch.strip_prefix("refs/heads/").map_or_else(|| commit.hex()[..10].to_owned(), str::to_owned);
        let path = repo.git_dir.join("index");
        let (Some(head), Some((entries, _))) = (index::tree(&git, &commit)?, index::read(&git, &path)?) else {
            return Ok(None);
        };
        let changed = look::changed(&git, &worktree.path, &path)?;
        let changed: Vec<Vec<u8>> = changed.into_iter().map(|c| c.path.as_bytes().to_owned()).collect();
        let differs: HashSet<&[u8]> = changed.iter().map(Vec::as_slice).collect();
        let (mut unchanged, mut flagged) = (Tree::new(), HashSet::new());
        let mut staged: HashMap<Vec<u8>, Vec<Oid>> = HashMap::new();
        for entry in entries {
            staged.entry(entry.path.clone()).or_default().push(entry.oid);
            if entry.assume_valid || entry.skip_worktree {
                flagged.insert(entry.path);
            } else if !differs.contains(entry.path.as_slice()) {
                unchanged.insert(entry.path, (entry.mode, entry.oid));
            }
        }
        let may_convert = look::may_convert(repo, &git, head.keys().chain(unchanged.keys()))?;
        let read = HashMap::new();
        Ok(Some(Scene { commit, name, may_convert, git, head, staged, unchanged, changed, flagged, worktree, read }))
    }

    /// Files that are not as the index says.
    pub(super) fn changed(&self) -> &[Vec<u8>] {
        &self.changed
    }

    /// Is that a branch here, and no other name?
    pub(super) fn is_branch(&self, name: &str) -> bool {
        self.git.run(Plumbing::Resolve(&format!("refs/heads/{name}"))).is_ok_and(|ran| ran.success)
    }

    /// Compares with another commit's tree.
    pub(super) fn compare(&mut self, other: &Tree) -> anyhow::Result<Comparison> {
        let of_trees = self.head.keys().chain(other.keys()).filter(|path| self.head.get(*path) != other.get(*path));
        let in_head = |path: &Vec<u8>, oid: &Oid| self.head.get(path).is_some_and(|(_, head)| head == oid);
        let of_index = self.staged.iter().filter(|(path, oids)| !oids.iter().all(|oid| in_head(path, oid)));
        let all = of_trees.chain(&self.changed).chain(of_index.map(|(path, _)| path));
        let mut paths: Vec<Vec<u8>> = all.cloned().collect();
        paths.sort_unstable();
        paths.dedup();
        let mut found = Comparison::default();
        for path in paths {
            let (head, theirs) = (self.head.get(&path).copied(), other.get(&path).copied());
            let is_submodule = [head, theirs].iter().flatten().any(|(mode, _)| *mode == SUBMODULE);
            if is_submodule || self.flagged.contains(&path) {
                found.unknown += 1;
                continue;
            }
            let differ = head.map(|(_, oid)| oid) != theirs.map(|(_, oid)| oid);
            let now = self.now(&path)?;
            let is_new = head.is_none() && !self.unchanged.contains_key(&path) && !matches!(now, Now::Absent);
            let is_of_either = |oid: &Oid| [head, theirs].iter().flatten().any(|(_, known)| known == oid);
            if !self.staged.get(&path).is_none_or(|staged| staged.iter().all(is_of_either)) {
                // Staged by somebody, and nowhere else, whatever lies in the worktree.
                found.others.push(path);
            } else if differ && now.is(theirs.as_ref()) {
                found.new.extend(is_new.then(|| path.clone()));
                found.theirs.push(path);
            } else if now.is(head.as_ref()) {
                found.ours += 1;
            } else if differ && (matches!(now, Now::Absent) || self.is_cut(&path, theirs)?) {
                found.new.extend(is_new.then(|| path.clone()));
                found.cut.push(path);
            } else {
                found.others.push(path);
            }
        }
        Ok(found)
    }

    fn now(&mut self, path: &[u8]) -> anyhow::Result<Now> {
        if let Some((_, oid)) = self.unchanged.get(path) {
            return Ok(Now::Is(*oid));
        }
        if let Some(known) = self.read.get(path) {
            return Ok(*known);
        }
        let now = self.look(path)?;
        self.read.insert(path.to_owned(), now);
        Ok(now)
    }

    fn look(&self, path: &[u8]) -> anyhow::Result<Now> {
        let Ok(parent) = self.parent(path) else { return Ok(Now::Other) };
        let hash = Hash::of(&self.commit);
        let Some(parent) = parent else { return Ok(Now::Absent) };
        if let Some(target) = parent.read_link()? {
            return Ok(Now::Is(hash.blob(&target)));
        }
        match parent.open()? {
            Some(mut file) => {
                let size = file.metadata()?.len();
                Ok(hash.copy_blob(&mut file, size, &mut io::sink())?.map_or(Now::Other, Now::Is))
            }
            None if parent.stat()?.is_none() => Ok(Now::Absent),
            None => Ok(Now::Other),
        }
    }

    fn parent(&self, path: &[u8]) -> anyhow::Result<Option<Parent>> {
        Ok(self.worktree.root.parent(&RelPath::parse(path)?)?)
    }

    /// Does the file have the beginning of what the other commit has, and no more?
    fn is_cut(&self, path: &[u8], theirs: Option<(u32, Oid)>) -> anyhow::Result<bool> {
        let (Some((_, oid)), Ok(Some(parent))) = (theirs, self.parent(path)) else { return Ok(false) };
        let Some(file) = parent.open()? else { return Ok(false) };
        if file.metadata()?.len() > LARGEST {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(Batch::start(&self.git)?.content(&oid.hex())?.starts_with(&bytes))
    }
}
