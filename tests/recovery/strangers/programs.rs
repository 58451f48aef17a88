//! Programs that a repository names (filters, hooks, fsmonitor, pagers, gpg, transports): no git of ours starts them.
//!
//! Every trap is a program that writes down its name, and whether a git of ours is above it (those have `JIN_TXN=off`). All
//! traps are laid at once, in a repository that is brought into the state in question first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::run::restoring::kill_script;
use crate::support::crash::git;
use crate::support::hanging::Case;
use crate::support::observe::calm;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};
use nix::sys::stat::Mode;

/// A command that takes longer hangs. A git that hangs is only killed after a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a command, and each git that it starts, may take for data.
const MEMORY: &str = "--data=67108864";

/// Commands that only look.
const LOOKING: [&[&str]; 10] = [
    &["check"],
    &["check", "--prompt"],
    &["status"],
    &["status", "--json"],
    &["log"],
    &["show", "tx-1"],
    &["doctor"],
    &["wal", "verify"],
    &["wal", "dump"],
    &["recover", "--dry-run"],
];

fn protected() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    fill(&repo);
    repo
}

/// Two commits, the newer one with a signature, and something that is only staged.
fn fill(repo: &Repo) {
    repo.write("file", "one\n");
    repo.write("dir/other", "other\n");
    let first = repo.commit_all("one");
    let tree = repo.read(["rev-parse", "HEAD^{tree}"]);
    let who = "Jin <jin@example.com> 1700000000 +0000";
    let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ\n -----END PGP SIGNATURE-----";
    let commit = format!("tree {tree}\nparent {first}\nauthor {who}\ncommitter {who}\n{signature}\n\ntwo\n");
    let signed = repo.git_with_input(["hash-object", "-t", "commit", "-w", "--stdin"], &commit);
    repo.git(["update-ref", "refs/heads/main", text(&signed.stdout).trim()]);
}

/// Content that is staged, and whose object is lost, and so is the tree.
fn lose_what_is_staged(repo: &Repo) {
    repo.write("staged", "only staged\n");
    repo.git(["add", "staged"]);
    for lost in [repo.read(["write-tree"]), repo.read(["rev-parse", ":staged"])] {
        fs::remove_file(repo.git_dir().join("objects").join(&lost[..2]).join(&lost[2..])).expect("it is loose");
    }
}

/// This boot has looked at nothing yet.
fn forget_the_boot(repo: &Repo) {
    for entry in fs::read_dir(repo.git_dir().join(".jin")).expect("it is there").flatten() {
        if entry.file_name().to_string_lossy().starts_with("verified.") {
            fs::remove_file(entry.path()).expect("it can be removed");
        }
    }
}

/// A state of a repository in which there is something to look at, or to recover.
struct Scene {
    name: &'static str,
    make: fn() -> Repo,
    /// What happens when the traps are laid already.
    then: fn(&Repo),
    /// A hook recovers it: commands alone restore files.
    by_hook: bool,
}

const SCENES: [Scene; 7] = [
    Scene { name: "healthy", make: protected, then: |_| (), by_hook: true },
    Scene {
        name: "unpacked, with an empty state directory",
        make: || {
            let repo = Repo::new(Options::default());
            fill(&repo);
            lose_what_is_staged(&repo);
            for part in ["wal", "quarantine", "tx"] {
                fs::create_dir_all(repo.git_dir().join(".jin").join(part)).expect("it can be made");
            }
            repo
        },
        then: |_| (),
        by_hook: false,
    },
    Scene {
        name: "what was staged is lost",
        make: || {
            let repo = protected();
            lose_what_is_staged(&repo);
            forget_the_boot(&repo);
            repo
        },
        then: |_| (),
        by_hook: true,
    },
    Scene {
        name: "an unreadable index",
        make: || {
            let repo = protected();
            fs::write(repo.git_dir().join("index"), [0; 104]).expect("it can be written");
            forget_the_boot(&repo);
            repo
        },
        then: |_| (),
        by_hook: true,
    },
    Scene { name: "a torn transaction", make: || Case::torn().repo, then: |_| (), by_hook: true },
    Scene {
        name: "a commit that died before its index",
        make: || {
            let repo = protected();
            repo.write("file", "two\n");
            let wanted = crate::support::crash::is_ref_rename;
            crate::support::crash::kill_at(
                git(&repo, &["commit", "-qam", "three"]),
                "",
                crate::support::tracer::Action::KillTree,
                crate::support::crash::nth(1, wanted),
            );
            repo
        },
        then: |_| (),
        by_hook: true,
    },
    Scene {
        name: "a dead run",
        make: protected,
        then: |repo| {
            kill_script(repo, "echo x >file; echo new >new; git update-ref refs/heads/x HEAD; rm dir/other; : now")
        },
        by_hook: false,
    },
];

