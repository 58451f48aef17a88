//! The watch: what it takes, what it leaves, how it starts and ends.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::crash::git;
use crate::support::repo::{Options, Repo, jin_txn, text, write_file};
use crate::support::wait::wait_until;
use crate::support::watch::{Watch, runtime, with_watch};

/// A protected repository with a commit and a change of `f`.
fn scene() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("f", "one\n");
    repo.commit_all("one");
    repo.install_guard();
    repo.write("f", "two\n");
    repo
}

fn index_lock(repo: &Repo) -> PathBuf {
    repo.git_dir().join("index.lock")
}

/// A git that is stopped by an editor (or hook) that says when it has begun.
fn waiting_commit(repo: &Repo, arguments: &[&str]) -> (Child, PathBuf) {
    let began = repo.scratch().join("began");
    let editor = repo.scratch().join("editor");
    write_file(
        &editor,
        &format!("#!/bin/sh\necho $$ >{0}.new\nmv {0}.new {0}\nexec sleep 1000\n", began.display()),
        0o755,
    );
    let mut command = with_watch(repo, git(repo, arguments));
    command.env("GIT_EDITOR", &editor).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("git starts");
    wait_until("the editor has begun", || began.exists());
    (child, began)
}

/// Kills what waits in the editor.
fn end_editor(began: &Path) {
    let pid = fs::read_to_string(began).expect("it has said who it is");
    Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill runs");
}

fn assert_works(repo: &Repo) {
    repo.git(["commit", "-qam", "next"]);
    repo.git(["switch", "-qc", "other"]);
}

#[test]
fn a_commit_that_is_killed_while_its_editor_waits_blocks_nobody() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    watch.wait_until_idle();
    assert!(index_lock(&repo).exists(), "git holds its lock, closed, while the editor waits");
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    wait_until("the lock is gone", || !index_lock(&repo).exists());
    end_editor(&began);
    assert_works(&repo);
}

#[test]
fn locks_that_nobody_was_seen_to_hold_are_left() {
    let repo = scene();
    let watch = Watch::start(&repo);
    // As gitoxide does: made, and closed at once. As a person does.
    let locks = ["index.lock", "HEAD.lock", "refs/heads/main.lock"].map(|name| repo.git_dir().join(name));
    for lock in &locks {
        fs::write(lock, "").expect("it can be written");
    }
    watch.wait_until_idle();
    // Somebody else works here and dies.
    let mut child = with_watch(&repo, git(&repo, &["hash-object", "--stdin"])).stdin(Stdio::piped()).spawn().unwrap();
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    watch.wait_until_idle();
    assert!(locks.iter().all(|lock| lock.exists()), "nobody knows whose they are");
}

#[test]
fn a_lock_that_nobody_was_seen_to_hold_stays_when_those_of_a_dead_git_go() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    let others = repo.git_dir().join("refs/heads/other.lock");
    fs::write(&others, "").expect("another program takes it, and closes it");
    watch.wait_until_idle();
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    wait_until("the lock is gone", || !index_lock(&repo).exists());
    watch.wait_until_idle();
    end_editor(&began);
    assert!(others.exists(), "nobody knows whose it is");
}

#[test]
fn in_a_container_where_recover_has_to_leave_a_lock_the_watch_takes_it() {
    const LEFT: &str = "jin-txn recover -q; test -e .git/index.lock";
    for (is_watched, command, then) in
        [(false, "commit -qam two", LEFT), (true, "commit -qam two", WATCHED), (true, "add f", WATCHED)]
    {
        let repo = scene();
        let script = repo.scratch().join("inside");
        let watch =
            if is_watched { "jin-txn watch -q & until jin-txn watch --status; do sleep 0.02; done" } else { "" };
        let killed = KILLED.replace("COMMAND", command);
        fs::write(&script, format!("cd {}\n{watch}\n{killed}\n{then}\n", repo.path().display()))
            .expect("it is written");
        let mut command = with_watch(&repo, repo.command("unshare".as_ref()));
        let path =
            command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap_or_default();
        let mut path = path.to_owned();
        path.push(":");
        path.push(jin_txn().parent().expect("it lies in a directory"));
        command.env("PATH", path).env("JIN_WATCH", if is_watched { "on" } else { "off" });
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-u"]).arg(&script);
        let done = command.output().expect("unshare starts");
        if text(&done.stderr).contains("unshare failed") {
            println!("skipped: no right to make a container");
            return;
        }
        assert!(done.status.success(), "{is_watched}: {}{}", text(&done.stdout), text(&done.stderr));
    }
}

/// A git that is killed while it reads a file, with all that it has started: it has its lock open.
const KILLED: &str = r#"
mkdir -p .git/info; echo 'f filter=slow' >.git/info/attributes
git config filter.slow.clean 'touch began; exec sleep 1000'
setsid git COMMAND & git=$!
until test -e began; do sleep 0.02; done
git config --unset filter.slow.clean
sleep 0.2
kill -9 -$git
wait $git
"#;

