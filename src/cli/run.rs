//! `jin-txn run`

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cli::{Session, exit, notes};
use crate::git::refs::RefSnapshot;
use crate::git::{Config, Git, RefFormat, Repository};
use crate::process::{git_argv, owner, redact};
use crate::recovery::{self, Finding, Options};
use crate::run::child::{self, Ended};
use crate::run::{Intent, Occupied, Run, mark};
use crate::setup::hooks;
use crate::state::marker::{Entry, State};
use crate::state::{StateDir, TxId, kept};
use crate::util::text::{one_line, shortened, shown};
use crate::wal::Log;

/// How long to wait for what a failed command has left running, unless `jin.runGrace` says otherwise.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Run any command as one transaction
///
/// When it ends with exit code 0, everything that it did stays. With any other exit code, after a signal or a crash,
/// refs, HEAD, index, worktree and in-progress state (merges, rebases) are as before, with your uncommitted work.
/// Ignored files are left alone. Whatever has to make way is kept in .git/.jin/quarantine.
///
/// The command's exit code is passed through. `git tx ARGS` is `jin-txn run -- git ARGS`. A git command that only reads,
/// such as `git tx log`, is no transaction: it runs as `jin-txn git` runs it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep what the command did although it failed
    #[arg(long)]
    keep_on_failure: bool,

    /// Say what it is for; `log` and `show` tell it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    if let Some(git_args) = reading_git(&args.command) {
        return super::git::run(session, &super::git::Args { args: git_args.to_vec() });
    }
    let state = StateDir::of(&repo);
    if joined(&state).is_some() {
        // Part of a run already: that one keeps it, or takes it back.
        return Err(prepare(session, args).exec()).with_context(|| cannot_run(args));
    }
    let options = session.recovery_options()?;
    anyhow::ensure!(
        repo.ref_format == RefFormat::Files,
        "a repository with a reftable has no earlier values of its refs to go back to: `jin-txn run` needs the files format"
    );
    if state.exists() {
        for line in recovery::recover(&repo, &options)?.headlines() {
            session.say(&line);
        }
    }
    // Behind recovery, which may have put the configuration back.
    let git = Git::new(&options.git_program);
    let config = Config::read(&git.at(&repo.git_dir))?;
    if let Some(problem) = hooks::why_unprotected_by(&options.git_program, &repo, &config)?.into_iter().next() {
        anyhow::bail!("{} is not protected, so this could not be taken back: {problem}", shown(&repo.common_dir));
    }
    if !state.exists() {
        // A template has put the hooks here, and this is the first transaction.
        state.create().with_context(|| format!("cannot create {}", shown(state.path())))?;
        Log::new(&state, &owner::boot_id()?, options.wait).open()?;
        notes().iter().for_each(|notes| notes.remember(&state));
    }
    let worktree = session.worktree(&options.git_program, &config)?;
    let index_lock = repo.git_dir.join("index.lock");
    if index_lock.exists() {
        // What the index will be nobody knows.
        session.say(&format!("error: a git is at work in this worktree: {} is there", shown(&index_lock)));
        session.say("hint: nothing was run; try again when it has ended");
        return Ok(exit::BUSY);
    }
    let operation = operation(&args.command);
    let intent = Intent {
        operation: &operation,
        message: args.message.as_deref(),
        worktree: worktree.as_deref(),
        git: &git,
        config: &config,
        attributes: &attributes(&options.git_program),
        hooks_off: hooks_are_off(),
    };
    let run = match Run::begin(&repo, &state, &intent) {
        Err(error) if error.is::<Occupied>() => {
            session.say(&format!("error: {error}"));
            session.say("hint: try again when it has ended, or use another worktree");
            return Ok(exit::BUSY);
        }
        other => other?,
    };
    for path in &run.not_kept {
        session
            .say(&format!("jin-txn: {path} in the git directory cannot be read: a rollback leaves it as it is then"));
    }
    let mut command = prepare(session, args);
    command.env(crate::util::env::RUN, run.mark.within(std::env::var(crate::util::env::RUN).ok().as_deref()));
    let beat = || {
        if run.beat().is_err() {
            // It only makes a crash look older than it was: then a human is asked.
        }
    };
    let ended = match child::run(command, beat) {
        Ok(Some(ended)) => ended,
        // It may be at work still: its marker stays, and the run is taken back when nobody of it is left.
        Ok(None) => {
            anyhow::bail!("the exit status of `{}` is unknown; `git txn recover` rolls {} back", operation, run.id())
        }
        Err(error) => {
            let _cleanup = run.commit(Vec::new()).context("nothing was run")?;
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            session.say(&format!("error: {}: {error}", cannot_run(args)));
            session.say("hint: nothing was changed");
            return Ok(code);
        }
    };
    if ended == Ended::Exited(0) || args.keep_on_failure {
        let id = run.id();
        let unseen = unseen(session, &run, &repo);
        if let Some(trouble) = run.commit(unseen).with_context(|| not_kept(id))? {
            session.say(&format!("jin-txn: warning: {id} is kept, but not everything of it is done: {trouble:#}"));
            session.say("jin-txn: hint: `git txn recover` does the rest as soon as the disk takes it");
        }
        if let Err(error) = kept::renew_standing(&repo, &state, None) {
            session.say(&format!("jin-txn: warning: what {id} left is not known to undo: {error}"));
        }
        return Ok(ended.code());
    }
    tell_of_failure(session, run.id(), &ended, &args.command);
    take_back(session, &repo, &state, &options, run, ended)
}

