//! Input that cannot be: a clear error, exit code 1, and nothing changed.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::support::apply::{Scene, State, apply, run};
use crate::support::crash::{assert_fsck, is_ref_rename, jin};
use crate::support::repo::{Options, Repo, text};

/// Every input is refused with what is said, and changes nothing.
fn refused(repo: &Repo, rows: &[(&str, &str)]) {
    for (input, says) in rows {
        let before = State::of(repo);
        let (code, said) = apply(repo, input);
        assert_eq!(code, 1, "{input:?}: {said}");
        assert!(said.contains(says), "{input:?} has to say `{says}`: {said}");
        assert_eq!(State::of(repo), before, "{input:?}");
        assert_nothing_left(repo);
    }
}

fn assert_nothing_left(repo: &Repo) {
    let (code, out, said) = run(repo, &["check"], "");
    assert_eq!(code, 0, "{out}{said}");
    let staged = std::fs::read_dir(repo.git_dir().join(".jin/tx")).unwrap().count();
    assert_eq!(staged, 0, "a stage is left");
}

#[test]
fn paths_that_leave_the_worktree_or_mean_git_are_refused() {
    let scene = Scene::guarded();
    let path = "is not a path in the worktree";
    let rows = [
        "/etc/x",
        "../x",
        "a/../../x",
        ".git/config",
        ".GIT/hooks/x",
        "git~1/x",
        ".git./x",
        "sub/.git",
        ".git::$DATA",
        "a//b",
        "a/",
        ".g\u{200c}it/x",
    ]
    .map(|bad| format!("write {bad} 100644 ../new.sh\n"));
    let rows: Vec<(&str, &str)> = rows.iter().map(|input| (input.as_str(), path)).collect();
    refused(&scene.repo, &rows);
}

#[test]
fn a_way_through_a_link_or_a_file_and_a_directory_in_the_place_of_a_file_are_refused() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    std::fs::create_dir(repo.scratch().join("outside")).unwrap();
    symlink("../outside", repo.path().join("out")).unwrap();
    symlink("etc", repo.path().join("inside")).unwrap();
    refused(
        repo,
        &[
            ("write out/x 100644 ../new.sh\n", "lies behind a symbolic link"),
            ("write inside/x 100644 ../new.sh\n", "lies behind a symbolic link"),
            ("write kept.txt/x 100644 ../new.sh\n", "lies below something that is not a directory"),
            ("write etc 100644 ../new.sh\n", "etc: expected a file, found a directory"),
            ("remove etc\n", "etc: expected a file, found a directory"),
            ("write x 100644 ../outside\n", "it is not a regular file"),
            ("write x 100644 ../nowhere\n", "cannot read"),
        ],
    );
    assert_eq!(std::fs::read_dir(repo.scratch().join("outside")).unwrap().count(), 0);
}

#[test]
fn a_link_that_is_swapped_in_for_a_directory_gets_nothing() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let outside = repo.scratch().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("app.conf"), "old\n").unwrap();
    let outcome = scene.interfere(is_ref_rename, || {
        std::fs::rename(repo.path().join("etc"), repo.scratch().join("moved")).unwrap();
        symlink(&outside, repo.path().join("etc")).unwrap();
    });
    let said = text(&outcome.stderr);
    assert_eq!(outcome.status.code(), Some(4), "{said}");
    assert!(said.contains("lies behind a symbolic link"), "{said}");
    assert_eq!(std::fs::read_to_string(outside.join("app.conf")).unwrap(), "old\n");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn items_that_clash_are_refused() {
    let scene = Scene::guarded();
    refused(
        &scene.repo,
        &[
            ("write a 100644 ../new.sh\nremove a\n", "the file `a` is named twice"),
            ("write a 100644 ../new.sh\nwrite a/b 100644 ../new.sh\n", "`a` cannot be a file while `a/b` is one in it"),
            ("create refs/heads/a main\ndelete refs/heads/a\n", "refs/heads/a is named twice"),
            ("update HEAD main~0\nupdate refs/heads/main main~0\n", "refs/heads/main is named twice"),
            ("create refs/heads/layer/below main\n", "git update-ref refused"),
            ("create refs/heads/n main\ncreate refs/heads/n/m main\n", "git update-ref refused"),
            ("", "there is nothing to do"),
            ("create refs/heads/x no-such-thing\n", "`no-such-thing` is not an object"),
        ],
    );
}

