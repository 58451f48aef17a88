//! How far a cut rename came, and what it needs: asked of the refs, of the reflog's inode, and of the log since.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fs::door::{self, Kind};
use crate::fs::{FileId, absent_is_none, named as fs};
use crate::git::reflog::{self, RENAMED_LOG};
use crate::git::{RefName, RefStore, Repository, Value};
use crate::process::owner::Owner;
use crate::recovery::branch_rename::Group;
use crate::recovery::decide::{Decision, Evidence, RenameStage, decide};
use crate::recovery::history::LogOutcome;
use crate::recovery::reflogs::Phantom;
use crate::recovery::site::Site;
use crate::state::TxId;
use crate::wal::{Begin, Body, Record, RefChange, Rename, rename_message};

/// Where the reflog is that was on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogPlace {
    /// The branch had none.
    None,
    /// On its way.
    OnItsWay,
    /// On its way again: it has arrived and was written to since, and somebody has begun to rename the new name.
    OnItsWayAgain,
    /// It is the reflog of this ref.
    Of(RefName),
    /// It is the reflog of a ref that this rename has nothing to do with: two met, and it was the other's from the start.
    OfAnother,
    /// Nowhere to be found: rewritten by a gc, or another rename has put its own in its place.
    Lost,
}

/// What was found of a rename.
pub(crate) struct Situation<'b> {
    /// The deletion of the old name.
    pub old: &'b RefChange,
    /// What that was.
    pub value: Value,
    /// Its reflog.
    pub log: LogPlace,
    /// The same as a file: its inode, and the size that it had when the rename began.
    pub log_file: Option<FileId>,
    /// The new name, where it is known.
    pub new: Option<RefName>,
    /// How far git came.
    pub stage: RenameStage,
    /// The log has seen the new name since.
    pub completed: bool,
    /// Only the ref is renamed: HEAD and the configuration stay as they are.
    pub alone: bool,
}

impl Situation<'_> {
    /// Back or forward?
    pub(crate) fn decision(&self) -> Decision {
        decide(&Evidence::Rename { stage: self.stage, completed: self.completed })
    }

    /// Neither name is there, and nothing proves that it was cut.
    pub(crate) fn gone(&self) -> String {
        let (name, value) = (&self.old.name, &self.value);
        format!(
            "{name} was renamed, and its new name is gone, too: if that was not you, `git update-ref {name} {value}` brings it back"
        )
    }
}

/// What a record behind that of a rename says about it.
#[derive(Debug, PartialEq, Eq)]
enum Later {
    /// It was completed.
    Completed,
    /// Its new name was not there.
    NotThere,
    /// Nothing.
    Silent,
}

/// What has happened since a rename began.
#[derive(Default)]
pub(crate) struct Since {
    /// The new name was there.
    pub completed: bool,
    /// There was another rename: git has one place for all reflogs on their way, and replaces what lies there.
    pub replaced: bool,
}

/// Does the record show the new name that git makes without a word in the log? Whoever changes or packs it sees it. Where it is
/// not known, another rename moves on the reflog that has arrived there, and has grown by the note of its arrival.
fn told_by(record: &Record, rename: &Rename, owner: &Owner) -> Later {
    let is_new = |name: &RefName| rename.to.as_ref() == Some(name);
    let there = |value: &Value| if *value == Value::Absent { Later::NotThere } else { Later::Completed };
    match &record.body {
        Body::Begin(other) if other.owner != *owner => {
            let moved_on = other.rename.as_ref().and_then(|r| r.log).zip(rename.log);
            if rename.to.is_none() && moved_on.is_some_and(|(on, log)| on.ino == log.ino && on.size > log.size) {
                return Later::Completed;
            }
            let seen = other.refs.iter().find(|c| is_new(&c.name)).and_then(|c| c.before.as_ref());
            seen.map_or(Later::Silent, there)
        }
        Body::Moved { refs } => refs.iter().find(|s| is_new(&s.name)).map_or(Later::Silent, |s| there(&s.value)),
        _ => Later::Silent,
    }
}

