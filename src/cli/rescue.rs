//! `jin-txn rescue`

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;

use serde::Serialize;

use crate::cli::progress::while_working;
use crate::cli::{Session, exit, real_git, user};
use crate::fs::durable;
use crate::git::repository::Found;
use crate::git::{Repository, openable};
use crate::process::redact;
use crate::recovery::{self, Options, Report};
use crate::rescue::{self, Plan, Problem, Request};
use crate::state::StateDir;
use crate::trust::ownership;
use crate::util::text::{counted, one_line, shown};

/// Make a damaged repository work again, also one that was never protected
///
/// Finds the repository where git does not (an empty HEAD, a damaged configuration), says what is wrong, what would be done
/// and what is lost, and does it when you say so. Everything that is replaced is kept, in .git/jin-rescue/quarantine, or in
/// .git/.jin/quarantine of a protected repository. The worktree is not touched, and no branch is removed. Exits with 0 when all is
/// whole, 4 when something is lost, 1 when something could not be done, 3 when nothing was done because nobody answered.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The repository: its worktree, or its git directory
    #[arg(value_name = "REPO")]
    repo: Option<PathBuf>,

    /// Say what is wrong and what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Fetch missing objects from this repository (https, ssh, or a path); nothing of its refs comes in
    #[arg(long, value_name = "URL")]
    fetch: Option<String>,

    /// Copy the repository to DIR, which must not exist, and work there: the original stays as it is
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    to: Option<PathBuf>,

    /// Do it without asking
    #[arg(short, long, conflicts_with = "dry_run")]
    yes: bool,
}

/// Was anything carried out, what could not be, what does git still fail at, and where is what was replaced?
type Done = (bool, Vec<String>, Vec<String>, Option<String>);

/// What was found, and what was done.
#[derive(Serialize)]
struct Told<'t> {
    version: u32,
    repository: String,
    problems: &'t [Problem],
    locks: Vec<String>,
    notes: &'t [String],
    done: bool,
    failures: Vec<String>,
    fails: Vec<String>,
    quarantine: Option<String>,
    exit_code: u8,
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let named = args.repo.as_ref().map(|path| session.directory.join(path)).or_else(|| session.git_dir.clone());
    let found = rescue::find(named.as_ref().unwrap_or(&session.directory), named.is_some())?;
    let (git_program, scratch, fetch) = (real_git()?, std::env::temp_dir(), args.fetch.clone());
    let request = Request { git_program, scratch, fetch, stage: rescue::Stage::default() };
    ownership::require_trusted(&found, user(), &request.git_program)?;
    let found = match &args.to {
        Some(to) => copied(&found, &session.directory.join(to), &request.git_program)?,
        None => found,
    };
    openable::require_objects(&found.repo)?;
    Rescue { session, args, repo: &found.repo, request }.run()
}

/// A copy of the repository with its worktree. Linked worktrees stay where they are, and belong to the original.
fn copied(found: &Found, to: &Path, git_program: &Path) -> anyhow::Result<Found> {
    anyhow::ensure!(
        found.gitfile.is_none(),
        "{} is not all of the repository: name the main worktree, or the git directory",
        found.top.as_deref().map(shown).unwrap_or_default()
    );
    anyhow::ensure!(to.symlink_metadata().is_err(), "{} is there already: name a directory that is not", shown(to));
    let from = found.top.as_ref().unwrap_or(&found.repo.common_dir);
    let above = to.ancestors().skip(1).find_map(|above| crate::fs::named::canonicalize(above).ok());
    let is_inside = |dir: &Path| above.as_ref().is_some_and(|above| above.starts_with(dir));
    anyhow::ensure!(
        !is_inside(from) && !is_inside(&found.repo.common_dir),
        "{} lies in what is to be copied: name a directory outside of {}",
        shown(to),
        shown(from)
    );
    require_all_in(found, from, git_program)?;
    durable::create_dirs(to, 0o777)?;
    durable::copy_tree(from, to).with_context(|| format!("cannot copy {} to {}", shown(from), shown(to)))?;
    let copy = rescue::find(to, true)?;
    let is_in = crate::fs::named::canonicalize(to).is_ok_and(|to| copy.repo.common_dir.starts_with(to));
    anyhow::ensure!(is_in, "{} is no copy: its git directory is {}", shown(to), shown(&copy.repo.common_dir));
    rescue::borrow_the_same(&found.repo, &copy.repo)?;
    Ok(copy)
}

