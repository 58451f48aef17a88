//! The configuration of the repository, as far as rescue needs it: read as text, never obeyed.
//!
//! A damaged one is replaced by the lines of it that can be read, and by what the disk says: which hash names the objects, and
//! whether there is a worktree.
//!
//! Limit: what a configuration includes is not read.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fs::door::{self, Kind};
use crate::fs::{absent_is_none, durable, named as fs};
use crate::git::hash::Hash;
use crate::git::{Git, Plumbing, Repository};
use crate::rescue::plan::Plan;

/// More lines than that are not tried one by one.
const MOST_LINES: usize = 1000;

/// A configuration has no more, in bytes.
const MOST: u64 = 16 << 20;

/// What the configuration, or else the disk, says.
#[derive(Debug)]
pub(crate) struct Settings {
    /// How objects are named.
    pub(crate) hash: Hash,
    /// Some objects are on a server.
    pub(crate) is_partial: bool,
    /// Is there a worktree at the main git directory?
    pub(crate) is_bare: bool,
    /// The remotes of branches, as `branch.<name>.remote` says.
    pub(crate) upstreams: BTreeMap<String, String>,
    /// The remote, `origin` before others, that may be asked for missing objects.
    pub(crate) remote: Option<String>,
}

/// Keys with values, as `git config --list` tells them.
type Pairs = Vec<(String, String)>;

impl Settings {
    /// Reads it, and plans what is to be done about a damaged one.
    pub(crate) fn read(repo: &Repository, program: &Path, plan: &mut Plan) -> anyhow::Result<Settings> {
        let path = repo.common_dir.join("config");
        let found = absent_is_none(durable::read_own(&path, MOST))?;
        let git = Git::new(program);
        let whole = match &found {
            Some(text) if !text.is_empty() && !text.contains(&0) => parse(&git, text)?,
            _ => None,
        };
        let is_damaged = whole.is_none();
        let (mut text, pairs) = match whole {
            Some(pairs) => (Vec::new(), pairs),
            None => readable(&git, found.as_deref().unwrap_or_default())?,
        };
        let get = |key: &str| pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let told = match get("extensions.objectformat") {
            Some("sha256") => Some(Hash::Sha256),
            Some(_) => Some(Hash::Sha1),
            None => None,
        };
        let hash = told.or(hash_on_disk(repo)?).unwrap_or(Hash::Sha1);
        let has_worktree = has_worktree(repo);
        let says_own = get("extensions.worktreeconfig").is_some_and(is_true);
        // git writes such a file only where this is set.
        let lacks_own = is_damaged && !says_own && has_own_config(repo);
        let has_own = says_own || lacks_own;
        let of_worktree = if has_own { of_worktrees(repo, &git, plan)? } else { None };
        let is_bare = of_worktree.or(get("core.bare").map(is_true)).unwrap_or(!has_worktree);
        let is_partial = pairs.iter().any(|(key, _)| {
            key == "extensions.partialclone" || key.starts_with("remote.") && key.ends_with(".promisor")
        });
        let is_partial = is_partial || has_promised(repo)?;
        let upstream = |(key, value): &(String, String)| {
            Some((key.strip_prefix("branch.")?.strip_suffix(".remote")?.to_owned(), value.clone()))
        };
        let upstreams = pairs.iter().filter_map(upstream).collect();
        let lacks_format = hash == Hash::Sha256 && told != Some(Hash::Sha256);
        let remote = remote(&pairs);
        if is_damaged || lacks_format {
            if !is_damaged {
                text = found.unwrap_or_default();
            }
            complete(&mut text, hash, is_bare, get("core.repositoryformatversion").is_some());
            if lacks_own {
                text.extend_from_slice(b"[extensions]\n\tworktreeConfig = true\n");
            }
            tell(plan, repo, is_damaged, &pairs);
            plan.put_locked(path, text);
        }
        Ok(Settings { hash, is_partial, is_bare, upstreams, remote })
    }
}

