//! What refs, reflogs and HEADs say: read, and nothing decided.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, named as fs, read_ref};
use crate::git::hash::Hash;
use crate::git::reflog::RENAMED_LOG;
use crate::git::{Oid, RefName, Repository, Value};
use crate::rescue::config::Settings;
use crate::rescue::log::Log;
use crate::rescue::objects::refuse_link;
use crate::rescue::packed::Packed;

/// A ref with a file of its own.
#[derive(Debug)]
pub(crate) struct Loose {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) value: Value,
    /// Is it a regular file, or a link by which git once wrote symbolic refs?
    pub(crate) is_file: bool,
    /// What further lines name (`MERGE_HEAD`).
    pub(crate) more: Vec<Oid>,
}

/// What refs and reflogs say.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Refs with files of their own, below `refs/`, of all worktrees.
    pub(crate) loose: BTreeMap<RefName, Loose>,
    /// `packed-refs`.
    pub(crate) packed: Packed,
    /// Every reflog.
    pub(crate) logs: BTreeMap<RefName, Log>,
    /// HEADs and what lies beside them, by name.
    pub(crate) tops: BTreeMap<RefName, Loose>,
    /// `refs/` or `refs/heads` is gone, with all files in it.
    pub(crate) lost_loose: bool,
    /// A rename of a branch was under way.
    pub(crate) is_renaming: bool,
    /// The remote of each branch, by what the configuration says.
    upstreams: BTreeMap<String, String>,
    hash: Hash,
}

/// Files right in a git directory that name a commit, one a line.
const TOPS: [&str; 8] =
    ["HEAD", "ORIG_HEAD", "AUTO_MERGE", "REBASE_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_HEAD"];

/// The note of a rescue that has begun to make lost files of refs again, below the common directory.
pub(crate) const LOST_REFS: &str = "jin-rescue/lost-refs";

/// Was a rescue killed that had this to do?
pub(crate) fn is_noted(repo: &Repository) -> anyhow::Result<bool> {
    Ok(absent_is_none(fs::symlink_metadata(repo.common_dir.join(LOST_REFS)))?.is_some_and(|found| found.is_file()))
}

impl Claims {
    /// Reads all of them.
    pub(crate) fn read(repo: &Repository, settings: &Settings) -> anyhow::Result<Claims> {
        let hash = settings.hash;
        let mut claims = Claims {
            loose: BTreeMap::new(),
            packed: Packed::read(repo)?,
            logs: BTreeMap::new(),
            tops: BTreeMap::new(),
            is_renaming: absent_is_none(fs::symlink_metadata(repo.common_dir.join(RENAMED_LOG)))?.is_some(),
            lost_loose: absent_is_none(fs::symlink_metadata(repo.common_dir.join("refs/heads")))?.is_none()
                || is_noted(repo)?,
            upstreams: settings.upstreams.clone(),
            hash,
        };
        for git_dir in repo.all_git_dirs() {
            for (name, path, kind) in files_below(repo, &git_dir, "refs")? {
                claims.loose.insert(name, loose(path, kind, hash)?);
            }
            for (name, path, _) in files_below(repo, &git_dir, "logs")? {
                claims.logs.insert(name, Log::read(path)?);
            }
            for (name, kind) in door::entries(&git_dir)?.unwrap_or_default() {
                let path = git_dir.join(&name);
                if TOPS.iter().any(|top| name == *top)
                    && let Some(name) = name_of(repo, &path)
                {
                    claims.tops.insert(name, loose(path, kind, hash)?);
                }
            }
        }
        Ok(claims)
    }

    /// Every value that anything names.
    pub(crate) fn values(&self) -> BTreeSet<Oid> {
        let more = self.tops.values().flat_map(|loose| loose.more.iter());
        let named = self.loose.values().chain(self.tops.values()).filter_map(|loose| loose.value.oid());
        let logged = self.logs.values().flat_map(|log| log.values());
        named
            .chain(self.packed.entries.values())
            .chain(more)
            .copied()
            .chain(logged)
            .filter(|oid| Hash::of(oid) == self.hash)
            .collect()
    }

    /// What a reader sees of a ref.
    pub(crate) fn visible(&self, name: &RefName) -> Value {
        let packed = || self.packed.entries.get(name).map_or(Value::Absent, |oid| Value::Oid(*oid));
        self.loose.get(name).or(self.tops.get(name)).map_or_else(packed, |loose| loose.value.clone())
    }

    /// Is anything known of a branch, or another ref, of this name?
    pub(crate) fn knows(&self, name: &RefName) -> bool {
        self.loose.contains_key(name) || self.packed.entries.contains_key(name) || self.logs.contains_key(name)
    }

    /// Values that a ref may get, the newest of its own first. `head`: the HEAD that means it.
    pub(crate) fn candidates(&self, name: &RefName, head: Option<&RefName>) -> Vec<Oid> {
        let mut found = self.own(name, head);
        found.extend(self.copies(name));
        found
    }

