//! Puts staged files into place, and takes removed ones out. Every step is idempotent: it looks at what is there first.
//!
//! ```text
//!  there is       after-image       before-image                       anything else
//!  ──────────     ─────────────     ──────────────────────────────     ─────────────────
//!  do             nothing           exchange; look at what came out:   leave it, and say so
//!                                   another file? exchange again
//! ```
//! An exchange, unlike a rename over it, loses nothing: what somebody else wrote at the last moment comes out and goes
//! back.

use std::io;
use std::os::fd::AsFd;

use crate::fs::FileId;
use crate::fs::beneath::{self, Parent, RelPath, RenameMode, Root, Stat};
use crate::staging::image::{Found, look};
use crate::staging::stage;
use crate::staging::worktree::Worktree;
use crate::wal::{FileChange, FileImage};

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was put into place, or removed.
    Now,
    /// It was there, or gone, already.
    Already,
    /// Somebody else's work is there and stays; why.
    Left(String),
}

/// The two ends of the way.
pub(crate) struct Placing<'p> {
    pub worktree: &'p Worktree,
    pub stage: &'p Root,
    /// When the before-images were read (realtime, nanoseconds): a file that had not changed for a while by then is known
    /// by its identity. `None`: another process read them, perhaps in another boot; then contents are compared, those of
    /// the staged files included.
    pub read_at: Option<i64>,
}

/// Two changes of a file within this time may leave it the same times.
const CLOCK_GRAIN: i64 = 50_000_000;

