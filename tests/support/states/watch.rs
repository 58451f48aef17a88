//! Watches a directory tree and says what changed between two looks.
//!
//! Every inode that is ever seen gets a second name in a pool, so that it stays alive, keeps its number, and can be put back
//! later under any name. A second name changes ctime and link count, but neither size nor modification time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Position in [`Watch::nodes`].
pub type NodeId = usize;
/// Position in [`Watch::names`].
pub type Key = usize;

/// The tree's root directory.
pub const ROOT: NodeId = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

impl Kind {
    fn of(metadata: &Metadata) -> Self {
        if metadata.is_dir() {
            Self::Directory
        } else if metadata.is_symlink() {
            Self::Symlink
        } else {
            Self::File
        }
    }
}

/// What a file held at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub content: Vec<u8>,
    pub modified: SystemTime,
}

/// A file, directory or symbolic link, whatever it is called.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    pub inode: u64,
    pub mode: u32,
    /// Where it was first seen, relative to the root.
    pub path: PathBuf,
    /// What a file held, oldest first; empty for the others.
    pub versions: Vec<Version>,
    /// Size, modification and change time when it was last read.
    mark: Option<(u64, SystemTime, i64, i64)>,
}

/// A place for a name, whether or not something has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    pub directory: NodeId,
    pub name: OsString,
}

/// One change, as far as a file system may lose it as a whole.
#[derive(Clone, Debug)]
pub enum Change {
    /// Content, size and modification time of a file.
    Data { node: NodeId, version: usize },
    /// What names lead to, and the new modification times of their directories. A rename has both names.
    Names { names: Vec<(Key, Option<NodeId>)>, modified: Vec<(NodeId, SystemTime)> },
}

pub struct Watch {
    pub root: PathBuf,
    pub pool: PathBuf,
    pub nodes: Vec<Node>,
    pub names: Vec<Name>,
    /// What each name leads to now.
    pub now: Vec<Option<NodeId>>,
    /// The modification times of the directories now.
    pub modified: HashMap<NodeId, SystemTime>,
    keys: HashMap<Name, Key>,
    inodes: HashMap<u64, NodeId>,
}

/// What one walk over the tree finds.
#[derive(Default)]
struct Walk {
    names: BTreeMap<Key, NodeId>,
    directories: HashSet<NodeId>,
    data: Vec<Change>,
}

impl Watch {
    /// Starts with everything that is below `root`.
    pub fn new(root: &Path, pool: &Path) -> io::Result<Self> {
        fs::create_dir(pool)?;
        let mut watch = Self {
            root: root.to_owned(),
            pool: pool.to_owned(),
            nodes: Vec::new(),
            names: Vec::new(),
            now: Vec::new(),
            modified: HashMap::new(),
            keys: HashMap::new(),
            inodes: HashMap::new(),
        };
        watch.node(root, &fs::symlink_metadata(root)?)?;
        watch.settle(None)?;
        Ok(watch)
    }

    /// Takes everything as it is now for the beginning.
    pub fn settle(&mut self, reread: Option<&Path>) -> io::Result<()> {
        self.look(reread)?;
        for node in &mut self.nodes {
            node.versions.drain(..node.versions.len().saturating_sub(1));
        }
        Ok(())
    }

    /// Returns what changed since the last look. The file at `reread` is read whatever its times say.
    pub fn look(&mut self, reread: Option<&Path>) -> io::Result<Vec<Change>> {
        let mut walk = Walk::default();
        let root = self.root.clone();
        self.visit(ROOT, &root, reread, &mut walk)?;
        let mut changes = self.compare(&walk.names);
        changes.append(&mut walk.data);
        // The number of a removed directory may come back as another file's.
        let nodes = &self.nodes;
        self.inodes.retain(|_, node| nodes[*node].kind != Kind::Directory || walk.directories.contains(node));
        Ok(changes)
    }

    /// Returns the node of an inode, if it has been seen.
    pub fn find(&self, inode: u64) -> Option<NodeId> {
        self.inodes.get(&inode).copied()
    }