/// What the log tells about it since. Asked after the look: a deletion that it has seen is in the log by then.
fn since(site: &Site<'_>, id: TxId, begin: &Begin) -> anyhow::Result<Since> {
    let Some(rename) = &begin.rename else { return Ok(Since::default()) };
    let begins = |record: &Record| record.tx == Some(id) && matches!(record.body, Body::Begin(_));
    let scan = site.log.scan_until(|records| records.iter().any(begins))?;
    let later = || scan.records.iter().skip_while(|record| !begins(record)).skip(1);
    let first = later().map(|record| told_by(record, rename, &begin.owner)).find(|told| *told != Later::Silent);
    let renames = |record: &Record| match &record.body {
        Body::Begin(other) => other.rename.is_some() && other.owner != begin.owner,
        _ => false,
    };
    let replaced = later().any(renames) || FileId::at(&site.repo.common_dir.join(RENAMED_LOG))?.is_some();
    Ok(Since { completed: first == Some(Later::Completed), replaced })
}

/// Looks how far a rename came; `None` when it is not one.
pub(crate) fn look<'b>(site: &Site<'_>, begin: &'b Begin, group: &Group<'_>) -> anyhow::Result<Option<Situation<'b>>> {
    let refs = RefStore::new(site.repo);
    let Some(old) = renamed(begin) else { return Ok(None) };
    let Some(value) = old.before.clone() else { return Ok(None) };
    let target = group.target.and_then(|t| renamed(t.begin.as_ref()?));
    let mut log = find_log(site, begin, target)?;
    let mut log_file = begin.rename.as_ref().and_then(|r| r.log);
    let told = target.map(|t| &t.name).or(begin.rename.as_ref().and_then(|r| r.to.as_ref()));
    let elsewhere = match &log {
        LogPlace::Of(name) => (*name != old.name && told != Some(name)).then(|| refs.log(name)),
        LogPlace::OnItsWayAgain => Some(site.repo.common_dir.join(RENAMED_LOG)),
        _ => None,
    };
    if let (Some(path), Some(told)) = (elsewhere, told)
        && !notes_arrival(&path, begin, &old.name, told)?
    {
        log = LogPlace::OfAnother;
    }
    // Its inode is free then, and another reflog may have it.
    if let (LogPlace::Lost | LogPlace::OfAnother, Some(told)) = (&log, told)
        && let Some((name, file)) = rewritten(&refs, [&old.name, told])?
    {
        (log, log_file) = (LogPlace::Of(name), Some(file));
    }
    let new = match (&log, target) {
        (LogPlace::Of(name), None) => (*name != old.name).then(|| name.clone()),
        _ => told.cloned(),
    };
    let found_old = refs.read(&old.name)?;
    // The very file that was to be deleted; one that was made since belongs to somebody who wanted that name.
    let never_deleted = found_old.loose == old.file && group.source.ending == LogOutcome::None;
    // Or the one that an earlier recovery brought back, and died before it had trimmed the reflogs.
    let brought_back = || reflog::ends_with_ours(&refs.log(&old.name));
    let is_back = found_old.value == value && (never_deleted || brought_back()?);
    let now_old = found_old.value;
    let now_new = new.as_ref().map(|n| refs.read(n)).transpose()?.map(|s| s.value);
    let is_there = now_new.as_ref().is_some_and(|v| *v != Value::Absent);
    let arrived = match &log {
        LogPlace::Of(name) => new.as_ref() == Some(name) && is_there,
        // Without its reflog nothing tells who made the new name: that it exists is enough not to bring the old back.
        LogPlace::None | LogPlace::Lost | LogPlace::OfAnother => is_there,
        // git makes the new name after that. A reflog that lay there already is not this one's.
        LogPlace::OnItsWay => target.is_none() && now_new.as_ref() == Some(&value),
        LogPlace::OnItsWayAgain => false,
    };
    let stage = if is_back {
        RenameStage::OldIsThere
    } else if now_old != Value::Absent {
        RenameStage::Unclear
    } else if arrived && new.is_some() {
        RenameStage::NewIsThere
    } else if arrived || log == LogPlace::OnItsWayAgain || (log == LogPlace::Lost && new.is_none()) {
        // Renamed in full, and the new name taken up since by a rename that was cut before it was logged. Or there is
        // neither the reflog nor a name to go by: nothing proves a cut of this one.
        RenameStage::Unclear
    } else {
        RenameStage::Between { lost: false }
    };
    let (stage, completed) = match stage {
        RenameStage::OldIsThere => (stage, since(site, group.source.id(), begin)?.completed),
        RenameStage::Between { .. } => {
            let since = since(site, group.source.id(), begin)?;
            // Lost with the new name: deleted by an unseen writer, unless another rename is to blame.
            (RenameStage::Between { lost: log == LogPlace::Lost && !since.replaced }, since.completed)
        }
        _ => (stage, false),
    };
    let alone = begin.rename.as_ref().is_some_and(|rename| rename.alone);
    Ok(Some(Situation { old, value, log, log_file, new, stage, completed, alone }))
}

