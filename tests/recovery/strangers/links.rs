//! Links, FIFOs and devices below the git directory lead nowhere.

mod instead;
mod runs;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::crash::{git, jin, kill_at, nth, path_of};
use crate::support::hostile::protected;
use crate::support::observe::{Tree, assert_same, calm, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::reboot;
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, jin_txn, text};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::wait::wait_until;

/// Longer than any command here takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs to the end, which has to come soon, with at most 64 MiB of its own.
fn run(repo: &Repo, program: &Path, arguments: &[&str], input: &str, what: &str) -> Output {
    let mut command = repo.command("/bin/sh".as_ref());
    command.args(["-c", "ulimit -d 65536; exec \"$@\"", "sh"]).arg(program).args(arguments);
    let mut child = start(command, input);
    let start = Instant::now();
    while child.try_wait().expect("it can be asked").is_none() {
        if start.elapsed() > PATIENCE {
            end(&mut child);
            panic!("{what}: it hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("it can be waited for");
    calm(&output);
    let said = text(&output.stderr).into_owned();
    assert!(!said.contains("memory allocation"), "{what}: it takes too much memory: {said}");
    output
}

fn start(mut command: Command, input: &str) -> Child {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it has a stdin");
    // Who does not read it does not want it.
    stdin.write_all(input.as_bytes()).ok();
    child
}

/// With the gits that it has started.
fn end(child: &mut Child) {
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid is a number"));
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
    child.wait().ok();
}

/// What lies outside of the repository, in the scratch directory.
fn outside(repo: &Repo) -> Tree {
    let is_outside = |path: &Path| !["repo", "home", "linked", "now"].iter().any(|inside| path.starts_with(inside));
    tree(repo.scratch()).into_iter().filter(|(path, _)| is_outside(path)).collect()
}

/// Another live repository, with a lock that some git of another machine may hold, and files that end like locks.
fn victim(repo: &Repo) -> Repo {
    let other = repo.new_sibling("other", Options::default());
    for name in ["Cargo.lock", "yarn.lock", "composer.lock"] {
        other.write(name, "precious\n");
    }
    other.commit_all("theirs");
    fs::write(other.git_dir().join("index.lock"), "half written").expect("a lock can be made");
    other
}

fn forget_the_boot(repo: &Repo) {
    for entry in fs::read_dir(repo.git_dir().join(".jin")).expect("it is there").flatten() {
        if entry.file_name().to_string_lossy().starts_with("verified.") {
            fs::remove_file(entry.path()).expect("it can be removed");
        }
    }
}

fn replace_by_link(path: &Path, target: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("it can be removed"),
        Ok(_) => fs::remove_file(path).expect("it can be removed"),
        Err(_) => fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made"),
    }
    symlink(target, path).expect("a link can be made");
}

#[test]
fn a_link_to_another_repository_leads_recovery_nowhere_and_stops_it_nowhere() {
    // Where the link lies, and to what of the other repository it leads.
    let links = [
        ("worktrees/x/refs", "other"),
        ("worktrees/x/logs", "other/.git/logs"),
        ("worktrees/x/info", "other"),
        ("worktrees/x/reftable", "other"),
        ("worktrees/x/sequencer", "other"),
        ("worktrees/x/rebase-merge", "other"),
        ("worktrees/y", "other/.git"),
        ("worktrees", "other/.git/modules"),
        ("logs", "other/.git/logs"),
        ("logs/refs/heads", "other"),
        ("refs/bisect", "other"),
        ("info", "other"),
        ("objects/info", "other"),
        ("objects/pack", "other"),
    ];
    let (mut led_outside, mut stopped) = (Vec::new(), Vec::new());
    for (link, target) in links {
        let repo = protected();
        let other = victim(&repo);
        // A worktree of a cut `git worktree add`, as a link in place of `worktrees` would offer it.
        fs::create_dir_all(other.git_dir().join("modules/m")).expect("it can be made");
        fs::write(other.git_dir().join("modules/m/locked"), "initializing").expect("it can be written");
        repo.git(["worktree", "add", "-q", "--detach", "../linked"]);
        fs::rename(repo.git_dir().join("worktrees/linked"), repo.git_dir().join("worktrees/x")).expect("it can move");
        replace_by_link(&repo.git_dir().join(link), &repo.scratch().join(target));
        let stale = repo.git_dir().join("refs/heads/stale.lock");
        fs::write(&stale, "").expect("a lock can be made");
        forget_the_boot(&repo);
        let_the_clock_tick(&repo.git_dir());
        let before = outside(&repo);
        let what = format!("{link} leads to {target}");
        for arguments in [&["check"][..], &["recover", "--dry-run"], &["recover"], &["recover"]] {
            let output = run(&repo, &jin_txn(), arguments, "", &what);
            if before != outside(&repo) {
                led_outside.push(format!("{what}, {arguments:?}: {}", shown(&repo, &output)));
                break;
            }
        }
        if stale.exists() {
            stopped.push(what);
        }
    }
    assert!(led_outside.is_empty(), "something outside has changed:\n{}", led_outside.join("\n"));
    assert!(stopped.is_empty(), "recovery of the rest goes on: {stopped:#?}");
}

#[test]
fn what_is_linked_is_told() {
    let repo = protected();
    victim(&repo);
    let stale = repo.git_dir().join("refs/heads/stale.lock");
    fs::write(&stale, "").expect("a lock can be made");
    fs::create_dir_all(repo.git_dir().join("worktrees")).expect("it can be made");
    symlink(repo.scratch().join("other/.git"), repo.git_dir().join("worktrees/y")).expect("a link can be made");
    let_the_clock_tick(&repo.git_dir());
    let output = run(&repo, &jin_txn(), &["recover"], "", "recover");
    let said = shown(&repo, &output);
    assert!(said.contains("worktrees/y is a symbolic link"), "{said}");
}

/// A run that was killed when it had changed a file and made one.
fn killed_run(repo: &Repo, script: &str) -> String {
    let mut command = jin(repo, &["run", "--", "sh", "-ec"]);
    command.arg(format!("{script}\necho >../now"));
    kill_at(command, "", Action::KillTree, |event| path_of(event).ends_with("now"));
    let tx = fs::read_dir(repo.git_dir().join(".jin/tx")).expect("it is there").flatten();
    let tx = tx.map(|e| e.path()).find(|path| path.join("snapshot.json").exists()).expect("a run has a snapshot");
    tx.file_name().and_then(|name| name.to_str()).expect("it has a name").to_owned()
}

/// The home of somebody, with a file that is run at the next login.
fn home_of_a_victim(repo: &Repo) -> PathBuf {
    let home = repo.scratch().join("victim");
    fs::create_dir(&home).expect("it can be made");
    fs::write(home.join("precious"), "precious\n").expect("it can be written");
    home
}

#[test]
fn a_quarantine_that_is_laid_out_for_a_run_gets_nothing() {
    for (what, inner) in
        [("its directory", ""), ("the worktree in it", "worktree"), ("a directory in it", "worktree/sub")]
    {
        let repo = protected();
        let home = home_of_a_victim(&repo);
        let id = killed_run(&repo, "mkdir sub; echo evil >.bashrc; echo evil >sub/.bashrc; echo changed >file");
        let mut laid_out = repo.git_dir().join(format!(".jin/quarantine/1-run.{id}"));
        laid_out.extend(Path::new(inner));
        fs::create_dir_all(laid_out.parent().expect("it has one")).expect("it can be made");
        symlink(&home, &laid_out).expect("a link can be made");
        let before = outside(&repo);
        let output = run(&repo, &jin_txn(), &["recover"], "", what);
        assert_same(&before, &outside(&repo), what);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", shown(&repo, &output));
        assert!(!repo.path().join(".bashrc").exists() && !repo.path().join("sub").exists(), "{what}: it is taken back");
        assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is there"), "one\n", "{what}");
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_between_two_files_gets_nothing() {
    let repo = protected();
    let home = home_of_a_victim(&repo);
    let id = killed_run(&repo, "for i in 1 2 3 4 5 6; do echo evil >.bashrc$i; done; echo changed >file");
    let before = outside(&repo);
    let mut swapped = None;
    // At each change of a file, after the one before has been made.
    let mut decide = |_: &Event| {
        if swapped.is_none()
            && let Some(dir) = first_with_content(&repo, &id)
        {
            fs::rename(&dir, repo.git_dir().join("aside")).expect("it can be moved");
            symlink(&home, &dir).expect("a link can be made");
            swapped = Some(dir);
        }
        Action::Continue
    };
    tracer::trace(jin(&repo, &["recover"]), b"", Isolation::None, &mut decide).expect("it starts");
    let link = swapped.expect("something was moved aside");
    assert_same(&before, &outside(&repo), "nothing outside has changed");
    fs::remove_file(link).expect("it can be removed");
    let output = run(&repo, &jin_txn(), &["recover"], "", "recover");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&repo, &output));
    assert_eq!(text(&repo.git(["status", "--porcelain"]).stdout), "", "and it is taken back when nobody interferes");
}

/// The directory in quarantine for the worktree of a run, when there is something in it.
fn first_with_content(repo: &Repo, id: &str) -> Option<PathBuf> {
    let made = fs::read_dir(repo.git_dir().join(".jin/quarantine")).ok()?.flatten().map(|entry| entry.path());
    let made = made.filter(|path| path.display().to_string().ends_with(&format!("run.{id}")));
    made.map(|path| path.join("worktree")).find(|path| fs::read_dir(path).is_ok_and(|mut found| found.next().is_some()))
}

#[test]
fn a_directory_that_is_swapped_for_a_link_again_and_again_gets_nothing() {
    const RUNS: usize = 12;
    let repo = protected();
    let home = home_of_a_victim(&repo);
    let before = outside(&repo);
    for n in 0..RUNS {
        fs::create_dir_all(repo.path().join("sub")).expect("it can be made");
        let many = "i=0; while [ $i -lt 100 ]; do echo evil >.bashrc$i; echo evil >sub/.bashrc$i; i=$((i+1)); done";
        let id = killed_run(&repo, &format!("{many}; echo more >>file"));
        let ended = AtomicBool::new(false);
        let output = thread::scope(|scope| {
            scope.spawn(|| swap(&repo, &id, &home, &ended));
            let output = jin(&repo, &["recover"]).output().expect("it starts");
            ended.store(true, Ordering::Release);
            output
        });
        calm(&output);
        assert_same(&before, &outside(&repo), &format!("run {n}: {}", shown(&repo, &output)));
        // Undisturbed it comes to an end.
        let output = run(&repo, &jin_txn(), &["recover", "--take-back", &id], "", "recover");
        assert_same(&before, &outside(&repo), &format!("run {n}: {}", shown(&repo, &output)));
        repo.jin_txn(["recover", "--acknowledge", &id]);
    }
}

/// Swaps the directory of the worktree, and each that recovery makes for it in quarantine, for a link and back.
fn swap(repo: &Repo, id: &str, home: &Path, ended: &AtomicBool) {
    let (sub, aside) = (repo.path().join("sub"), repo.scratch().join("repo/.git/aside"));
    let quarantine = repo.git_dir().join(".jin/quarantine");
    while !ended.load(Ordering::Acquire) {
        let made = fs::read_dir(&quarantine).into_iter().flatten().flatten().map(|entry| entry.path());
        let made = made.filter(|path| path.display().to_string().ends_with(&format!("run.{id}")));
        let inner = made.map(|path| path.join("worktree")).filter(|path| path.is_dir());
        for dir in inner.chain([sub.clone()]) {
            if fs::rename(&dir, &aside).is_ok() {
                symlink(home, &dir).ok();
                (0..20).for_each(|_| thread::yield_now());
                fs::remove_file(&dir).ok();
                fs::rename(&aside, &dir).ok();
            }
        }
    }
}

#[test]
fn a_reflog_that_is_a_link_to_a_private_file_is_not_copied() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be two users");
        return;
    }
    let repo = protected();
    let private = repo.scratch().join("private");
    fs::write(&private, "private\n").expect("it can be written");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).expect("it can be set");
    repo.git(["branch", "z"]);
    give_to(NOBODY, repo.scratch());
    let link = repo.git_dir().join("logs/refs/heads/z");
    replace_by_link(&link, &private);
    // The link is another user's: the kernel refuses to give it a second name, and what it leads to was copied instead.
    give_to(0, &link);
    let mut command = repo.as_nobody(Git::under_test().program.as_os_str());
    command.args(["branch", "-D", "z"]);
    kill_at(command, "", Action::KillTree, nth(2, |event| path_of(event).ends_with("refs/heads/z")));
    let copied = tree(&repo.git_dir().join(".jin")).into_iter().find(|(_, (_, content))| content == b"private\n");
    assert!(copied.is_none(), "{copied:?}");
}