/// What goes back is here alone.
fn tell_of_failure(session: &Session, id: TxId, ended: &Ended, command: &[OsString]) {
    session.say(&format!("jin-txn: {id} failed ({ended}): this repository goes back to how it was"));
    if git_argv::global_options(&text_of(command)).command == Some("push") {
        session.say("jin-txn: note: what the remote has accepted stays there; `git fetch` shows it");
    }
}

fn text_of(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The arguments of a git that changes nothing, so that there is nothing to keep and nothing to take back.
fn reading_git(command: &[OsString]) -> Option<&[OsString]> {
    let words = text_of(command);
    (words[0] == "git" && git_argv::only_reads(&words)).then_some(&command[1..])
}

/// Does the environment turn hooks off: by our variable, or by a setting for every git below?
fn hooks_are_off() -> bool {
    let says_so = |(name, value): (OsString, OsString)| {
        let is_setting = name.to_string_lossy().starts_with("GIT_CONFIG_");
        is_setting && value.to_string_lossy().to_ascii_lowercase().contains("core.hookspath")
    };
    super::is_off() || std::env::vars_os().any(says_so)
}

/// What changed in refs where no hook saw it: told, since nothing can take it back later.
fn unseen(session: &Session, run: &Run<'_>, repo: &Repository) -> Vec<RefSnapshot> {
    const SHOWN: usize = 3;
    match run.unseen(repo) {
        Ok(refs) if refs.is_empty() => refs,
        Ok(refs) => {
            let names: Vec<String> = refs.iter().take(SHOWN).map(|found| found.name.to_string()).collect();
            let more = if refs.len() > SHOWN { format!(" and {} more", refs.len() - SHOWN) } else { String::new() };
            let (id, names) = (run.id(), names.join(", "));
            session.say(&format!(
                "jin-txn: note: no hook saw how {names}{more} changed: {id} is kept, and cannot be undone"
            ));
            refs
        }
        Err(error) => {
            session.say(&format!(
                "jin-txn: warning: whether hooks saw everything that it did to refs is unknown: {error:#}"
            ));
            Vec::new()
        }
    }
}

/// The command has succeeded, and nothing that it did may stay without a word about it.
fn not_kept(id: TxId) -> String {
    format!("{id} has succeeded, but cannot be kept: `git txn recover` takes it back, unless it finds it in the log")
}

/// Where git looks for attributes of the user and of the machine.
fn attributes(program: &Path) -> Vec<PathBuf> {
    let of = |variable: &str, below: &str| std::env::var_os(variable).map(|dir| PathBuf::from(dir).join(below));
    let user = [of("XDG_CONFIG_HOME", "git/attributes"), of("HOME", ".config/git/attributes")];
    let prefix = program.parent().and_then(Path::parent).map(|prefix| prefix.join("etc/gitattributes"));
    user.into_iter().flatten().chain(prefix).chain([PathBuf::from("/etc/gitattributes")]).collect()
}

/// The run of the repository that this process belongs to, and that is at work.
pub(super) fn joined(state: &StateDir) -> Option<TxId> {
    let id = mark::named_in(&std::env::var(crate::util::env::RUN).ok()?, state)?;
    Entry::new(state.path(), State::InProgress, id).path.exists().then_some(id)
}

/// The command, where the user is, with the user's environment.
fn prepare(session: &Session, args: &Args) -> Command {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).current_dir(&session.directory).env_remove("GIT_PREFIX");
    if crate::cli::alias_git_dir_is_redundant(&session.directory) {
        command.env_remove("GIT_DIR");
    } else if let Some(git_dir) = session.git_dir.as_ref().filter(|_| std::env::var_os("GIT_DIR").is_none()) {
        // `--git-dir`: the repository that is protected is the one that the command works on.
        command.env("GIT_DIR", git_dir);
    }
    command
}

