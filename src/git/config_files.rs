//! Looks at the configuration files of a repository before a git is started there.
//!
//! git opens them without asking what they are: a FIFO, or a link to one, keeps it waiting for ever, and `/dev/zero` fills
//! its memory. Among them are the files that the repository's own configuration includes, and those that they include.
//! They are found without git, by [`include_paths`]: under any condition, for conditions change.
//!
//! Limit: a file that is swapped in afterwards, and what the user's own configuration names, are only met by the time limit
//! of each git. `%(prefix)` in a path means git's own files, and is not resolved.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};

use crate::fs::{absent_is_none, named as fs};
use crate::git::Repository;
use crate::util::text::shown;

/// git follows includes that far.
const DEEPEST: usize = 10;

/// Of configuration nobody has more.
const MOST: u64 = 16 << 20;

/// A configuration file is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is {what}: no git is started here\nhint: find out who put it there, and move it away", shown(path))]
pub(crate) struct NoConfigFile {
    path: PathBuf,
    what: &'static str,
}

/// Refuses a repository whose configuration is, or includes, something else than regular files, or is too much of it.
pub(super) fn require_regular(repo: &Repository) -> anyhow::Result<()> {
    let shared = ["config", "config.worktree"].map(|name| repo.common_dir.join(name));
    let own = (repo.git_dir != repo.common_dir).then(|| repo.git_dir.join("config.worktree"));
    Reading::of(shared.into_iter().chain(own).collect()).map(drop)
}

/// What is known of the file at `path`, links followed; `None` when git will not find it, or may not look there.
fn regular(path: &Path) -> anyhow::Result<Option<Metadata>> {
    let what = match std::fs::metadata(path) {
        Err(_) => return Ok(None),
        Ok(found) if found.is_file() => return Ok(Some(found)),
        Ok(found) if found.file_type().is_fifo() => "a FIFO",
        Ok(found) if found.is_dir() => "a directory",
        Ok(found) if found.file_type().is_socket() => "a socket",
        Ok(_) => "a device",
    };
    Err(NoConfigFile { path: path.to_owned(), what }.into())
}

/// May these files, with what they include, and with `others`, say that git is to look for hooks anywhere but in the usual
/// directory, or name hooks themselves? No program is started.
pub(crate) fn may_name_hooks(repo: &Repository, others: &[PathBuf]) -> anyhow::Result<bool> {
    let own = ["config", "config.worktree"].map(|name| repo.common_dir.join(name));
    let next = own.into_iter().chain([repo.git_dir.join("config.worktree")]).chain(others.iter().cloned()).collect();
    Ok(Reading::of(next)?.hooks)
}

struct Reading {
    next: Vec<PathBuf>,
    seen: HashSet<(u64, u64)>,
    left: u64,
    /// Some text has the word `hooksPath`, or a section `hook`.
    hooks: bool,
}

impl Reading {
    /// Reads these files, and what they include.
    fn of(next: Vec<PathBuf>) -> anyhow::Result<Reading> {
        let mut reading = Reading { next, seen: HashSet::new(), left: MOST, hooks: false };
        for _ in 0..=DEEPEST {
            for path in std::mem::take(&mut reading.next) {
                reading.read(&path)?;
            }
        }
        Ok(reading)
    }

    fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let Some(found) = regular(path)? else { return Ok(()) };
        if !self.seen.insert((found.dev(), found.ino())) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // What may not be read, git may not read either.
        let Ok(opened) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(()) };
        let mut text = Vec::with_capacity(usize::try_from(found.len().min(self.left)).unwrap_or_default() + 1);
        let taken = std::fs::File::from(opened).take(self.left + 1).read_to_end(&mut text);
        let taken = taken.with_context(|| format!("cannot read {}", shown(path)))? as u64;
        if taken > self.left {
            let what = "too much configuration (16 MiB with what it includes is the limit)";
            return Err(NoConfigFile { path: path.to_owned(), what }.into());
        }
        self.left -= taken;
        self.hooks |= names_hooks(&text);
        for included in include_paths(&text) {
            self.next.extend(resolved(&included, path)?);
        }
        Ok(())
    }
}

fn names_hooks(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    let has = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    has(b"hookspath") || has(b"[hook")
}

/// Where git looks for what the configuration file `from` includes.
fn resolved(path: &[u8], from: &Path) -> anyhow::Result<Option<PathBuf>> {
    let as_path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let Some(rest) = path.strip_prefix(b"~") else {
        // git takes the file's real directory.
        let real = absent_is_none(fs::canonicalize(from))?;
        return Ok(real.as_deref().and_then(Path::parent).map(|dir| dir.join(as_path(path))));
    };
    let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    let (user, below) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let home = if user.is_empty() { std::env::var_os("HOME").map(PathBuf::from) } else { home_of(user) };
    Ok(home.map(|home| home.join(as_path(below))))
}