#[test]
fn the_copy_of_a_reflog_can_be_read_by_nobody_who_could_not_read_the_reflog() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be two users");
        return;
    }
    let repo = protected();
    repo.git(["branch", "z"]);
    give_to(NOBODY, repo.scratch());
    let log = repo.git_dir().join("logs/refs/heads/z");
    // Another user's: the kernel refuses a second name, so it is copied.
    give_to(0, &log);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o664)).expect("it can be set");
    let mut command = repo.as_nobody(Git::under_test().program.as_os_str());
    command.args(["branch", "-D", "z"]);
    kill_at(command, "", Action::KillTree, nth(2, |event| path_of(event).ends_with("refs/heads/z")));
    let content = fs::read(&log).unwrap_or_default();
    let kept: Vec<u32> = tree(&repo.git_dir().join(".jin/tx"))
        .into_values()
        .filter(|(mode, kept)| mode & 0o170_000 == 0o100_000 && (content.is_empty() || *kept == content))
        .map(|(mode, _)| mode & 0o777)
        .collect();
    assert!(!kept.is_empty() && kept.iter().all(|mode| mode & 0o077 == 0), "{kept:?}");
}

#[test]
fn a_repository_with_linked_parts_works_as_before() {
    // As `git-new-workdir` makes one.
    let repo = protected();
    let there = repo.scratch().join("other");
    fs::create_dir_all(there.join(".git/logs")).expect("it can be made");
    for part in ["config", "refs", "logs/refs", "objects", "info", "hooks", "packed-refs"] {
        symlink(repo.git_dir().join(part), there.join(".git").join(part)).expect("a link can be made");
    }
    fs::copy(repo.git_dir().join("HEAD"), there.join(".git/HEAD")).expect("it can be copied");
    let other = repo.sibling("other");
    other.git(["checkout", "-q", "-f", "-b", "topic"]);
    other.write("file", "changed\n");
    other.commit_all("three");
    other.git(["branch", "gone"]);
    other.git(["branch", "-D", "gone"]);
    let output = run(&other, &jin_txn(), &["check"], "", "check");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&other, &output));
    // What a run does behind the link could not be taken back.
    let output = run(&other, &jin_txn(), &["run", "--", "git", "tag", "by-a-run"], "", "run");
    let said = shown(&other, &output);
    assert!(output.status.code() == Some(1) && said.contains("refs is a symbolic link"), "{said}");
    assert!(!other.try_git(["rev-parse", "-q", "--verify", "by-a-run"]).status.success(), "nothing was run");
    let output = run(&other, &jin_txn(), &["check"], "", "check");
    assert_eq!(output.status.code(), Some(0), "nothing is left of it: {}", shown(&other, &output));
    // Each commit of changes has something cleaned up behind it.
    for text in ["once more\n", "and again\n"] {
        other.write("file", text);
        let output = run(&other, &Git::under_test().program, &["commit", "-q", "-a", "-m", "four"], "", "commit");
        assert_eq!(self::text(&output.stderr), "", "a healthy repository is told nothing");
    }
    // A lock behind the link is left alone, and that is told.
    let stale = repo.git_dir().join("refs/heads/stale.lock");
    fs::write(&stale, "").expect("a lock can be made");
    fs::write(other.git_dir().join("index.lock"), "").expect("a lock can be made");
    let_the_clock_tick(&repo.git_dir());
    let output = run(&other, &jin_txn(), &["recover"], "", "recover");
    let said = shown(&other, &output);
    assert!(stale.exists() && !other.git_dir().join("index.lock").exists(), "{said}");
    assert!(said.contains("refs is a symbolic link"), "{said}");
}

