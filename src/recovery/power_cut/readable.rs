//! What git cannot even start with: a HEAD or `packed-refs` without sense, and loose objects that are none.

use std::collections::BTreeMap;

use crate::fs::{FileId, absent_is_none, durable, named as fs, read_ref};
use crate::git::{Oid, RefFormat, RefName, RefStore, Repository, Value, objects, reflog};
use crate::locks::{InTheWay, Judge, LockFile, Verdict};
use crate::recovery::action::Action;
use crate::recovery::expected_refs::ExpectedRefs;
use crate::recovery::perform::perform;
use crate::recovery::power_cut::redo::line;
use crate::recovery::power_cut::{MARGIN, files_below};
use crate::recovery::report::{Report, plural};
use crate::recovery::site::Site;
use crate::state::directory::SMALL;
use crate::wal::{Body, Record};

/// What git can read by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readable {
    /// Everything that it starts with.
    Yes,
    /// It can work here. Corrupt objects lie behind a link and are still there: the next recovery looks again.
    InPart,
    /// It cannot work here.
    No,
}

/// Makes what git starts with readable.
pub(crate) fn make_readable(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    judge: &mut Judge<'_>,
    report: &mut Report,
) -> anyhow::Result<Readable> {
    mend_config(site, report)?;
    if site.repo.ref_format == RefFormat::Files {
        if !mend_heads(site, expected, judge, report)? {
            return Ok(Readable::No);
        }
        mend_packed_refs(site, expected, report)?;
    }
    let since = if expected.clock_is_steady { expected.durable_until.saturating_sub(MARGIN) } else { 0 };
    let corrupt = objects::corrupt_loose(&site.repo.common_dir, since, || ())?;
    let (mut moved, mut left) = (0, Vec::new());
    for object in corrupt {
        let done = perform(site, vec![Action::SetAside(object)])?;
        moved += usize::from(!done.left_some);
        left.extend(done.lines.into_iter().map(|why| format!("an object is corrupt: {why}")));
    }
    if moved > 0 {
        report.notes.push(format!("moved {moved} corrupt {} to quarantine", plural(moved, "object")));
    }
    let readable = if left.is_empty() { Readable::Yes } else { Readable::InPart };
    report.losses.extend(left);
    Ok(readable)
}

/// git replaces its configuration without syncing it: some file systems keep the name and lose the content.
fn mend_config(site: &Site<'_>, report: &mut Report) -> anyhow::Result<()> {
    let path = site.repo.common_dir.join("config");
    let is_lost = |content: Vec<u8>| content.is_empty() || content.contains(&0);
    if !absent_is_none(fs::read(&path))?.is_some_and(is_lost) {
        return Ok(());
    }
    let saved = absent_is_none(durable::read_own(&site.state.saved_config(), SMALL))?;
    let Some(content) = saved.filter(|c| !c.is_empty()) else { return Ok(()) };
    report.notes.push("config was empty after the reboot: it is as the last transaction found it".to_owned());
    perform(site, vec![Action::ReplaceFile { path, content, lock: None }])?;
    Ok(())
}

/// What git writes into HEAD of a repository that it is about to clone, before it knows the branch.
const NOT_YET_KNOWN: &[u8] = b"ref: refs/heads/.invalid\n";

fn mend_heads(
    site: &Site<'_>,
    expected: &ExpectedRefs<'_>,
    judge: &mut Judge<'_>,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let mut all = true;
    for git_dir in site.repo.all_git_dirs() {
        let path = git_dir.join("HEAD");
        let found = read_ref(&path)?;
        let is_whole = |content: &[u8]| content == NOT_YET_KNOWN || Value::of_file(content) != Value::Broken;
        if found.as_ref().is_some_and(|(content, _)| is_whole(content)) {
            continue;
        }
        let worktree = Repository { git_dir, ..site.repo.clone() };
        let refs = RefStore::new(&worktree);
        let name = refs.canonical(b"HEAD")?;
        let told = expected.heads.get(&name).cloned();
        let value = told.or(reflog::newest_branch(&refs.log(&name))?.map(Value::Symref));
        let Some((value, content)) = value.and_then(|v| Some((line(&v)?, v)).map(|(text, v)| (v, text))) else {
            let lost = format!("{name} is empty, and the log does not know what it was: write it yourself");
            report.losses.push(lost);
            all = false;
            continue;
        };
        let lock = refs.lock(&name);
        if !unlock_head(site, &lock, judge, report)? {
            all = false;
            continue;
        }
        report.notes.push(format!("{name} was empty after the reboot: by the log it is {value}"));
        perform(site, vec![Action::ReplaceFile { path, content, lock: Some(lock) }])?;
    }
    // Without a HEAD git sees no repository: a dry run can say no more.
    Ok(all && site.repo.git_dir.join("HEAD").metadata().is_ok_and(|m| m.len() > 0))
}