/// Has a worktree a configuration of its own?
fn has_own_config(repo: &Repository) -> bool {
    let mut paths = repo.all_git_dirs().into_iter().map(|dir| dir.join("config.worktree"));
    paths.any(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0))
}

/// The configurations that worktrees have of their own: damaged ones are made again from their readable lines. Returns what that of the
/// main one says of `core.bare`.
fn of_worktrees(repo: &Repository, git: &Git, plan: &mut Plan) -> anyhow::Result<Option<bool>> {
    let mut is_bare = None;
    for git_dir in repo.all_git_dirs() {
        let path = git_dir.join("config.worktree");
        let Some(text) = absent_is_none(durable::read_own(&path, MOST))? else { continue };
        if text.is_empty() {
            let what = format!("{} is empty", repo.relative(&path));
            plan.lost(what, "it goes to quarantine", "the settings of that worktree, if it had any");
            plan.set_name_aside(path);
            continue;
        }
        let whole = if text.contains(&0) { None } else { parse(git, &text)? };
        let pairs = match whole {
            Some(pairs) => pairs,
            None => {
                let (text, pairs) = readable(git, &text)?;
                let what = format!("{} is damaged", repo.relative(&path));
                plan.lost(what, "it is made again from what can be read of it", "settings of that worktree");
                plan.put_locked(path, text);
                pairs
            }
        };
        let bare = pairs.iter().rev().find(|(name, _)| name == "core.bare").map(|(_, value)| is_true(value));
        is_bare = is_bare.or(bare.filter(|_| git_dir == repo.common_dir));
    }
    Ok(is_bare)
}

