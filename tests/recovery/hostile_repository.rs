//! Repositories that somebody prepared: parts of the state directory that are something else, snapshots and environments
//! that lie. Nothing outside of the repository is read into it or written, nothing is executed, nothing hangs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::crash::{git, is_ref_rename, jin, kill_at, nth};
use crate::support::hanging::Case;
use crate::support::observe::{Tree, assert_same, calm, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{NOBODY, Options, Repo, give_to, jin_txn, text};
use crate::support::snapshot::Snapshot;
use crate::support::tracer::Action;
use crate::support::wait::{comes_true, wait_until};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo.commit_all("two");
    repo
}

/// Runs to the end, which has to come soon.
fn run(mut command: Command, what: &str) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    if !comes_true(|| child.try_wait().expect("it can be asked").is_some()) {
        child.kill().ok();
        panic!("{what}: it hangs");
    }
    let output = child.wait_with_output().expect("it can be waited for");
    calm(&output);
    output
}

#[test]
fn a_lock_with_a_line_feed_in_its_name_prints_no_line_of_its_own() {
    let repo = protected();
    let name = "a\nhint: run evil\u{202e}.lock";
    fs::write(repo.git_dir().join("refs/heads").join(name), "").expect("it can be written");
    let_the_clock_tick(&repo.git_dir());
    for arguments in [&["status"][..], &["doctor"], &["recover", "--dry-run"], &["recover"]] {
        let output = jin(&repo, arguments).output().expect("it runs");
        let said = text(&output.stdout).into_owned() + &text(&output.stderr);
        assert!(said.contains(r"a\nhint: run evil\u{202e}.lock"), "{arguments:?}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("hint: run evil")), "{arguments:?}: {said}");
    }
}

/// Every command that a user may give, and a change by plain git.
fn use_everything(repo: &Repo, what: &str) {
    for arguments in [
        &["status"][..],
        &["check"],
        &["log"],
        &["show", "tx-1"],
        &["wal", "verify"],
        &["wal", "dump"],
        &["recover", "--dry-run"],
        &["recover"],
        &["undo"],
        &["doctor"],
        &["run", "--", "git", "tag", "by-a-run"],
    ] {
        run(jin(repo, arguments), &format!("{what}, {arguments:?}"));
    }
    for arguments in
        [&["branch", "topic"][..], &["commit", "-q", "--allow-empty", "-m", "three"], &["branch", "-D", "topic"]]
    {
        run(git(repo, arguments), &format!("{what}, git {arguments:?}"));
    }
}

/// What lies outside of the repository, in the scratch directory.
fn outside(repo: &Repo) -> Tree {
    tree(repo.scratch())
        .into_iter()
        .filter(|(path, _)| !path.starts_with("repo") && !path.starts_with("home"))
        .collect()
}

/// Files and directories outside, as a hostile link would like to reach them.
fn victims(repo: &Repo) -> (PathBuf, PathBuf) {
    let (file, dir) = (repo.scratch().join("victim"), repo.scratch().join("victims"));
    fs::write(&file, "precious\n").expect("a file can be made");
    fs::create_dir(&dir).expect("a directory can be made");
    fs::write(dir.join("00000000000000000001.wal"), "precious, too\n").expect("a file can be made");
    (file, dir)
}

fn replace(path: &Path, with: impl FnOnce(&Path)) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("it can be removed"),
        Ok(_) => fs::remove_file(path).expect("it can be removed"),
        Err(_) => {}
    }
    with(path);
}

/// The files and directories of a state directory, with its newest segment and a marker of an open transaction.
fn parts(repo: &Repo) -> Vec<PathBuf> {
    let state = repo.git_dir().join(".jin");
    let mut parts = vec![state.clone()];
    parts.extend(["wal", "quarantine", "tx"].map(|name| state.join(name)));
    parts.extend(
        ["append.lock", "recovery.lock", "files.lock", "log-head", "durability", "settings", "config.saved"]
            .map(|name| state.join(name)),
    );
    parts.extend(
        ["packed-refs-synced", "install.json", "id", ".transaction_in_progress.tx-90"].map(|name| state.join(name)),
    );
    // The directories that the next transactions would use.
    parts.extend((2..9).map(|n| state.join(format!("tx/tx-{n}"))));
    parts.extend(fs::read_dir(state.join("wal")).expect("there is a log").flatten().map(|e| e.path()));
    parts
}

