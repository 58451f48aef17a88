//! `objects/info/alternates`: the object directories that a repository borrows from, one a line.
//!
//! As git reads it: `#` begins a comment, a line that begins with a quote is quoted as in C, and a relative path begins at the object
//! directory. A quoted line that does not end well is read as it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::Repository;
use crate::util::quoted::unquote;

/// The directories that this object directory borrows from, there or not.
pub(crate) fn read(objects: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = absent_is_none(fs::read(objects.join("info/alternates")))?.unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    Ok(lines.map(|line| objects.join(OsStr::from_bytes(&unquoted(line).unwrap_or_else(|| line.to_vec())))).collect())
}

/// A copy of a repository borrows from the same directories: a relative path would lead elsewhere from there.
pub(crate) fn borrow_the_same(original: &Repository, copy: &Repository) -> anyhow::Result<()> {
    let (from, to) = (original.common_dir.join("objects"), copy.common_dir.join("objects/info/alternates"));
    if read(&from)?.is_empty() {
        return Ok(());
    }
    let paths: Vec<PathBuf> = read(&from)?.into_iter().map(|path| fs::canonicalize(&path).unwrap_or(path)).collect();
    durable::remove_file(&to)?;
    durable::create_new(&to, &encode(paths.iter().map(PathBuf::as_path)))?;
    Ok(())
}

/// The content of a file that names these.
pub(crate) fn encode<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Vec<u8> {
    let mut text = Vec::new();
    for path in paths {
        let path = path.as_os_str().as_bytes();
        let needs_quotes = path.starts_with(b"\"") || path.starts_with(b"#") || path.contains(&b'\n');
        if needs_quotes {
            text.push(b'"');
            path.iter().for_each(|byte| match byte {
                b'"' | b'\\' => text.extend([b'\\', *byte]),
                b'\n' => text.extend(b"\\n"),
                byte => text.push(*byte),
            });
            text.push(b'"');
        } else {
            text.extend_from_slice(path);
        }
        text.push(b'\n');
    }
    text
}

/// A line that is one quoted word, without its quotes and escapes.
fn unquoted(line: &[u8]) -> Option<Vec<u8>> {
    unquote(line).ok().filter(|(_, behind)| behind.is_empty()).map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_line_is_what_git_reads() {
        for (line, path) in [
            (&b"\"a b\\n\\303\\266\\\"\""[..], Some(&b"a b\n\xc3\xb6\""[..])),
            (b"\"\"", Some(b"")),
            (b"\"a", None),
            (b"\"a\" b", None),
            (b"plain", None),
        ] {
            assert_eq!(unquoted(line).as_deref(), path, "{}", line.escape_ascii());
        }
        let odd = Path::new("/a\n\"\\b");
        assert_eq!(unquoted(encode([odd]).trim_ascii_end()).as_deref(), Some(odd.as_os_str().as_bytes()));
    }
}