    /// Values that a ref had, the newest first.
    pub(crate) fn own(&self, name: &RefName, head: Option<&RefName>) -> Vec<Oid> {
        let mut found: Vec<Oid> = self.visible(name).oid().copied().into_iter().collect();
        // Where nobody can read what the ref says, what its reflog says last is what it was.
        found.extend(self.logs.get(name).into_iter().flat_map(Log::newest_first));
        // What `packed-refs` says is older than a file that cannot be read.
        found.extend(head.and_then(|head| self.logs.get(head)).and_then(Log::newest));
        found.extend(self.packed.entries.get(name));
        let mut seen = BTreeSet::new();
        found.retain(|oid| Hash::of(oid) == self.hash && seen.insert(*oid));
        found
    }

    /// The value of its remote-tracking branch: that of the remote that the configuration names, or else what all remotes agree on.
    pub(crate) fn copies(&self, name: &RefName) -> Option<Oid> {
        let short = std::str::from_utf8(name.as_bytes()).ok()?.strip_prefix("refs/heads/")?;
        let at = |remote: &str| {
            let copy = RefName::parse(format!("refs/remotes/{remote}/{short}").as_bytes()).ok()?;
            self.visible(&copy).oid().copied().filter(|oid| Hash::of(oid) == self.hash)
        };
        if let Some(remote) = self.upstreams.get(short) {
            return at(remote);
        }
        let names = self.loose.keys().chain(self.packed.entries.keys());
        let remotes =
            names.filter_map(|other| std::str::from_utf8(other.as_bytes()).ok()?.strip_prefix("refs/remotes/"));
        let values: BTreeSet<Oid> = remotes.filter_map(|rest| at(rest.split_once('/')?.0)).collect();
        values.first().copied().filter(|_| values.len() == 1)
    }

    /// The names of all branches of which anything is known.
    pub(crate) fn branches(&self) -> BTreeSet<&RefName> {
        let all = self.loose.keys().chain(self.packed.entries.keys()).chain(self.logs.keys());
        all.filter(|name| name.as_bytes().starts_with(b"refs/heads/")).collect()
    }
}

fn loose(path: PathBuf, kind: Kind, hash: Hash) -> anyhow::Result<Loose> {
    let content = if kind == Kind::Other { None } else { read_ref(&path)?.map(|(content, _)| content) };
    let content = content.filter(|content| !content.contains(&0)).unwrap_or_default();
    let is_merge = path.file_name().is_some_and(|name| name == "MERGE_HEAD");
    let mut lines = content.split(|byte| *byte == b'\n');
    let first = as_git_reads_it(lines.next().unwrap_or_default());
    let more: Vec<Option<Oid>> =
        lines.filter(|line| is_merge && !line.is_empty()).map(|line| Oid::parse(line.trim_ascii_end())).collect();
    // git writes each line of a merge of several branches with its line feed.
    let is_cut = more.contains(&None) || is_merge && !content.ends_with(b"\n");
    let value = match first {
        Value::Oid(oid) if oid.is_null() || Hash::of(&oid) != hash => Value::Broken,
        _ if is_cut => Value::Broken,
        value => value,
    };
    let is_file = kind == Kind::File || kind == Kind::Symlink && matches!(value, Value::Symref(_));
    Ok(Loose { path, value, is_file, more: more.into_iter().flatten().collect() })
}

/// git ends an object's name at the first blank, and reads capital letters as well.
fn as_git_reads_it(line: &[u8]) -> Value {
    if line.starts_with(b"ref:") {
        return Value::of_file(line);
    }
    Value::of_file(&line.split(u8::is_ascii_whitespace).next().unwrap_or_default().to_ascii_lowercase())
}

/// The ref whose file, or reflog, lies at this path.
fn name_of(repo: &Repository, path: &Path) -> Option<RefName> {
    let inside = path.strip_prefix(&repo.common_dir).ok()?;
    RefName::parse(inside.as_os_str().as_bytes()).ok()
}

type Named = (RefName, PathBuf, Kind);

/// Files below `refs` or `logs` of a git directory, by the names of their refs.
fn files_below(repo: &Repository, git_dir: &Path, part: &str) -> anyhow::Result<Vec<Named>> {
    let (mut found, mut todo) = (Vec::new(), vec![git_dir.join(part)]);
    while let Some(dir) = todo.pop() {
        for (name, kind) in door::entries(&dir)?.unwrap_or_default() {
            let path = dir.join(name);
            if kind == Kind::Directory {
                todo.push(path);
                continue;
            }
            if fs::canonicalize(&path).is_ok_and(|real| real.is_dir()) {
                refuse_link(&path, kind)?;
            }
            let inside = path.strip_prefix(git_dir.join("logs")).unwrap_or(&path);
            let of_ref = if part == "logs" { git_dir.join(inside) } else { path.clone() };
            found.extend(name_of(repo, &of_ref).map(|name| (name, path, kind)));
        }
    }
    Ok(found)
}