    /// Returns where a name is, relative to the root, by the first names of its directories.
    pub fn path(&self, key: Key) -> PathBuf {
        let Name { directory, name } = &self.names[key];
        self.nodes[*directory].path.join(name)
    }

    fn visit(&mut self, directory: NodeId, path: &Path, reread: Option<&Path>, walk: &mut Walk) -> io::Result<()> {
        walk.directories.insert(directory);
        self.modified.insert(directory, fs::symlink_metadata(path)?.modified()?);
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match self.visit_entry(directory, entry.file_name(), &path, reread, walk) {
                // Another process is at work, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn visit_entry(
        &mut self,
        directory: NodeId,
        name: OsString,
        path: &Path,
        reread: Option<&Path>,
        walk: &mut Walk,
    ) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let node = self.node(path, &metadata)?;
        let key = self.key(Name { directory, name });
        walk.names.insert(key, node);
        match self.nodes[node].kind {
            Kind::Directory => self.visit(node, path, reread, walk)?,
            Kind::File if self.nodes[node].mark != mark(&metadata) || reread == Some(path) => {
                walk.data.extend(self.read(node, path)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn key(&mut self, name: Name) -> Key {
        *self.keys.entry(name.clone()).or_insert_with(|| {
            self.names.push(name);
            self.now.push(None);
            self.names.len() - 1
        })
    }

    /// Finds the node of what lies at `path`, or makes one. A new file begins empty.
    fn node(&mut self, path: &Path, metadata: &Metadata) -> io::Result<NodeId> {
        if let Some(&node) = self.inodes.get(&metadata.ino()) {
            self.nodes[node].mode = metadata.mode();
            return Ok(node);
        }
        let kind = Kind::of(metadata);
        if kind != Kind::Directory {
            fs::hard_link(path, self.pool.join(metadata.ino().to_string()))?;
        }
        let node = self.nodes.len();
        let empty = Version { content: Vec::new(), modified: metadata.modified()? };
        self.nodes.push(Node {
            kind,
            inode: metadata.ino(),
            mode: metadata.mode(),
            path: path.strip_prefix(&self.root).unwrap_or(path).to_owned(),
            versions: if kind == Kind::File { vec![empty] } else { Vec::new() },
            mark: None,
        });
        self.inodes.insert(metadata.ino(), node);
        Ok(node)
    }

    fn read(&mut self, node: NodeId, path: &Path) -> io::Result<Option<Change>> {
        // Times first: what is written meanwhile is read at the next look again.
        let metadata = fs::symlink_metadata(path)?;
        let version = Version { content: fs::read(path)?, modified: metadata.modified()? };
        let known = &mut self.nodes[node];
        known.mark = mark(&metadata);
        if known.versions.last() == Some(&version) {
            return Ok(None);
        }
        known.versions.push(version);
        Ok(Some(Change::Data { node, version: known.versions.len() - 1 }))
    }

    fn compare(&mut self, found: &BTreeMap<Key, NodeId>) -> Vec<Change> {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        for key in 0..self.names.len() {
            let (was, is) = (self.now[key], found.get(&key).copied());
            match (was, is) {
                _ if was == is => {}
                (_, Some(node)) => come.push((key, node)),
                (Some(node), None) => gone.push((key, node)),
                (None, None) => {}
            }
            self.now[key] = is;
        }
        let mut changes = Vec::new();
        for (key, node) in come {
            let mut names = vec![(key, Some(node))];
            if let Some(at) = gone.iter().position(|(_, from)| *from == node) {
                names.push((gone.remove(at).0, None));
            }
            changes.push(self.change_of(names));
        }
        changes.extend(gone.into_iter().map(|(key, _)| self.change_of(vec![(key, None)])));
        changes
    }

    fn change_of(&self, names: Vec<(Key, Option<NodeId>)>) -> Change {
        let directories = names.iter().map(|(key, _)| self.names[*key].directory);
        let modified = directories.filter_map(|it| Some((it, *self.modified.get(&it)?))).collect();
        Change::Names { names, modified }
    }
}

fn mark(metadata: &Metadata) -> Option<(u64, SystemTime, i64, i64)> {
    Some((metadata.len(), metadata.modified().ok()?, metadata.ctime(), metadata.ctime_nsec()))
}