/// Moves a lock of HEAD aside whose owner is dead.
fn unlock_head(
    site: &Site<'_>,
    path: &std::path::Path,
    judge: &mut Judge<'_>,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let Some(id) = FileId::at(path)? else { return Ok(true) };
    match judge.judge(LockFile { path: path.to_owned(), id })? {
        Verdict::Dead(lock) => Ok(!perform(site, vec![Action::RemoveLock(lock)])?.is_void),
        Verdict::Held(holder) => {
            report.busy.push(format!("{} is held: {}", site.repo.relative(path), holder.because));
            Ok(false)
        }
    }
}

/// `packed-refs` had something in it, and is corrupted.
pub(crate) fn packed_refs_are_damaged(site: &Site<'_>, expected: &ExpectedRefs<'_>) -> anyhow::Result<bool> {
    let found = absent_is_none(fs::read(site.repo.common_dir.join("packed-refs")))?;
    Ok(match found {
        None => false,
        // Another program may write an empty one; git never does.
        Some(content) if content.is_empty() => expected.had_packed_refs,
        Some(content) => content.contains(&0) || !content.ends_with(b"\n"),
    })
}

/// Replaces damaged `packed-refs` by what the whole log, and reflogs, know of refs that have no file of their own.
fn mend_packed_refs(site: &Site<'_>, expected: &ExpectedRefs<'_>, report: &mut Report) -> anyhow::Result<()> {
    if !packed_refs_are_damaged(site, expected)? {
        return Ok(());
    }
    let scan = site.log.scan()?;
    let mut values = newest_values(&scan.records);
    for (path, _) in files_below(&site.repo.common_dir.join("logs/refs"))? {
        let inside = path.strip_prefix(site.repo.common_dir.join("logs")).unwrap_or(&path);
        let name = RefName::parse(std::os::unix::ffi::OsStrExt::as_bytes(inside.as_os_str()));
        let newest = reflog::newest_value(&path)?.and_then(|hex| Oid::parse(hex.as_bytes()));
        if let (Ok(name), Some(oid)) = (name, newest.filter(|oid| !oid.is_null())) {
            values.entry(name).or_insert(Value::Oid(oid));
        }
    }
    let refs = RefStore::new(site.repo);
    let mut content = b"# pack-refs with: sorted \n".to_vec();
    for (name, value) in values {
        let is_alone = name.as_bytes().starts_with(b"refs/") && read_ref(&refs.file(&name))?.is_none();
        if let Some(oid) = value.oid().filter(|_| is_alone) {
            content.extend([oid.hex().as_bytes(), b" ", name.as_bytes(), b"\n"].concat());
        }
    }
    let lost = "packed-refs was damaged: it was made again from the log and the reflogs; what neither knows is lost";
    report.losses.push(lost.to_owned());
    let path = site.repo.common_dir.join("packed-refs");
    let replace = |lock| vec![Action::ReplaceFile { path: path.clone(), content: content.clone(), lock }];
    // A lock from before the reboot goes later; what git cannot read is in nobody's hands.
    match perform(site, replace(Some(site.repo.common_dir.join("packed-refs.lock")))) {
        Err(error) if error.is::<InTheWay>() => perform(site, replace(None)).map(|_| ()),
        done => done.map(|_| ()),
    }
}

/// The newest word of the whole log on every ref that it names.
fn newest_values(records: &[Record]) -> BTreeMap<RefName, Value> {
    let mut values = BTreeMap::new();
    for record in records {
        match &record.body {
            Body::Begin(begin) => {
                for change in &begin.refs {
                    values.extend(change.before.clone().map(|before| (change.name.clone(), before)));
                }
            }
            Body::Committed { refs } | Body::Recovered { refs, .. } | Body::Baseline { refs, .. } => {
                values.extend(refs.iter().map(|s| (s.name.clone(), s.value.clone())));
            }
            _ => {}
        }
    }
    values
}
