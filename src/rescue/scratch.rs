//! A directory of ours outside of the damaged repository, with repositories of ours in it. It is readable for this user alone, and is
//! removed at the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use crate::fs::{door, durable, named as fs};
use crate::git::Git;
use crate::git::hash::Hash;
use crate::rescue::alternates;
use crate::util::text::shown;

/// The directory.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if durable::remove_tree(&self.0).is_err() {
            // It lies among temporary files.
        }
    }
}

impl Scratch {
    /// A new one in this directory.
    pub(crate) fn make(parent: &Path) -> anyhow::Result<Scratch> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let parent = fs::canonicalize(parent).with_context(|| format!("cannot use {}", shown(parent)))?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("jin-rescue.{}.{number}", std::process::id()));
            match door::place(&path)?.make_dir(0o700) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    return made
                        .map(|()| Scratch(path.clone()))
                        .with_context(|| format!("cannot make {}", shown(&path)));
                }
            }
        }
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory in it.
    pub(crate) fn make_dir(&self, name: &str) -> anyhow::Result<()> {
        Ok(door::place(&self.path(name))?.make_dir(0o700)?)
    }

    /// An empty repository in it, which borrows from these object directories.
    pub(crate) fn repository(&self, git: &Git, name: &str, hash: Hash, borrowed: &[PathBuf]) -> anyhow::Result<Git> {
        for part in ["", "/objects", "/objects/info", "/objects/pack", "/refs"] {
            self.make_dir(&format!("{name}{part}"))?;
        }
        let git_dir = self.path(name);
        let (version, extension) = match hash {
            Hash::Sha1 => (0, ""),
            Hash::Sha256 => (1, "[extensions]\n\tobjectformat = sha256\n"),
        };
        let config = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        durable::create_new(&git_dir.join("config"), config.as_bytes())?;
        durable::create_new(&git_dir.join("HEAD"), b"ref: refs/heads/none\n")?;
        if !borrowed.is_empty() {
            let text = alternates::encode(borrowed.iter().map(PathBuf::as_path));
            durable::create_new(&git_dir.join("objects/info/alternates"), &text)?;
        }
        Ok(git.at(&git_dir))
    }
}