fn with_each_part(what: &str, change: impl Fn(&Repo, &Path)) {
    let count = parts(&protected()).len();
    for n in 0..count {
        let repo = protected();
        victims(&repo);
        let part = parts(&repo)[n].clone();
        change(&repo, &part);
        let before = outside(&repo);
        let name = format!("{what} at {}", part.strip_prefix(repo.scratch()).expect("it lies there").display());
        use_everything(&repo, &name);
        assert_same(&before, &outside(&repo), &name);
    }
}

#[test]
fn a_link_in_place_of_any_part_of_the_state_directory_leads_nowhere() {
    with_each_part("a link", |repo, part| {
        let to_dir = part.extension().is_none() && (part.is_dir() || part.display().to_string().contains("/tx/"));
        let victim = repo.scratch().join(if to_dir { "victims" } else { "victim" });
        replace(part, |part| symlink(victim, part).expect("a link can be made"));
    });
}

#[test]
fn a_fifo_in_place_of_any_part_of_the_state_directory_keeps_nobody_waiting() {
    with_each_part("a fifo", |_, part| {
        replace(part, |part| nix::unistd::mkfifo(part, Mode::from_bits_truncate(0o666)).expect("a fifo can be made"));
    });
}

#[test]
fn a_directory_in_place_of_any_file_of_the_state_directory_is_told() {
    with_each_part("a directory", |_, part| {
        if !part.is_dir() {
            replace(part, |part| fs::create_dir(part).expect("a directory can be made"));
        }
    });
}

#[test]
fn a_device_in_place_of_any_part_of_the_state_directory_is_not_used() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make devices");
        return;
    }
    with_each_part("a device", |_, part| {
        replace(part, |part| {
            // /dev/zero never ends.
            let device = nix::sys::stat::makedev(1, 5);
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            nix::sys::stat::mknod(part, kind, Mode::from_bits_truncate(0o666), device).expect("a device can be made");
        });
    });
}

