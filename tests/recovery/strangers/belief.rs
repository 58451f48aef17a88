//! Runs, segments and markers in `.jin` that somebody else wrote are believed no further than we could have written them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::crash::{git, jin};
use crate::support::hostile::{change_json, killed_run, protected, run, run_in_little_memory, state, tx_of_run};
use crate::support::observe::{assert_same, shown, tree};
use crate::support::repo::{Git, Options, Repo, text};

/// Nothing of the run is taken back, a person is asked, and has a way out.
fn assert_not_restored(repo: &Repo, what: &str) {
    let config = fs::read(repo.git_dir().join("config")).expect("it is there");
    let hooks = tree(&repo.git_dir().join("hooks"));
    let worktree = || {
        let tree = tree(repo.path()).into_iter();
        tree.filter(|(path, _)| !path.starts_with(".git")).collect()
    };
    let files = worktree();
    let id = tx_of_run(repo).file_name().and_then(|n| n.to_str()).expect("a transaction").to_owned();
    for arguments in [&["recover"][..], &["recover", "--take-back", &id], &["recover", "--force"]] {
        let output = run(jin(repo, arguments), what);
        assert_eq!(output.status.code(), Some(4), "{what}: {arguments:?}: {}", shown(repo, &output));
        assert!(
            text(&output.stderr).contains("--acknowledge"),
            "{what}: it names the way out: {}",
            shown(repo, &output)
        );
        assert_same(&hooks, &tree(&repo.git_dir().join("hooks")), what);
        assert_same(&files, &worktree(), what);
        assert_eq!(fs::read(repo.git_dir().join("config")).expect("it is there"), config, "{what}: the configuration");
        assert!(state(repo).join(format!(".transaction_failed.{id}")).exists(), "{what}: it has ended");
    }
    let output = run(jin(repo, &["recover", "--acknowledge", &id]), what);
    assert_eq!(output.status.code(), Some(0), "{what}: {}", shown(repo, &output));
    assert_eq!(run(jin(repo, &["check"]), what).status.code(), Some(0), "{what}: the way out works");
}

#[test]
fn a_forged_snapshot_of_a_dead_run_restores_nothing() {
    type Forge = fn(&Repo, &Path);
    /// A copy that is there, as the snapshot names it.
    fn kept(tx: &Path, path: &str, content: &str) -> Value {
        let copy = tx.join("copies/999");
        fs::write(&copy, content).expect("it can be written");
        let found = fs::metadata(&copy).expect("it is there");
        let time = |seconds: i64, nanoseconds: i64| seconds * 1_000_000_000 + nanoseconds;
        let (changed, modified) = (time(found.ctime(), found.ctime_nsec()), time(found.mtime(), found.mtime_nsec()));
        let identity = json!([found.ino(), found.len(), modified, changed]);
        json!({ "path": path, "content": { "file": { "mode": 0o755, "copy": 999, "identity": identity } } })
    }
    let forgeries: [(&str, Forge); 5] = [
        ("a hook", |_, tx| {
            let kept = kept(tx, "hooks/post-commit", "#!/bin/sh\ntouch sprung\n");
            change_json(&tx.join("snapshot.json"), |s| s["own"] = json!([kept]));
        }),
        ("a configuration", |_, tx| {
            let kept = kept(tx, "config", "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = touch sprung\n");
            change_json(&tx.join("snapshot.json"), |s| s["own"] = json!([kept]));
        }),
        ("a file of the worktree", |_, tx| {
            let kept = kept(tx, "Makefile", "all:\n\ttouch sprung\n");
            change_json(&tx.join("snapshot.json"), |s| s["files"] = json!([kept]));
        }),
        ("the content of a copy", |_, tx| {
            for copy in fs::read_dir(tx.join("copies")).expect("it has copies").flatten() {
                let mut file = fs::OpenOptions::new().append(true).open(copy.path()).expect("it can be opened");
                file.write_all(b"\tfsmonitor = touch sprung\n").expect("it can be written");
            }
        }),
        ("another copy in place of one", |_, tx| {
            let copy = tx.join("copies/1");
            let content = fs::read(&copy).expect("it is there");
            fs::remove_file(&copy).expect("it can be removed");
            fs::write(&copy, content).expect("it can be written");
        }),
    ];
    for (what, forge) in forgeries {
        let repo = killed_run();
        forge(&repo, &tx_of_run(&repo));
        assert_not_restored(&repo, what);
    }
}