fn find_log(site: &Site<'_>, begin: &Begin, target: Option<&RefChange>) -> anyhow::Result<LogPlace> {
    let Some(log) = begin.rename.as_ref().and_then(|r| r.log) else { return Ok(LogPlace::None) };
    let is_it = |path: &Path| absent_is_none(fs::symlink_metadata(path)).map(|m| m.is_some_and(|m| m.ino() == log.ino));
    let on_its_way = site.repo.common_dir.join(RENAMED_LOG);
    if is_it(&on_its_way)? {
        // git writes to it only under the new name.
        let has_grown = FileId::at(&on_its_way)?.is_some_and(|now| now.size > log.size);
        return Ok(if has_grown { LogPlace::OnItsWayAgain } else { LogPlace::OnItsWay });
    }
    if let Some(name) = target.map(|t| &t.name)
        && is_it(&RefStore::new(site.repo).log(name))?
    {
        return Ok(LogPlace::Of(name.clone()));
    }
    let mut todo = vec![site.repo.common_dir.join("logs/refs")];
    while let Some(dir) = todo.pop() {
        for (name, kind) in door::entries(&dir)?.unwrap_or_default() {
            let path = dir.join(name);
            if kind == Kind::Directory {
                todo.push(path);
            } else if is_it(&path)? {
                return Ok(name_of_log(site.repo, &path).map_or(LogPlace::Lost, LogPlace::Of));
            }
        }
    }
    Ok(LogPlace::Lost)
}

/// The reflog of a rename when it is another file by now: `git reflog expire` and `git gc` write each anew. While neither name is
/// there it lies at one of them: git deletes a reflog before its ref, so that of a branch that was deleted would be gone.
fn rewritten(refs: &RefStore<'_>, names: [&RefName; 2]) -> anyhow::Result<Option<(RefName, FileId)>> {
    for name in names {
        if refs.read(name)?.value != Value::Absent {
            return Ok(None);
        }
    }
    for name in names {
        let path = refs.log(name);
        if let Some(file) = FileId::at(&path)? {
            let size = reflog::size_without_last(&path, usize::MAX, |line| Phantom::Renamed.includes(line))?;
            return Ok(Some((name.clone(), FileId { size: size.unwrap_or(file.size), ..file })));
        }
    }
    Ok(None)
}

/// The ref whose deletion is half of a rename.
pub(crate) fn renamed(begin: &Begin) -> Option<&RefChange> {
    begin.refs.iter().find(|c| c.after == Value::Absent && !c.name.is_head())
}

/// Has the reflog, wherever it is by now, come from `old` by way of `new`? git notes that where it had ended.
fn notes_arrival(log: &Path, begin: &Begin, old: &RefName, new: &RefName) -> std::io::Result<bool> {
    let size = begin.rename.as_ref().and_then(|r| r.log).map(|log| log.size);
    let renamed = rename_message(old, new);
    reflog::goes_on_with(log, size, |line| line.message == renamed.as_bytes())
}

fn name_of_log(repo: &Repository, log: &Path) -> Option<RefName> {
    use std::os::unix::ffi::OsStrExt;
    let name = log.strip_prefix(repo.common_dir.join("logs")).ok()?;
    RefName::parse(name.as_os_str().as_bytes()).ok()
}