#[test]
fn a_segment_or_a_marker_of_a_terabyte_fills_no_memory() {
    let wal = |repo: &Repo| parts(repo).pop().expect("there is a segment");
    let marker = |repo: &Repo| repo.git_dir().join(".jin/.transaction_in_progress.tx-90");
    let note = |repo: &Repo| repo.git_dir().join(".jin/log-head");
    /// Where something lies in a repository.
    type Place<'p> = &'p dyn Fn(&Repo) -> PathBuf;
    let places: [(&str, Place<'_>); 3] = [("a segment", &wal), ("a marker", &marker), ("log-head", &note)];
    for (what, place) in places {
        let repo = protected();
        let file = fs::OpenOptions::new().append(true).create(true).open(place(&repo)).expect("it can be opened");
        if file.set_len(1 << 40).is_err() {
            println!("skipped: no file of that size here");
            return;
        }
        for arguments in [&["status"][..], &["recover"], &["log"], &["wal", "verify"]] {
            let mut limited = repo.command("/bin/sh".as_ref());
            limited.args(["-c", "ulimit -v 4000000; exec \"$@\"", "sh"]).arg(jin_txn()).args(arguments);
            let output = run(limited, &format!("{what}, {arguments:?}"));
            assert!(!text(&output.stderr).contains("memory"), "{what}: {}", text(&output.stderr));
        }
    }
}

/// Every file of the state directory may be anybody's: what it says leads nowhere, and `doctor` tells.
#[test]
fn a_state_directory_that_anybody_may_write_is_told() {
    let repo = protected();
    let state = repo.git_dir().join(".jin");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("the mode can be set");
    let output = run(jin(&repo, &["doctor"]), "doctor");
    let said = shown(&repo, &output);
    assert!(said.contains("every user may write"), "{said}");
    assert!(said.contains("chmod"), "with the remedy: {said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    repo.commit_all("three");
}

#[test]
fn a_repository_of_somebody_else_is_not_touched_by_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give a repository away");
        return;
    }
    let case = Case::torn();
    let repo = &case.repo;
    // A hook of theirs that root must not run.
    let trap = repo.scratch().join("sprung");
    let hook = repo.git_dir().join("hooks/post-checkout");
    replace(&hook, |hook| {
        fs::write(hook, format!("#!/bin/sh\ntouch {}\n", trap.display())).expect("it can be written")
    });
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    give_to(NOBODY, repo.path());
    let before = tree(repo.path());
    for arguments in [
        &["status"][..],
        &["check"],
        &["recover"],
        &["log"],
        &["show", "tx-1"],
        &["undo"],
        &["redo"],
        &["wal", "verify"],
        &["doctor", "--fix"],
        &["install"],
        &["run", "--", "true"],
        &["apply", "/dev/null"],
        &["git", "status"],
        &["uninstall"],
    ] {
        let output = run(jin(repo, arguments), &format!("{arguments:?}"));
        assert_ne!(output.status.code(), Some(0), "{arguments:?} refuses: {}", shown(repo, &output));
        assert!(text(&output.stderr).contains("dubious ownership"), "{arguments:?}: {}", shown(repo, &output));
    }
    let prompt = run(jin(repo, &["check", "--prompt"]), "prompt");
    assert_eq!(text(&prompt.stdout), "", "a prompt looks at nothing of theirs");
    assert_same(&before, &tree(repo.path()), "somebody else's repository stays as it is");
    assert!(!trap.exists(), "nothing of theirs was executed");
}

/// A run that was killed: its runner first, then whatever is left of it.
fn killed_run() -> Repo {
    let repo = protected();
    repo.write("untracked", "mine\n");
    let script = "echo changed >file; echo more >new; git tag by-the-run; kill -9 $PPID; exit 1";
    let mut child = jin(&repo, &["run", "--", "sh", "-c", script]).spawn().expect("the program starts");
    child.wait().expect("it can be waited for");
    // The shell outlives its runner by a moment.
    wait_until("the shell has ended", || repo.jin_txn(["check"]).status.code() != Some(5));
    repo
}

fn tx_of_run(repo: &Repo) -> PathBuf {
    let entries = fs::read_dir(repo.git_dir().join(".jin/tx")).expect("it is there").flatten().map(|e| e.path());
    entries.filter(|path| path.join("snapshot.json").exists()).min().expect("a run has a snapshot")
}

#[test]
fn a_killed_run_goes_back_when_nobody_interferes() {
    let repo = killed_run();
    let output = run(jin(&repo, &["recover"]), "recover");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "one\n");
    assert!(!repo.path().join("new").exists() && repo.try_git(["rev-parse", "by-the-run"]).status.code() != Some(0));
}

