//! What `core.fsync` means (git 2.36 and newer).

use std::path::Path;

use crate::git::{Git, Repository};
use crate::state::{Durability, StateDir};
use crate::util::text::one_line;

/// What `install` sets, in addition to what git syncs by default: contents of objects and of the index before they get
/// their names. Refs are not among them: their new values are in the log.
pub(crate) const SETTING: &str = "loose-object,index";

const LOOSE: u8 = 1;
const PACK: u8 = 2;
const METADATA: u8 = 4;
const GRAPH: u8 = 8;
const INDEX: u8 = 16;
const REFERENCE: u8 = 32;

/// What git syncs by itself.
const DEFAULT: u8 = PACK | METADATA | GRAPH;

/// What has to be synced so that every name leads to its content after a power cut.
const NEEDED: u8 = LOOSE | PACK | METADATA | GRAPH | INDEX;

/// Does git sync all that is needed with `core.fsync` set to `value`?
pub(crate) fn is_strong(value: &Option<String>) -> bool {
    let components = value.as_deref().map_or(DEFAULT, components);
    components & NEEDED == NEEDED
}

/// A setting of git that is weaker than `install` left it.
pub(crate) enum Weakness {
    /// `core.fsync` has this value, or none.
    Objects(Option<String>),
    /// `core.fsyncMethod` does not wait for the disk.
    Method,
}

impl Weakness {
    pub(crate) fn what(&self) -> String {
        match self {
            Weakness::Objects(set) => {
                let is = set.as_ref().map_or_else(|| "not set".to_owned(), |v| format!("`{}`", one_line(v)));
                format!("core.fsync is {is}: a power cut may damage staged files")
            }
            Weakness::Method => "core.fsyncMethod is `writeout-only`: git does not wait for the disk".to_owned(),
        }
    }

    pub(crate) fn remedy(&self) -> &'static str {
        if self.is_mended_by_install() { "`jin-txn install`" } else { "unset it" }
    }

    pub(crate) fn is_mended_by_install(&self) -> bool {
        matches!(self, Weakness::Objects(_))
    }
}

impl std::fmt::Display for Weakness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = if self.is_mended_by_install() { "run " } else { "" };
        write!(f, "{}; {run}{}", self.what(), self.remedy())
    }
}

/// What is weaker than `install` left it; empty when nothing is, or when it is not meant to be strong.
pub(crate) fn weaknesses(git: &Path, repo: &Repository) -> anyhow::Result<Vec<Weakness>> {
    if StateDir::of(repo).durability() == Durability::Process {
        return Ok(Vec::new());
    }
    let git = Git::new(git).at(&repo.git_dir);
    let objects = git.config("core.fsync")?;
    let is_weak = !is_strong(&objects);
    let method = git.config("core.fsyncMethod")?.is_some_and(|method| method == "writeout-only");
    let found = [is_weak.then_some(Weakness::Objects(objects)), method.then_some(Weakness::Method)];
    Ok(found.into_iter().flatten().collect())
}

/// git's reading of the setting: what is on by default, without what has a minus, with what has none.
fn components(value: &str) -> u8 {
    let (mut base, mut plus, mut minus) = (DEFAULT, 0, 0);
    for word in value.split([',', ' ', '\t']).filter(|w| !w.is_empty()) {
        if word == "none" {
            base = 0;
            continue;
        }
        let (set, name) = word.strip_prefix('-').map_or((&mut plus, word), |name| (&mut minus, name));
        *set |= component(name).unwrap_or(0);
    }
    (base & !minus) | plus
}

fn component(name: &str) -> Option<u8> {
    Some(match name {
        "loose-object" => LOOSE,
        "pack" => PACK,
        "pack-metadata" => METADATA,
        "commit-graph" => GRAPH,
        "index" => INDEX,
        "reference" => REFERENCE,
        "objects" => LOOSE | PACK,
        "derived-metadata" => METADATA | GRAPH,
        "committed" => LOOSE | PACK | METADATA | GRAPH,
        "added" => LOOSE | PACK | METADATA | GRAPH | INDEX,
        "all" => NEEDED | REFERENCE,
        _ => return None,
    })
}

/// Does `value` name nothing but components that git knows?
pub(crate) fn is_value(value: &str) -> bool {
    let is_known = |word: &str| {
        let name = word.strip_prefix('-').unwrap_or(word);
        name.is_empty() || name == "none" || component(name).is_some()
    };
    value.split([',', ' ', '\t']).all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_strong_when_it_syncs_objects_and_index() {
        for (value, strong) in [
            (None, false),
            (Some(SETTING), true),
            (Some("added,-reference"), true),
            (Some("all"), true),
            (Some("none"), false),
            (Some("committed"), false),
            (Some("index"), false),
            (Some("loose-object,index"), true),
            (Some("none,loose-object,index"), false),
            (Some("objects, derived-metadata,index"), true),
            (Some("-pack,added"), true),
        ] {
            assert_eq!(is_strong(&value.map(str::to_owned)), strong, "{value:?}");
        }
    }
}