const WATCHED: &str = r#"
tries=0
while test -e .git/index.lock; do
    tries=$((tries + 1)); test $tries -lt 500 || { echo "the lock stays"; exit 3; }
    sleep 0.02
done
git commit -qam next
"#;

#[test]
fn a_lock_of_a_program_that_is_no_git_is_left_when_it_dies() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let script = format!("exec 9>{0}; echo $$ >{0}.began; exec sleep 1000", index_lock(&repo).display());
    let mut child = repo.command("/bin/sh".as_ref()).args(["-c", &script]).spawn().expect("a shell starts");
    let began = repo.git_dir().join("index.lock.began");
    wait_until("it has its lock", || began.exists());
    watch.wait_until_idle();
    child.kill().expect("it lives");
    child.wait().expect("it was ours");
    watch.wait_until_idle();
    assert!(index_lock(&repo).exists(), "only locks of git are known");
}

#[test]
fn a_lock_that_was_made_again_under_the_name_of_a_dead_ones_is_left() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    watch.wait_until_idle();
    fs::remove_file(index_lock(&repo)).expect("somebody follows git's advice");
    fs::write(index_lock(&repo), "another's").expect("and another takes it");
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    watch.wait_until_idle();
    end_editor(&began);
    assert_eq!(fs::read(index_lock(&repo)).expect("it is there"), b"another's");
}

#[test]
fn a_repository_without_a_note_of_this_user_is_left_alone() {
    let repo = scene();
    fs::remove_dir_all(repo.scratch().join("home/.local/state/jin-txn")).expect("there are notes");
    let watch = Watch::start(&repo);
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    watch.wait_until_idle();
    end_editor(&began);
    assert!(index_lock(&repo).exists());
    assert_eq!(watch.status().expect("it says")["repositories"], 0);
}

#[test]
fn a_repository_that_is_protected_while_it_runs_is_watched() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    wait_until("it is known", || watch.status().is_some_and(|status| status["repositories"] == 2));
    fs::remove_dir_all(other.path()).expect("it can be removed");
    wait_until("it is forgotten", || watch.status().is_some_and(|status| status["repositories"] == 1));
}

/// It wrote to what its shell had opened.
#[test]
fn a_lock_that_a_git_had_as_its_output_is_its_scripts() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let fifos = ["go", "end"].map(|name| repo.scratch().join(name));
    for fifo in &fifos {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).expect("it can be made");
    }
    let script = "set -C; (read x <../go; echo HEAD) | git cat-file --batch-check >.git/index.lock; echo >../ended; read y <../end";
    let mut command = with_watch(&repo, repo.command("bash".as_ref()));
    let mut child = command.args(["-c", script]).spawn().expect("bash starts");
    wait_until("the lock is there", || index_lock(&repo).exists());
    watch.wait_until_idle();
    fs::write(&fifos[0], "go\n").expect("it is read");
    wait_until("git has ended", || repo.scratch().join("ended").exists());
    watch.wait_until_idle();
    let is_kept = index_lock(&repo).exists();
    fs::write(&fifos[1], "end\n").expect("it is read");
    child.wait().expect("bash was ours");
    assert!(is_kept, "its script goes on");
}