#[test]
fn a_snapshot_that_names_other_places_is_refused_or_stays_inside() {
    type Change = fn(&mut Value, &Repo);
    fn kept(path: &str) -> Value {
        json!({ "path": path, "content": { "file": { "mode": 0o755, "copy": 1 } } })
    }
    let changes: [(&str, Change); 12] = [
        ("a path above", |s, _| s["files"] = json!([kept("../victim")])),
        ("an absolute path", |s, repo| {
            s["files"] = json!([kept(&repo.scratch().join("victim").display().to_string())]);
        }),
        ("a hook of git", |s, _| s["files"] = json!([kept(".git/hooks/pre-commit")])),
        ("a hook of git, spelt otherwise", |s, _| s["files"] = json!([kept(".GIT/hooks/pre-commit")])),
        ("a hook by the files of the git directory", |s, _| s["own"] = json!([kept("hooks/pre-commit")])),
        ("a path through a link", |s, _| s["files"] = json!([kept("way/victim")])),
        ("a path that the snapshot itself makes a link", |s, repo| {
            let target = repo.scratch().display().to_string();
            let link = json!({ "path": "door", "content": { "link": { "target": target } } });
            s["files"] = json!([link, kept("door/victim")]);
        }),
        ("an escaped path", |s, _| s["files"] = json!([kept("\\x2e\\x2e/victim")])),
        ("another worktree", |s, repo| s["worktree"] = json!(repo.scratch().display().to_string())),
        ("another worktree with its inode", |s, repo| {
            s["worktree"] = json!(repo.scratch().display().to_string());
            s["root"] = json!(fs::metadata(repo.scratch()).expect("it is there").ino());
            s["files"] = json!([kept("victim")]);
        }),
        ("a linked worktree above", |s, _| s["linked"] = json!(["../../..", "/etc"])),
        (
            "a huge number",
            |s, _| s["files"] = json!([{ "path": "file", "content": { "file": { "mode": 4294967295_u32, "copy": 18446744073709551615_u64 } } }]),
        ),
    ];
    for (what, change) in changes {
        let repo = killed_run();
        victims(&repo);
        symlink("..", repo.path().join("way")).expect("a link can be made");
        let tx = tx_of_run(&repo);
        fs::write(tx.join("copies/1"), "#!/bin/sh\ntouch sprung\n").expect("it can be written");
        let path = tx.join("snapshot.json");
        let mut snapshot: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
        change(&mut snapshot, &repo);
        // Who can write the log as well makes it fit: what is named has to lead nowhere all the same.
        seal(&repo, &tx, snapshot);
        let before = outside(&repo);
        let hooks = tree(&repo.git_dir().join("hooks"));
        let id = tx.file_name().and_then(|n| n.to_str()).expect("a transaction").to_owned();
        for arguments in [&["recover"][..], &["recover", "--take-back", &id]] {
            run(jin(&repo, arguments), what);
        }
        assert_same(&before, &outside(&repo), what);
        assert_same(&hooks, &tree(&repo.git_dir().join("hooks")), what);
        run(git(&repo, &["commit", "-q", "--allow-empty", "-m", "next"]), what);
        assert!(!repo.path().join("sprung").exists(), "{what}: nothing of it was executed");
    }
}

/// Writes a snapshot with a record that names it, and copies that are those which it names.
fn seal(repo: &Repo, tx: &Path, mut snapshot: Value) {
    use sha2::Digest;
    for list in ["files", "own", "shared"] {
        for kept in snapshot[list].as_array_mut().into_iter().flatten() {
            let Some(copy) = kept["content"]["file"]["copy"].as_u64() else { continue };
            let Ok(found) = fs::metadata(tx.join("copies").join(copy.to_string())) else { continue };
            let modified = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            kept["content"]["file"]["identity"] = json!([found.ino(), found.len(), modified, 0]);
        }
    }
    // The index is the first copy.
    snapshot["index"] = json!(null);
    let text = snapshot.to_string();
    let sum: String = sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(tx.join("snapshot.json"), text).expect("it can be written");
    let path = parts(repo).pop().expect("there is a segment");
    let log = fs::read_to_string(&path).expect("the log is text");
    let sealed = log.lines().map(|line| {
        let mut record: Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
        if record["data"]["snapshot"].is_null() {
            return format!("{line}\n");
        }
        record["data"]["snapshot"]["sha256"] = json!(sum);
        let json = record.to_string();
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
    });
    fs::write(&path, sealed.collect::<String>()).expect("it can be written");
}

#[test]
fn a_copy_of_a_run_that_is_a_link_brings_nothing_in_from_outside() {
    let repo = killed_run();
    victims(&repo);
    let copies = tx_of_run(&repo).join("copies");
    let copies = fs::read_dir(copies).expect("it has copies").flatten().map(|copy| copy.path());
    let is_mine = |copy: &PathBuf| fs::read(copy).is_ok_and(|content| content == b"mine\n");
    let mine = copies.into_iter().find(is_mine).expect("the untracked file is kept");
    replace(&mine, |path| symlink(repo.scratch().join("victim"), path).expect("a link can be made"));
    fs::write(repo.path().join("untracked"), "changed\n").expect("it can be written");
    run(jin(&repo, &["recover"]), "recover");
    let inside = tree(repo.path())
        .into_values()
        .filter(|(mode, content)| mode & 0o170_000 == 0o100_000 && content == b"precious\n");
    assert_eq!(inside.count(), 0, "nothing from outside has come in");
}

