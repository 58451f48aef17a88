//! What a killed command has made of the worktree: `switch`, `checkout`, `reset`, `merge` and `pull` write files first, then the
//! index, then HEAD. Only words: nothing is written.
//!
//! ```text
//!  state of a command that stops and goes on (MERGE_HEAD, rebase-merge, ...)? ──▶ how to go on, and back
//!       │ no
//!  files that are not as in HEAD ──▶ which commit has them all? ──▶ "looks halfway to topic: 2 of 3 files have its content"
//! ```
//! Limits: at most [`CANDIDATES`] branches are compared. A merge or a pull that was killed before it wrote MERGE_HEAD looks like
//! a switch that was: what is said of the files, and the command that goes back, are right for both. Where filters or line
//! endings may apply, a file that differs in bytes may be the same to git, which is told. A command that is killed while it holds no
//! lock (between index and HEAD) leaves nothing to recover, and is not told either.

mod scene;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fs::{absent_is_none, named as fs};
use crate::git::{Git, Oid, Plumbing, Repository, index};
use crate::process::owner;
use crate::recovery::report::plural;
use crate::staging::worktree::Worktree;
use crate::state::{StateDir, Wait};
use crate::util::text::escape;
use crate::wal::{Body, Log, Record};

use scene::{Comparison, Scene};

/// How many branches are compared with the worktree.
const CANDIDATES: usize = 32;

/// How many names a line has.
const SHOWN: usize = 3;

/// Has something of a dead git been recovered since HEAD last moved: has a lock gone to quarantine, or does the log say so? Whoever
/// has read that wants to know what is in the worktree.
pub(crate) fn was_recovered(repo: &Repository) -> anyhow::Result<bool> {
    let seconds = |found: std::fs::Metadata| u64::try_from(found.mtime()).unwrap_or(0);
    let mut moved = 0;
    for name in ["HEAD", "logs/HEAD"] {
        moved = moved.max(absent_is_none(fs::symlink_metadata(repo.git_dir.join(name)))?.map_or(0, seconds));
    }
    let state = StateDir::of(repo);
    if !state.exists() {
        return Ok(false);
    }
    let newest = Log::new(&state, &owner::boot_id()?, Wait::No).scan_until(|records| !records.is_empty())?;
    let is_of_recovery = |record: &Record| matches!(record.body, Body::Recovered { .. });
    if newest.records.iter().rev().take_while(|record| record.time >= moved).any(is_of_recovery) {
        return Ok(true);
    }
    let Some(entries) = absent_is_none(fs::read_dir(state.quarantine()))? else { return Ok(false) };
    let is_newer = |name: &str| {
        let (time, what) = name.split_once('-')?;
        // Of two with one name the second has a number.
        let what = what.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
        Some(what.ends_with(".lock") && time.parse::<u64>().ok()? >= moved)
    };
    Ok(entries.flatten().any(|entry| entry.file_name().to_str().and_then(is_newer).unwrap_or(false)))
}

/// Says what state the worktree of `repo` is in, if a command has left it half done; a line each.
pub(crate) fn explain(repo: &Repository, program: &Path) -> anyhow::Result<Vec<String>> {
    let git = Git::new(program).at(&repo.git_dir);
    if let Some(line) = in_progress(&repo.git_dir) {
        return Ok(vec![line]);
    }
    let Ok(worktree) = Worktree::open(repo, &git) else { return Ok(Vec::new()) };
    let Some(mut scene) = Scene::read(repo, &git, worktree)? else { return Ok(Vec::new()) };
    let mut best: Vec<(Comparison, String)> = Vec::new();
    for (name, commit) in candidates(&git, scene.commit)? {
        let Some(tree) = index::tree(&git, &commit)? else { continue };
        let found = scene.compare(&tree)?;
        // Else it is ordinary work, some of which another branch has as well.
        if found.theirs.len() <= found.others.len()
            || best.first().is_some_and(|(first, _)| found.rank() > first.rank())
        {
            continue;
        }
        best.retain(|(other, _)| other.rank() == found.rank());
        best.push((found, name));
    }
    let names: Vec<String> = best.iter().map(|(_, name)| name.clone()).collect();
    Ok(match best.first() {
        Some((found, _)) => tell(&scene, found, &names),
        None if scene.may_convert && !scene.changed().is_empty() => vec![format!(
            "{} as the index says ({}); whether a command was at them is unknown, because filters may apply",
            are_not(scene.changed().len()),
            list(scene.changed())
        )],
        None => Vec::new(),
    })
}

