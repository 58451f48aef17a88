//! Carries a plan out.
//!
//! Before anything else every pack gets a `.keep`, so that no gc of anybody removes what may still be needed. Where all became
//! whole those go again at the end; where something was lost they stay.

use std::path::{Path, PathBuf};

use crate::fs::access::Purpose;
use crate::fs::{absent_is_none, door, durable, named as fs, with_suffix};
use crate::git::Repository;
use crate::process::owner::ExecContext;
use crate::recovery::{self, Mode, Options, Report, Site};
use crate::rescue::Request;
use crate::rescue::claims::LOST_REFS;
use crate::rescue::plan::{Plan, Step};
use crate::rescue::seen::{Changed, Seen};
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
pub(crate) fn carry_out(mut plan: Plan, repo: &Repository, request: &Request) -> anyhow::Result<Outcome> {
    let state = StateDir::for_rescue(repo);
    let (loses, lost_loose) = (plan.loses(), plan.lost_loose);
    let seen = std::mem::take(&mut plan.seen);
    let (kept, steps) = plan.into_steps();
    let mut outcome = Outcome::default();
    with_site(repo, &state, request, false, |site| {
        if lost_loose {
            note_lost_refs(repo)?;
        }
        let mut made = Vec::new();
        durable::make_dirs(&repo.common_dir.join("objects/pack"), Purpose::Git)?;
        for path in &kept {
            made.extend(keep(path)?.then_some(path));
        }
        do_all(site, steps, seen, &mut outcome)?;
        if lost_loose && outcome.failures.is_empty() {
            durable::sync_filesystem_of(&repo.common_dir)?;
            let note = repo.common_dir.join(LOST_REFS);
            durable::remove_file(&note)?;
            durable::remove_dir_if_empty(crate::fs::access::parent(&note))?;
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
    with_site(repo, &state, request, false, |site| do_one(site, Step::Put { path, content, lock }, None))
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

fn do_one(site: &Site<'_>, step: Step, seen: Option<&Seen>) -> anyhow::Result<()> {
    let what = step.describe();
    let check = || seen.map_or(Ok(()), |seen| seen.require(&what));
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
            return recovery::replace_if(site, (path, Some(content)), lock.as_deref(), check);
        }
        // Another run has done it.
        Step::SetAside(path) if absent_is_none(fs::symlink_metadata(path))?.is_none() => return Ok(()),
        Step::SetAside(path) => return recovery::replace_if(site, (path, None), lock_of(site, path).as_deref(), check),
        Step::RebuildIndex(_) => check()?,
        Step::Sync => {}
    }
    let progress = recovery::perform(site, step.into_actions())?;
    let refused = progress.left_some.then(|| progress.lines.join("; ")).into_iter().chain(progress.losses);
    match refused.reduce(|all, one| format!("{all}; {one}")) {
        None => Ok(()),
        Some(why) => anyhow::bail!("{}: {why}", shown(&what)),
    }
}

/// The lock under which git changes a ref, or its reflog.
fn lock_of(site: &Site<'_>, path: &Path) -> Option<PathBuf> {
    let common_dir = &site.repo.common_dir;
    let inside = path.strip_prefix(common_dir).ok()?;
    let name = inside.strip_prefix("logs").unwrap_or(inside);
    let is_plain = name.starts_with("refs/heads") || name.starts_with("refs/tags") || name.starts_with("refs/remotes");
    let lock = with_suffix(common_dir.join(name), ".lock");
    (is_plain && fs::symlink_metadata(crate::fs::access::parent(&lock)).is_ok_and(|found| found.is_dir()))
        .then_some(lock)
}

/// Carries the steps out. One that cannot be done keeps nothing else from being done, but where somebody else is at work nothing more
/// is done at all.
fn do_all(site: &Site<'_>, steps: Vec<Step>, mut seen: Seen, outcome: &mut Outcome) -> anyhow::Result<()> {
    for step in steps {
        let path = step.describe();
        match do_one(site, step, Some(&seen)) {
            Ok(()) => seen.renew(&path)?,
            Err(error) => {
                outcome.failures.push(format!("{error:#}"));
                if error.is::<Changed>() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Says, for a rescue after one that was killed, that the files of refs were lost: what it has made again hides that.
fn note_lost_refs(repo: &Repository) -> anyhow::Result<()> {
    let note = repo.common_dir.join(LOST_REFS);
    durable::make_dirs(crate::fs::access::parent(&note), Purpose::State)?;
    match durable::create_new(&note, b"") {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(durable::sync_filesystem_of(&repo.common_dir)?),
    }
}
