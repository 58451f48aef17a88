//! Could the living process that a marker names make its transaction?
//!
//! A marker may be forged, and a process that lives for ever (the first one, a daemon) would keep its transaction unfinished for
//! ever. What certainly is neither a git that works here nor a program of ours is told as such, refuses no gc, and a person who
//! says so (`recover --force`) gets rid of it. By itself recovery still takes it for alive.
//!
//! Limit: a git or a jin-txn that lives, and could work here, makes any forged marker credible as long as it lives; so does
//! whatever is no shell or interpreter, and has its current directory here.

use std::fs;

use crate::git::Repository;
use crate::locks::works_here::{stands_here, works_here};
use crate::process::caller;
use crate::process::credentials::Writers;
use crate::process::owner::{self, ExecContext, Owner, Process, Stat};
use crate::state::TxKind;

/// False only where every process that is named, seen from here, lives and does something else, or is gone.
pub(crate) fn could_make_it(
    repo: &Repository,
    origin: TxKind,
    owner: &Owner,
    hook_process: Process,
    here: &ExecContext,
) -> bool {
    if !owner.place.is_same(here) {
        return true;
    }
    [owner.process, hook_process].into_iter().any(|process| match Stat::look(process.pid) {
        Ok(Some(stat)) if stat.process() == process && !stat.is_gone() => could_work(&stat, origin, repo),
        Ok(_) => false,
        Err(_) => true,
    })
}

fn could_work(stat: &Stat, origin: TxKind, repo: &Repository) -> bool {
    // Whoever cannot write here makes no transaction, whatever his process is called.
    if stat.is_kernel_thread() || Writers::of(&repo.common_dir).exclude(stat.pid) {
        return false;
    }
    let is_git = owner::may_be_git(stat) && works_here(stat, repo);
    // Programs that link git's code have any name as well; what runs scripts is none of them.
    let calls_hooks = || origin == TxKind::Hook && !caller::is_runner(stat) && stands_here(stat, repo);
    is_git || calls_hooks() || is_ours(stat) || (origin == TxKind::Apply && has_files_open(stat.pid, repo))
}

/// The program file of another user's process is hidden from us, so its name has to do: a hook is called by git's name for it.
fn is_ours(stat: &Stat) -> bool {
    let named = |name: &str| name.starts_with("jin-txn") || name.starts_with("reference-trans");
    let program = fs::read_link(format!("/proc/{}/exe", stat.pid));
    let same = || {
        let id = |pid: &str| Some(crate::fs::FileId::of(&fs::metadata(format!("/proc/{pid}/exe")).ok()?));
        id(&stat.pid.to_string()).zip(id("self")).is_some_and(|(one, other)| one.is_same_file(&other))
    };
    match program {
        Ok(program) => program.file_name().is_some_and(|name| named(&name.to_string_lossy())) || same(),
        Err(_) => named(&stat.comm) || ["post-checkout", "pre-receive"].contains(&stat.comm.as_str()),
    }
}

/// Programs that use the library have any name.
fn has_files_open(pid: u32, repo: &Repository) -> bool {
    owner::open_files(pid).is_ok_and(|open| open.iter().any(|(_, path)| path.starts_with(&repo.common_dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_boot_or_namespace_nothing_is_known() {
        let scratch = tempfile::tempdir().unwrap();
        for part in ["refs", "objects"] {
            crate::fs::durable::create_dirs(&scratch.path().join(part), 0o777).unwrap();
        }
        crate::fs::durable::create_new(&scratch.path().join("HEAD"), b"ref: refs/heads/main\n").unwrap();
        let repo = Repository::open(scratch.path()).unwrap();
        let here = ExecContext::here().unwrap();
        let gone = Process { pid: u32::MAX >> 1, start: 1 };
        for (place, credible) in [
            (here.clone(), false),
            (ExecContext { pidns: 1, ..here.clone() }, true),
            (ExecContext { boot: "b".into(), ..here.clone() }, true),
        ] {
            let owner = Owner { process: gone, place };
            assert_eq!(could_make_it(&repo, TxKind::Hook, &owner, gone, &here), credible, "{owner:?}");
        }
        let me = owner::myself().unwrap();
        let owner = Owner { process: me, place: here.clone() };
        assert!(could_make_it(&repo, TxKind::Run, &owner, me, &here), "this very program");
    }
}