/// What stops and goes on has commands of its own.
fn in_progress(git_dir: &Path) -> Option<String> {
    let has = |name: &str| git_dir.join(name).exists();
    let (command, what) = match index::in_progress(git_dir)? {
        "a rebase" if has("rebase-apply/applying") => ("am", "an am"),
        "a rebase" => ("rebase", "a rebase"),
        "a merge" => ("merge", "a merge"),
        "a revert" => ("revert", "a revert"),
        _ => ("cherry-pick", "a cherry-pick"),
    };
    let state = if has("rebase-merge") { "rebase-merge" } else { "rebase-apply" };
    if command == "rebase" && !["head-name", "onto", "orig-head"].iter().all(|name| has(&format!("{state}/{name}"))) {
        return Some("a rebase was stopped before it began: `git rebase --quit` forgets it".to_owned());
    }
    Some(format!(
        "{what} is unfinished: `git {command} --continue` goes on when all is resolved and staged, `git {command} --abort` goes back (behind `git stash -u` where untracked files are in its way)"
    ))
}

/// The commits that the worktree may be on its way to: branches, latest first, and what HEAD was or is made of.
fn candidates(git: &Git, head: Oid) -> anyhow::Result<Vec<(String, Oid)>> {
    const FORMAT: &str = "%(committerdate:unix) %(objectname) %(refname)";
    let mut refs: Vec<(u64, String, Oid)> = Vec::new();
    for below in ["refs/heads/", "refs/remotes/"] {
        let listed = git.run(Plumbing::Refs { format: FORMAT, below: Some(below), points_at: None })?;
        let read = |line: &[u8]| {
            let mut words = std::str::from_utf8(line).ok()?.splitn(3, ' ');
            let (time, oid, name) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
            Some((time, name.strip_prefix(below)?.to_owned(), Oid::parse(oid.as_bytes())?))
        };
        refs.extend(listed.stdout.split(|b| *b == b'\n').filter_map(read));
    }
    // The sort keeps branches before what they follow.
    refs.sort_by_key(|(time, ..)| Reverse(*time));
    let mut found: Vec<(String, Oid)> = refs.into_iter().map(|(_, name, oid)| (name, oid)).collect();
    found.truncate(CANDIDATES);
    for name in ["ORIG_HEAD", "FETCH_HEAD", "HEAD~1", "HEAD~2", "HEAD~3"] {
        let asked = git.run(Plumbing::Resolve(name))?;
        found.extend(Oid::parse(asked.stdout.trim_ascii()).map(|oid| (name.to_owned(), oid)));
    }
    let mut seen = HashSet::from([head]);
    found.retain(|(_, oid)| seen.insert(*oid));
    Ok(found)
}

/// In words: what is there, and the commands that go on and back.
fn tell(scene: &Scene, found: &Comparison, names: &[String]) -> Vec<String> {
    let target = names.iter().take(SHOWN).map(|name| escape(name.as_bytes())).collect::<Vec<_>>().join("` or `");
    let total = found.theirs.len() + found.ours + found.cut.len();
    let mut parts = vec![format!(
        "{} of {total} {} its content",
        found.theirs.len(),
        if total == 1 { "file has" } else { "files have" }
    )];
    if !found.cut.is_empty() {
        parts.push(format!("{} missing or cut off ({})", found.cut.len(), list(&found.cut)));
    }
    // Equal content says nothing about who put it there.
    let mut hints = vec!["`git stash -u` keeps what is there aside".to_owned()];
    if !found.others.is_empty() && scene.may_convert {
        parts.push(format!(
            "of {} it is unknown, because filters may apply ({})",
            found.others.len(),
            list(&found.others)
        ));
    } else if !found.others.is_empty() {
        parts.push(format!("{} may be yours ({})", found.others.len(), list(&found.others)));
    } else if found.unknown == 0 {
        parts.push("none differs from both".to_owned());
    }
    if found.unknown > 0 {
        parts.push(format!("{} not compared", found.unknown));
    }
    let back = escape(scene.name.as_bytes());
    let stays = if found.new.is_empty() { String::new() } else { format!(" (new files stay: {})", list(&found.new)) };
    hints.push(format!("`git checkout -f` goes back to {back}{stays}"));
    if let [only] = names
        && scene.is_branch(only)
        && found.new.len() <= SHOWN
        && found.new.iter().map(Vec::as_slice).chain([only.as_bytes()]).all(is_plain)
    {
        // git refuses to write over them otherwise, whatever is in them.
        let new = found.new.iter().map(|path| format!("`git add -- {}`, then ", escape(path))).collect::<String>();
        hints.push(format!("{new}`git switch --discard-changes {}` goes on", escape(only.as_bytes())));
    }
    vec![
        format!("the worktree looks halfway to `{target}`: {}", parts.join(", ")),
        format!("hint: {}", hints.join("; ")),
    ]
}

/// Does a shell read it as it is?
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-/+@".contains(byte))
}

fn is_or_are(count: usize, noun: &str) -> String {
    format!("{} {}", plural(count, noun), if count == 1 { "is" } else { "are" })
}

fn are_not(count: usize) -> String {
    format!("{count} {} not", is_or_are(count, "file"))
}

fn list(paths: &[Vec<u8>]) -> String {
    let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| escape(path).into_owned()).collect();
    let more = paths.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
