//! The same as a JSON document. What it must look like is in `docs/apply.schema.json`; a field that is not known is
//! refused, because it would have meant something.

use serde::Deserialize;

use crate::apply::Deref;
use crate::apply::language::{Bytes, Item, Old};
use crate::fs::beneath::RelPath;
use crate::git::RefName;
use crate::wal::FileMode;

/// The version of the format.
pub const VERSION: u32 = 1;

/// The largest document, in bytes.
pub const LARGEST: usize = 16 << 20;

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its items.
    pub items: Vec<Item>,
    /// The message for reflogs.
    pub message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    message: Option<String>,
    #[serde(default)]
    refs: Vec<RefEntry>,
    #[serde(default)]
    files: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefEntry {
    #[serde(rename = "ref")]
    name: String,
    to: Option<String>,
    symref: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    verify: bool,
    expect: Option<String>,
    #[serde(default = "yes")]
    deref: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    path: String,
    #[serde(default = "plain")]
    mode: FileMode,
    content: Option<String>,
    source: Option<String>,
    #[serde(default)]
    remove: bool,
    expect: Option<String>,
}

fn yes() -> bool {
    true
}

fn plain() -> FileMode {
    FileMode::Plain
}

/// Reads a document.
///
/// # Errors
/// It is no JSON, or not of this form, or of another version.
pub fn parse(text: &[u8]) -> anyhow::Result<Manifest> {
    let document: Document =
        serde_json::from_slice(text).map_err(|e| anyhow::anyhow!("the manifest cannot be read: {e}"))?;
    anyhow::ensure!(document.version == VERSION, "the manifest has version {}; this is {VERSION}", document.version);
    let refs = document.refs.into_iter().map(|entry| entry.item());
    let files = document.files.into_iter().map(|entry| entry.item());
    let items = refs.chain(files).collect::<anyhow::Result<_>>()?;
    Ok(Manifest { items, message: document.message })
}

fn old(expect: Option<String>) -> anyhow::Result<Old> {
    Ok(match expect.as_deref() {
        None => Old::Anything,
        Some("absent") => Old::Absent,
        Some(text) => match text.strip_prefix("ref: ") {
            Some(target) => Old::Target(RefName::parse(target.as_bytes())?),
            None => Old::Revision(text.as_bytes().to_vec()),
        },
    })
}

impl RefEntry {
    fn item(self) -> anyhow::Result<Item> {
        let name = RefName::parse(self.name.as_bytes())?;
        let deref = if self.deref { Deref::Yes } else { Deref::No };
        let expect = old(self.expect)?;
        Ok(match (self.to, self.symref, self.delete, self.verify) {
            (Some(to), None, false, false) => Item::Update(name, to.into_bytes(), expect, deref),
            (None, Some(target), false, false) => Item::Point(name, RefName::parse(target.as_bytes())?, expect),
            (None, None, true, false) => {
                anyhow::ensure!(expect != Old::Absent, "{name} cannot be deleted and expected to be absent");
                Item::Delete(name, expect, deref)
            }
            (None, None, false, true) => Item::Verify(name, expect, deref),
            _ => anyhow::bail!("{name} needs exactly one of `to`, `symref`, `delete` and `verify`"),
        })
    }
}

impl FileEntry {
    fn item(self) -> anyhow::Result<Item> {
        let path = RelPath::parse(self.path.as_bytes())?;
        let expect = old(self.expect)?;
        Ok(match (self.content, self.source, self.remove) {
            (Some(text), None, false) => Item::Write(path, self.mode, Bytes::Here(text.into_bytes()), expect),
            (None, Some(source), false) => Item::Write(path, self.mode, Bytes::At(source.into_bytes()), expect),
            (None, None, true) => Item::Remove(path, expect),
            _ => anyhow::bail!("`{path}` needs exactly one of `content`, `source` and `remove`"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_meant_something_is_refused() {
        for (text, said) in [
            ("{", "cannot be read"),
            (r#"{"refs":[]}"#, "missing field `version`"),
            (r#"{"version":2}"#, "version 2"),
            (r#"{"version":1,"colour":"red"}"#, "unknown field `colour`"),
            (r#"{"version":1,"refs":[{"ref":"refs/heads/a","to":"x","force":true}]}"#, "unknown field `force`"),
            (r#"{"version":1,"refs":[{"ref":"refs/heads/a"}]}"#, "exactly one of"),
            (r#"{"version":1,"refs":[{"ref":"refs/heads/a","to":"x","delete":true}]}"#, "exactly one of"),
            (r#"{"version":1,"files":[{"path":"/etc/passwd","content":""}]}"#, "it is absolute"),
            (r#"{"version":1,"files":[{"path":"a","mode":"100600","content":""}]}"#, "100600"),
            (r#"{"version":1,"files":[{"path":"a"}]}"#, "exactly one of"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