#[test]
fn head_as_a_link_is_a_symbolic_ref() {
    let repo = protected();
    let head = repo.git_dir().join("HEAD");
    fs::remove_file(&head).expect("it can be removed");
    symlink("refs/heads/main", &head).expect("a link can be made");
    repo.commit_all("three");
    let id = repo.logged()[0].split(' ').next().expect("an id").to_owned();
    let shown = text(&repo.jin_txn(["show", &id]).stdout).into_owned();
    assert!(shown.contains("refs/heads/main"), "{shown}");
    let mut command = git(&repo, &["commit", "-q", "--allow-empty", "-m", "four"]);
    let output = command.output().expect("git starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    wait_until("the log is whole", || repo.jin_txn(["check"]).status.code() == Some(0));
}

#[test]
fn a_home_that_is_reached_through_links_serves_as_any_other() {
    let repo = Repo::new(Options::default());
    let real = repo.scratch().join("real");
    fs::create_dir_all(real.join("state")).expect("it can be made");
    let home = repo.scratch().join("a-link");
    symlink(&real, &home).expect("a link can be made");
    symlink("state", real.join(".local")).expect("a link can be made");
    let jin = |arguments: &[&str]| {
        let mut command = jin(&repo, arguments);
        command.env("HOME", &home).env("TMPDIR", &home).env_remove("GIT_CONFIG_GLOBAL");
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", shown(&repo, &output));
    };
    let bin = home.join("bin").display().to_string();
    jin(&["install"]);
    let mut check = crate::support::crash::jin(&repo, &["check"]);
    let checked = check.env("HOME", &home).env_remove("XDG_STATE_HOME").output().expect("it starts");
    assert_eq!(
        text(&checked.stdout),
        "clean: nothing is unfinished\n",
        "the note is found: {}",
        shown(&repo, &checked)
    );
    jin(&["uninstall"]);
    jin(&["install", "--template"]);
    jin(&["install", "--template"]);
    jin(&["install", "--shim", &bin]);
    jin(&["man", &home.join("man").display().to_string()]);
    jin(&["uninstall", "--shim", &bin]);
    jin(&["uninstall", "--template"]);
    assert!(!real.join("state/share/jin-txn").exists(), "everything is put back");
}

#[test]
fn a_corrupt_object_behind_a_link_is_told_after_a_reboot_until_it_is_gone() {
    let repo = protected();
    let (objects, elsewhere) = (repo.git_dir().join("objects"), repo.scratch().join("elsewhere"));
    fs::rename(&objects, &elsewhere).expect("it can be moved");
    symlink(&elsewhere, &objects).expect("a link can be made");
    repo.write("file", "two\n");
    repo.commit_all("three");
    let blob = repo.read(["rev-parse", "HEAD:file"]);
    let corrupt = elsewhere.join(&blob[..2]).join(&blob[2..]);
    fs::set_permissions(&corrupt, fs::Permissions::from_mode(0o644)).expect("the mode can be set");
    fs::write(&corrupt, "").expect("it can be emptied");
    let boot = reboot::new_boot_id();
    for _ in 0..2 {
        let output = reboot::after(jin(&repo, &["recover"]), &boot).output().expect("it starts");
        let said = shown(&repo, &output);
        assert!(said.contains("an object is corrupt") && said.contains("is a symbolic link"), "{said}");
        assert!(!said.contains("moved 1 corrupt") && !said.contains("wrote objects again"), "{said}");
    }
    fs::remove_file(&corrupt).expect("it can be removed");
    repo.git(["hash-object", "-w", "file"]);
    let output = reboot::after(jin(&repo, &["recover"]), &boot).output().expect("it starts");
    assert!(output.status.success(), "{}", shown(&repo, &output));
    assert_eq!(repo.read(["cat-file", "-p", &blob]), "two");
}
