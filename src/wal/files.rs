//! Files of a transaction, as the log has them.
//!
//! A file is known by what git would make of it: the object name of its bytes, and one of three modes. So `git cat-file`
//! shows whether two images are the same, and nothing of the content is in the log.

use serde::{Deserialize, Serialize};

use crate::fs::FileId;
use crate::fs::beneath::RelPath;
use crate::git::Oid;

/// git's modes of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileMode {
    /// A regular file.
    #[serde(rename = "100644")]
    Plain,
    /// A regular file that its owner may execute.
    #[serde(rename = "100755")]
    Executable,
    /// A symbolic link; its bytes are the target.
    #[serde(rename = "120000")]
    Symlink,
}

impl FileMode {
    /// As git writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FileMode::Plain => "100644",
            FileMode::Executable => "100755",
            FileMode::Symlink => "120000",
        }
    }
}

impl std::str::FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [FileMode::Plain, FileMode::Executable, FileMode::Symlink]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("`{}` is not the mode of a file: 100644, 100755 or 120000", text.escape_debug()))
    }
}

/// What a file is: its bytes, by the name that git gives them, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileImage {
    /// Object name of the bytes as they lie in the worktree (no filter, no conversion of line endings).
    #[serde(with = "oid_text")]
    pub blob: Oid,
    /// Its mode.
    pub mode: FileMode,
}

impl std::fmt::Display for FileImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.mode.as_str(), self.blob)
    }
}

/// One file of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileChange {
    /// Its path in the worktree.
    pub path: RelPath,
    /// Before-image; `None` when there was nothing.
    pub before: Option<FileImage>,
    /// After-image; `None` when it is removed.
    pub after: Option<FileImage>,
    /// Which file the before-image was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
    /// The staged after-image: renamed into place it is known by inode, size and mtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<FileId>,
}

mod oid_text {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::git::Oid;

    pub(super) fn serialize<S: Serializer>(oid: &Oid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&oid.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Oid, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Oid::parse(text.as_bytes()).ok_or_else(|| de::Error::custom("an object name that is none"))
    }
}
