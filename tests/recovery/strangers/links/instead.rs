//! FIFOs, devices, directories and enormous files in the place of what git reads. By default each place meets every second of them,
//! by turns; with `JIN_TRAPS=all` each meets all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;

use super::{forget_the_boot, protected, run};
use crate::support::repo::{Repo, jin_txn};
use crate::support::table;

/// What is put in the place of a file.
type Trap = (&'static str, fn(&Path));

const TRAPS: [Trap; 5] = [
    ("a FIFO", |path| nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o666)).expect("a FIFO can be made")),
    ("a link to a device", |path| symlink("/dev/zero", path).expect("a link can be made")),
    ("a directory", |path| fs::create_dir(path).expect("a directory can be made")),
    ("a file of a terabyte", |path| {
        let file = fs::File::create(path).expect("it can be made");
        // Where the file system has none that large, the largest there is.
        if file.set_len(1 << 40).is_err() {
            file.set_len(1 << 43).or_else(|_| file.set_len(6 << 30)).expect("a sparse file can be made");
        }
    }),
    ("a link to nowhere", |path| symlink("/nowhere", path).expect("a link can be made")),
];

const PLACES: [&str; 19] = [
    "HEAD",
    "index",
    "packed-refs",
    "refs/heads/main",
    "refs/heads/evil",
    "logs/HEAD",
    "logs/refs/heads/main",
    "logs/refs/heads/evil",
    "commondir",
    "shallow",
    "info/exclude",
    "objects/info/alternates",
    "objects/pack/pack-x.idx",
    "worktrees/x/HEAD",
    "worktrees/x/index",
    "worktrees/x/commondir",
    "worktrees/x/gitdir",
    "worktrees/x/locked",
    "worktrees/x/logs/HEAD",
];

/// A repository of which this boot has looked at nothing yet, with a lock of the dead.
fn unverified() -> Repo {
    let repo = protected();
    repo.git(["worktree", "add", "-q", "--detach", "../linked"]);
    fs::rename(repo.git_dir().join("worktrees/linked"), repo.git_dir().join("worktrees/x")).expect("it can move");
    fs::write(repo.git_dir().join("refs/heads/stale.lock"), "").expect("a lock can be made");
    forget_the_boot(&repo);
    repo
}

#[test]
fn whatever_is_in_the_place_of_a_file_of_git_nobody_hangs_and_no_memory_is_filled() {
    for (number, place) in PLACES.into_iter().enumerate() {
        // A copy would count as copied: nothing would be verified in it.
        let repo = unverified();
        let (old, new) = (repo.read(["rev-parse", "HEAD~"]), repo.read(["rev-parse", "HEAD"]));
        let payload = format!("{old} {new} refs/heads/main\n");
        let path = repo.git_dir().join(place);
        let aside = repo.scratch().join("aside");
        let chosen =
            TRAPS.into_iter().enumerate().filter(|(trap, _)| (trap + number) % table::stride("JIN_TRAPS", 2) == 0);
        for (_, (trap, put)) in chosen {
            let was_there = fs::rename(&path, &aside).is_ok();
            fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            put(&path);
            if place.ends_with(".idx") {
                fs::write(path.with_extension("pack"), "PACK").expect("it can be written");
            }
            fs::write(repo.git_dir().join("refs/heads/stale.lock"), "").expect("a lock can be made");
            forget_the_boot(&repo);
            let hook = repo.git_dir().join("hooks/reference-transaction");
            let all = [
                (jin_txn(), &["check", "--prompt"][..]),
                (jin_txn(), &["check"]),
                (jin_txn(), &["status"]),
                (jin_txn(), &["recover"]),
                (hook.clone(), &["preparing"]),
                (hook.clone(), &["prepared"]),
                (hook, &["committed"]),
            ];
            for (program, arguments) in all {
                run(&repo, &program, arguments, &payload, &format!("{trap} as {place}, {arguments:?}"));
            }
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path).expect("it can be removed"),
                Ok(_) => fs::remove_file(&path).expect("it can be removed"),
                Err(_) => {}
            }
            if was_there {
                fs::rename(&aside, &path).expect("it can be put back");
            }
        }
    }
}