/// Refuses to copy what would go on being a part of the original: its git directory, or its worktree, lies elsewhere.
fn require_all_in(found: &Found, from: &Path, git_program: &Path) -> anyhow::Result<()> {
    let common = &found.repo.common_dir;
    let is_link = |name: &&str| common.join(name).is_symlink();
    let linked = ["worktrees", "jin-rescue", ".jin"].into_iter().find(is_link).map(|name| common.join(name));
    if let Some(elsewhere) = linked.as_ref().or(Some(common).filter(|dir| !dir.starts_with(from))) {
        anyhow::bail!(
            "{} is not in {}, or a link: a copy would work on the original\nhint: name the git directory itself, or copy it yourself",
            shown(elsewhere),
            shown(from)
        );
    }
    if let Some(worktree) = rescue::other_worktree(&found.repo, from, git_program)? {
        anyhow::bail!(
            "core.worktree is {}: git in a copy would work on the worktree of the original\nhint: copy it yourself, take \
             core.worktree out of the copy's config, and rescue that",
            one_line(&worktree)
        );
    }
    Ok(())
}

struct Rescue<'r> {
    session: &'r Session,
    args: &'r Args,
    repo: &'r Repository,
    request: Request,
}

impl Rescue<'_> {
    /// Has it a log, and can recovery read it? That knows more than files do.
    fn is_protected(&self) -> bool {
        StateDir::of(self.repo).exists() && Repository::open(&self.repo.git_dir).is_ok()
    }

    /// Stale locks, and what a log says: looked at, and nothing done.
    fn look(&self) -> anyhow::Result<Report> {
        if !self.is_protected() {
            return rescue::locks(self.repo, &self.request, true);
        }
        let options = Options { dry_run: true, ..self.session.recovery_options()? };
        recovery::recover_with_log(self.repo, &options)
    }

    /// Removes stale locks, or carries out what the log says, now that the word is given.
    fn recover(&self) -> anyhow::Result<Report> {
        if !self.is_protected() {
            return rescue::locks(self.repo, &self.request, false);
        }
        let report = recovery::recover_with_log(self.repo, &self.session.recovery_options()?)?;
        if !self.session.json {
            report.headlines().iter().for_each(|line| self.session.say(line));
        }
        Ok(report)
    }

    fn run(mut self) -> anyhow::Result<u8> {
        match self.look_and_mend() {
            Err(error) if error.is::<rescue::Changed>() => Ok(self.busy(&format!("{error:#}"))),
            done => done,
        }
    }

    fn busy(&self, why: &str) -> u8 {
        let busy = format!("somebody is at work in {}: {why}\nhint: try again when that has ended", self.shown());
        self.session.complain(&anyhow::anyhow!(busy));
        exit::BUSY
    }

    fn look_and_mend(&mut self) -> anyhow::Result<u8> {
        let locks = self.look()?;
        let mut plan = self.diagnose()?;
        if let Some(holder) = holder_of(&locks) {
            return Ok(self.busy(&holder));
        }
        // What only a person can decide is no damage.
        let is_clean = if self.is_protected() { !locks.has_work() } else { locks.is_clean() };
        let is_fine = plan.is_empty() && is_clean;
        if !self.session.json {
            self.tell(&plan, &locks, is_fine);
        }
        if !is_fine && let Some(more) = self.with_fetched(&plan)? {
            plan = more;
            self.tell(&plan, &locks, false);
        }
        if is_fine || self.args.dry_run || !self.is_wanted(&plan) {
            let code = match (is_fine, plan.loses()) {
                (true, _) if !locks.needs_human() => exit::DONE,
                (true, _) | (_, true) => exit::NEEDS_HUMAN,
                _ => exit::INTERRUPTED,
            };
            return self.end(&plan.problems, &plan.notes, &locks, Done::default(), code);
        }
        // The answer may have taken its time.
        plan.require_unchanged(self.repo)?;
        if let Some(holder) = holder_of(&self.recover()?) {
            return Ok(self.busy(&holder));
        }
        let plan = if self.is_protected() || !locks.is_clean() { self.look_again(&plan)? } else { plan };
        self.carry_out(plan, &locks)
    }

    /// Recovery has changed what the plan was made from: what is to be done now. No loss that was not told is carried out.
    fn look_again(&self, told: &Plan) -> anyhow::Result<Plan> {
        let plan = self.diagnose()?;
        let is_new = |problem: &&Problem| problem.loss.is_some() && !told.problems.contains(problem);
        match plan.problems.iter().find(is_new) {
            Some(problem) if !self.args.yes => {
                anyhow::bail!("{}, which was not told before: run `jin-txn rescue` again", problem.what)
            }
            _ => Ok(plan),
        }
    }

    fn shown(&self) -> String {
        shown(&self.repo.common_dir)
    }

    fn carry_out(&self, plan: Plan, locks: &Report) -> anyhow::Result<u8> {
        let (problems, notes, loses) = (plan.problems.clone(), plan.notes.clone(), plan.loses());
        self.request.stage.begin("replacing what is damaged");
        let outcome = self.while_shown(|| rescue::carry_out(plan, self.repo, &self.request))?;
        let mut failures = outcome.failures;
        let without_fetch = Request { fetch: None, ..self.request.clone() };
        let left = match self.while_shown(|| rescue::diagnose(self.repo, &without_fetch)) {
            Err(error) if error.is::<rescue::Changed>() => {
                failures.push(format!("{error:#}"));
                Plan::default()
            }
            left => left?,
        };
        // A hole that stays is found again, and is told already.
        let is_new = |problem: &&Problem| problem.loss.is_none() && !problems.contains(problem);
        failures.extend(left.problems.iter().filter(is_new).map(|problem| format!("{} still", problem.what)));
        self.request.stage.begin("trying whether git works");
        let broken = self.while_shown(|| rescue::trial(self.repo, &self.request, left.all_here))?;
        if !loses {
            failures.extend(broken.iter().cloned());
        }
        let code = match (failures.is_empty(), loses) {
            (false, _) => exit::FAILED,
            (true, true) => exit::NEEDS_HUMAN,
            (true, false) => exit::DONE,
        };
        if !self.session.json {
            let say = |line: String| self.session.say(&format!("jin-txn: {line}"));
            failures.iter().for_each(|failure| say(format!("could not be done: {failure}")));
            if let Some(path) = &outcome.quarantine {
                say(format!("what was replaced is in {}", shown(path)));
            }
            if outcome.kept > 0 {
                say(format!("{} packs have a `.keep` now, so that no gc takes what may still be needed", outcome.kept));
            }
            match code {
                exit::DONE => say(format!("{} is whole again", self.shown())),
                exit::NEEDS_HUMAN if broken.is_empty() => {
                    say("git works again; what is lost is named above".to_owned())
                }
                exit::NEEDS_HUMAN => say(format!("git does not work yet: {}", broken.join("; "))),
                _ => say("not everything could be done: see above, then run `jin-txn rescue` again".to_owned()),
            }
        }
        let quarantine = outcome.quarantine.as_deref().map(shown);
        self.end(&problems, &notes, locks, (true, failures, broken, quarantine), code)
    }

    /// Looks at everything; that can take long.
    fn diagnose(&self) -> anyhow::Result<Plan> {
        self.while_shown(|| rescue::diagnose(self.repo, &self.request))
    }

    /// Does `work`; at a terminal its stages are shown when it takes long.
    fn while_shown<T>(&self, work: impl FnOnce() -> T) -> T {
        let stage = self.request.stage.clone();
        let is_shown = !self.session.json && !self.session.quiet;
        while_working(is_shown, move || format!("jin-txn: {}", stage.now()), work)
    }

    /// Can somebody answer?
    fn can_ask(&self) -> bool {
        !self.session.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    fn ask(&self, question: &str) -> bool {
        self.session.say(&format!("jin-txn: {question} [y/N]"));
        let mut answer = String::new();
        let is_read = std::io::stdin().lock().read_line(&mut answer).is_ok();
        is_read && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// What is to be done with the objects that the repository has which the configuration names, if that is wanted. In a partial clone
    /// nobody knows which objects are lost.
    fn with_fetched(&mut self, plan: &Plan) -> anyhow::Result<Option<Plan>> {
        let is_open = plan.all_here && plan.missing > 0 && self.request.fetch.is_none();
        let Some(url) = plan.remote.as_ref().filter(|_| is_open) else { return Ok(None) };
        if !self.may_fetch(plan.missing, url) {
            return Ok(None);
        }
        self.request.fetch = Some(url.clone());
        match self.diagnose() {
            Ok(more) => Ok(Some(more)),
            Err(error) if error.is::<rescue::Changed>() => Err(error),
            Err(error) => {
                self.request.fetch = None;
                self.session.complain(&error);
                self.session.say("jin-txn: nothing was fetched: what is said above holds");
                Ok(None)
            }
        }
    }

    /// May this repository, which the configuration names, be asked for what is missing? `--yes` alone says nothing of that.
    fn may_fetch(&self, missing: usize, url: &str) -> bool {
        if self.args.yes || self.args.dry_run || !self.can_ask() {
            return false;
        }
        let missing = counted(u64::try_from(missing).unwrap_or(u64::MAX), "object");
        self.session.say(&format!(
            "jin-txn: missing or damaged: {missing}; the configuration names {}",
            one_line(&redact::text(url))
        ));
        self.ask("fetch missing objects from it?")
    }

    /// Asks, where somebody can answer.
    fn is_wanted(&self, plan: &Plan) -> bool {
        if self.args.yes {
            return true;
        }
        if !self.can_ask() {
            self.session.say("hint: `jin-txn rescue --yes` does it");
            return false;
        }
        self.ask(if plan.loses() { "Do it? Something is lost, see above." } else { "Do it?" })
    }

    fn tell(&self, plan: &Plan, locks: &Report, is_fine: bool) {
        let session = self.session;
        if is_fine {
            return session.say(&format!("jin-txn: nothing is wrong with {}", self.shown()));
        }
        session.say(&format!("jin-txn: {} is damaged:", self.shown()));
        for line in lines_of(locks) {
            session.say(&format!("  {line}"));
        }
        for problem in &plan.problems {
            session.say(&format!("  {}: {}", problem.what, problem.repair));
        }
        let losses: Vec<&str> = plan.problems.iter().filter_map(|problem| problem.loss.as_deref()).collect();
        if !losses.is_empty() {
            session.say("jin-txn: lost:");
            losses.iter().for_each(|loss| session.say(&format!("  {loss}")));
        }
        plan.notes.iter().for_each(|note| session.say(&format!("jin-txn: {note}")));
    }

    fn end(
        &self,
        problems: &[Problem],
        notes: &[String],
        locks: &Report,
        (done, failures, fails, quarantine): Done,
        exit_code: u8,
    ) -> anyhow::Result<u8> {
        if self.session.json {
            let (repository, locks) = (self.shown(), lines_of(locks));
            let told =
                Told { version: 1, repository, problems, locks, notes, done, failures, fails, quarantine, exit_code };
            self.session.print_json(&told)?;
        }
        Ok(exit_code)
    }
}

/// A line for each lock, and for what else recovery would do.
fn lines_of(report: &Report) -> Vec<String> {
    let locks = report
        .locks
        .iter()
        .map(|lock| format!("{} is a stale lock ({}): it goes to quarantine", lock.path, lock.because));
    locks.chain(report.notes.iter().cloned()).chain(report.losses.iter().cloned()).collect()
}

/// Who holds a lock, if anybody does.
fn holder_of(locks: &Report) -> Option<String> {
    let held = locks.locks.iter().find(|lock| lock.held);
    held.map(|lock| format!("{}: {}", lock.path, lock.because)).or_else(|| locks.busy.first().cloned())
}