/// What `core.worktree` says, where that leads out of `from`, or is no relative path: in a copy it would lead to the same worktree.
pub(crate) fn other_worktree(repo: &Repository, from: &Path, program: &Path) -> anyhow::Result<Option<String>> {
    let git = Git::new(program);
    for name in ["config", "config.worktree"] {
        let Some(text) = absent_is_none(durable::read_own(&repo.common_dir.join(name), MOST))? else { continue };
        let pairs = match parse(&git, &text)? {
            Some(pairs) => pairs,
            None => readable(&git, &text)?.1,
        };
        for (_, value) in pairs.into_iter().filter(|(key, _)| key == "core.worktree") {
            let real = fs::canonicalize(repo.common_dir.join(&value));
            if Path::new(&value).is_absolute() || !real.is_ok_and(|real| real.starts_with(from)) {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

fn remote(pairs: &Pairs) -> Option<String> {
    let url = |(key, value): &(String, String)| {
        let name = key.strip_prefix("remote.")?.strip_suffix(".url")?;
        may_be_asked(value).then(|| (name != "origin", value.clone()))
    };
    pairs.iter().filter_map(url).min_by_key(|(is_other, _)| *is_other).map(|(_, url)| url)
}

/// Is it https, ssh, or a file? A name of another transport may run a program.
fn may_be_asked(url: &str) -> bool {
    let is_scp = url.split_once(':').is_some_and(|(host, path)| {
        !host.is_empty() && !host.contains('/') && !host.starts_with('-') && !path.starts_with([':', '/'])
    });
    ["https://", "ssh://", "file://", "/"].iter().any(|start| url.starts_with(start)) || is_scp
}

/// As git reads it.
fn is_true(value: &str) -> bool {
    ["true", "yes", "on", "1"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// By what the disk says: a bare repository has no index. Without `core.worktree` a git directory that a `.git` file leads to belongs
/// to the worktree that this file lies in.
fn has_worktree(repo: &Repository) -> bool {
    let dir = &repo.common_dir;
    dir.file_name().is_some_and(|name| name == ".git")
        || fs::symlink_metadata(dir.join("index")).is_ok()
        || dir.components().any(|part| part.as_os_str() == "modules")
}

/// Are there packs from a server that has more?
fn has_promised(repo: &Repository) -> anyhow::Result<bool> {
    let packs = door::entries(&repo.common_dir.join("objects/pack"))?.unwrap_or_default();
    Ok(packs.iter().any(|(name, _)| Path::new(name).extension().is_some_and(|e| e == "promisor")))
}

fn tell(plan: &mut Plan, repo: &Repository, is_damaged: bool, pairs: &Pairs) {
    if !is_damaged {
        return plan.found("config does not say that objects are named by SHA-256", "it says so again");
    }
    let what = "config is empty, missing or damaged";
    let repair = "it is made again from what can be read of it, and from what is on disk";
    let had_remotes = fs::symlink_metadata(repo.common_dir.join("refs/remotes")).is_ok();
    let has_remotes = pairs.iter().any(|(key, _)| key.starts_with("remote."));
    if had_remotes && !has_remotes {
        let loss = "the settings in config, remotes among them: `git remote add NAME URL` adds one again";
        return plan.lost(what, repair, loss);
    }
    plan.lost(what, repair, "settings in config that cannot be read any more");
}

/// The settings, if git can read all of them.
fn parse(git: &Git, text: &[u8]) -> anyhow::Result<Option<Pairs>> {
    let ran = git.command(Plumbing::ConfigText).stdin(text).run()?;
    let pair = |entry: &[u8]| {
        let text = String::from_utf8_lossy(entry).into_owned();
        let (key, value) = text.split_once('\n').unwrap_or((&text, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(ran.success.then(|| ran.split(0).map(pair).collect()))
}

/// The lines that git can read. What follows a line that it cannot read belongs to nobody knows which section, up to the next one.
fn readable(git: &Git, text: &[u8]) -> anyhow::Result<(Vec<u8>, Pairs)> {
    let (mut kept, mut is_open) = (Vec::new(), true);
    for line in text.split_inclusive(|byte| *byte == b'\n').take(MOST_LINES) {
        is_open |= line.trim_ascii_start().starts_with(b"[");
        if !is_open || !line.ends_with(b"\n") || line.contains(&0) {
            is_open = false;
            continue;
        }
        let longer = [kept.as_slice(), line].concat();
        is_open = parse(git, &longer)?.is_some();
        if is_open {
            kept = longer;
        }
    }
    let pairs = parse(git, &kept)?.unwrap_or_default();
    Ok((kept, pairs))
}

/// Adds what git needs to find the repository.
fn complete(text: &mut Vec<u8>, hash: Hash, is_bare: bool, has_version: bool) {
    let (version, extension) = match hash {
        Hash::Sha1 => (0, ""),
        Hash::Sha256 => (1, "[extensions]\n\tobjectformat = sha256\n"),
    };
    if !has_version || hash == Hash::Sha256 {
        let core = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = {is_bare}\n{extension}");
        text.extend_from_slice(core.as_bytes());
    }
}

/// The hash by the length of names: of loose objects, of packs, of a ref.
fn hash_on_disk(repo: &Repository) -> anyhow::Result<Option<Hash>> {
    let of_length = |digits: usize| match digits {
        40 => Some(Hash::Sha1),
        64 => Some(Hash::Sha256),
        _ => None,
    };
    let objects = repo.common_dir.join("objects");
    for (dir, _) in
        door::entries(&objects)?.unwrap_or_default().into_iter().filter(|(_, kind)| *kind == Kind::Directory)
    {
        for (name, _) in door::entries(&objects.join(&dir))?.unwrap_or_default() {
            let name = name.to_string_lossy();
            let pack = name.strip_prefix("pack-").and_then(|rest| rest.split('.').next()).map(str::len);
            let object = (dir.len() == 2).then(|| name.len() + 2);
            if let Some(hash) = pack.or(object).and_then(of_length) {
                return Ok(Some(hash));
            }
        }
    }
    Ok(None)
}
