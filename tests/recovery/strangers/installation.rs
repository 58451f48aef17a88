//! What somebody else wrote where `install`, `uninstall` and `doctor --fix` look leads them to nothing outside of the repository.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use serde_json::json;

use crate::support::crash::jin;
use crate::support::hostile::{change_json, protected, run, run_in_little_memory, state};
use crate::support::observe::{assert_same, tree};
use crate::support::repo::{NOBODY, Options, Repo, give_to, jin_txn, write_file};

/// The commands that read `install.json`.
const SETUP: [&[&str]; 3] = [&["uninstall"], &["install"], &["doctor", "--fix"]];

#[test]
fn a_forged_note_of_the_installation_reaches_nothing_outside() {
    for arguments in SETUP {
        let repo = protected();
        let victim = repo.new_sibling("victim", Options { guarded: true, ..Options::default() });
        let empty = repo.scratch().join("outside/empty");
        fs::create_dir_all(&empty).expect("a directory can be made");
        let embedded =
            repo.new_sibling("repo/embedded.git", Options { bare: true, guarded: true, ..Options::default() });
        let directory = |path: &Path, made: &[&Path]| json!({ "path": path, "made": made, "modified": [1, 0] });
        let hooks = json!([
            directory(&victim.git_dir().join("hooks"), &[&empty, empty.parent().expect("it has one")]),
            directory(&embedded.git_dir().join("hooks"), &[]),
            directory(&repo.git_dir().join("../../victim/.git/hooks"), &[]),
            directory(&repo.git_dir().join("hooks"), &[&empty]),
        ]);
        let config = fs::read_to_string(repo.git_dir().join("config")).expect("it is there");
        let evil = "[core]\n\tfsmonitor = touch sprung\n\trepositoryformatversion = 0\n";
        change_json(&state(&repo).join("install.json"), |note| {
            note["hooks"] = hooks;
            note["settings"]["before"] = json!(evil);
            note["settings"]["after"] = json!(config);
            let changed = note["settings"]["changed"].as_array_mut().expect("a list");
            for entry in changed.iter_mut() {
                entry["before"] = json!("!touch sprung # jin-txn");
            }
            let version = json!("0");
            changed.push(json!({ "key": "core.repositoryformatversion", "ours": version, "before": "!touch sprung" }));
            changed.push(json!({ "key": "core.bare", "ours": "false", "before": "true" }));
        });
        if arguments == ["doctor", "--fix"] {
            fs::remove_file(repo.git_dir().join("hooks/post-checkout")).expect("it can be removed");
        }
        let before = tree(victim.path());
        let inside = tree(embedded.path());
        run(jin(&repo, arguments), &format!("{arguments:?}"));
        assert_same(&before, &tree(victim.path()), &format!("{arguments:?}: another repository"));
        assert_same(&inside, &tree(embedded.path()), &format!("{arguments:?}: a repository in the worktree"));
        assert!(empty.is_dir(), "{arguments:?}: an empty directory outside is not removed");
        let config = fs::read_to_string(repo.git_dir().join("config")).expect("it is there");
        assert!(!config.contains("sprung"), "{arguments:?}: {config}");
        assert!(config.contains("bare = false"), "{arguments:?}: {config}");
    }
}

#[test]
fn a_link_beside_the_hooks_takes_no_hook_out_of_another_repository() {
    for arguments in SETUP {
        let repo = protected();
        let victim = repo.new_sibling("victim", Options::default());
        let theirs = victim.git_dir().join("hooks");
        write_file(&theirs.join("reference-transaction"), "#!/bin/sh\nexit 0\n", 0o755);
        symlink(&theirs, repo.git_dir().join("hooks.before-jin-txn")).expect("a link can be made");
        write_file(&repo.git_dir().join("hooks/pre-receive"), "#!/bin/sh\nexit 0\n", 0o755);
        fs::remove_file(repo.git_dir().join("hooks/post-checkout")).expect("it can be removed");
        write_file(&repo.git_dir().join("hooks/post-checkout"), "#!/bin/sh\nexit 0\n", 0o755);
        let before = tree(victim.path());
        run(jin(&repo, arguments), &format!("{arguments:?}"));
        assert_same(&before, &tree(victim.path()), &format!("{arguments:?}"));
    }
}