#[test]
fn a_marker_of_a_run_that_is_damaged_does_not_cost_its_snapshot() {
    for (what, from, to) in [
        ("its origin is gone", "\"origin\":\"run\"", "\"nrigin\":\"run\""),
        ("it is no JSON", "{", "["),
        ("it is another process", "\"pid\":", "\"pid\":1"),
        ("it is of another time", "\"timestamp\":1", "\"timestamp\":9"),
        ("it is of another boot", "\"boot\":\"", "\"boot\":\"0"),
    ] {
        let repo = killed_run();
        let marker =
            crate::support::snapshot::walk(&repo.git_dir().join(".jin"), &|dir| dir.ends_with(Path::new(".jin")));
        let marker = marker.into_iter().find(|p| p.display().to_string().contains(".transaction_")).expect("a marker");
        let content = fs::read_to_string(&marker).expect("it can be read");
        fs::write(&marker, content.replacen(from, to, 1)).expect("it can be written");
        assert_ne!(content, fs::read_to_string(&marker).expect("it can be read"), "{what}");
        let output = run(jin(&repo, &["recover"]), what);
        let file = fs::read_to_string(repo.path().join("file")).expect("it is there");
        let tag = repo.try_git(["rev-parse", "-q", "--verify", "by-the-run"]).status.success();
        let went_back = file == "one\n" && !tag;
        let waits = file == "changed\n" && tag && output.status.code() != Some(0) && tx_of_run(&repo).exists();
        assert!(went_back || waits, "{what}: neither back nor waiting: {file:?} {tag} {}", shown(&repo, &output));
    }
}

#[test]
fn a_marker_that_is_damaged_while_its_git_lives_costs_that_git_nothing() {
    for (what, from, to) in [
        ("it is no JSON", "{", "["),
        ("it names another process", "\"pid\":", "\"pid\":1"),
        ("it names another start", "\"start\":", "\"start\":1"),
        ("it is of another boot", "\"boot\":\"", "\"boot\":\"0"),
        ("it is of another namespace", "\"pidns\":", "\"pidns\":1"),
    ] {
        let case = Case::new();
        let hanging = case.hang();
        let marker =
            crate::support::snapshot::walk(&case.repo.git_dir().join(".jin"), &|dir| dir.ends_with(Path::new(".jin")));
        let marker = marker.into_iter().find(|p| p.display().to_string().contains(".transaction_")).expect("a marker");
        let content = fs::read_to_string(&marker).expect("it can be read");
        // In all places: the owner's and the helper's.
        fs::write(&marker, content.replace(from, to)).expect("it can be written");
        let locks = case.locks();
        let output = run(jin(&case.repo, &["recover"]), what);
        assert_eq!(
            case.values(),
            ["new", "new", "old", "old"],
            "{what}: its refs stay: {}",
            shown(&case.repo, &output)
        );
        assert_eq!(case.locks(), locks, "{what}: its locks stay: {}", shown(&case.repo, &output));
        assert_ne!(output.status.code(), Some(0), "{what}: and it is told");
        hanging.let_go();
        assert_eq!(case.values(), ["new"; 4], "{what}: it comes to its end");
    }
}

#[test]
fn an_environment_that_lies_changes_nothing_elsewhere() {
    let repo = protected();
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    other.commit_all("theirs");
    let forged = |variable: &str, value: &str| {
        let mut command = git(&repo, &["commit", "-q", "--allow-empty", "-m", "forged"]);
        command.env(variable, value);
        let before = (Snapshot::of(&other), other.logged());
        let count = repo.logged().len();
        let output = run(command, variable);
        assert!(output.status.success(), "{variable}={value}: {}", text(&output.stderr));
        assert_eq!(repo.logged().len(), count + 1, "{variable}={value}: it is logged as any other");
        assert_eq!((Snapshot::of(&other), other.logged()), before, "{variable}={value}: and nowhere else");
        let id = repo.logged()[0].split(' ').next().expect("an id").to_owned();
        text(&repo.jin_txn(["show", &id, "--json"]).stdout).into_owned()
    };
    let ino = fs::metadata(repo.git_dir().join(".jin")).expect("it is there").ino();
    for (variable, value) in [
        ("JIN_TXN_TX", "tx-1".to_owned()),
        ("JIN_TXN_TX", "\u{1b}[31m".to_owned()),
        ("JIN_TXN_TX", "tx-99999999999999999999999".to_owned()),
        ("JIN_TXN_REVERSES", "undo ../../x".to_owned()),
        ("JIN_TXN_RUN", format!("tx-1@{ino}")),
        ("JIN_TXN_RUN", format!("tx-404@{ino} tx-9@1 garbage @ \u{1b}[31m")),
        ("JIN_TXN", "on".to_owned()),
    ] {
        let told = forged(variable, &value);
        let told: Value = serde_json::from_str(&told).expect("it is JSON");
        assert!(told["begin"].get("part_of").is_none(), "{variable}={value}: it is part of nothing");
    }
    // The hook believes GIT_DIR, as git does: git sets it. A user who sets it works in that repository.
    let before = (Snapshot::of(&repo), repo.logged());
    let mut command = git(&repo, &["update-ref", "refs/heads/x", "HEAD"]);
    command.env("GIT_DIR", other.git_dir());
    assert!(run(command, "GIT_DIR").status.success());
    assert_eq!((Snapshot::of(&repo), repo.logged()), before, "GIT_DIR elsewhere: this one is not touched");
    assert_eq!(other.logged().len(), 2, "and that one logs it");
}

