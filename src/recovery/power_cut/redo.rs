//! Writes refs again that a power cut took back.

use crate::fs::FileId;
use crate::git::update_refs::RefWrite;
use crate::git::{RefName, RefStore, Repository, Value, reflog};
use crate::locks::InTheWay;
use crate::recovery::files::{keep_copy, put, set_aside, while_locked, write_refs};
use crate::recovery::power_cut::repair::Repair;
use crate::recovery::progress::Progress;
use crate::recovery::reflogs::{Phantom, Told, Trim};
use crate::recovery::site::Site;

/// Writes what a power cut took back; what is in the way is told, and the rest is done.
pub(crate) fn redo(site: &Site<'_>, repairs: Vec<Repair>, progress: &mut Progress) -> anyhow::Result<()> {
    let (broken, mut others): (Vec<Repair>, Vec<Repair>) =
        repairs.into_iter().partition(|r| r.now.value == Value::Broken);
    // Deletions first: a name may have to go before another can be its directory.
    others.sort_by_key(|r| r.to != Value::Absent);
    for repair in broken {
        let replaced = replace_broken(site, &repair);
        note_done(replaced, repair, progress)?;
    }
    match write_all(site, &others) {
        Ok(()) => progress.repaired.append(&mut others),
        // One that is in the way must not stop the others.
        Err(error) if error.is::<InTheWay>() => {
            for repair in others {
                let alone = write_all(site, std::slice::from_ref(&repair));
                note_done(alone, repair, progress)?;
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn note_done(result: anyhow::Result<()>, repair: Repair, progress: &mut Progress) -> anyhow::Result<()> {
    match result {
        Ok(()) => progress.repaired.push(repair),
        Err(error) if error.is::<InTheWay>() => {
            progress.busy.push(format!("cannot redo {} yet: {error:#}", repair.name));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// git writes no ref whose present value is corrupted: it is replaced under its lock, as git would.
fn replace_broken(site: &Site<'_>, repair: &Repair) -> anyhow::Result<()> {
    let path = RefStore::new(site.repo).file(&repair.name);
    while_locked(site, &repair.name, || match line(&repair.to) {
        Some(text) => {
            keep_copy(site, &path)?;
            put(site, &path, &text)
        }
        None => set_aside(site, &path),
    })
}

/// Compare-and-swap of all, or of none.
fn write_all(site: &Site<'_>, repairs: &[Repair]) -> anyhow::Result<()> {
    let refs = RefStore::new(site.repo);
    let write = |r: &Repair| RefWrite { name: r.name.clone(), from: r.now.value.clone(), to: r.to.clone() };
    let writes: Vec<RefWrite> = repairs.iter().map(write).collect();
    if writes.is_empty() {
        return Ok(());
    }
    let mut logs = Vec::new();
    for write in &writes {
        logs.push((write.name.clone(), log_state(site, &write.name, &write.to)?));
    }
    for head in heads(site)? {
        if let Value::Symref(branch) = refs.read(&head)?.value
            && let Some(to) = writes.iter().find(|w| w.name == branch).map(|w| w.to.clone())
        {
            logs.push((head.clone(), log_state(site, &head, &to)?));
        }
    }
    let message = format!("{}redone after a reboot", reflog::OUR_MESSAGE);
    write_refs(site, &site.repo.common_dir, &writes, &message)?;
    // The entry of the transaction itself was there already: ours says nothing new.
    for (name, size) in logs {
        if size.is_some() {
            Trim { name, size, phantom: Phantom::Ours, told: Told::No }.execute(site)?;
        }
    }
    Ok(())
}

/// The size of the reflog of `name` if its last entry leads to `to`.
fn log_state(site: &Site<'_>, name: &RefName, to: &Value) -> anyhow::Result<Option<u64>> {
    let log = RefStore::new(site.repo).log(name);
    let told = reflog::newest_value(&log)?;
    let is_there = to.oid().is_some_and(|oid| told.as_deref() == Some(&*oid.hex()));
    Ok(if is_there { FileId::at(&log)?.map(|id| id.size) } else { None })
}

fn heads(site: &Site<'_>) -> anyhow::Result<Vec<RefName>> {
    let canonical = |git_dir| {
        let worktree = Repository { git_dir, ..site.repo.clone() };
        RefStore::new(&worktree).canonical(b"HEAD").map_err(anyhow::Error::new)
    };
    site.repo.all_git_dirs().into_iter().map(canonical).collect()
}

/// A value as a ref file has it.
pub(crate) fn line(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Oid(oid) => Some(format!("{oid}\n").into_bytes()),
        Value::Symref(target) => Some([b"ref: ", target.as_bytes(), b"\n"].concat()),
        Value::Absent | Value::Broken => None,
    }
}