/// Gits that a hook starts in a container of its own are told the name of the lock, and hold it no more than the hook does.
#[test]
fn a_commit_whose_hook_runs_gits_in_a_container_keeps_its_index_lock() {
    let repo = scene();
    let may = Command::new("unshare").args(["-pmf", "--mount-proc", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: no right to make a container");
        return;
    }
    let inner = "git update-ref refs/checks/one HEAD; git -c alias.wait='!sleep 0.3' wait; sleep 0.5";
    let hook = format!("#!/bin/sh\nexec unshare -pmf --mount-proc sh -c \"{inner}\"\n");
    write_file(&repo.git_dir().join("hooks/pre-commit"), &hook, 0o755);
    let _watch = Watch::start(&repo);
    let done = with_watch(&repo, git(&repo, &["commit", "-qam", "two"])).output().expect("git starts");
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(repo.read(["status", "--porcelain", "-uno"]), "", "the index is that of the commit");
}

#[test]
fn no_hook_starts_a_watch_where_it_is_not_wanted() {
    let repo = scene();
    repo.git(["config", "jin.watch", "off"]);
    repo.install_guard();
    let rows: [(&str, &[(&str, &str)]); 4] = [
        ("jin.watch=off", &[]),
        ("JIN_WATCH=off", &[("JIN_WATCH", "off")]),
        ("in CI", &[("JIN_WATCH", "auto"), ("CI", "true")]),
        ("in quarantine", &[("JIN_WATCH", "on"), ("GIT_QUARANTINE_PATH", "/x")]),
    ];
    for (name, variables) in rows {
        let mut command = with_watch(&repo, git(&repo, &["commit", "-q", "--allow-empty", "-m", name]));
        command.env_remove("JIN_WATCH").envs(variables.iter().copied());
        command.output().expect("git starts");
        let tried = fs::read_dir(runtime(&repo).join("jin-txn")).map_or(0, Iterator::count);
        assert_eq!(tried, 0, "{name}");
    }
}

#[test]
fn a_watch_whose_socket_or_directory_goes_makes_room_for_another() {
    let repo = scene();
    for what in ["socket", "lock", "directory"] {
        let watch = Watch::start(&repo);
        let directory = runtime(&repo).join("jin-txn");
        if what != "directory" {
            let entries = fs::read_dir(&directory).expect("it is there").flatten().map(|entry| entry.path());
            entries
                .filter(|path| path.extension().is_some_and(|it| it == what))
                .for_each(|path| fs::remove_file(path).unwrap());
        } else {
            fs::remove_dir_all(&directory).expect("it can be removed");
        }
        let state = || fs::read_to_string(format!("/proc/{}/stat", watch.pid)).unwrap_or_default();
        wait_until("it ends", || {
            state().rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z') || rest.is_empty())
        });
    }
}

#[test]
fn a_runtime_directory_that_is_open_to_others_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let repo = scene();
    let directory = runtime(&repo).join("jin-txn");
    fs::create_dir(&directory).expect("it can be made");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let done = with_watch(&repo, git(&repo, &["commit", "-qam", "two"])).output().expect("git starts");
    assert!(done.status.success() && done.stderr.is_empty(), "git goes on: {}", text(&done.stderr));
    assert_eq!(fs::read_dir(&directory).expect("it is there").count(), 0, "nothing is put there");
    let watch = with_watch(&repo, repo.command(jin_txn().as_os_str())).arg("watch").output().expect("it starts");
    let said = text(&watch.stderr).replace(&repo.scratch().display().to_string(), "SCRATCH");
    insta::assert_snapshot!(said, @r"
    error: cannot use SCRATCH/run/jin-txn for the watch
    caused by: it is open to others, or another user's
    ");
}

#[test]
fn a_storm_of_announcements_and_nonsense_is_survived() {
    let repo = scene();
    let watch = Watch::start(&repo);
    let directory =
        fs::read_dir(watch.runtime.join("jin-txn")).expect("it is there").flatten().map(|entry| entry.path());
    let socket =
        directory.into_iter().find(|path| path.extension().is_some_and(|it| it == "socket")).expect("it listens");
    let sender = UnixDatagram::unbound().expect("a socket can be made");
    sender.set_nonblocking(true).expect("it can");
    let common_dir = repo.git_dir();
    for number in 0..10_000_u32 {
        let pid = number % 40_000;
        let said = match number % 3 {
            0 => format!("1 at-work {pid} 1 0\n{}\n", common_dir.display()),
            1 => format!("1 at-work {pid} 1 0\n/nowhere/{number}\n"),
            _ => "\u{0}\n\n\n".to_owned(),
        };
        // A full queue refuses: nobody waits.
        sender.send_to(said.as_bytes(), &socket).ok();
    }
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    watch.wait_until_idle();
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    wait_until("the lock is gone", || !index_lock(&repo).exists());
    end_editor(&began);
}

#[test]
fn a_unit_for_systemd_comes_and_goes() {
    let repo = scene();
    let path = repo.scratch().join("home/.config/systemd/user/jin-txn-watch.service");
    repo.jin(&["watch", "--install"]);
    let unit = fs::read_to_string(&path).expect("it is written");
    assert!(unit.contains(" watch --quiet\n"), "{unit}");
    let link = path.with_file_name("default.target.wants").join("jin-txn-watch.service");
    assert_eq!(fs::read_link(&link).expect("it starts with the session"), path);
    match Command::new("systemd-analyze").args(["--user", "verify"]).arg(&path).output() {
        Ok(verified) => assert!(!text(&verified.stderr).contains("jin-txn-watch"), "{}", text(&verified.stderr)),
        Err(_) => println!("skipped: there is no systemd-analyze"),
    }
    repo.jin(&["watch", "--uninstall"]);
    assert!(!path.exists() && fs::symlink_metadata(&link).is_err());
}

#[test]
fn after_a_reboot_no_git_is_refused_because_the_watch_checks() {
    let repositories = if std::env::var("JIN_KILL").is_ok_and(|it| it == "all") { 50 } else { 6 };
    let repo = scene();
    let repos: Vec<Repo> = (0..repositories)
        .map(|number| {
            let one = repo.new_sibling(&format!("r{number}"), Options { guarded: true, ..Options::default() });
            one.write("f", "one\n");
            one.commit_all("one");
            one
        })
        .collect();
    for one in &repos {
        // What the note of this boot is called in another one.
        let entries = fs::read_dir(one.git_dir().join(".jin")).expect("it is protected").flatten();
        let verified = entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/verified."));
        let verified = verified.expect("this boot has checked it");
        let name = verified.file_name().expect("it has a name").to_string_lossy().into_owned();
        let rest = name.splitn(3, '.').nth(2).expect("it has three parts");
        let other = verified.with_file_name(format!("verified.11111111-2222-3333-4444-555555555555.{rest}"));
        fs::rename(&verified, other).expect("it can be renamed");
    }
    let mut command = with_watch(&repo, repo.command(jin_txn().as_os_str()));
    let mut watch = command.args(["watch", "-q"]).spawn().expect("the watch starts");
    for one in repos.iter().rev() {
        one.write("f", "two\n");
        let mut command = git(one, &["commit", "-qam", "two"]);
        command.env("JIN_WATCH", "on").env("XDG_RUNTIME_DIR", runtime(&repo));
        let done = command.output().expect("git starts");
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let is_checked = |one: &Repo| {
        let entries = fs::read_dir(one.git_dir().join(".jin")).expect("it is there").flatten();
        entries.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy().into_owned();
            name.starts_with("verified.") && !name.contains("11111111-2222")
        })
    };
    wait_until("all are checked", || repos.iter().all(is_checked));
    watch.kill().expect("it lives");
    watch.wait().expect("it was ours");
}

