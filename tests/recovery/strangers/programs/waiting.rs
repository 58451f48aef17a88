//! Files that would keep a git waiting, and programs called git that lie in wait.

use std::fs;
use std::path::Path;

use super::{LOOKING, configure, forget_the_boot, protected, run, small};
use crate::support::repo::{Git, Repo, text, write_file};
use nix::sys::stat::Mode;

fn fifo(path: &Path) {
    fs::remove_file(path).ok();
    nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o644)).expect("a FIFO can be made");
}

/// A way to keep a git waiting, or to fill its memory, and the name that an error has to have.
type Bait = (&'static str, &'static str, fn(&Repo));

const BAIT: [Bait; 7] = [
    ("the configuration is a FIFO", "config", |repo| fifo(&repo.git_dir().join("config"))),
    ("it includes a FIFO", "fifo", |repo| {
        fifo(&repo.git_dir().join("fifo"));
        configure(repo, "[include] path = fifo\n");
    }),
    ("it includes a FIFO in the home directory, under a condition", "fifo", |repo| {
        fifo(&repo.scratch().join("home/fifo"));
        configure(repo, "[includeIf \"onbranch:**\"]\n\tPath = \"~/fi\\\nfo\" ; nothing\n");
    }),
    ("it includes a device through two files", "zero", |repo| {
        configure(repo, "[include]\npath = one\n");
        fs::write(repo.git_dir().join("one"), "[include]\npath = info/two\n").expect("it can be written");
        fs::create_dir_all(repo.git_dir().join("info")).expect("it can be made");
        fs::write(repo.git_dir().join("info/two"), "[include]\npath = zero\n").expect("it can be written");
        std::os::unix::fs::symlink("/dev/zero", repo.git_dir().join("info/zero")).expect("a link can be made");
    }),
    ("it includes a gigabyte", "large", |repo| {
        configure(repo, "[include]\npath = large\n");
        let large = fs::File::create(repo.git_dir().join("large")).expect("it can be made");
        large.set_len(1 << 30).expect("it can be sparse");
    }),
    ("a worktree's configuration is a FIFO", "config.worktree", |repo| {
        configure(repo, "[extensions]\nworktreeConfig = true\n");
        fifo(&repo.git_dir().join("config.worktree"));
    }),
    ("it includes itself, and what is missing", "", |repo| {
        configure(repo, "[include]\npath = config\n[include]\npath = ~/nothing\npath = /nowhere/at/all\n");
    }),
];

#[test]
fn a_fifo_or_a_device_that_git_would_open_keeps_nobody_waiting_and_is_named() {
    for (what, name, lay) in BAIT {
        let repo = protected();
        forget_the_boot(&repo);
        fs::create_dir_all(repo.git_dir().join("objects/info")).expect("it can be made");
        lay(&repo);
        for arguments in LOOKING.iter().copied().chain([&["recover"][..]]) {
            let output = run(&mut small(&repo, arguments), &format!("{what}, {arguments:?}"));
            let said = text(&output.stderr).into_owned() + &text(&output.stdout);
            let asks_git = ["recover", "doctor"].contains(&arguments[0]);
            if asks_git && !name.is_empty() {
                assert!(said.contains(name), "{what}, {arguments:?} names it: {said}");
            }
        }
    }
}

#[test]
fn a_git_in_the_current_directory_or_later_in_path_is_not_started_by_looking() {
    let repo = protected();
    let ran = repo.scratch().join("ran");
    let evil = format!("#!/bin/sh\necho \"$0\" >>'{}'\nexit 1\n", ran.display());
    for dir in [repo.path().to_owned(), repo.path().join("bin"), repo.scratch().join("later")] {
        fs::create_dir_all(&dir).expect("it can be made");
        write_file(&dir.join("git"), &evil, 0o755);
    }
    let usual = Git::under_test().path_variable().into_string().expect("PATH is UTF-8");
    for path in
        [format!(".:{usual}"), format!("bin::{usual}"), format!("{usual}:{}", repo.scratch().join("later").display())]
    {
        for arguments in LOOKING.iter().copied().chain([&["recover"][..]]) {
            run(small(&repo, arguments).env("PATH", &path), &format!("{path}, {arguments:?}"));
            let said = fs::read_to_string(&ran).unwrap_or_default();
            assert_eq!(said, "", "PATH={path}, {arguments:?}");
        }
    }
    let doctor = repo.jin_txn(["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor.stdout));
}