#[test]
fn a_run_of_another_kind_of_transaction_is_not_believed() {
    // A live transaction of git, which is no run: a forged variable makes nothing a part of it.
    let case = Case::new();
    let hanging = case.hang();
    let ino = fs::metadata(case.repo.git_dir().join(".jin")).expect("it is there").ino();
    let id = case.repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let mut command = git(&case.repo, &["update-ref", "refs/tags/t", "HEAD"]);
    command.env("JIN_TXN_RUN", format!("{id}@{ino}"));
    assert!(run(command, "JIN_TXN_RUN").status.success());
    let newest = case.repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let told: Value = serde_json::from_slice(&case.repo.jin_txn(["show", &newest, "--json"]).stdout).expect("JSON");
    assert!(told["begin"].get("part_of").is_none(), "it is part of nothing: {told:#}");
    hanging.let_go();
}

#[test]
fn an_apply_whose_decision_may_be_lost_waits_for_a_human() {
    let repo = protected();
    let (old, new) = (repo.read(["rev-parse", "HEAD~"]), repo.read(["rev-parse", "HEAD"]));
    for branch in ["a", "b", "c"] {
        repo.git(["branch", branch, &old]);
    }
    let input = format!(
        "update refs/heads/a {new} {old}\nupdate refs/heads/b {new} {old}\nupdate refs/heads/c {new} {old}\n\
         write made 100644 file absent\n"
    );
    kill_at(jin(&repo, &["apply"]), &input, Action::KillTree, nth(2, is_ref_rename));
    let values = || ["a", "b", "c"].map(|branch| repo.read(["rev-parse", branch]) == new);
    assert_eq!(values(), [true, false, false], "it is cut behind its commit point");
    let segment = parts(&repo).pop().expect("there is a segment");
    let log = fs::read_to_string(&segment).expect("the log is text");
    let decided = log.find("\"type\":\"decided\"").expect("it was decided");
    let mut bytes = log.into_bytes();
    bytes[decided + 8] ^= 1;
    fs::write(&segment, bytes).expect("it can be written");
    for _ in 0..2 {
        let output = run(jin(&repo, &["recover"]), "recover");
        assert_eq!(output.status.code(), Some(4), "{}", shown(&repo, &output));
        assert_eq!(values(), [true, false, false], "neither direction is taken");
        assert!(!repo.path().join("made").exists(), "and no file is written");
    }
    let staged = tree(&repo.git_dir().join(".jin/tx")).into_values().any(|(_, content)| content == b"one\n");
    assert!(staged, "what was staged is kept");
    let id = repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let closed = run(jin(&repo, &["recover", "--acknowledge", &id]), "acknowledge");
    assert_eq!(closed.status.code(), Some(0), "{}", shown(&repo, &closed));
    // Its locks went with it; nobody needs the damaged log any more, which is told once.
    let_the_clock_tick(&repo.git_dir());
    assert_eq!(run(jin(&repo, &["recover"]), "recover").status.code(), Some(4));
    assert_eq!(run(jin(&repo, &["check"]), "check").status.code(), Some(0));
    repo.git(["update-ref", "refs/heads/b", &new]);
}