impl Placing<'_> {
    /// Puts the `index`-th file into place.
    pub(crate) fn place(&self, index: usize, change: &FileChange) -> io::Result<Placed> {
        if self.worktree.is_gits_own(&change.path) {
            return Ok(Placed::Left("it lies in the git directory".to_owned()));
        }
        let parent = match change.after {
            Some(_) => self.worktree.root.make_parent(&change.path, 0o777, &mut Vec::new()).map(Some),
            None => self.worktree.root.parent(&change.path),
        };
        let parent = match parent {
            Ok(Some(parent)) => parent,
            Ok(None) => {
                // Killed between the file and the directories that it left empty.
                self.worktree.root.remove_empty_parents(&change.path)?;
                return Ok(Placed::Already);
            }
            Err(error) => return refused(error),
        };
        let placed = match change.after {
            Some(after) => self.put(index, change, after, &parent)?,
            None => self.remove(index, change, &parent)?,
        };
        if change.after.is_none() && !matches!(placed, Placed::Left(_)) {
            self.worktree.root.remove_empty_parents(&change.path)?;
        }
        Ok(placed)
    }

    fn put(&self, index: usize, change: &FileChange, after: FileImage, parent: &Parent) -> io::Result<Placed> {
        let Some(before) = change.before else {
            let staged = stage::name(index);
            if parent.stat()?.is_some() || !self.has_staged(index, change)? {
                return self.is_there(parent, after);
            }
            return match parent.put(self.stage_dir(&staged)?.as_fd(), staged.name(), RenameMode::NoReplace) {
                Ok(()) => Ok(Placed::Now),
                Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                    self.is_there(parent, after)
                }
                Err(error) => Err(error),
            };
        };
        let Some(there) = self.before_image(change, before, parent)? else { return self.is_there(parent, after) };
        if !self.has_staged(index, change)? {
            return Ok(Placed::Left("its new content is lost".to_owned()));
        }
        self.exchange(index, parent, there.id)
    }

    fn remove(&self, index: usize, change: &FileChange, parent: &Parent) -> io::Result<Placed> {
        let Some(before) = change.before else { return Ok(Placed::Already) };
        let Some(there) = self.before_image(change, before, parent)? else {
            return Ok(match look(parent, self.worktree.hash)? {
                Found::Nothing => Placed::Already,
                _ => left_alone(),
            });
        };
        let aside = stage::name(index);
        let dir = self.stage_dir(&aside)?;
        match parent.take_out(dir.as_fd(), aside.name()) {
            Ok(()) => {}
            // It was taken out before, and somebody has made it anew.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(left_alone()),
            Err(error) => return Err(error),
        }
        if is_same(dir.stat()?, there.id) {
            return Ok(Placed::Now);
        }
        parent.put(dir.as_fd(), aside.name(), RenameMode::NoReplace)?;
        Ok(left_alone())
    }

    fn exchange(&self, index: usize, parent: &Parent, there: FileId) -> io::Result<Placed> {
        let staged = stage::name(index);
        let dir = self.stage_dir(&staged)?;
        match parent.put(dir.as_fd(), staged.name(), RenameMode::Exchange) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(left_alone()),
            // The file system cannot.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return self.replace(index, parent, there),
            Err(error) => return Err(error),
        }
        if is_same(dir.stat()?, there) {
            return Ok(Placed::Now);
        }
        parent.put(dir.as_fd(), staged.name(), RenameMode::Exchange)?;
        Ok(left_alone())
    }

    /// Where two names cannot be exchanged: a second name for what is there, then a rename over it.
    fn replace(&self, index: usize, parent: &Parent, there: FileId) -> io::Result<Placed> {
        let (staged, second) = (stage::name(index), stage::second_name(index));
        let dir = self.stage_dir(&second)?;
        dir.unlink()?;
        parent.link_to(dir.as_fd(), second.name())?;
        if !is_same(dir.stat()?, there) {
            dir.unlink()?;
            return Ok(left_alone());
        }
        parent.put(dir.as_fd(), staged.name(), RenameMode::Replace)?;
        Ok(Placed::Now)
    }

    /// The before-image, if it is there: by identity if that is sure, else by content.
    fn before_image(&self, change: &FileChange, before: FileImage, parent: &Parent) -> io::Result<Option<Stat>> {
        let there = parent.stat()?;
        if let (Some(there), Some(file), Some(read_at)) = (there, change.file, self.read_at)
            && there.id == file
            && file.ctime + CLOCK_GRAIN < read_at
        {
            return Ok(Some(there));
        }
        Ok(match look(parent, self.worktree.hash)? {
            Found::File(image, stat) if image == before => Some(stat),
            _ => None,
        })
    }

    /// What is staged is what was decided: neither lost nor cut by a power cut.
    fn has_staged(&self, index: usize, change: &FileChange) -> io::Result<bool> {
        if self.read_at.is_some() {
            return Ok(true);
        }
        let dir = self.stage_dir(&stage::name(index))?;
        Ok(look(&dir, self.worktree.hash)?.image().ok().flatten() == change.after)
    }

    fn is_there(&self, parent: &Parent, after: FileImage) -> io::Result<Placed> {
        Ok(match look(parent, self.worktree.hash)? {
            Found::File(image, _) if image == after => Placed::Already,
            Found::Nothing => Placed::Left("it is gone, or its new content is".to_owned()),
            _ => left_alone(),
        })
    }

    fn stage_dir(&self, name: &RelPath) -> io::Result<Parent> {
        self.stage.parent(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn left_alone() -> Placed {
    Placed::Left("another process has changed it".to_owned())
}

fn is_same(arrived: Option<Stat>, there: FileId) -> bool {
    arrived.is_some_and(|a| a.id.is_same_file(&there))
}

/// A link or file on the way is somebody else's work; anything else is an error.
fn refused(error: io::Error) -> io::Result<Placed> {
    match beneath::refusal(&error) {
        Some(refusal) => Ok(Placed::Left(refusal.to_string())),
        None => Err(error),
    }
}

/// Makes the names durable that were changed.
pub(crate) fn sync_directories(worktree: &Worktree, files: &[FileChange]) -> io::Result<()> {
    let mut directories: Vec<Option<RelPath>> = files.iter().map(|f| f.path.parent()).collect();
    directories.sort();
    directories.dedup();
    for directory in directories {
        // A directory that went with its last file: what it was in changed.
        let mut at = directory.map(|d| d.as_bytes().to_vec());
        loop {
            let inside = at.as_deref().map_or_else(|| b"x".to_vec(), |d| [d, b"/x"].concat());
            let path = RelPath::parse(&inside).map_err(io::Error::other)?;
            match worktree.root.parent(&path) {
                Ok(Some(parent)) => break parent.fsync()?,
                Ok(None) => {}
                // Somebody put something else there: not ours to sync.
                Err(_) => break,
            }
            at = at.and_then(|d| d.iter().rposition(|b| *b == b'/').map(|slash| d[..slash].to_vec()));
        }
    }
    Ok(())
}
