//! Reflogs whose ends a power cut damaged, and indexes that cannot be read.

use std::path::Path;
use std::rc::Rc;

use crate::fs::FileId;
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
        let actions = if index::is_readable(&site.git.at(&git_dir), &path)? {
            lost_objects(site, &git_dir, shown, closure)?.map(Action::WriteStaged)
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

/// Objects that only the index names and that are lost.
fn lost_objects(
    site: &Site<'_>,
    git_dir: &Path,
    shown: String,
    closure: &Closure,
) -> anyhow::Result<Option<LostObjects>> {
    let listed = site.git.at(git_dir).run(["ls-files", "--stage", "-z"])?;
    let staged: Vec<(Oid, &[u8])> = listed.stdout.split(|b| *b == 0).filter_map(staged_entry).collect();
    let trees = index::cached_trees(&git_dir.join("index"))?;
    let named: Vec<Oid> = staged.iter().map(|(oid, _)| *oid).chain(trees.iter().copied()).collect();
    let lost = closure.missing(&named)?;
    if lost.is_empty() {
        return Ok(None);
    }
    let blobs = staged.iter().filter(|(oid, _)| lost.contains(oid));
    let blobs = blobs.map(|(oid, name)| (*oid, String::from_utf8_lossy(name).into_owned())).collect();
    let trees = trees.iter().any(|tree| lost.contains(tree));
    Ok(Some(LostObjects { git_dir: git_dir.to_owned(), shown, blobs, trees, count: lost.len() }))
}

/// `<mode> SP <oid> SP <stage> TAB <path>`, but for submodules, whose commits are elsewhere.
fn staged_entry(entry: &[u8]) -> Option<(Oid, &[u8])> {
    let tab = entry.iter().position(|b| *b == b'\t')?;
    let mut words = entry[..tab].split(|b| *b == b' ');
    let mode = words.next()?;
    let oid = Oid::parse(words.next()?)?;
    (mode != b"160000").then_some((oid, &entry[tab + 1..]))
}