#[test]
fn a_hook_that_no_git_has_called_tells_nobody_and_refuses_nothing() {
    let repo = scene();
    let _watch = Watch::start(&repo);
    let zeros = "0".repeat(40);
    let mut command = with_watch(&repo, repo.command(jin_txn().as_os_str()));
    command.args(["hook", "reference-transaction", "prepared"]).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let line = format!("{zeros} {zeros} AUTO_MERGE\n");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), line.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success() && done.stderr.is_empty(), "{}", text(&done.stderr));
}

#[test]
fn a_repository_for_which_nobody_wants_the_watch_is_left_alone_by_one_that_runs() {
    let repo = scene();
    let watch = Watch::start(&repo);
    repo.git(["config", "jin.watch", "off"]);
    repo.install_guard();
    let (mut child, began) = waiting_commit(&repo, &["commit", "-qa"]);
    watch.wait_until_idle();
    child.kill().expect("git lives");
    child.wait().expect("git was ours");
    wait_until("it is forgotten", || watch.status().is_some_and(|status| status["repositories"] == 0));
    watch.wait_until_idle();
    end_editor(&began);
    assert!(index_lock(&repo).exists(), "`jin.watch=off` holds for a watch that runs, too");
}

#[test]
fn a_repository_that_is_not_protected_any_more_is_forgotten() {
    for what in ["state", "note"] {
        let repo = scene();
        let watch = Watch::start(&repo);
        assert_eq!(watch.status().expect("it says")["repositories"], 1);
        if what == "state" {
            fs::remove_dir_all(repo.git_dir().join(".jin")).expect("it can be removed");
        } else {
            let notes = fs::read_dir(repo.scratch().join("home/.local/state/jin-txn")).expect("there are notes");
            notes.flatten().for_each(|note| fs::remove_file(note.path()).expect("it can be removed"));
        }
        wait_until("it is forgotten", || watch.status().is_some_and(|status| status["repositories"] == 0));
    }
}

#[test]
fn a_watch_whose_program_is_replaced_becomes_the_new_one() {
    let repo = scene();
    let program = repo.scratch().join("jin-txn-copy");
    let put = |name: &str| {
        let new = repo.scratch().join(name);
        fs::copy(jin_txn(), &new).expect("it can be copied");
        new
    };
    fs::rename(put("first"), &program).expect("it can be renamed");
    let mut command = with_watch(&repo, repo.command(program.as_os_str()));
    let mut child = command.args(["watch", "-q"]).spawn().expect("the watch starts");
    let runs = || {
        let status = with_watch(&repo, repo.command(jin_txn().as_os_str())).args(["watch", "--status"]).output();
        status.expect("it starts").status.success()
    };
    wait_until("it runs", runs);
    fs::rename(put("second"), &program).expect("it can be renamed");
    let exe = PathBuf::from(format!("/proc/{}/exe", child.id()));
    let is_new = || fs::read_link(&exe).is_ok_and(|path| path == program);
    assert!(!is_new(), "nothing has woken it yet");
    wait_until("the new one runs", || {
        with_watch(&repo, git(&repo, &["commit", "-q", "--allow-empty", "-m", "x"])).output().expect("git starts");
        is_new() && runs()
    });
    child.kill().expect("it lives");
    child.wait().expect("it was ours");
}
