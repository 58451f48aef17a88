//! Paths in a worktree: what passes [`RelPath::parse`] names something below the root, and nothing of git's own.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::util::text::{escape, unescape};

/// The longest path that is taken, in bytes: Linux's `PATH_MAX`, without the end mark.
pub(crate) const LONGEST: usize = 4095;

/// A path below a root: relative, without `.`, `..` and empty components, and without any `.git`.
///
/// It is bytes, as on disk; as text (display, JSON) it is escaped like a ref's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

/// A path that must not be touched, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path in the worktree: {why}")]
pub struct BadPath {
    path: String,
    why: &'static str,
}

impl RelPath {
    /// Checks a path. `.git` is refused in every spelling that git refuses, because a file system may take it for the
    /// real one: other case, `git~1`, dots, spaces or a stream's name behind it (NTFS), invisible characters in it (HFS+).
    ///
    /// # Errors
    /// The rule that it breaks.
    ///
    /// # Examples
    /// ```
    /// use jin_txn::RelPath;
    /// assert_eq!(RelPath::parse(b"etc/app.toml").unwrap().as_bytes(), b"etc/app.toml");
    /// for bad in ["/etc/passwd", "../x", "a//b", "a/", ".git/config", "sub/.GIT/hooks/x", "git~1"] {
    ///     assert!(RelPath::parse(bad.as_bytes()).is_err(), "{bad}");
    /// }
    /// ```
    pub fn parse(path: &[u8]) -> Result<RelPath, BadPath> {
        match broken_rule(path) {
            None => Ok(RelPath(path.into())),
            // Whoever hands us a megabyte gets the start of it back.
            Some(why) => Err(BadPath { path: escape(&path[..path.len().min(200)]).into_owned(), why }),
        }
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library has it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directory that it lies in; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(RelPath(self.0[..slash].into()))
    }

    /// All directories that it lies in, the outermost first.
    pub fn ancestors(&self) -> impl DoubleEndedIterator<Item = RelPath> + '_ {
        let slashes: Vec<usize> = self.0.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).collect();
        slashes.into_iter().map(|at| RelPath(self.0[..at].into()))
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        let from = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.0[from..])
    }
}

fn broken_rule(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.len() > LONGEST {
        return Some("it is longer than 4095 bytes");
    }
    if path.starts_with(b"/") {
        return Some("it is absolute");
    }
    if path.contains(&0) {
        return Some("it has a NUL in it");
    }
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" => return Some("a component is empty"),
            b"." | b".." => return Some("a component is `.` or `..`"),
            _ if component.len() > 255 => return Some("a component is longer than 255 bytes"),
            _ if is_dot_git(component) => return Some("a component is `.git`, which is git's own"),
            _ => {}
        }
    }
    None
}

/// Does a file system exist that takes this component, or what follows a backslash in it, for `.git`?
fn is_dot_git(component: &[u8]) -> bool {
    component.split(|b| *b == b'\\').any(|part| is_ntfs_dot_git(part) || is_hfs_dot_git(part))
}

/// NTFS ignores case, and dots and spaces at the end; behind a colon comes the name of a stream; `git~1` is the short name.
fn is_ntfs_dot_git(name: &[u8]) -> bool {
    let name = name.split(|b| *b == b':').next().unwrap_or_default();
    let end = name.iter().rposition(|b| !matches!(b, b'.' | b' ')).map_or(0, |last| last + 1);
    name[..end].eq_ignore_ascii_case(b".git") || name[..end].eq_ignore_ascii_case(b"git~1")
}

/// HFS+ ignores case and some invisible characters.
fn is_hfs_dot_git(name: &[u8]) -> bool {
    let ignored = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let Ok(text) = std::str::from_utf8(name) else { return false };
    text.chars().filter(|c| !ignored(c)).map(|c| c.to_ascii_lowercase()).eq(".git".chars())
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = unescape(&text).ok_or_else(|| de::Error::custom("a path with a broken escape"))?;
        RelPath::parse(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_root_or_mean_git_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            ".",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "a\0b",
            ".git",
            ".git/config",
            "sub/.git/config",
            ".GIT/config",
            ".gIt",
            "git~1",
            "GIT~1/config",
            ".git.",
            ".git ",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".git:stream",
            "a\\.git",
            ".git\\config",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{206f}T/x",
        ] {
            assert!(RelPath::parse(bad.as_bytes()).is_err(), "{bad:?} must be refused");
        }
        assert!(RelPath::parse(&b"a".repeat(5000)).is_err(), "too long");
        assert!(RelPath::parse(&b"a".repeat(256)).is_err(), "a component that no file system takes");
        for good in ["a", "a/b", ".gitignore", ".github/x", "git", "git~2", "...", "a b", "ä", "a\\b", ".jin", "x.git"]
        {
            assert!(RelPath::parse(good.as_bytes()).is_ok(), "{good:?} is fine");
        }
        assert!(RelPath::parse(b"\xff\xfe").is_ok(), "a path is bytes");
    }

    #[test]
    fn a_path_knows_the_directories_that_it_lies_in() {
        let path = RelPath::parse(b"a/b/c").unwrap();
        let names: Vec<String> = path.ancestors().map(|p| p.to_string()).collect();
        assert_eq!(names, ["a", "a/b"]);
        assert_eq!(path.name(), "c");
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(RelPath::parse(b"a").unwrap().parent(), None);
    }

    #[test]
    fn a_path_survives_the_way_through_json_and_a_hostile_one_does_not() {
        let path = RelPath::parse(b"a\\b/\xff").unwrap();
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<RelPath>(&json).unwrap(), path);
        assert!(serde_json::from_str::<RelPath>("\"../x\"").is_err());
        assert!(serde_json::from_str::<RelPath>("\".g\\\\x69t/config\"").is_err(), "an escape hides nothing");
    }
}