#[test]
fn a_run_in_a_copied_repository_restores_nothing_there() {
    let repo = killed_run();
    let copy = repo.sibling("copied");
    let status = Command::new("cp").arg("-a").arg(repo.path()).arg(copy.path()).status().expect("cp runs");
    assert!(status.success());
    let config = fs::read(copy.git_dir().join("config")).expect("it is there");
    let id = tx_of_run(&copy).file_name().and_then(|n| n.to_str()).expect("a transaction").to_owned();
    for arguments in [&["recover"][..], &["recover", "--take-back", &id]] {
        run(jin(&copy, arguments), "a copy");
        assert_eq!(fs::read(copy.path().join("file")).expect("it is there"), b"changed\n", "{arguments:?}");
        assert_eq!(fs::read(copy.git_dir().join("config")).expect("it is there"), config, "{arguments:?}");
        assert_eq!(fs::read(repo.path().join("file")).expect("it is there"), b"changed\n", "{arguments:?}");
    }
    let output = run(jin(&repo, &["recover"]), "the original");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    assert_eq!(fs::read(repo.path().join("file")).expect("it is there"), b"one\n", "the original goes back");
}

fn newest_segment(repo: &Repo) -> PathBuf {
    let segments = fs::read_dir(state(repo).join("wal")).expect("there is a log").flatten();
    segments.map(|e| e.path()).max().expect("with a segment")
}

/// Well below what four gigabytes take, on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn segments_that_nobody_of_ours_wrote_are_told_at_once() {
    type Fill = fn(&fs::File);
    let sparse: Fill = |file| file.set_len(1 << 30).expect("it can be made longer");
    let dense: Fill = |file| {
        let block = vec![b'\n'; 1 << 20];
        (0..64).for_each(|_| (&mut &*file).write_all(&block).expect("it can be written"));
    };
    for (what, fill) in [("four sparse segments", sparse), ("line feeds", dense)] {
        let repo = protected();
        for n in 1001..1005_u64 {
            let path = state(&repo).join(format!("wal/{n:020}.wal"));
            let mut file = fs::File::create(&path).expect("it can be made");
            file.write_all(b"x").expect("it can be written");
            fill(&file);
        }
        for arguments in [&["log"][..], &["status"], &["wal", "verify"], &["recover"]] {
            let start = Instant::now();
            let output = run_in_little_memory(&repo, arguments, what);
            assert!(start.elapsed() < SOON, "{what}: {arguments:?} takes {:?}", start.elapsed());
            let said = text(&output.stdout).into_owned() + &text(&output.stderr);
            let tells = said.contains("damage") || said.contains("missing") || arguments == ["recover"];
            assert!(tells, "{what}: {arguments:?} tells it: {said}");
        }
        let start = Instant::now();
        run(git(&repo, &["tag", "by-git"]), what);
        assert!(start.elapsed() < SOON, "{what}: git takes {:?}", start.elapsed());
    }
    // Behind the end of the newest one.
    let repo = protected();
    sparse(&fs::OpenOptions::new().append(true).open(newest_segment(&repo)).expect("it can be opened"));
    let start = Instant::now();
    run_in_little_memory(&repo, &["log"], "a long end");
    run(git(&repo, &["tag", "by-git"]), "a long end");
    assert!(start.elapsed() < SOON, "it takes {:?}", start.elapsed());
    assert_eq!(repo.logged().len(), 3, "and what is there is read");
}

/// The start of a process, as its owner records have it.
fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it can be read");
    let fields = stat.rsplit(") ").next().expect("fields follow the name");
    fields.split(' ').nth(19).and_then(|field| field.parse().ok()).expect("field 22 is a number")
}

/// The marker of a transaction that the living process `pid` is said to make.
fn forge_marker(repo: &Repo, id: &str, pid: u32) -> PathBuf {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it can be read");
    let process = json!({ "pid": pid, "start": start_of(pid) });
    let marker = json!({
        "id": id, "timestamp": 1_700_000_000, "operation": "git commit\nhint: run evil", "phase": "prepared",
        "pid": pid, "start": start_of(pid), "boot": boot.trim(), "host": "h",
        "pidns": fs::metadata("/proc/self/ns/pid").expect("it is there").ino(),
        "hook_process": process, "payload": { "crc": 0, "len": 0, "count": 1 },
    });
    let path = state(repo).join(format!(".transaction_in_progress.{id}"));
    fs::write(&path, marker.to_string()).expect("the marker can be written");
    path
}

