//! Names of refs, and bytes as text.
//!
//! What passes [`RefName::parse`] may be joined to the common directory and given to git: names are checked wherever
//! they come from, the log included.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::util::text::{escape, unescape};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a ref, valid by git's rules (`git check-ref-format`), canonical in one repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(Box<[u8]>);

/// A name that cannot be a ref.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a valid ref name: {why}")]
pub struct BadName {
    name: String,
    why: &'static str,
}

impl RefName {
    /// Checks a name as git does. What passes is safe to join to the common directory: it has no `..`,
    /// no empty component, does not start with `/`, and holds no control character.
    ///
    /// # Errors
    /// The rule that the name breaks.
    pub fn parse(name: &[u8]) -> Result<RefName, BadName> {
        match broken_rule(name) {
            None => Ok(RefName(name.into())),
            Some(why) => Err(BadName { name: escape(name).into_owned(), why }),
        }
    }

    /// Checks what a symbolic ref points to. git lets it be a name outside of `refs/` that is not made of capitals (`nowhere`,
    /// `config`). Such a name is read, compared and pointed to, but nothing is written under it: whatever is to be written passes
    /// [`RefName::parse`].
    ///
    /// # Errors
    /// The rule that the name breaks.
    pub(crate) fn parse_target(name: &[u8]) -> Result<RefName, BadName> {
        match malformed(name) {
            None => Ok(RefName(name.into())),
            Some(why) => Err(BadName { name: escape(name).into_owned(), why }),
        }
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a relative path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Is it one of the notes that git makes for itself beside the work?
    #[must_use]
    pub fn is_note(&self) -> bool {
        is_note(self.as_bytes())
    }

    /// The names that would have to be directories for it: of `refs/heads/a/b` `refs/heads/a`, `refs/heads` and `refs`.
    pub(crate) fn above(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.as_bytes();
        bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &bytes[..at])
    }

    /// Is it a `HEAD`, of whichever worktree?
    #[must_use]
    pub fn is_head(&self) -> bool {
        let name = self.as_bytes();
        name == b"HEAD" || (name.starts_with(b"worktrees/") && in_own_worktree(name) == b"HEAD")
    }

    /// Is it a ref below `refs/`, of whichever worktree, and no pseudo-ref?
    pub(crate) fn is_below_refs(&self) -> bool {
        in_own_worktree(self.as_bytes()).starts_with(b"refs/")
    }
}

/// One of `names` and one of `others` of which one would have to be a directory for the other. git refuses both in one session,
/// also where the one goes before the other comes.
pub(crate) fn in_the_way<'n>(
    names: impl Iterator<Item = &'n RefName>,
    others: impl Iterator<Item = &'n RefName>,
) -> Option<(&'n RefName, &'n RefName)> {
    let (names, others): (Vec<&RefName>, Vec<&RefName>) = (names.collect(), others.collect());
    let find = |lower: &[&'n RefName], upper: &[&'n RefName]| {
        let upper: HashMap<&[u8], &'n RefName> = upper.iter().map(|name| (name.as_bytes(), *name)).collect();
        lower.iter().find_map(|name| name.above().find_map(|above| Some((*name, *upper.get(above)?))))
    };
    find(&names, &others).or_else(|| find(&others, &names).map(|(other, name)| (name, other)))
}

fn broken_rule(name: &[u8]) -> Option<&'static str> {
    if let Some(why) = malformed(name) {
        return Some(why);
    }
    if name.starts_with(b"refs/") || name.starts_with(b"worktrees/") {
        return None;
    }
    // Pseudo-refs and their like: HEAD, ORIG_HEAD, AUTO_MERGE, ...
    let pseudo = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_' || *b == b'-';
    (!name.iter().all(pseudo)).then_some("outside of `refs/` a name is made of A-Z, 0-9, `_` and `-`")
}

/// The rules of `git check-ref-format --allow-onelevel`.
fn malformed(name: &[u8]) -> Option<&'static str> {
    let bad_byte = |b: &u8| *b < 0x20 || *b == 0x7f || b" ~^:?*[\\".contains(b);
    if name.is_empty() || name == b"@" {
        return Some("it is empty or `@`");
    }
    if name.iter().any(bad_byte) {
        return Some("it has a control character, a space or one of ~^:?*[\\");
    }
    if name.windows(2).any(|w| w == b".." || w == b"@{") {
        return Some("it has `..` or `@{`");
    }
    for part in name.split(|b| *b == b'/') {
        if part.is_empty() {
            return Some("it has an empty component");
        }
        if part.starts_with(b".") || part.ends_with(b".") || part.ends_with(b".lock") {
            return Some("a component starts or ends with `.` or ends with `.lock`");
        }
    }
    // A name below `refs/` cannot be taken for an option; this one could.
    name.starts_with(b"-").then_some("outside of `refs/` a name does not start with `-`")
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefName({self})")
    }
}

impl Serialize for RefName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for RefName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = unescape(&text).ok_or_else(|| de::Error::custom("a ref name with a broken escape"))?;
        RefName::parse(&bytes).map_err(de::Error::custom)
    }
}

/// Is this one of git's own notes (`AUTO_MERGE`, `ORIG_HEAD`): a name in capitals other than `HEAD`, of this worktree or of
/// another one?
pub(crate) fn is_note(name: &[u8]) -> bool {
    let base = in_own_worktree(name);
    let is_capital = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    base != b"HEAD" && !base.is_empty() && base.iter().all(is_capital)
}

/// The name that the worktree to which a ref belongs has for it: `refs/bisect/bad` of `worktrees/w/refs/bisect/bad`. A ref that
/// all worktrees share keeps its name.
pub(crate) fn in_own_worktree(name: &[u8]) -> &[u8] {
    let linked = || {
        let rest = name.strip_prefix(b"worktrees/")?;
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        Some(&rest[slash + 1..])
    };
    name.strip_prefix(b"main-worktree/").or_else(linked).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_repository_or_trick_git_are_refused() {
        for bad in [
            "",
            "@",
            "refs/../../etc/passwd",
            "/etc/passwd",
            "refs/heads/a..b",
            "refs/heads/.hidden",
            "refs/heads/a.lock",
            "refs//heads",
            "refs/heads/",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/a\x1b[2J",
            "refs/heads/@{0}",
            "--upload-pack=x",
            "-C",
            "-",
            "config",
            "hooks/pre-commit",
            "refs/heads/a\\b",
        ] {
            assert!(RefName::parse(bad.as_bytes()).is_err(), "{bad:?} must be refused");
        }
        for good in
            ["HEAD", "ORIG_HEAD", "refs/heads/ma-in", "refs/heads/ä", "worktrees/x/HEAD", "refs/stash", "refs/heads/-x"]
        {
            assert!(RefName::parse(good.as_bytes()).is_ok(), "{good:?} is fine");
        }
        for (target, is_read) in
            [("nowhere", true), ("config", true), ("a/b", true), ("../x", false), ("-x", false), ("/x", false)]
        {
            assert_eq!(RefName::parse_target(target.as_bytes()).is_ok(), is_read, "{target:?}");
            assert!(RefName::parse(target.as_bytes()).is_err(), "{target:?} is not written");
        }
    }
}