/// The home directory of `user`, as the local list of users has it.
fn home_of(user: &[u8]) -> Option<PathBuf> {
    let users = std::fs::read("/etc/passwd").ok()?;
    let mut fields = users.split(|b| *b == b'\n').map(|line| line.split(|b| *b == b':'));
    let mut of_user = fields.find_map(|mut fields| (fields.next()? == user).then_some(fields))?;
    of_user.nth(4).map(|home| PathBuf::from(OsStr::from_bytes(home)))
}

/// The values of `path` in sections whose name begins with `include`, read by git's rules.
#[must_use]
pub fn include_paths(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    // git reads CR LF as LF.
    let text: Vec<u8> = {
        let is_end = |at: usize| text[at] == b'\r' && text.get(at + 1) == Some(&b'\n');
        (0..text.len()).filter(|at| !is_end(*at)).map(|at| text[at]).collect()
    };
    let mut rest = text.as_slice();
    let (mut found, mut including) = (Vec::new(), false);
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'[' => {
                let name;
                (name, rest) = section(after);
                including = name.len() >= 7 && name[..7].eq_ignore_ascii_case(b"include");
            }
            b'#' | b';' => rest = line_end(after),
            _ if first.is_ascii_alphabetic() => {
                let end = rest.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'-').unwrap_or(rest.len());
                let key = &rest[..end];
                rest = rest[end..].trim_ascii_start_of_line();
                if let Some(after) = rest.strip_prefix(b"=") {
                    let value;
                    (value, rest) = self::value(after);
                    if including && key.eq_ignore_ascii_case(b"path") {
                        found.push(value);
                    }
                }
            }
            _ => rest = after,
        }
    }
    found
}

trait Line {
    fn trim_ascii_start_of_line(&self) -> &[u8];
}

impl Line for [u8] {
    /// Without blanks at the start.
    fn trim_ascii_start_of_line(&self) -> &[u8] {
        &self[self.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(self.len())..]
    }
}

fn line_end(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|b| *b == b'\n').unwrap_or(text.len())..]
}

/// The inside of a section's head, and what follows it. A `]` in quotes does not end it.
fn section(text: &[u8]) -> (&[u8], &[u8]) {
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'\n' => break,
            b']' if !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
        at += 1;
    }
    // git refuses such a file.
    (&[], &text[at.min(text.len())..])
}

/// The value at the start of `text`, and what follows it.
fn value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut value, mut quoted, mut at, mut kept) = (Vec::new(), false, 0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'\n' => {
                at -= 1;
                break;
            }
            b'#' | b';' if !quoted => {
                at = text.len() - line_end(&text[at..]).len();
                break;
            }
            b'"' => quoted = !quoted,
            b'\\' => {
                let escaped = text.get(at).copied();
                at += 1;
                match escaped {
                    Some(b'\n') | None => continue,
                    Some(b'n') => value.push(b'\n'),
                    Some(b't') => value.push(b'\t'),
                    Some(b'b') => value.push(8),
                    Some(other) => value.push(other),
                }
                kept = value.len();
            }
            b' ' | b'\t' if !quoted => {
                if !value.is_empty() {
                    value.push(byte);
                }
            }
            _ => {
                value.push(byte);
                kept = value.len();
            }
        }
    }
    value.truncate(kept);
    (value, &text[at.min(text.len())..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_however_they_are_written() {
        let text = b"\xef\xbb\xbf[include]path=a\r\n[INCLUDEIF \"gitdir:x]\\\"\"] ; no\n\tPath = \"b ; c\" ; comment\n[core]\npath = none\n\
            [include]\n path = d\\\ne  \n path\n path = f#\n# path = none\n [include.x] path = \" g\" h";
        let paths = include_paths(text);
        let shown: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
        assert_eq!(shown, ["a", "b ; c", "de", "f", " g h"]);
    }

    #[test]
    fn paths_are_resolved_as_git_does() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        crate::fs::durable::create_new(&real.join("config"), b"").unwrap();
        let at = |path: &str| resolved(path.as_bytes(), &real.join("config")).unwrap();
        assert_eq!(at("x/y"), Some(real.join("x/y")));
        assert_eq!(at("/x"), Some("/x".into()));
        assert_eq!(at("~root/x"), home_of(b"root").map(|home| home.join("x")));
        assert_eq!(at("~nobody-of-that-name/x"), None);
    }
}
