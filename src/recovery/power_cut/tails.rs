//! Reflogs whose ends a power cut damaged, and indexes that cannot be read.

use std::path::Path;
use std::rc::Rc;

use crate::fs::FileId;
use crate::git::index_file::Entry;
use crate::git::objects::Closure;
use crate::git::{Oid, RefStore, Repository, index, reflog};
use crate::recovery::action::Action;
use crate::recovery::decide::{Decision, Evidence, decide};
use crate::recovery::expected_refs::ExpectedRefs;
use crate::recovery::perform::perform;
use crate::recovery::power_cut::lost::{DamagedReflog, LostIndex, LostObjects};
use crate::recovery::power_cut::{files_below, is_old};
use crate::recovery::report::Report;
use crate::recovery::site::Site;

/// So many entries at the end of a reflog are checked for lost objects.
const NEWEST_ENTRIES: usize = 100;

/// Cuts NULs, half lines and entries about lost objects off the ends of reflogs.
pub(crate) fn mend_reflogs(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    closure: &Closure,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut logs = Vec::new();
    let mut told = Vec::new();
    for dir in site.repo.all_git_dirs() {
        let worktree = Repository { git_dir: dir.clone(), ..site.repo.clone() };
        for (path, _) in files_below(&dir.join("logs"))?.into_iter().filter(|(_, file)| !is_old(expected, *file)) {
            let inside = path.strip_prefix(dir.join("logs")).unwrap_or(&path).as_os_str();
            if let Ok(name) = RefStore::new(&worktree).canonical(std::os::unix::ffi::OsStrExt::as_bytes(inside)) {
                told.extend(reflog::newest_values(&path, NEWEST_ENTRIES)?);
                logs.push((name, path));
            }
        }
    }
    let lost = Rc::new(closure.missing(&told)?);
    let mut actions = Vec::new();
    for (name, path) in logs {
        let damaged = DamagedReflog { name, path, lost: Rc::clone(&lost) };
        if damaged.sound_size()?.is_some() {
            actions.push(Action::CutReflog(damaged));
        }
    }
    report.notes.extend(perform(site, actions)?.lines);
    Ok(())
}

/// Returns whether none is left that another process holds.
pub(crate) fn mend_indexes(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    closure: &Closure,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let mut done = true;
    for git_dir in site.repo.all_git_dirs() {
        let path = git_dir.join("index");
        let file = FileId::at(&path)?;
        if file.is_none_or(|file| is_old(expected, file)) {
            continue;
        }
        let shown = site.repo.relative(&path);
        let actions = if let Some((entries, _)) = index::read(&site.git.at(&git_dir), &path)? {
            lost_objects(&git_dir, shown, entries, closure)?.map(Action::WriteStaged)
        } else {
            let in_progress = index::in_progress(&git_dir);
            let locked = git_dir.join("index.lock").exists();
            match decide(&Evidence::UnreadableIndex { locked, in_progress: in_progress.is_some() }) {
                Decision::RollBack => Some(Action::RebuildIndex(LostIndex { git_dir, path, shown })),
                Decision::AskHuman(_) => {
                    let what = in_progress.unwrap_or_default();
                    report.losses.push(format!(
                        "{shown} is unreadable in the middle of {what}: remove it and run `git reset`, which gives that up"
                    ));
                    None
                }
                _ => {
                    report.busy.push(format!("{shown} is unreadable, and its lock is held"));
                    done = false;
                    None
                }
            }
        };
        let progress = perform(site, actions.into_iter().collect())?;
        report.notes.extend(progress.lines);
        report.losses.extend(progress.losses);
    }
    Ok(done)
}

/// Objects that only the index names and that are lost. Those of submodules are elsewhere.
fn lost_objects(
    git_dir: &Path,
    shown: String,
    entries: Vec<Entry>,
    closure: &Closure,
) -> anyhow::Result<Option<LostObjects>> {
    let staged: Vec<(Oid, Vec<u8>)> =
        entries.into_iter().filter(|e| e.mode != 0o160_000).map(|e| (e.oid, e.path)).collect();
    let trees = index::cached_trees(&git_dir.join("index"))?;
    let named: Vec<Oid> = staged.iter().map(|(oid, _)| *oid).chain(trees.iter().copied()).collect();
    let lost = closure.missing(&named)?;
    if lost.is_empty() {
        return Ok(None);
    }
    let blobs = staged.into_iter().filter(|(oid, _)| lost.contains(oid)).collect();
    let trees = trees.iter().any(|tree| lost.contains(tree));
    Ok(Some(LostObjects { git_dir: git_dir.to_owned(), shown, blobs, trees, count: lost.len() }))
}
