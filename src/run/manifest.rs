//! What a run found when it began: the text of the snapshot. Contents lie beside it, numbered.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::fs::beneath::RelPath;
use crate::fs::{FileId, durable};
use crate::git::{RefName, Value};
use crate::state::{StateDir, TxId};
use crate::util::text::{escape, shown, unescape};
use crate::wal::Seal;

/// The version of the format.
const VERSION: u32 = 1;

/// The most that a snapshot has, in bytes: some million paths.
const LARGEST: u64 = 1 << 30;

/// The file below `tx/<id>/`.
const NAME: &str = "snapshot.json";

/// What was at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Nothing.
    Absent,
    /// A file, whose bytes are kept.
    File {
        /// Permission bits.
        mode: u32,
        /// The number of the copy.
        copy: u64,
        /// Which file the copy is. Without it none is.
        #[serde(default)]
        identity: FileId,
    },
    /// A symbolic link.
    Link {
        /// What it points to, escaped.
        target: String,
    },
    /// Something whose content is not kept: a nested repository, a socket.
    Opaque,
}

/// One path, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The path.
    pub path: RelPath,
    /// What was there.
    pub content: Content,
    /// Which file it was: while that is still there, nothing has to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<FileId>,
}

/// A file that git ignores. It is left alone, unless git itself replaces it or somebody removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// The path.
    pub path: RelPath,
    /// Which file it was.
    pub id: FileId,
    /// The number of its second name; `None` when only its name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<u64>,
}

/// A reflog, as it was: it only ever grows, or is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLog {
    /// Its ref.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Its size; `None` when there was none.
    pub size: Option<u64>,
}

/// What led git to our hooks when a run began, and how the repository is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The repository's settings about hooks.
    pub settings: Vec<String>,
    /// Where the hook lies that git calls for refs, escaped, when that is known.
    pub hook: Option<String>,
    /// Which file it is.
    pub hook_id: Option<FileId>,
    /// Where the configuration is a link: which file it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_config: Option<FileId>,
    /// The repository's settings about formats of refs and objects.
    pub formats: Vec<String>,
}

/// The snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// The worktree's root, escaped; `None` in a bare repository.
    pub worktree: Option<String>,
    /// Inode of that root: a worktree that is moved is another one's place then.
    pub root: Option<u64>,
    /// The index, below the worktree's git directory.
    pub index: Option<Kept>,
    /// Files of the worktree's own git directory.
    pub own: Vec<Kept>,
    /// Files of the shared git directory, when that is another one.
    pub shared: Vec<Kept>,
    /// Worktree: what differs from the index, and what git does not track.
    pub files: Vec<Kept>,
    /// Worktree: ignored files.
    pub ignored: Vec<Ignored>,
    /// Worktree: ignored directories and nested repositories, by name only.
    pub by_name: Vec<RelPath>,
    /// Reflogs that git changes without any transaction.
    pub reflogs: Vec<KeptLog>,
    /// The newest stash.
    pub stash: Option<Value>,
    /// Every ref of the repository, and of the worktree below `refs/`.
    pub refs: BTreeMap<RefName, Value>,
    /// What led git to our hooks, and how the repository is stored.
    pub guard: Guard,
    /// Linked worktrees.
    pub linked: Vec<String>,
}

impl Manifest {
    /// Writes it down for the run `id`, for the owner alone (and the group, where that shares the repository). Returns its
    /// SHA-256, in hex.
    pub fn store(&self, state: &StateDir, id: TxId) -> anyhow::Result<String> {
        let text = serde_json::to_vec(&Manifest { version: VERSION, ..self.clone() })?;
        durable::create_new(&state.tx(id).join(NAME), &text)?;
        Ok(sha256(&text))
    }

    /// Reads the snapshot of the run `id`, if it is the one that was written with `sealed`.
    ///
    /// # Errors
    /// It cannot be read, is another one, lies in a copy of the state directory, or was written by a newer version.
    pub fn load(state: &StateDir, id: TxId, sealed: Option<&Seal>) -> anyhow::Result<Manifest> {
        use anyhow::Context;
        let path = state.tx(id).join(NAME);
        let cannot = || format!("cannot read the snapshot {}", shown(&path));
        let sealed = sealed.with_context(|| format!("the log does not know the snapshot {}", shown(&path)))?;
        anyhow::ensure!(
            !sealed.state_dir.is_another(&state.birth()?),
            "this is a copy of the repository that it ran in: it can be taken back there alone"
        );
        let text = durable::read_own(&path, LARGEST).with_context(cannot)?;
        anyhow::ensure!(sha256(&text) == sealed.sha256, "{} is not the snapshot that it took", shown(&path));
        let manifest: Manifest = serde_json::from_slice(&text).with_context(cannot)?;
        anyhow::ensure!(manifest.version == VERSION, "{} has format {}, not {VERSION}", shown(&path), manifest.version);
        Ok(manifest)
    }

    /// The worktree's root.
    #[must_use]
    pub fn worktree(&self) -> Option<std::path::PathBuf> {
        let bytes = unescape(self.worktree.as_ref()?)?;
        Some(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into())
    }

    /// Is the worktree where it was?
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let there = |root: std::path::PathBuf| std::fs::symlink_metadata(root).map(|m| m.ino()).ok();
        self.worktree().is_none_or(|root| there(root) == self.root)
    }

    /// Was something at `path` whose content is not in the snapshot, or did it lie below such a thing?
    #[must_use]
    pub fn is_by_name(&self, path: &RelPath) -> bool {
        let below = |dir: &RelPath| {
            let rest = path.as_bytes().strip_prefix(dir.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        self.by_name.iter().any(below)
    }
}

fn sha256(text: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path of the machine as text.
pub(crate) fn path_text(path: &std::path::Path) -> String {
    escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).into_owned()
}
