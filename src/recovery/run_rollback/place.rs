//! Putting things back below one directory (the worktree, a git directory), and moving aside what is there instead.
//!
//! Nothing is destroyed: what has to make way goes to quarantine, by rename, before anything takes its place. Every step
//! looks at what is there now, so that it can be cut anywhere and done again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::OFlags;

use crate::fs::access::Purpose;
use crate::fs::beneath::{Kind, RelPath, RenameMode, Root, Stat};
use crate::fs::{door, durable, moving, named as fs};

use crate::run::manifest::{Content, Kept};
use crate::run::reachable;
use crate::state::quarantine::{flat, free_name};
use crate::util::text::{shown, unescape};

/// The name under which a file is made ready, below the run's directory.
pub(crate) const READY: &str = "ready";

/// One directory that things are put back to.
pub(crate) struct RestoreTarget<'p> {
    root: Root,
    /// Where what is moved aside goes.
    aside: PathBuf,
    /// The run's directory, with its copies.
    run: &'p Path,
    /// Where its copies lie.
    copies: &'p Path,
    /// How many things were moved aside.
    pub(crate) moved: usize,
    /// How many were put back.
    pub(crate) put: usize,
}

impl<'p> RestoreTarget<'p> {
    pub(crate) fn new(
        dir: &Path,
        aside: PathBuf,
        run: &'p Path,
        copies: &'p Path,
    ) -> anyhow::Result<RestoreTarget<'p>> {
        let root = Root::open_itself(dir).with_context(|| format!("cannot open {}", shown(dir)))?;
        Ok(RestoreTarget { root, aside, run, copies, moved: 0, put: 0 })
    }

    /// Is it the directory with this inode?
    pub(crate) fn is_directory(&self, inode: u64) -> bool {
        self.root.inode().is_ok_and(|own| own == inode)
    }

    /// What is at `path` now.
    pub(crate) fn now(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        match reachable(self.root.parent(path))? {
            Some(parent) => parent.stat(),
            None => Ok(None),
        }
    }

    /// The same for who only looks: where nobody may look nothing is seen.
    pub(crate) fn seen(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        let found = self.now(path);
        if found.as_ref().is_err_and(is_closed) { Ok(None) } else { found }
    }

    /// Is something else at the path than what was kept?
    pub(crate) fn differs(&self, kept: &Kept) -> anyhow::Result<bool> {
        let now = match self.now(&kept.path) {
            // It is not what was kept, which we have seen.
            Err(error) if is_closed(&error) => return Ok(true),
            now => now?,
        };
        let Some(stat) = now else { return Ok(!matches!(kept.content, Content::Absent | Content::Opaque)) };
        Ok(match &kept.content {
            Content::Absent => true,
            Content::Opaque => false,
            _ if kept.id == Some(stat.id) => false,
            Content::Link { target } => {
                let link = reachable(self.root.parent(&kept.path))?.map(|p| p.read_link()).transpose()?.flatten();
                link != unescape(target)
            }
            Content::File { mode, copy, .. } => {
                let parent = reachable(self.root.parent(&kept.path))?;
                let file = match parent.map(|p| p.open()).transpose() {
                    Err(error) if is_closed(&error) => return Ok(true),
                    opened => opened?.flatten(),
                };
                let Some(file) = file.filter(|_| stat.kind == Kind::File && stat.mode == *mode) else {
                    return Ok(true);
                };
                !same_content(file, self.copy(*copy)?)?
            }
        })
    }

    fn copy(&self, number: u64) -> io::Result<File> {
        let path = self.copies.join(number.to_string());
        door::place(&path)?.open()?.ok_or_else(|| io::Error::other(format!("{} is not a regular file", shown(&path))))
    }

    /// Makes `path` free: what is there, or in place of a directory on the way, goes to quarantine.
    pub(crate) fn clear(&mut self, path: &RelPath) -> anyhow::Result<()> {
        for above in path.ancestors() {
            match self.now(&above)? {
                Some(stat) if stat.kind != Kind::Directory => return self.move_aside(&above),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        if self.now(path)?.is_some() { self.move_aside(path) } else { Ok(()) }
    }

    /// Moves what is at `path` to quarantine, and the directories that this leaves empty away.
    pub(crate) fn remove(&mut self, path: &RelPath) -> anyhow::Result<()> {
        if self.now(path)?.is_some() {
            self.move_aside(path)?;
            self.root.remove_empty_parents(path)?;
        }
        Ok(())
    }

    fn move_aside(&mut self, path: &RelPath) -> anyhow::Result<()> {
        let cannot = || format!("cannot move {path} to quarantine");
        let Some(parent) = reachable(self.root.parent(path)).with_context(cannot)? else { return Ok(()) };
        let dir = path.parent().map_or_else(|| self.aside.clone(), |above| self.aside.join(above.as_path()));
        durable::make_dirs(&dir, Purpose::State).with_context(cannot)?;
        let to = free_name(&dir, &path.name().to_string_lossy()).with_context(cannot)?;
        let name = to.file_name().unwrap_or_default();
        let opened = door::open_dir(&dir).with_context(cannot)?;
        match parent.take_out(opened.as_fd(), name) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Another file system: a copy, and then the original goes.
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                moving::move_new(&parent.whole(), &to).with_context(cannot)?;
            }
            Err(e) => return Err(e).with_context(cannot),
        }
        self.moved += 1;
        Ok(())
    }

    /// Puts back what was kept, if it is not there.
    pub(crate) fn put_back(&mut self, kept: &Kept) -> anyhow::Result<()> {
        if !self.differs(kept)? {
            return Ok(());
        }
        match &kept.content {
            Content::Opaque => Ok(()),
            Content::Absent => self.remove(&kept.path),
            Content::Link { target } => {
                let target = unescape(target).context("the snapshot has a link without a target")?;
                self.put_link(&kept.path, &target)
            }
            Content::File { mode, copy, .. } => {
                let copy = self.copy(*copy)?;
                self.put_file(&kept.path, *mode, |ready| Ok(durable::copy_new(&copy, ready)?))
            }
        }
    }

    pub(crate) fn put_link(&mut self, path: &RelPath, target: &[u8]) -> anyhow::Result<()> {
        let cannot = || format!("cannot put {path} back");
        self.clear(path)?;
        let parent = self.root.make_parent(path, 0o777, &mut Vec::new()).with_context(cannot)?;
        parent.symlink(target).with_context(cannot)?;
        self.put += 1;
        Ok(())
    }

    /// Puts a file back that `make` writes: complete, or not at all.
    pub(crate) fn put_file(
        &mut self,
        path: &RelPath,
        mode: u32,
        make: impl FnOnce(&Path) -> anyhow::Result<File>,
    ) -> anyhow::Result<()> {
        let cannot = || format!("cannot put {path} back");
        let ready = self.run.join(READY);
        durable::remove_file(&ready)?;
        let file = make(&ready).with_context(cannot)?;
        fs::at(&ready, file.set_permissions(fs::Permissions::from_mode(mode))).with_context(cannot)?;
        self.clear(path)?;
        let parent = self.root.make_parent(path, 0o777, &mut Vec::new()).with_context(cannot)?;
        let dir = door::open_dir(self.run)?;
        match parent.put(dir.as_fd(), READY.as_ref(), RenameMode::NoReplace) {
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                let mut to = parent.create_new(mode).with_context(cannot)?;
                io::copy(&mut door::open(&ready, OFlags::RDONLY, 0)?, &mut to).with_context(cannot)?;
                to.set_permissions(fs::Permissions::from_mode(mode)).with_context(cannot)?;
                durable::remove_file(&ready)?;
            }
            other => other.with_context(cannot)?,
        }
        self.put += 1;
        Ok(())
    }

    /// Gives the second name of an ignored file the place of the first again.
    pub(crate) fn put_second_name(&mut self, path: &RelPath, copy: u64) -> anyhow::Result<()> {
        let cannot = || format!("cannot put {path} back");
        self.clear(path)?;
        let parent = self.root.make_parent(path, 0o777, &mut Vec::new()).with_context(cannot)?;
        let dir = door::open_dir(self.copies)?;
        parent.put(dir.as_fd(), copy.to_string().as_ref(), RenameMode::NoReplace).with_context(cannot)?;
        self.put += 1;
        Ok(())
    }

    /// Moves the second name of an ignored file to quarantine: the file itself was replaced by another.
    pub(crate) fn quarantine_second_name(&mut self, path: &RelPath, copy: u64) -> anyhow::Result<()> {
        let dir = self.aside.join("ignored");
        durable::make_dirs(&dir, Purpose::State)?;
        let to = free_name(&dir, &flat(&path.to_string()))?;
        match moving::move_new(&self.copies.join(copy.to_string()), &to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Removes the directory `dir` when it is empty.
    pub(crate) fn remove_empty(&self, dir: &str) -> anyhow::Result<()> {
        self.root.remove_empty(&RelPath::parse(dir.as_bytes())?)?;
        Ok(())
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Compares two files without holding either.
fn same_content(one: File, other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(one), io::BufReader::new(other));
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (n, m) = (read_full(&mut one, &mut a)?, read_full(&mut other, &mut b)?);
        if a[..n] != b[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match from.read(&mut buffer[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}