/// Names every program that git can be told of, and makes git think that every file has changed.
struct Traps {
    ran: PathBuf,
}

impl Traps {
    /// A repository in the state of `scene`, with all traps.
    fn around(scene: &Scene) -> (Repo, Traps) {
        let repo = (scene.make)();
        let traps = Traps::lay(&repo);
        (scene.then)(&repo);
        fs::remove_file(&traps.ran).ok();
        let_the_clock_tick(&repo.git_dir());
        (repo, traps)
    }

    fn lay(repo: &Repo) -> Traps {
        let dir = repo.scratch().join("traps");
        let ran = dir.join("ran");
        fs::create_dir(&dir).expect("it can be made");
        let trap = |name: &str| {
            let code = u8::from(!name.starts_with("hook"));
            let said = format!("echo \"${{JIN_TXN:-user}} {name} $*\" >>'{}'", ran.display());
            let script = format!("#!/bin/sh\n{said}\nexit {code}\n");
            write_file(&dir.join(name), &script, 0o755);
            dir.join(name).display().to_string()
        };
        let mut config = String::from("[protocol]\nallow = always\n[log]\nshowSignature = true\n");
        for (section, name) in [
            ("core", "fsmonitor"),
            ("core", "editor"),
            ("core", "pager"),
            ("core", "sshCommand"),
            ("core", "askPass"),
            ("core", "alternateRefsCommand"),
            ("filter \"trap\"", "clean"),
            ("filter \"trap\"", "smudge"),
            ("filter \"trap\"", "process"),
            ("diff \"trap\"", "textconv"),
            ("diff \"trap\"", "command"),
            ("diff", "external"),
            ("credential", "helper"),
            ("gpg", "program"),
            ("interactive", "diffFilter"),
            ("uploadpack", "packObjectsHook"),
        ] {
            config += &format!("[{section}]\n{name} = {}\n", trap(name));
        }
        config += &format!("[remote \"origin\"]\nurl = ext::{}\n", trap("transport"));
        let hook = |name: &str| {
            let events = "event = reference-transaction\nevent = post-index-change\n";
            format!("[hook \"{name}\"]\ncommand = {}\n{events}", trap(&format!("hook-{name}")))
        };
        config += &hook("a=b");
        let included = dir.join("included");
        fs::write(&included, hook("on=branch")).expect("it can be written");
        config += &format!("[includeIf \"onbranch:**\"]\npath = {}\n", included.display());
        let file = repo.git_dir().join("config");
        let before = fs::read_to_string(&file).expect("there is a configuration");
        fs::write(&file, before + &config).expect("it can be written");
        fs::create_dir_all(repo.git_dir().join("info")).expect("it can be made");
        fs::write(repo.git_dir().join("info/attributes"), "* filter=trap diff=trap\n").expect("it can be written");
        fs::create_dir_all(repo.git_dir().join("hooks")).expect("it can be made");
        for name in ["post-index-change", "pre-auto-gc", "fsmonitor-watchman", "proc-receive"] {
            fs::copy(trap(&format!("hooks-{name}")), repo.git_dir().join("hooks").join(name))
                .expect("it can be copied");
        }
        for name in ["file", "dir/other"] {
            let path = repo.path().join(name);
            if let Ok(content) = fs::read(&path) {
                fs::remove_file(&path).expect("it can be removed");
                fs::write(&path, content).expect("it can be written");
            }
        }
        Traps { ran }
    }

