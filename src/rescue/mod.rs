//! Rescue: a damaged repository, protected or not, is made one that git works with again.
//!
//! ```text
//!  find ──▶ objects ──▶ view (scratch repository) ──▶ salvage ──▶ histories ──▶ plan (a value) ──▶ told, or carried out
//!  where git does not      only what is whole            what can be had again     which values are whole
//! ```
//! Invariants:
//! - What changed since it was looked at is not replaced: a diagnosis holds for one state of the repository, and each step compares what
//!   it replaces, under git's lock of it, with what was seen.
//! - Diagnosis changes nothing. All questions about objects are asked in a scratch repository outside of the damaged one, which
//!   borrows the objects that are whole: no git is started in the damaged repository, and no configuration of it is read by git.
//! - Everything that is replaced is in quarantine first. Nothing in the worktree is written.
//! - A branch is never removed, and stays where it is while the files of its newest commit are there. What cannot be made whole is
//!   kept under its name, and told as a loss.
//! - What is not proved is no repair: it is told as a loss, or left as it is.
//! - Killed anywhere and run again it comes to the same end: objects come first, then what names them, and no step removes what a
//!   later one is decided by.
//!
//! Limit: refs of the files backend only; objects that a partial clone left on its server, or that are in alternates which are
//! not there, are not looked for.

mod adopt;
mod alternates;
mod carry_out;
mod claims;
mod config;
mod find;
mod heads;
mod histories;
mod index;
mod log;
mod objects;
mod packed;
mod plan;
pub(crate) mod quarantined;
mod reflogs;
mod refs;
mod renamed;
mod salvage;
mod scratch;
mod seen;
mod stage;
mod trial;
mod view;

use std::path::PathBuf;

use crate::git::Repository;

pub(crate) use alternates::borrow_the_same;
pub(crate) use carry_out::{carry_out, locks};
pub(crate) use config::other_worktree;
pub(crate) use find::find;
pub(crate) use plan::{Plan, Problem};
pub(crate) use seen::Changed;
pub(crate) use stage::Stage;
pub(crate) use trial::trial;

use claims::Claims;
use config::Settings;
use heads::Heads;
use histories::Histories;
use index::Indexes;
use objects::Objects;
use seen::Seen;
use view::View;

/// How to rescue.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The git to run.
    pub(crate) git_program: PathBuf,
    /// Where scratch repositories are made.
    pub(crate) scratch: PathBuf,
    /// Where missing objects may be fetched from.
    pub(crate) fetch: Option<String>,
    /// What is being done.
    pub(crate) stage: Stage,
}

/// Finds out what is wrong, and what is to be done about it.
///
/// # Errors
/// What keeps us from finding out: a git that cannot be started, a directory that cannot be read; [`Changed`] where somebody is at work.
pub(crate) fn diagnose(repo: &Repository, request: &Request) -> anyhow::Result<Plan> {
    const TRIES: usize = 3;
    let mut tries = 1;
    loop {
        match diagnose_once(repo, request) {
            Err(error) if error.is::<Changed>() && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// What was read at different times is about one state of the repository only if nothing has changed meanwhile: an object that is newer
/// than our list of them would count as missing.
fn diagnose_once(repo: &Repository, request: &Request) -> anyhow::Result<Plan> {
    let mut seen = Seen::take(repo)?;
    let mut plan = examine(repo, request).or_else(|error| seen.require_all(repo).and(Err(error)))?;
    seen.add(plan.paths().into_iter())?;
    seen.require_all(repo)?;
    plan.seen = seen;
    Ok(plan)
}

fn examine(repo: &Repository, request: &Request) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    plan.make_directories(repo);
    let settings = Settings::read(repo, &request.git_program, &mut plan)?;
    let objects = Objects::look(repo, &request.stage)?;
    let mut view = View::make(repo, request, &settings, objects)?;
    salvage::packs(&mut view, &request.stage, &mut plan)?;
    view.take_shallow(&mut plan)?;
    let claims = Claims::read(repo, &settings)?;
    plan.lost_loose = claims.lost_loose;
    if claims::is_noted(repo)? {
        plan.found("a rescue that made lost files of refs again was killed", "it is ended");
    }
    let indexes = Indexes::read(repo, &settings)?;
    let reach = salvage::salvage(repo, &view, &claims, &indexes, request, &mut plan)?;
    plan.missing = reach.missing.len();
    plan.remote.clone_from(&settings.remote);
    request.stage.begin("finding out which values are whole");
    let mut histories = Histories::new(&view, &settings);
    histories.judge(&claims.values())?;
    let heads = Heads::decide(repo, &claims, &reach.dangling_commits, &mut histories, &mut plan)?;
    let given_up = refs::decide(repo, &claims, &heads, &reach, &mut histories, &mut plan)?;
    renamed::decide(repo, &claims, &heads, &mut histories, &mut plan)?;
    reflogs::decide(repo, &claims, &given_up, &mut histories, &mut plan)?;
    indexes.decide(repo, &view, &claims, &heads, &mut histories, &mut plan)?;
    heads::set_notes_aside(&claims, &mut histories, &mut plan)?;
    salvage::name_dangling(&reach, &mut plan);
    salvage::keep_loose(&view, &mut plan)?;
    adopt::adopt(&view, &reach, &mut plan)?;
    plan.all_here = histories.all_here();
    Ok(plan)
}
