//! The plan: what is wrong, what is done about it, what is lost. A value that is printed, and carried out.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::fs::named as fs;
use crate::git::{Oid, Repository};
use crate::recovery::{Action, LostIndex};
use crate::rescue::seen::Seen;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) what: String,
    /// What is done about it.
    pub(crate) repair: String,
    /// What cannot be had again, with its last known value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss: Option<String>,
}

/// One step. Steps of a kind are carried out in the order of [`Plan::steps`].
#[derive(Debug)]
pub(crate) enum Step {
    /// Makes a directory that git needs.
    MakeDirectory(PathBuf),
    /// Puts this in place; what is there goes to quarantine.
    Put { path: PathBuf, content: Vec<u8>, lock: Option<PathBuf> },
    /// Moves this to quarantine.
    SetAside(PathBuf),
    /// Makes an index of HEAD.
    RebuildIndex(LostIndex),
    /// Makes everything so far durable.
    Sync,
}

/// What is wrong, and what is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// What a person may want to know beside that.
    pub(crate) notes: Vec<String>,
    /// Objects first, then what names them.
    objects: Vec<Step>,
    corrupt: Vec<Step>,
    names: Vec<Step>,
    last: Vec<Step>,
    evidence: Vec<Step>,
    kept: Vec<PathBuf>,
    /// What it was made from.
    pub(crate) seen: Seen,
    /// The files of refs were lost, and what `packed-refs` says is older.
    pub(crate) lost_loose: bool,
    /// So many objects are missing.
    pub(crate) missing: usize,
    /// A remote that may have them, by the configuration of the repository.
    pub(crate) remote: Option<String>,
    /// No object is on a server, or in an alternate that is not there.
    pub(crate) all_here: bool,
}

impl Plan {
    /// Something is wrong, and nothing of it is lost.
    pub(crate) fn found(&mut self, what: impl Into<String>, repair: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), repair: repair.into(), loss: None });
    }

    /// Something is wrong, and `loss` cannot be had again.
    pub(crate) fn lost(&mut self, what: impl Into<String>, repair: impl Into<String>, loss: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), repair: repair.into(), loss: Some(loss.into()) });
    }

    /// Nothing is wrong?
    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Something cannot be had again?
    pub(crate) fn loses(&self) -> bool {
        self.problems.iter().any(|problem| problem.loss.is_some())
    }

    /// A file gets this content, under its lock.
    pub(crate) fn put_locked(&mut self, path: PathBuf, content: Vec<u8>) {
        let lock = Some(crate::fs::with_suffix(path.clone(), ".lock"));
        self.names.push(Step::Put { path, content, lock });
    }

    /// A file that git takes no lock for gets this content.
    pub(crate) fn put(&mut self, path: PathBuf, content: Vec<u8>) {
        self.names.push(Step::Put { path, content, lock: None });
    }

    /// A reflog gets this content, under the lock of its ref.
    pub(crate) fn put_under(&mut self, lock: PathBuf, path: PathBuf, content: Vec<u8>) {
        self.last.push(Step::Put { path, content, lock: Some(lock) });
    }

    /// A reflog comes before its ref: of a reflog without a ref a rescue that was killed makes the ref.
    pub(crate) fn put_log_first(&mut self, lock: PathBuf, path: PathBuf, content: Vec<u8>) {
        self.names.push(Step::Put { path, content, lock: Some(lock) });
    }

    /// This goes to quarantine: a name, which git finds nothing behind.
    pub(crate) fn set_name_aside(&mut self, path: PathBuf) {
        self.names.push(Step::SetAside(path));
    }

    /// This goes to quarantine after everything else: by it a rescue that was killed finds what was to be done.
    pub(crate) fn set_aside_last(&mut self, path: PathBuf) {
        self.evidence.push(Step::SetAside(path));
    }

    /// This goes to quarantine: an object, a pack, a cache of them.
    pub(crate) fn set_object_aside(&mut self, path: PathBuf) {
        self.corrupt.push(Step::SetAside(path));
    }

    /// An index is made of HEAD.
    pub(crate) fn rebuild_index(&mut self, index: LostIndex) {
        self.last.push(Step::RebuildIndex(index));
    }

    /// The directories without which git sees no repository.
    pub(crate) fn make_directories(&mut self, repo: &Repository) {
        for name in ["objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"] {
            let path = repo.common_dir.join(name);
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            // git itself can do without the others.
            if matches!(name, "objects" | "refs") {
                self.found(format!("{name}/ is missing"), "it is made again, empty");
            }
            self.objects.push(Step::MakeDirectory(path));
        }
    }

    /// An object, a pack or its index comes into the repository.
    pub(crate) fn put_object(&mut self, path: PathBuf, content: Vec<u8>) {
        if path.extension().is_some_and(|extension| extension == "pack") {
            self.kept.push(path.with_extension("keep"));
        }
        self.objects.push(Step::Put { path, content, lock: None });
    }

    /// Does such a one come to this path?
    pub(crate) fn puts_object(&self, path: &Path) -> bool {
        self.objects.iter().any(|step| matches!(step, Step::Put { path: new, .. } if new == path))
    }

    /// gc must not take this pack.
    pub(crate) fn keep(&mut self, pack: &Path) {
        self.kept.push(pack.with_extension("keep"));
    }

    /// Is everything still what it was when it was looked at?
    ///
    /// # Errors
    /// [`Changed`](crate::rescue::Changed) where it is not.
    pub(crate) fn require_unchanged(&self, repo: &Repository) -> anyhow::Result<()> {
        self.seen.require_all(repo)
    }

    /// What its steps are about.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let parts = [&self.objects, &self.corrupt, &self.names, &self.last, &self.evidence];
        parts.into_iter().flatten().map(Step::describe).collect()
    }

    /// The files that keep packs, and the steps in their order.
    pub(crate) fn into_steps(self) -> (Vec<PathBuf>, Vec<Step>) {
        let Plan { objects, corrupt, names, last, evidence, kept, .. } = self;
        // No ref may name what a power cut can still take.
        (kept, [objects, vec![Step::Sync], corrupt, names, last, evidence].into_iter().flatten().collect())
    }
}

/// An object's name, shortened.
pub(crate) fn short(oid: &Oid) -> String {
    oid.hex()[..10].to_owned()
}

impl Step {
    /// What it is about.
    pub(crate) fn describe(&self) -> PathBuf {
        match self {
            Step::MakeDirectory(path) | Step::Put { path, .. } | Step::SetAside(path) => path.clone(),
            Step::RebuildIndex(index) => index.path.clone(),
            Step::Sync => PathBuf::new(),
        }
    }

    /// As an action of recovery.
    pub(crate) fn into_actions(self) -> Vec<Action> {
        match self {
            Step::MakeDirectory(_) | Step::Put { .. } | Step::SetAside(_) => Vec::new(),
            Step::RebuildIndex(index) => vec![Action::RebuildIndex(index)],
            Step::Sync => vec![Action::Sync],
        }
    }
}