fn cannot_run(args: &Args) -> String {
    format!("cannot run `{}`", args.command[0].to_string_lossy())
}

fn operation(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|w| w.to_string_lossy()).collect();
    shortened(&format!("jin-txn run -- {}", redact::command_line(&words)), 500)
}

/// Waits for what the command has left running, then restores.
fn take_back(
    session: &Session,
    repo: &Repository,
    state: &StateDir,
    options: &Options,
    run: Run<'_>,
    ended: Ended,
) -> anyhow::Result<u8> {
    let id = run.id();
    let left = wait_for_stragglers(state, &run, grace(&options.git_program, repo)?)?;
    if !left.is_empty() {
        session.say(&format!("error: {id} is not taken back yet: it has left {} running", left.join(", ")));
        session.say("hint: when that has ended, `git txn recover` takes it back");
        session.say(&format!("hint: {}", recovery::way_out(id)));
        return Ok(exit::BUSY);
    }
    // The command may have changed how refs are stored.
    let repo = Repository { git_dir: repo.git_dir.clone(), ..Repository::open(&repo.common_dir)? };
    let report = recovery::recover(&repo, &Options { own: Some(id), ..options.clone() })?;
    for line in report.headlines() {
        session.say(&line);
    }
    let own = report.transactions.iter().find(|t| t.id == id).map(|t| t.finding);
    Ok(match own {
        Some(Finding::RolledBack) => ended.code(),
        Some(Finding::NeedsHuman) => exit::NEEDS_HUMAN,
        _ => exit::BUSY,
    })
}

fn grace(program: &Path, repo: &Repository) -> anyhow::Result<std::time::Duration> {
    let Some(text) = Git::new(program).at(&repo.git_dir).config("jin.runGrace")? else { return Ok(GRACE) };
    let seconds: u64 = text
        .parse()
        .with_context(|| format!("jin.runGrace is `{}`, which is not a number of seconds", one_line(&text)))?;
    Ok(std::time::Duration::from_secs(seconds))
}

fn wait_for_stragglers(state: &StateDir, run: &Run<'_>, grace: std::time::Duration) -> anyhow::Result<Vec<String>> {
    let (start, myself) = (std::time::Instant::now(), owner::myself()?);
    loop {
        let left: Vec<String> = match mark::members(state, run.mark, Some(myself)) {
            Ok(members) => members.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("processes that cannot be inspected ({error})")],
        };
        if left.is_empty() || start.elapsed() >= grace {
            return Ok(left);
        }
        child::reap_all()?;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