    /// The programs that a git of ours has started; `all`: or any git.
    fn sprung(&self, all: bool) -> Vec<String> {
        let said = fs::read_to_string(&self.ran).unwrap_or_default();
        said.lines().filter(|line| all || line.starts_with("off ")).map(str::to_owned).collect()
    }
}

/// Runs to the end, which has to come soon, and with little memory.
fn run(command: &mut Command, what: &str) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    let (stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let drain = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).ok();
            bytes
        })
    };
    let (stdout, stderr) = (drain(Box::new(stdout)), drain(Box::new(stderr)));
    let start = Instant::now();
    while child.try_wait().expect("it can be asked").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
            panic!("{what}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = child.wait().expect("it can be waited for");
    let read = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().expect("it reads");
    let output = Output { status, stdout: read(stdout), stderr: read(stderr) };
    calm(&output);
    let said = text(&output.stderr);
    assert!(!said.contains("allocat") && !said.contains("out of memory"), "{what}: {said}");
    output
}

/// The binary under test with little memory.
fn small(repo: &Repo, arguments: &[&str]) -> Command {
    let mut command = repo.command("prlimit".as_ref());
    command.arg(MEMORY).arg(jin_txn()).args(arguments);
    command
}

/// The shell function, on two gits that anybody would call harmless.
fn shell(repo: &Repo) -> Command {
    let mut command = repo.command("bash".as_ref());
    let code = format!("eval \"$('{}' shell-init bash)\"; git --version; git log --oneline", jin_txn().display());
    command.args(["--norc", "-c", &code]);
    command
}

/// What was started, scene by scene.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn add(&mut self, scene: &str, what: &str, sprung: Vec<String>) {
        self.0.extend(sprung.into_iter().map(|trap| format!("{scene}, {what}: {trap}")));
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "programs of a stranger ran: {:#?}", self.0);
        }
    }
}

#[test]
fn commands_that_only_look_start_nothing_that_the_repository_names() {
    let mut found = Found::default();
    for scene in &SCENES {
        let (repo, traps) = Traps::around(scene);
        let name = scene.name;
        for arguments in LOOKING {
            run(&mut small(&repo, arguments), &format!("{name}, {arguments:?}"));
            found.add(name, &arguments.join(" "), traps.sprung(true));
        }
        run(&mut shell(&repo), &format!("{name}, the shell function"));
        found.add(name, "the shell function", traps.sprung(false));
    }
}

#[test]
fn recovery_by_hand_starts_nothing_that_the_repository_names() {
    let mut found = Found::default();
    for scene in &SCENES {
        let (repo, traps) = Traps::around(scene);
        let name = scene.name;
        run(&mut small(&repo, &["recover"]), &format!("{name}, recover"));
        found.add(name, "recover", traps.sprung(true));
        let check = run(&mut small(&repo, &["check"]), &format!("{name}, check"));
        assert_eq!(check.status.code(), Some(0), "{name}: it is recovered: {}", text(&check.stdout));
    }
}

#[test]
fn recovery_by_a_hook_starts_nothing_that_the_repository_names() {
    let mut found = Found::default();
    for scene in SCENES.iter().filter(|scene| scene.by_hook) {
        let (repo, traps) = Traps::around(scene);
        let name = scene.name;
        // Its own git runs what the user has configured.
        run(&mut git(&repo, &["update-ref", "refs/heads/next", "HEAD"]), &format!("{name}, a hook"));
        found.add(name, "a hook", traps.sprung(false));
        let check = run(&mut small(&repo, &["check"]), &format!("{name}, check"));
        assert_eq!(check.status.code(), Some(0), "{name}: it is recovered: {}", text(&check.stdout));
    }
}

fn fifo(path: &Path) {
    fs::remove_file(path).ok();
    nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o644)).expect("a FIFO can be made");
}

/// Adds to the repository's configuration.
fn configure(repo: &Repo, text: &str) {
    let path = repo.git_dir().join("config");
    let before = fs::read_to_string(&path).expect("there is a configuration");
    fs::write(path, before + text).expect("it can be written");
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
