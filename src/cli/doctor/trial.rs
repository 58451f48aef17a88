//! The hook, run for real: a git makes a scratch ref and deletes it, and the log must tell of both.
//!
//! Once as here, and once as an IDE or a service calls git: with a short PATH and little else. What an earlier doctor that
//! was killed has left is deleted first.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context;

use crate::cli::doctor::Check;
use crate::cli::{PATIENCE, Session, log};
use crate::fs::durable;
use crate::git::{Git, Plumbing, RefFormat, Repository};
use crate::process::owner;
use crate::state::{StateDir, Wait};
use crate::util::text::shown;
use crate::wal::Log;

const SCRATCH: &str = "refs/jin-txn/doctor";

/// PATH as programs have it that nobody started from a shell.
const BARE_PATH: &str = "/usr/bin:/bin";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    Here,
    Bare,
}

pub(super) fn run(session: &Session, git: &Path, repo: &Repository, state: &StateDir) -> anyhow::Result<Vec<Check>> {
    let object = object(git, repo)?;
    clear(session, git, repo)?;
    let here = trial("hook run", session, git, (repo, state), &object, Surroundings::Here)?;
    let bare_git = [PathBuf::from("/usr/bin/git"), PathBuf::from("/bin/git")].into_iter().find(|p| p.is_file());
    let bare_git = bare_git.unwrap_or_else(|| git.to_owned());
    let readable = call(&bare_git, session, Surroundings::Bare, &["rev-parse", "--git-dir"])?;
    let bare = if readable.status.success() {
        trial("bare PATH", session, &bare_git, (repo, state), &object, Surroundings::Bare)?
    } else {
        let why = first_line(&readable);
        Check::note("bare PATH", format!("{} does not read this repository: {why}", shown(&bare_git)))
    };
    Ok(vec![here, bare])
}

/// Something for the ref to name, that exists already.
fn object(git: &Path, repo: &Repository) -> anyhow::Result<String> {
    let head = Git::new(git).at(&repo.git_dir).run(Plumbing::Resolve("HEAD"))?;
    let found = if head.success {
        head
    } else {
        // Every git knows the empty tree, whether or not it is stored.
        Git::new(git).at(&repo.git_dir).run(Plumbing::EmptyTree)?
    };
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

fn clear(session: &Session, git: &Path, repo: &Repository) -> anyhow::Result<()> {
    let listed = Git::new(git).at(&repo.git_dir).run(Plumbing::Refs {
        format: "%(refname)",
        below: Some(SCRATCH),
        points_at: None,
    })?;
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        let pid = name.rsplit('/').next().and_then(|pid| pid.parse::<u32>().ok());
        if pid.and_then(owner::Stat::of).is_none() {
            call(git, session, Surroundings::Here, &["update-ref", "-d", name])?;
        }
    }
    sweep(repo)
}

fn trial(
    name: &'static str,
    session: &Session,
    git: &Path,
    (repo, state): (&Repository, &StateDir),
    object: &str,
    surroundings: Surroundings,
) -> anyhow::Result<Check> {
    let scratch = format!("{SCRATCH}/{}", std::process::id());
    let before = told(state, &scratch)?;
    let made = call(git, session, surroundings, &["update-ref", &scratch, object])?;
    let deleted = call(git, session, surroundings, &["update-ref", "-d", &scratch])?;
    sweep(repo)?;
    for (output, what) in [(&made, "an update"), (&deleted, "a deletion")] {
        if !output.status.success() {
            let why = first_line(output);
            return Ok(Check::failed(name, format!("{what} is refused: {why}"), "look at the hook's own message"));
        }
    }
    let logged = told(state, &scratch)? - before;
    if logged < 2 {
        let what = format!("{} did not call the hook: {logged} of 2 transactions are in the log", shown(git));
        return Ok(Check::failed(name, what, "`jin-txn install`; then look at core.hooksPath and `noexec` mounts"));
    }
    let alias = call(git, session, surroundings, &["txn", "--version"])?;
    let answers = alias.stdout.starts_with(b"jin-txn ");
    if !answers {
        return Ok(Check::failed(name, format!("`git txn` fails: {}", first_line(&alias)), "`jin-txn install`"));
    }
    let version = Git::new(git).version().map(|(major, minor)| format!(" {major}.{minor}")).unwrap_or_default();
    let path = if surroundings == Surroundings::Bare { format!(", PATH={BARE_PATH}") } else { String::new() };
    Ok(Check::ok(name, format!("{}{version}{path}: hook and `git txn` work", shown(git))))
}

/// How many finished transactions of the ref the log has.
fn told(state: &StateDir, scratch: &str) -> anyhow::Result<usize> {
    let scan = Log::new(state, &owner::boot_id()?, Wait::UpTo(PATIENCE)).scan()?;
    let told = log::tell(&scan.records);
    let of_it = |t: &&log::Told<'_>| t.begin.refs.iter().any(|c| c.name.to_string() == scratch);
    Ok(told.iter().filter(of_it).filter(|t| t.state == "committed").count())
}

/// git with its hooks, as a user or a program calls it: it finds the repository by itself, from where the user is, for a
/// relative core.hooksPath counts from the top of the worktree that it finds.
fn call(git: &Path, session: &Session, surroundings: Surroundings, args: &[&str]) -> anyhow::Result<Output> {
    let mut run = Command::new(git);
    if surroundings == Surroundings::Bare {
        let kept = ["HOME", "XDG_CONFIG_HOME", "USER", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"];
        let kept: Vec<_> = kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        run.env_clear().envs(kept).env("PATH", BARE_PATH);
    }
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "JIN_TXN"] {
        run.env_remove(variable);
    }
    if let Some(given) = &session.git_dir {
        run.arg("--git-dir").arg(given);
    }
    // A trial starts nothing that stays.
    run.env("LC_ALL", "C").env("JIN_WATCH", "off").args(args).current_dir(&session.directory);
    run.stdin(std::process::Stdio::null()).output().with_context(|| format!("cannot run {}", shown(git)))
}

fn first_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().next().map_or_else(|| output.status.to_string(), str::to_owned)
}

/// Directories that git leaves when the last ref in them is deleted.
fn sweep(repo: &Repository) -> anyhow::Result<()> {
    if repo.ref_format == RefFormat::Files {
        for root in [repo.common_dir.clone(), repo.common_dir.join("logs")] {
            for dir in [SCRATCH, "refs/jin-txn"] {
                durable::remove_dir_if_empty(&root.join(dir))?;
            }
        }
    }
    Ok(())
}