#[test]
fn every_expectation_that_is_not_met_is_named() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let zero = "1".repeat(40);
    let before = State::of(repo);
    let input = format!(
        "update refs/heads/main {zero} {zero}\ncreate refs/heads/layer main\nverify refs/heads/doomed {zero}\n\
         write etc/app.conf 100644 ../new.sh absent\nremove kept.txt {zero}\nremove none {zero}\n"
    );
    let (code, said) = apply(repo, &input);
    assert_eq!(code, 1, "{said}");
    for item in ["refs/heads/main", "refs/heads/layer", "refs/heads/doomed", "etc/app.conf", "kept.txt", "none"] {
        assert!(said.contains(&format!("  {item}: expected ")), "{item}: {said}");
    }
    assert_eq!(State::of(repo), before);
    assert_nothing_left(repo);
}

#[test]
fn a_manifest_with_a_field_that_is_not_known_is_refused() {
    let scene = Scene::guarded();
    refused(
        &scene.repo,
        &[
            (r#"{"version":1,"refs":[],"force":true}"#, "unknown field `force`"),
            (r#"{"version":9}"#, "version 9"),
            (r#"{"version":1,"files":[{"path":"../x","content":""}]}"#, "is not a path in the worktree"),
        ],
    );
}

#[test]
fn a_flood_of_garbage_is_refused_at_once_and_fills_no_memory() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    for start in ["", "{", "create refs/heads/x "] {
        let mut command = jin(repo, &["apply"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let pid = child.id();
        let flood = std::thread::spawn(move || {
            use std::io::Write;
            let mut sent = 0_usize;
            let mut ok = stdin.write_all(start.as_bytes());
            while ok.is_ok() && sent < 100 << 20 {
                ok = stdin.write_all(&[b'x'; 1 << 16]);
                sent += 1 << 16;
            }
            sent
        });
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak =
                status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            most = most.max(peak.unwrap_or(0));
            std::thread::yield_now();
        }
        let output = child.wait_with_output().unwrap();
        let sent = flood.join().unwrap();
        assert_eq!(output.status.code(), Some(1), "{start:?}: {}", text(&output.stderr));
        assert!(sent < 20 << 20, "{start:?}: it went on reading for {sent} bytes");
        assert!(most < 64 << 10, "{start:?}: it took {most} kB");
    }
    assert_nothing_left(repo);
}

#[test]
fn a_bare_repository_has_no_files_and_its_refs_are_served() {
    let repo = Repo::new(Options { bare: true, guarded: true, ..Options::default() });
    let commit = crate::support::crash::spare_commit(&repo, "first");
    std::fs::write(repo.scratch().join("x"), "").unwrap();
    let (code, said) = apply(&repo, &format!("create refs/heads/a {commit}\nwrite x 100644 ../x\n"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("has no worktree"), "{said}");
    assert_eq!(repo.read(["for-each-ref"]), "");
    let (code, said) = apply(&repo, &format!("create refs/heads/a {commit}\n"));
    assert_eq!(code, 0, "{said}");
    assert_fsck(&repo);
}

#[test]
fn a_directory_that_takes_no_files_stops_everything_before_the_commit_point() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let etc = repo.path().join("etc");
    let is_root = nix::unistd::geteuid().is_root();
    let lock = |on: bool| {
        if is_root {
            let flag = if on { "+i" } else { "-i" };
            Command::new("chattr").arg(flag).arg(&etc).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        } else {
            let mode = if on { 0o555 } else { 0o755 };
            std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(mode)).is_ok()
        }
    };
    if !lock(true) {
        println!("skipped: nothing is unwritable for root here");
        return;
    }
    let before = State::of(repo);
    let (code, said) = apply(repo, &scene.input);
    let after = State::of(repo);
    lock(false);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("etc/app.conf: expected a directory that files can be put into"), "{said}");
    assert_eq!(after, before);
    assert_nothing_left(repo);
}

#[test]
fn a_disk_that_is_full_while_files_are_staged_changes_nothing() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let mount = repo.git_dir().join(".jin/tx");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&mount).status();
    if !mounted.is_ok_and(|s| s.success()) {
        println!("skipped: no right to mount");
        return;
    }
    std::fs::write(repo.scratch().join("large"), vec![b'x'; 1 << 20]).unwrap();
    let before = State::of(repo);
    let (code, said) = apply(repo, "write large 100644 ../large\ncreate refs/heads/x main\n");
    let after = State::of(repo);
    let unmounted = Command::new("umount").arg(&mount).status().is_ok_and(|s| s.success());
    assert!(unmounted);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(after, before);
    assert_nothing_left(repo);
}
