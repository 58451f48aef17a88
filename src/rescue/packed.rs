//! `packed-refs`, line by line: what can be read of a damaged one.

use std::collections::BTreeMap;

use crate::fs::{absent_is_none, named as fs};
use crate::git::{Oid, RefName, Repository};

/// What `packed-refs` says.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Its entries.
    pub(crate) entries: BTreeMap<RefName, Oid>,
    /// It is empty, or has lines that are none.
    pub(crate) is_damaged: bool,
}

impl Packed {
    /// Reads it. The last line counts only if it is whole: a name may have been cut.
    pub(crate) fn read(repo: &Repository) -> anyhow::Result<Packed> {
        let mut packed = Packed::default();
        let Some(text) = absent_is_none(fs::read(repo.common_dir.join("packed-refs")))? else { return Ok(packed) };
        packed.is_damaged = text.is_empty();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match (line.strip_suffix(b"\n"), line.first()) {
                (Some(_), Some(b'#')) => {}
                (Some(peeled), Some(b'^')) if Oid::parse(&peeled[1..]).is_some() => {}
                (Some(entry), _) => match parse(entry) {
                    Some((name, oid)) => packed.entries.extend([(name, oid)]),
                    None => packed.is_damaged = true,
                },
                _ => packed.is_damaged = true,
            }
        }
        Ok(packed)
    }

    /// The content of a file with these entries.
    pub(crate) fn encode<'e>(entries: impl Iterator<Item = (&'e RefName, &'e Oid)>) -> Vec<u8> {
        let mut text = b"# pack-refs with: sorted \n".to_vec();
        for (name, oid) in entries {
            text.extend([oid.hex().as_bytes(), b" ", name.as_bytes(), b"\n"].concat());
        }
        text
    }
}

fn parse(line: &[u8]) -> Option<(RefName, Oid)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let name = RefName::parse(&line[space + 1..]).ok().filter(|name| name.as_bytes().starts_with(b"refs/"))?;
    Some((name, Oid::parse(&line[..space])?))
}
