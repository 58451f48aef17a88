//! `jin-txn undo` and `jin-txn redo`

use std::io::{BufRead, IsTerminal};

use anyhow::Context;
use serde::Serialize;

use crate::cli::{Session, exit, real_git};
use crate::git::{Config, Git, RefStore, Repository, Value};
use crate::process::owner;
use crate::recovery;
use crate::setup::hooks;
use crate::state::{StateDir, TxId, Wait};
use crate::undo::kept::Kept;
use crate::undo::restore::{self, Follow, Restore};
use crate::undo::{self, Direction, Step};
use crate::util::text::shown;
use crate::wal::{Body, Log, Outcome, Record, Reversal};

/// Take back the newest operation, or one that you name
///
/// An operation is a command line with all the transactions of what that started. Its refs go back to where they were, and with
/// them HEAD, the index and the files, as far as the operation took those along: all or none, as a new transaction. The next undo
/// takes back the one before. After a commit or `git reset --soft`, index and files stay as they are. Refused, with names, when a
/// ref has moved on since, or an index entry or a file is not as the operation left it; changes in other files stay. Nothing older
/// is taken back instead of what cannot be.
#[derive(clap::Args)]
pub(crate) struct UndoArgs {
    #[command(flatten)]
    args: Args,

    /// Take back everything that is newer than this operation, one after the other
    ///
    /// Nothing is changed when the log says that one of them cannot be taken back. Stops at the first one of which index or files
    /// are not as it left them, and says what is done by then.
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    to: Option<TxId>,

    /// Choose at the terminal how many to take back
    #[arg(short, long, conflicts_with_all = ["id", "to"])]
    interactive: bool,
}

/// Do again what was undone last, or one that you name
#[derive(clap::Args)]
pub(crate) struct RedoArgs {
    #[command(flatten)]
    args: Args,
}

#[derive(clap::Args)]
struct Args {
    /// The operation, e.g. tx-7, or one of its transactions
    #[arg(value_name = "ID")]
    id: Option<TxId>,

    /// Say what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Leave index and files as they are: refs and HEAD alone move
    #[arg(long)]
    keep_worktree: bool,
}

#[derive(Serialize)]
struct Done<'s> {
    version: u32,
    id: TxId,
    operation: &'s str,
    direction: &'static str,
    done: bool,
    refs: Vec<Moved>,
    index: usize,
    files: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    configuration: &'s [String],
}

#[derive(Serialize)]
struct Moved {
    #[serde(rename = "ref")]
    name: String,
    from: String,
    to: String,
}

pub(super) fn undo(session: &Session, args: &UndoArgs) -> anyhow::Result<u8> {
    let are_several = args.to.is_some() || args.interactive;
    if are_several && session.json {
        anyhow::bail!(
            "`--to` and `--interactive` take back several operations, and have no JSON\nhint: `git txn undo --json` takes back one"
        );
    }
    if args.interactive && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        session.say("error: `--interactive` needs a terminal");
        session.say("hint: nothing was changed; `git txn log` lists operations, and `git txn undo --to ID` takes back what is newer than one");
        return Ok(exit::USAGE);
    }
    if are_several { several(session, args) } else { run(session, &args.args, Direction::Undo) }
}

/// Takes back the newest operations, one after the other.
fn several(session: &Session, args: &UndoArgs) -> anyhow::Result<u8> {
    let mut ready = Ready::get(session, args.args.dry_run)?;
    ready.require_no_rest()?;
    let (repo, head) = (ready.repo.clone(), RefStore::new(&ready.repo).head()?);
    let operations = match args.to {
        Some(to) => undo::several::newer_than(&repo, &ready.records, head.as_ref(), to)?,
        None => choose(session, &undo::several::done(&repo, &ready.records, head.as_ref()))?,
    };
    if operations.is_empty() {
        anyhow::ensure!(args.interactive, "there is nothing newer than that to undo");
        session.say("nothing was changed");
        return Ok(exit::DONE);
    }
    let steps = undo::several::chain(&repo, &ready.records, head.as_ref(), &operations)?;
    if args.args.dry_run {
        one(session, &ready, &args.args, Direction::Undo)?;
        for step in &steps[1..] {
            tell(session, step, &Restore::default(), true)?;
        }
        if steps.len() > 1 {
            session.say("  index and files of the older ones are looked at when the newer ones are undone");
        }
        return Ok(exit::DONE);
    }
    for (done, step) in steps.iter().enumerate() {
        let stopped = || format!("{done} of {} operations are undone, and {} is not", steps.len(), step.id);
        if done > 0 {
            ready = Ready::get(session, false).with_context(stopped)?;
        }
        ready
            .require_newest_is(step.id)
            .and_then(|()| one(session, &ready, &args.args, Direction::Undo))
            .with_context(stopped)?;
    }
    Ok(exit::DONE)
}

