//! Expectations that are not met, all of them at once.

use std::io;

use crate::apply::queue::{Expected, FileItem};
use crate::apply::refs::{self, Target};
use crate::fs::FileId;
use crate::fs::beneath::{Kind, Parent, RelPath, refusal};
use crate::git::refs::Value;
use crate::git::{Git, Repository};
use crate::staging::image::{Found, look};
use crate::staging::worktree::Worktree;
use crate::wal::{FileChange, FileImage};

/// One item that is not as it was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetItem {
    /// The ref or the path.
    pub item: String,
    /// What was expected.
    pub expected: String,
    /// What there is.
    pub found: String,
}

/// The transaction does not happen, and nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unmet {
    /// Everything that is not as it was expected.
    pub items: Vec<UnmetItem>,
}

impl std::fmt::Display for Unmet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing was changed: not everything is as expected")?;
        for UnmetItem { item, expected, found } in &self.items {
            write!(f, "\n  {item}: expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

/// A file as it was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub image: Option<FileImage>,
    pub file: Option<FileId>,
}

/// Compares the values of refs with what is expected of them.
pub(crate) fn of_refs(targets: &[Target], values: &[Value]) -> Vec<UnmetItem> {
    let pairs = targets.iter().zip(values);
    let unmet = pairs.filter(|(target, now)| !refs::is_met(&target.expected, now));
    let item = |(target, now): (&Target, &Value)| UnmetItem {
        item: target.name.to_string(),
        expected: target.expected.to_string(),
        found: now.to_string(),
    };
    unmet.map(item).collect()
}

/// Looks at every file, and at where it is to be.
pub(crate) fn look_at_files(
    worktree: &Worktree,
    items: &[FileItem],
    device: u64,
    unmet: &mut Vec<UnmetItem>,
) -> anyhow::Result<Vec<Before>> {
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let mut miss = |expected: &str, found: &str| {
            let (item, expected, found) = (item.path.to_string(), expected.to_owned(), found.to_owned());
            unmet.push(UnmetItem { item, expected, found });
        };
        let mut before = Before { image: None, file: None };
        if worktree.is_gits_own(&item.path) {
            miss("a path in the worktree", "the git directory");
            found.push(before);
            continue;
        }
        match look_at(worktree, &item.path)? {
            Looked::Refused(why) => miss("a path in the worktree", &why),
            Looked::Found(Found::Odd(kind)) => miss("a file", name_of(kind)),
            Looked::Found(Found::File(image, stat)) => {
                let met = matches!(&item.expected, Expected::Anything)
                    || matches!(&item.expected, Expected::Exactly(blob) if *blob == image.blob);
                if !met {
                    miss(&item.expected.to_string(), &image.to_string());
                }
                before = Before { image: Some(image), file: Some(stat.id) };
            }
            Looked::Found(Found::Nothing) => {
                if !matches!(item.expected, Expected::Anything | Expected::Absent) {
                    miss(&item.expected.to_string(), "absent");
                }
            }
        }
        // Where nothing is removed nothing has to be writable.
        if (item.to.is_some() || before.image.is_some())
            && let Some(why) = why_not_writable(worktree, &item.path, device)?
        {
            miss("a directory that files can be put into", &why);
        }
        found.push(before);
    }
    Ok(found)
}

enum Looked {
    Found(Found),
    Refused(String),
}

fn look_at(worktree: &Worktree, path: &RelPath) -> anyhow::Result<Looked> {
    let parent = match worktree.root.parent(path) {
        Ok(Some(parent)) => parent,
        Ok(None) => return Ok(Looked::Found(Found::Nothing)),
        Err(error) => return refused(error),
    };
    match look(&parent, worktree.hash) {
        Ok(found) => Ok(Looked::Found(found)),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read `{path}`"))),
    }
}

fn refused(error: io::Error) -> anyhow::Result<Looked> {
    match refusal(&error) {
        Some(refusal) => Ok(Looked::Refused(refusal.to_string())),
        None => Err(error.into()),
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "a directory",
        Kind::File | Kind::Symlink => "a file",
        Kind::Other => "a fifo, socket or device",
    }
}

/// The innermost directory that exists must take new names, and lie where the stage lies.
fn why_not_writable(worktree: &Worktree, path: &RelPath, device: u64) -> anyhow::Result<Option<String>> {
    let mut at = Some(path.clone());
    let dir: Option<Parent> = loop {
        let Some(here) = at else { break None };
        match worktree.root.parent(&here) {
            Ok(Some(parent)) => break Some(parent),
            Ok(None) => at = here.parent(),
            // It has been refused already.
            Err(_) => break None,
        }
    };
    let Some(dir) = dir else { return Ok(None) };
    if dir.device()? != device {
        return Ok(Some("another file system than that of the git directory".to_owned()));
    }
    Ok(dir.why_not_writable()?.map(|error| error.to_string()))
}

/// Has any file changed since it was looked at? Asked once more right before the commit point.
pub(crate) fn recheck(worktree: &Worktree, files: &[FileChange]) -> anyhow::Result<()> {
    let mut items = Vec::new();
    for change in files {
        let looked = match worktree.root.parent(&change.path) {
            Ok(Some(parent)) if parent.stat()?.map(|s| s.id) == change.file => continue,
            Ok(None) if change.file.is_none() => continue,
            _ => look_at(worktree, &change.path)?,
        };
        let found = match looked {
            Looked::Refused(why) => why,
            Looked::Found(found) => match found.image() {
                // Touched, but the same.
                Ok(image) if image == change.before => continue,
                Ok(image) => image.map_or_else(|| "absent".to_owned(), |i| i.to_string()),
                Err(kind) => name_of(kind).to_owned(),
            },
        };
        let expected = change.before.map_or_else(|| "absent".to_owned(), |i| i.to_string());
        items.push(UnmetItem { item: change.path.to_string(), expected, found });
    }
    if items.is_empty() { Ok(()) } else { Err(Unmet { items }.into()) }
}

/// After git has refused: which refs are not as expected? git names only the first.
pub(crate) fn explain(repo: &Repository, git: &Git, targets: &[Target], refusal: anyhow::Error) -> anyhow::Error {
    match refs::values(repo, git, targets) {
        Ok(values) => {
            let items = of_refs(targets, &values);
            if items.is_empty() { refusal } else { refusal.context(Unmet { items }) }
        }
        Err(_) => refusal,
    }
}
