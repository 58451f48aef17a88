//! What a checkout writes: the content of a blob with the filters and line endings of its path, or a link's target as it is.
//!
//! git is started when the first content is asked for.
//!
//! Attributes are those of the worktree, or of a commit where that has others.

use crate::fs::beneath::RelPath;
use crate::git::cat_file::Batch;
use crate::git::filtered::Filtered;
use crate::git::{Git, Oid};
use crate::staging::worktree::Worktree;
use crate::wal::FileMode;

/// Hands out contents as a checkout would write them.
#[derive(Debug)]
pub(crate) struct CheckedOut {
    git: Git,
    attributes: Option<Oid>,
    filtered: Option<Filtered>,
    raw: Option<Batch>,
}

impl CheckedOut {
    /// Of blobs of the repository of `git`, in this worktree, with the attributes of this commit instead of the worktree's.
    pub(crate) fn new(git: &Git, worktree: &Worktree, attributes: Option<Oid>) -> CheckedOut {
        CheckedOut { git: git.worktree(&worktree.path), attributes, filtered: None, raw: None }
    }

    /// The content of the blob `oid` as the file `path`.
    pub(crate) fn content(&mut self, oid: &Oid, mode: FileMode, path: &RelPath) -> anyhow::Result<Vec<u8>> {
        if mode == FileMode::Symlink {
            let raw = match self.raw.take() {
                Some(raw) => raw,
                None => Batch::start(&self.git)?,
            };
            return self.raw.insert(raw).content(&oid.hex());
        }
        let filtered = match self.filtered.take() {
            Some(filtered) => filtered,
            None => Filtered::start(&self.git, self.attributes.as_ref())?,
        };
        self.filtered.insert(filtered).content(oid, path.as_bytes())
    }
}