/// Asks how many of these operations, from the newest, are to be taken back.
fn choose(session: &Session, done: &[(TxId, String)]) -> anyhow::Result<Vec<TxId>> {
    const MOST: usize = 20;
    let shown = &done[..done.len().min(MOST)];
    anyhow::ensure!(!shown.is_empty(), "there is nothing to undo in the log");
    for (at, (id, operation)) in shown.iter().enumerate() {
        session.say(&format!("{:>4}  {id}  {operation}", at + 1));
    }
    session.say(&format!("jin-txn: Undo 1 to which? [1-{}, else nothing]", shown.len()));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    let count = answer.trim().parse().ok().filter(|count| *count <= shown.len()).unwrap_or(0);
    Ok(shown[..count].iter().map(|(id, _)| *id).collect())
}

pub(super) fn redo(session: &Session, args: &RedoArgs) -> anyhow::Result<u8> {
    run(session, &args.args, Direction::Redo)
}

fn run(session: &Session, args: &Args, direction: Direction) -> anyhow::Result<u8> {
    let ready = Ready::get(session, args.dry_run)?;
    if args.id.is_none() {
        ready.require_no_rest()?;
    }
    one(session, &ready, args, direction)?;
    Ok(exit::DONE)
}

/// A repository in which nothing is unfinished, and its log.
struct Ready {
    repo: Repository,
    state: StateDir,
    git: Git,
    records: Vec<Record>,
    /// The run that this is part of.
    joined: Option<TxId>,
    /// What recovery has ended just now.
    recovered: Vec<TxId>,
}

impl Ready {
    /// What is unfinished is settled first: only what has ended can be reversed.
    fn get(session: &Session, dry_run: bool) -> anyhow::Result<Ready> {
        let repo = session.repository()?;
        // What it writes it writes with the hooks of the repository, whatever this environment says of other gits.
        let git = real_git()?;
        let config = Config::read(&Git::new(&git).at(&repo.git_dir))?;
        if let Some(problem) = hooks::why_unprotected_by(&git, &repo, &config)?.into_iter().next() {
            anyhow::bail!("{} is not protected, so this would not be logged: {problem}", shown(&repo.common_dir));
        }
        let options = session.recovery_options()?;
        let state = StateDir::of(&repo);
        let joined = crate::cli::run::joined(&state);
        let mut recovered: Vec<TxId> = Vec::new();
        if dry_run {
            let report = recovery::check(&repo, &options)?;
            let waits = report.has_work() || report.needs_human();
            anyhow::ensure!(!waits, "something is unfinished\nhint: run `git txn recover` first");
            // Those who are at work stop the real one no more than this one.
            if joined.is_none() {
                report.busy.iter().for_each(|line| session.say(&format!("jin-txn: {line}")));
                if !report.busy.is_empty() {
                    session.say("hint: only what has ended is undone; to take that back, wait until it has");
                }
            }
        } else {
            let report = recovery::recover(&repo, &options)?;
            for line in report.headlines() {
                session.say(&line);
            }
            recovered.extend(report.transactions.iter().map(|found| found.id));
        }
        let records = Log::new(&state, &owner::boot_id()?, Wait::UpTo(super::PATIENCE)).scan()?.records;
        Ok(Ready { repo, state, git: Git::new(&git), records, joined, recovered })
    }

    /// Whoever repeats an undo that was killed does not want two.
    fn require_no_rest(&self) -> anyhow::Result<()> {
        let Some(done) = completed(&self.records, &self.recovered) else { return Ok(()) };
        let hint = "nothing else was changed; the same command again takes the next step";
        anyhow::bail!("an interrupted {done} has just been completed\nhint: {hint}");
    }

    fn require_newest_is(&self, id: TxId) -> anyhow::Result<()> {
        let head = RefStore::new(&self.repo).head()?;
        let newest = undo::several::done(&self.repo, &self.records, head.as_ref()).into_iter().next();
        match newest {
            Some((newest, _)) if newest == id => Ok(()),
            Some((newest, operation)) => anyhow::bail!("{newest} (`{operation}`) was done meanwhile"),
            None => anyhow::bail!("it was undone meanwhile"),
        }
    }
}