#[test]
fn a_worktree_that_is_another_repositorys_gets_no_hooks() {
    type Claim = fn(&Repo, &Repo);
    let claims: [(&str, Claim); 2] = [
        ("core.worktree", |repo, victim| {
            repo.git(["config", "core.worktree", &victim.path().display().to_string()]);
            repo.git(["config", "core.hooksPath", ".git/hooks"]);
        }),
        ("a linked worktree", |repo, victim| {
            let own = repo.git_dir().join("worktrees/x");
            fs::create_dir_all(&own).expect("a directory can be made");
            fs::write(own.join("HEAD"), "ref: refs/heads/main\n").expect("it can be written");
            fs::write(own.join("commondir"), "../..\n").expect("it can be written");
            fs::write(own.join("gitdir"), format!("{}\n", victim.git_dir().display())).expect("it can be written");
            repo.git(["config", "core.hooksPath", "x"]);
        }),
    ];
    for (what, claim) in claims {
        let repo = protected();
        let victim = repo.new_sibling("victim", Options::default());
        victim.git(["config", "core.hooksPath", "x"]);
        for hooks in [victim.git_dir().join("hooks"), victim.path().join("x")] {
            write_file(&hooks.join("post-checkout"), "#!/bin/sh\nexit 0\n", 0o755);
        }
        claim(&repo, &victim);
        let before = tree(victim.path());
        for arguments in [&["install"][..], &["uninstall"]] {
            run(jin(&repo, arguments), &format!("{what}: {arguments:?}"));
            assert_same(&before, &tree(victim.path()), &format!("{what}: {arguments:?}"));
        }
    }
}

#[test]
fn a_fifo_a_device_or_a_flood_in_place_of_a_file_of_the_installation_is_refused() {
    type Trap = fn(&Path);
    let fifo: Trap = |path| nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o666)).expect("a FIFO can be made");
    let traps: [(&str, Trap); 3] = [
        ("a FIFO", fifo),
        ("a link to /dev/zero", |path| symlink("/dev/zero", path).expect("a link can be made")),
        ("a terabyte", |path| {
            let file = fs::File::create(path).expect("a file can be made");
            file.set_len(1 << 40).ok();
        }),
    ];
    let places =
        ["install.json", "../hooks/post-checkout", "../hooks.before-jin-txn/post-checkout", "../hooks/pre-receive.old"];
    for (what, trap) in traps {
        for place in places {
            for arguments in SETUP {
                let repo = protected();
                let path = state(&repo).join(place);
                fs::create_dir_all(path.parent().expect("it lies somewhere")).expect("it can be made");
                fs::remove_file(&path).ok();
                trap(&path);
                run_in_little_memory(&repo, arguments, &format!("{what} at {place}: {arguments:?}"));
            }
        }
    }
}

#[test]
fn doctor_gives_nobody_write_access_to_what_a_link_leads_to() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become somebody else, and root needs no permission");
        return;
    }
    for place in ["link", "wal/00000000000000009999.wal", "wal"] {
        let repo = protected();
        let private = repo.scratch().join("private/key");
        write_file(&private, "precious\n", 0o400);
        let path = state(&repo).join(place);
        fs::remove_dir_all(&path).ok();
        let target = if place == "wal" { private.parent().expect("it has one") } else { &private };
        symlink(target, path).expect("a link can be made");
        give_to(NOBODY, repo.scratch());
        let mut doctor = repo.as_nobody(jin_txn().as_os_str());
        doctor.args(["doctor", "--fix"]);
        run(doctor, "doctor --fix");
        assert_eq!(fs::metadata(&private).expect("it is there").mode() & 0o7777, 0o400, "{place}");
    }
}
