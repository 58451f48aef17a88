//! Carries a plan out.
//!
//! Before anything else every pack gets a `.keep`, so that no gc of anybody removes what may still be needed. Where all became
//! whole those go again at the end; where something was lost they stay.

use std::path::{Path, PathBuf};

use crate::fs::access::Purpose;
use crate::fs::{absent_is_none, door, durable, named as fs};
use crate::git::Repository;
use crate::process::owner::ExecContext;
use crate::recovery::{self, Mode, Options, Report, Site};
use crate::rescue::Request;
use crate::rescue::plan::{Plan, Step};
use crate::state::{StateDir, Wait};
use crate::util::text::shown;

/// The content of our `.keep` files, by which we know them.
pub(crate) const KEEP: &[u8] = b"jin-txn rescue\n";

/// What carrying out has come to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What could not be done, and why.
    pub(crate) failures: Vec<String>,
    /// Where everything is that was replaced, if anything was.
    pub(crate) quarantine: Option<PathBuf>,
    /// How many packs are kept from gc.
    pub(crate) kept: usize,
}

/// Stale locks and half-made worktrees of a repository that is not protected; in a dry run they are only told.
///
/// # Errors
/// Where nothing can be told of processes.
pub(crate) fn locks(repo: &Repository, request: &Request, dry_run: bool) -> anyhow::Result<Report> {
    let state = StateDir::for_rescue(repo);
    let mut report = Report::default();
    with_site(repo, &state, request, dry_run, |site| recovery::mend_without_log(site, &mut report))?;
    Ok(report)
}

fn with_site<T>(
    repo: &Repository,
    state: &StateDir,
    request: &Request,
    dry_run: bool,
    work: impl FnOnce(&Site<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let here = ExecContext::here()?;
    let options = Options { mode: Mode::Command, dry_run, ..Options::new(request.git_program.clone()) };
    if dry_run {
        return work(&Site::new(repo, state, &options, &here));
    }
    durable::make_dirs(&state.quarantine(), Purpose::State)?;
    state.while_recovering(Wait::No, || work(&Site::new(repo, state, &options, &here)))
}

/// Carries it out. What cannot be done keeps nothing else from being done.
///
/// # Errors
/// Where nothing can be done at all.
pub(crate) fn carry_out(plan: Plan, repo: &Repository, request: &Request) -> anyhow::Result<Outcome> {
    let state = StateDir::for_rescue(repo);
    let loses = plan.loses();
    let (kept, steps) = plan.into_steps();
    let mut outcome = Outcome::default();
    with_site(repo, &state, request, false, |site| {
        let mut made = Vec::new();
        durable::make_dirs(&repo.common_dir.join("objects/pack"), Purpose::Git)?;
        for path in &kept {
            made.extend(keep(path)?.then_some(path));
        }
        for step in steps {
            if let Err(error) = do_one(site, step) {
                outcome.failures.push(format!("{error:#}"));
            }
        }
        // A pack that went needs none.
        for path in kept.iter().filter(|path| is_ours(path) && !has_pack(path)) {
            durable::remove_file(path)?;
        }
        if loses || !outcome.failures.is_empty() {
            outcome.kept = kept.iter().filter(|path| is_ours(path)).count();
        } else {
            // Those of a rescue before this one, which lost something or was killed, stay.
            made.into_iter().try_for_each(|path| durable::remove_file(path))?;
        }
        Ok(durable::sync_filesystem_of(&repo.common_dir)?)
    })?;
    outcome.quarantine = tidy(&state)?;
    Ok(outcome)
}

/// Puts this in place; what is there goes to quarantine.
pub(super) fn put_back(
    repo: &Repository,
    request: &Request,
    path: PathBuf,
    content: Vec<u8>,
    lock: Option<PathBuf>,
) -> anyhow::Result<()> {
    let state = StateDir::for_rescue(repo);
    with_site(repo, &state, request, false, |site| do_one(site, Step::Put { path, content, lock }))
}

/// Removes our directory if nothing is in it.
fn tidy(state: &StateDir) -> anyhow::Result<Option<PathBuf>> {
    let quarantine = state.quarantine();
    if door::entries(&quarantine)?.is_some_and(|entries| !entries.is_empty()) {
        return Ok(Some(quarantine));
    }
    if state.path().ends_with(crate::state::directory::RESCUE) {
        durable::remove_tree(state.path())?;
    }
    Ok(None)
}

/// Keeps a pack, also one that comes only now: git takes none away that has such a file.
fn keep(path: &Path) -> anyhow::Result<bool> {
    match durable::create_new(path, KEEP) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn has_pack(keep: &Path) -> bool {
    fs::symlink_metadata(keep.with_extension("pack")).is_ok()
}

fn is_ours(path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| content == KEEP)
}

fn do_one(site: &Site<'_>, step: Step) -> anyhow::Result<()> {
    match &step {
        Step::MakeDirectory(path) => return Ok(durable::make_dirs(path, Purpose::Git)?),
        Step::Put { path, content, lock } => {
            if absent_is_none(fs::symlink_metadata(path))?.is_some_and(|found| found.is_file())
                && fs::read(path).is_ok_and(|now| now == *content)
            {
                return Ok(());
            }
            for file in [Some(path), lock.as_ref()].into_iter().flatten() {
                durable::make_dirs(crate::fs::access::parent(file), Purpose::Git)?;
            }
        }
        // Another run has done it.
        Step::SetAside(path) if absent_is_none(fs::symlink_metadata(path))?.is_none() => return Ok(()),
        Step::SetAside(_) | Step::RebuildIndex(_) | Step::Sync => {}
    }
    let what = step.describe();
    let progress = recovery::perform(site, step.into_actions())?;
    let refused = progress.left_some.then(|| progress.lines.join("; ")).into_iter().chain(progress.losses);
    match refused.reduce(|all, one| format!("{all}; {one}")) {
        None => Ok(()),
        Some(why) => anyhow::bail!("{}: {why}", shown(&what)),
    }
}