/// Reverses the operation that `args` names, or else the newest.
fn one(session: &Session, ready: &Ready, args: &Args, direction: Direction) -> anyhow::Result<()> {
    let Ready { repo, state, git, records, joined, .. } = ready;
    let head = RefStore::new(repo).head()?;
    let mut step = undo::plan(repo, records, head.as_ref(), direction, args.id)?;
    step.part_of = *joined;
    undo::require_ended(records, &step)?;
    undo::check(repo, git, &step)?;
    if args.id.is_none() && direction == Direction::Undo && joined.is_none() {
        undo::require_newest(repo, git, records, &step)?;
    }
    let kept = Kept::of_step(state, records, &step)?;
    let follow = if args.keep_worktree { Follow::RefsOnly } else { Follow::AsMade };
    let restore = restore::plan(repo, git, &step, &kept, follow)?;
    if args.dry_run {
        undo::check_files(repo, git, &step, &restore)?;
    } else {
        undo::carry_out(repo, git, &step, &restore)?;
    }
    tell(session, &step, &restore, args.dry_run)
}

/// The undo or redo that recovery has just completed.
fn completed(records: &[Record], recovered: &[TxId]) -> Option<Reversal> {
    let is_done = |id: TxId| {
        let is_end = |record: &Record| {
            let end = matches!(record.body, Body::Recovered { outcome: Outcome::Committed, .. });
            end && record.tx == Some(id)
        };
        recovered.contains(&id) && records.iter().any(is_end)
    };
    records.iter().rev().find_map(|record| match (&record.body, record.tx) {
        (Body::Begin(begin) | Body::Decided(begin), Some(id)) if is_done(id) => begin.reverses,
        _ => None,
    })
}

fn tell(session: &Session, step: &Step, restore: &Restore, dry_run: bool) -> anyhow::Result<()> {
    let Step { id, operation, direction, writes, files, .. } = step;
    if session.json {
        let moved = |w: &crate::git::update_refs::RefWrite| Moved {
            name: w.name.to_string(),
            from: w.from.to_string(),
            to: w.to.to_string(),
        };
        let refs = writes.iter().map(moved).collect();
        let direction = if *direction == Direction::Undo { "undo" } else { "redo" };
        let restored = restore.files.iter().map(|f| &f.path);
        let files = files.iter().map(|f| &f.path).chain(restored).map(ToString::to_string).collect();
        let index = restore.index.as_ref().map_or(0, |index| index.changed);
        return session.print_json(&Done {
            version: 1,
            id: *id,
            operation,
            direction,
            done: !dry_run,
            refs,
            index,
            files,
            configuration: restore.config.as_ref().map_or(&[][..], |config| config.branches.as_slice()),
        });
    }
    let what = match (direction, dry_run) {
        (Direction::Undo, false) => "undid",
        (Direction::Redo, false) => "redid",
        (Direction::Undo, true) => "would undo",
        (Direction::Redo, true) => "would redo",
    };
    session.say(&format!("jin-txn: {what} {id} (`{operation}`)"));
    let short = |value: &Value| value.oid().map_or_else(|| value.to_string(), |oid| oid.hex()[..10].to_owned());
    for write in writes {
        session.say(&format!("  {}: {} -> {}", write.name, short(&write.from), short(&write.to)));
    }
    for file in files {
        let image = |image: Option<crate::wal::FileImage>| {
            image.map_or_else(|| "absent".to_owned(), |i| i.blob.hex()[..10].to_owned())
        };
        session.say(&format!("  {}: {} -> {}", file.path, image(file.from), image(file.to)));
    }
    if let Some(index) = restore.index.as_ref().filter(|index| index.changed > 0) {
        let what = if index.changed == 1 { "entry" } else { "entries" };
        session.say(&format!("  index: {} {what}", index.changed));
    }
    for file in &restore.files {
        let what = match (&file.from, &file.to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        session.say(&format!("  {}: {what}", file.path));
    }
    for state in &restore.states {
        session.say(&format!("  {}: {}", state.name, if state.content.is_some() { "added" } else { "removed" }));
    }
    for branch in restore.config.iter().flat_map(|config| &config.branches) {
        session.say(&format!("  configuration: branch.{branch}"));
    }
    if restore.is_soft {
        session.say("  index and files stay as they are: `git status` shows the difference");
    }
    if let Some(run) = step.part_of.filter(|_| dry_run) {
        session.say(&format!("  as a part of {run}, which is at work: if that is taken back, so is this"));
    }
    Ok(())
}