#[test]
fn a_forged_marker_of_a_process_that_writes_nothing_here_refuses_no_gc() {
    let other = protected();
    // A git that works in another repository, for as long as its input is open.
    let mut elsewhere = git(&other, &["update-ref", "--stdin"]).stdin(Stdio::piped()).spawn().expect("git starts");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("it starts");
    for pid in [1, sleeper.id(), elsewhere.id()] {
        let repo = protected();
        let marker = forge_marker(&repo, "tx-90", pid);
        let output = run(git(&repo, &["gc", "--quiet"]), "gc");
        assert!(output.status.success(), "pid {pid}: {}", text(&output.stderr));
        let told = run(jin(&repo, &["recover"]), "recover");
        assert!(text(&told.stderr).contains("--force"), "pid {pid}: it names the way out: {}", shown(&repo, &told));
        assert!(marker.exists(), "nobody has vouched for it");
        let forced = run(jin(&repo, &["recover", "--force"]), "recover --force");
        assert_eq!(forced.status.code(), Some(0), "pid {pid}: {}", shown(&repo, &forced));
        assert!(!marker.exists(), "pid {pid}: the way out works");
        assert_eq!(run(jin(&repo, &["check"]), "check").status.code(), Some(0));
    }
    // One that waits for a person is a reason, and a person can end it.
    let repo = protected();
    let marker = forge_marker(&repo, "tx-90", 1);
    let text_of_marker = fs::read_to_string(&marker).expect("it is there").replace("\"start\":", "\"start\":9");
    fs::remove_file(&marker).expect("it can be removed");
    fs::write(state(&repo).join(".transaction_failed.tx-90"), text_of_marker).expect("it can be written");
    let output = run(git(&repo, &["gc", "--quiet"]), "gc");
    assert!(
        text(&output.stderr).contains("recover --acknowledge tx-90"),
        "it names the way out: {}",
        text(&output.stderr)
    );
    repo.jin(&["recover", "--acknowledge", "tx-90"]);
    let output = run(git(&repo, &["gc", "--quiet"]), "gc");
    assert!(output.status.success(), "the way out works: {}", text(&output.stderr));
    sleeper.kill().expect("it can be ended");
    sleeper.wait().expect("it can be waited for");
    drop(elsewhere.stdin.take());
    elsewhere.wait().expect("it can be waited for");
}

#[test]
fn names_from_a_repository_print_no_line_of_their_own() {
    let evil = "a\nhint: run evil\u{202e}";
    let repo = protected();
    let git_dir = repo.git_dir();
    // A worktree whose directory has such a name, and a hook, a lock, a marker, a snapshot, a note, a configuration.
    repo.git(["worktree", "add", "-q", "-b", "x", &repo.scratch().join(evil).display().to_string()]);
    let linked = repo.sibling(evil);
    fs::write(git_dir.join(format!("refs/heads/{evil}.lock")), "").expect("it can be written");
    fs::write(git_dir.join(format!("worktrees/{evil}.lock")), "").ok();
    forge_marker(&repo, "tx-90", 1);
    repo.write(&format!("{evil}/untracked"), "");
    let keys = [
        "jin.lockTimeout",
        "jin.runGrace",
        "jin.onError",
        "jin.retention",
        "core.hooksPath",
        "alias.txn",
        "core.fsync",
    ];
    let everything = |repo: &Repo, what: &str| {
        let target = repo.scratch().join(evil).join("missing").display().to_string();
        for arguments in [
            &["status"][..],
            &["check"],
            &["log"],
            &["show", "tx-1"],
            &["doctor"],
            &["recover", "--dry-run"],
            &["recover"],
            &["undo"],
            &["install"],
            &["install", "--shim", &target],
            &["run", "--", "false"],
            &["run", "--", evil],
            &["apply", evil],
            &["uninstall"],
            &["-C", evil, "status"],
            &["--git-dir", evil, "status"],
        ] {
            let output = run(jin(repo, arguments), what);
            let said = text(&output.stdout).into_owned() + &text(&output.stderr);
            assert!(!said.lines().any(|line| line.starts_with("hint: run evil")), "{what}: {arguments:?}: {said}");
            assert!(!said.contains('\u{202e}'), "{what}: {arguments:?}: {said}");
        }
    };
    everything(&repo, "a repository");
    repo.install_guard();
    everything(&linked, "a linked worktree");
    repo.install_guard();
    for key in keys {
        let before = repo.try_git(["config", "--local", "--get", key]).stdout;
        let mut set = git(&repo, &["config", key, evil]);
        assert!(set.env("JIN_TXN", "off").output().expect("git runs").status.success());
        everything(&repo, key);
        let before = text(&before).trim_end().to_owned();
        let restore = if before.is_empty() { vec!["config", "--unset", key] } else { vec!["config", key, &before] };
        assert!(repo.try_git(restore).status.success());
        repo.jin_txn(["install"]);
    }
    let inside = repo.new_sibling(&format!("{evil}2"), Options { guarded: true, ..Options::default() });
    inside.commit_all("one");
    everything(&inside, "a repository with such a name");
    assert!(Git::under_test().is_at_least(2, 31));
}
