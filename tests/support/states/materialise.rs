//! Puts a state on the disk, in place: the same inodes below the same path, whatever happened to them since.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::enumerate::{Data, Tree};
use super::recording::Recording;
use super::watch::{Kind, NodeId, ROOT};

type Children = HashMap<NodeId, HashMap<OsString, NodeId>>;

impl Recording {
    /// Makes the repository's directory equal to `tree`. Directories that are there stay, `.git/.jin` for one.
    pub fn materialise(&self, tree: &Tree) -> io::Result<()> {
        let mut children = Children::new();
        for (key, node) in tree.names.iter().enumerate() {
            if let Some(node) = node {
                let name = &self.watch.names[key];
                children.entry(name.directory).or_default().insert(name.name.clone(), *node);
            }
        }
        self.fill(ROOT, &self.watch.root, &children, tree)
    }

    fn fill(&self, directory: NodeId, path: &Path, children: &Children, tree: &Tree) -> io::Result<()> {
        let nothing = HashMap::new();
        let wanted = children.get(&directory).unwrap_or(&nothing);
        self.remove_others(path, wanted)?;
        for (name, node) in wanted {
            let path = path.join(name);
            match self.watch.nodes[*node].kind {
                Kind::Directory => {
                    if !path.is_dir() {
                        fs::create_dir(&path)?;
                    }
                    self.fill(*node, &path, children, tree)?;
                }
                kind => {
                    if fs::symlink_metadata(&path).is_err() {
                        fs::hard_link(self.watch.pool.join(self.watch.nodes[*node].inode.to_string()), &path)?;
                    }
                    if kind == Kind::File {
                        let (content, modified) = self.content(*node, tree.data[*node]);
                        restore(&path, self.watch.nodes[*node].mode, &content, modified)?;
                    }
                }
            }
        }
        fs::set_permissions(path, Permissions::from_mode(self.watch.nodes[directory].mode & 0o7777))?;
        tree.modified.get(&directory).map_or(Ok(()), |modified| set_modified(&File::open(path)?, *modified))
    }

    fn remove_others(&self, path: &Path, wanted: &HashMap<OsString, NodeId>) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let (entry_name, path) = entry.map(|it| (it.file_name(), it.path()))?;
            let metadata = fs::symlink_metadata(&path)?;
            let node = wanted.get(&entry_name).map(|node| &self.watch.nodes[*node]);
            match node {
                Some(node) if node.kind == Kind::Directory && metadata.is_dir() => {}
                Some(node) if node.kind != Kind::Directory && metadata.ino() == node.inode => {}
                _ if metadata.is_dir() => fs::remove_dir_all(&path)?,
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(())
    }

    /// What a file holds, and when it was modified.
    pub fn content(&self, node: NodeId, data: Data) -> (Cow<'_, [u8]>, SystemTime) {
        let versions = &self.watch.nodes[node].versions;
        let old = &versions[data.version];
        let Some(new) = data.zeroed.map(|version| &versions[version]) else {
            return (Cow::Borrowed(&old.content), old.modified);
        };
        let survives = |(at, byte): (usize, &u8)| if old.content.get(at) == Some(byte) { *byte } else { 0 };
        (Cow::Owned(new.content.iter().enumerate().map(survives).collect()), new.modified)
    }
}

fn restore(path: &Path, mode: u32, content: &[u8], modified: SystemTime) -> io::Result<()> {
    if fs::read(path)? != content {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        OpenOptions::new().write(true).truncate(true).open(path)?.write_all(content)?;
    }
    let metadata = fs::symlink_metadata(path)?;
    if metadata.mode() & 0o7777 != mode & 0o7777 {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    }
    if metadata.modified()? != modified { set_modified(&File::open(path)?, modified) } else { Ok(()) }
}

fn set_modified(file: &File, modified: SystemTime) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(modified))
}
