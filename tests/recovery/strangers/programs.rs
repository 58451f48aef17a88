//! Programs that a repository names (filters, hooks, fsmonitor, pagers, gpg, transports): no git of ours starts them.
//!
//! Every trap is a program that writes down its name, and whether a git of ours is above it (those have `JIN_TXN=off`). All
//! traps are laid at once, in a repository that is brought into the state in question first.

mod waiting;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::run::restoring::kill_script;
use crate::support::crash::git;
use crate::support::hanging::Case;
use crate::support::observe::{assert_same, calm, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, jin_txn, text, write_file};

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

/// Adds to the repository's configuration.
fn configure(repo: &Repo, text: &str) {
    let path = repo.git_dir().join("config");
    let before = fs::read_to_string(&path).expect("there is a configuration");
    fs::write(path, before + text).expect("it can be written");
}

/// What it lacks is on a server.
fn make_partial(repo: &Repo) {
    let partial = "[core]\nrepositoryFormatVersion = 1\n[extensions]\npartialClone = origin\n";
    configure(repo, &format!("{partial}[remote \"origin\"]\npromisor = true\n"));
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

const SCENES: [Scene; 8] = [
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
        name: "a partial clone that lacks an object",
        make: || {
            let repo = protected();
            lose_what_is_staged(&repo);
            forget_the_boot(&repo);
            repo
        },
        then: make_partial,
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
        configure(repo, &config);
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

#[test]
fn a_repository_that_a_project_tracks_as_files_starts_nothing() {
    let project = Repo::new(Options::default());
    let docs = project.sibling("repo/docs");
    project.git(["init", "-q", "--bare", "--template=", "docs"]);
    fs::write(docs.path().join("config"), "[core]\nbare = false\nworktree = .\n").expect("it can be written");
    let blob = project.git_with_input(["--git-dir=docs", "hash-object", "-w", "--stdin"], "lost\n");
    let blob = text(&blob.stdout).trim().to_owned();
    docs.git(["update-index", "--add", "--cacheinfo", &format!("100644,{blob},file")]);
    fs::remove_file(docs.path().join("objects").join(&blob[..2]).join(&blob[2..])).expect("it is loose");
    docs.write("file", "lost\n");
    for part in ["wal", "quarantine", "tx"] {
        fs::create_dir_all(docs.path().join(".jin").join(part)).expect("it can be made");
    }
    let traps = Traps::lay(&docs);
    let mut found = Found::default();
    for arguments in LOOKING.iter().copied().chain([&["recover"][..]]) {
        run(&mut small(&docs, arguments), &format!("{arguments:?}"));
        found.add("an embedded repository", &arguments.join(" "), traps.sprung(true));
    }
    run(&mut shell(&docs), "the shell function");
    found.add("an embedded repository", "the shell function", traps.sprung(false));
}

#[test]
fn a_worktree_that_lies_elsewhere_by_configuration_stays_as_it_is() {
    for scene in &SCENES {
        let repo = (scene.make)();
        (scene.then)(&repo);
        let_the_clock_tick(&repo.git_dir());
        let victim = repo.scratch().join("victim");
        fs::create_dir_all(victim.join("dir")).expect("it can be made");
        for name in ["file", "dir/other", "new", "staged"] {
            fs::write(victim.join(name), "mine\n").expect("it can be written");
        }
        let before = tree(&victim);
        let config = repo.git_dir().join("config");
        let own = fs::read_to_string(&config).expect("it is there");
        fs::write(&config, own + &format!("[core]\nworktree = {}\n", victim.display())).expect("it can be written");
        for arguments in LOOKING.iter().copied().chain([&["recover"][..]]) {
            run(&mut small(&repo, arguments), &format!("{}, {arguments:?}", scene.name));
        }
        run(&mut git(&repo, &["update-ref", "refs/heads/next", "HEAD"]), scene.name);
        assert_same(&before, &tree(&victim), scene.name);
    }
}

#[test]
fn a_run_in_a_partial_clone_asks_no_server() {
    let repo = protected();
    repo.write(".gitattributes", "* text\n");
    repo.commit_all("attributes");
    let blob = repo.read(["rev-parse", "HEAD:file"]);
    fs::remove_file(repo.git_dir().join("objects").join(&blob[..2]).join(&blob[2..])).expect("it is loose");
    let traps = Traps::lay(&repo);
    fs::remove_file(repo.git_dir().join("info/attributes")).expect("it is there");
    make_partial(&repo);
    let output = run(&mut small(&repo, &["run", "--", "sh", "-c", "echo x >file; exit 7"]), "a run");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(repo.path().join("file")).expect("it is back"), "one\n");
    assert_eq!(traps.sprung(true), [""; 0]);
}
