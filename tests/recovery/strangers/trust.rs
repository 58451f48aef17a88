//! Repositories that this user never installed: surfaces that nobody asked for start nothing there, and ownership is judged as git does.

mod copied;
mod ownership;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::crash::{git, jin, recover, run_jin};
use crate::support::hanging::Case;
use crate::support::observe::{assert_same, shown, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, NOBODY, Options, Repo, give_to, jin_txn, text, write_file};
use crate::support::wait::comes_true;
use nix::sys::stat::Mode;

fn is_root(what: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can {what}");
    }
    is_root
}

/// Runs to the end, which has to come soon.
#[track_caller]
fn run(mut command: Command) -> Output {
    let what = format!("{command:?}");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    if !comes_true(|| child.try_wait().expect("it can be asked").is_some()) {
        child.kill().ok();
        panic!("it hangs: {what}");
    }
    child.wait_with_output().expect("it can be waited for")
}

/// A `git` that writes down that it was started.
struct Spy {
    directory: PathBuf,
    log: PathBuf,
}

impl Spy {
    fn new(repo: &Repo) -> Spy {
        let (directory, log) = (repo.scratch().join("spy"), repo.scratch().join("started"));
        let real = Git::under_test().program.display().to_string();
        let script = format!("#!/bin/sh\necho \"$*\" >>'{}'\nexec '{real}' \"$@\"\n", log.display());
        write_file(&directory.join("git"), &script, 0o755);
        Spy { directory, log }
    }

    /// Runs the program with the spy first in PATH; what git was started with.
    fn started(&self, mut command: Command) -> (Output, Vec<String>) {
        fs::write(&self.log, "").expect("it can be written");
        let path = format!("{}:{}", self.directory.display(), Git::under_test().path_variable().display());
        let output = run({
            command.env("PATH", path);
            command
        });
        let started = fs::read_to_string(&self.log).expect("it can be read");
        (output, started.lines().map(str::to_owned).collect())
    }
}

/// What a repository may have its gits run, each of which leaves a file in `sprung`.
fn set_traps(git_dir: &Path, sprung: &Path) {
    let trap = |name: &str| format!("touch {}/{name}; cat", sprung.display());
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = \"{}\"\n\tsshCommand = \"{}\"\n\tpager = \"{}\"\n\
         [filter \"x\"]\n\tclean = \"{}\"\n\tsmudge = \"{}\"\n[alias]\n\ttxn = \"!{}\"\n",
        trap("fsmonitor"),
        trap("ssh"),
        trap("pager"),
        trap("clean"),
        trap("smudge"),
        trap("alias"),
    );
    fs::write(git_dir.join("config"), config).expect("it can be written");
}

/// A repository as an archive brings it: with a state directory, traps, a staged file that is gone, and unfinished work.
struct Unpacked {
    repo: Repo,
    sprung: PathBuf,
}

impl Unpacked {
    fn new() -> Unpacked {
        let repo = Repo::new(Options::default());
        repo.write(".gitattributes", "* filter=x\n");
        repo.write("file", "one\n");
        repo.commit_all("one");
        repo.write("file", "two\n");
        let sprung = repo.scratch().join("sprung");
        fs::create_dir(&sprung).expect("it can be made");
        for part in ["wal", "quarantine", "tx"] {
            fs::create_dir_all(repo.git_dir().join(".jin").join(part)).expect("it can be made");
        }
        fs::write(repo.git_dir().join("index.lock"), "").expect("it can be written");
        set_traps(&repo.git_dir(), &sprung);
        Unpacked { repo, sprung }
    }

    fn assert_nothing_sprung(&self, what: &str) {
        let sprung: Vec<_> = tree(&self.sprung).into_keys().skip(1).collect();
        assert!(sprung.is_empty(), "{what}: {sprung:?} ran");
    }
}

/// The shell function on these arguments of git.
fn from_shell(repo: &Repo, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = repo.command(jin_txn().as_os_str());
    command.current_dir(directory).args(["git", "--from-shell", "--"]).args(arguments);
    command
}

fn jin_in(repo: &Repo, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = repo.command(jin_txn().as_os_str());
    command.current_dir(directory).args(arguments);
    command
}

#[test]
fn prompt_check_and_shell_function_start_no_git_in_an_unpacked_repository() {
    let unpacked = Unpacked::new();
    let (repo, here) = (&unpacked.repo, unpacked.repo.path());
    let spy = Spy::new(repo);
    let (output, started) = spy.started(jin_in(repo, here, &["check", "--prompt"]));
    assert_eq!((text(&output.stdout).as_ref(), started.as_slice()), ("", &[][..]), "a prompt says nothing there");
    for arguments in [&["check"][..], &["check", "-q"], &["check", "--json"]] {
        let (output, started) = spy.started(jin_in(repo, here, arguments));
        assert_eq!(started, [""; 0], "{arguments:?} starts no git");
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: there is a lock: {}", shown(repo, &output));
        let is_told = text(&output.stdout).contains("`jin-txn recover` recovers it");
        assert_eq!(is_told, arguments != ["check", "-q"], "{arguments:?}: {}", shown(repo, &output));
    }
    for arguments in [&["--version"][..], &["log", "--oneline"], &["rev-parse", "HEAD"]] {
        let (output, started) = spy.started(from_shell(repo, here, arguments));
        assert_eq!(started, [arguments.join(" ")], "only what was typed is started");
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        assert!(said.contains("jin-txn: something may be unfinished in "), "{said}");
    }
    unpacked.assert_nothing_sprung("looking");
    assert!(repo.git_dir().join("index.lock").exists(), "and nothing was recovered");
}

#[test]
fn nothing_that_hangs_is_read_in_an_unpacked_repository() {
    let unpacked = Unpacked::new();
    let (repo, here) = (&unpacked.repo, unpacked.repo.path());
    fs::create_dir_all(repo.git_dir().join("worktrees/x")).expect("it can be made");
    for part in
        ["config", "index", "HEAD", "commondir", ".jin/id", ".jin/log-head", ".jin/settings", "worktrees/x/locked"]
    {
        let path = repo.git_dir().join(part);
        fs::remove_file(&path).ok();
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
        for arguments in [&["check", "--prompt"][..], &["check"]] {
            run(jin_in(repo, here, arguments));
        }
        // git itself would wait for most of these.
        run({
            let mut command = from_shell(repo, here, &["--version"]);
            command.env("PATH", Spy::new(repo).directory);
            command
        });
        if part == "commondir" {
            fs::remove_file(&path).expect("it can be removed");
        }
    }
    unpacked.assert_nothing_sprung("looking");
}

#[test]
fn a_bare_repository_inside_of_a_worktree_is_not_looked_at() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let upstream = Unpacked::new();
    // A clone brings it.
    let docs = repo.path().join("docs");
    fs::create_dir(&docs).expect("it can be made");
    for part in ["HEAD", "config", "index", "index.lock", "objects", "refs", ".jin"] {
        let copied = Command::new("cp").arg("-a").arg(upstream.repo.git_dir().join(part)).arg(&docs).status();
        assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    }
    fs::write(docs.join("file"), "two\n").expect("it can be written");
    let spy = Spy::new(&repo);
    let (prompt, started) = spy.started(jin_in(&repo, &docs, &["check", "--prompt"]));
    assert_eq!((text(&prompt.stdout).as_ref(), started.as_slice()), ("", &[][..]));
    let (check, started) = spy.started(jin_in(&repo, &docs, &["check"]));
    assert_eq!((check.status.code(), started.as_slice()), (Some(0), &[][..]), "{}", shown(&repo, &check));
    let (git, started) = spy.started(from_shell(&repo, &docs, &["--version"]));
    assert_eq!((text(&git.stderr).as_ref(), started.len()), ("", 1), "not a word about it");
    upstream.assert_nothing_sprung("looking");
}

#[test]
fn a_bare_repository_is_left_alone_where_git_would_refuse_to_find_it() {
    let repo = Repo::new(Options { bare: true, guarded: true, ..Options::default() });
    let lock = repo.git_dir().join("packed-refs.lock");
    let global = repo.scratch().join("home/gitconfig");
    let set = |value: &str| {
        repo.git(["config", "--file", &global.display().to_string(), "safe.bareRepository", value]);
    };
    fs::write(&lock, "").expect("a lock can be left");
    let_the_clock_tick(&repo.git_dir());
    set("explicit");
    let prompt = run(jin(&repo, &["check", "--prompt"]));
    assert_eq!(text(&prompt.stdout), "", "git finds no repository here, and neither does the prompt");
    run(from_shell(&repo, repo.path(), &["--version"]));
    assert!(lock.exists(), "nothing was recovered");
    set("all");
    assert_eq!(text(&run(jin(&repo, &["check", "--prompt"])).stdout), "jin:interrupted");
    run(from_shell(&repo, repo.path(), &["--version"]));
    assert!(!lock.exists(), "it was recovered");
}

#[test]
fn who_types_a_command_recovers_without_a_note() {
    let case = Case::torn();
    let repo = &case.repo;
    fs::remove_dir_all(notes(repo)).ok();
    let output = run(from_shell(repo, repo.path(), &["--version"]));
    assert!(text(&output.stderr).contains("`jin-txn recover` recovers it"), "{}", shown(repo, &output));
    assert_eq!(case.values(), ["new", "new", "old", "old"], "nothing happened by itself");
    assert_eq!(run_jin(repo, &["check"]).0, 3, "scripts learn that something waits");
    let (code, said) = recover(repo);
    assert_eq!((code, case.values()), (0, ["old"; 4]), "{said}");
    assert_eq!(run_jin(repo, &["check"]).0, 0, "and then nothing does");
}

fn notes(repo: &Repo) -> PathBuf {
    repo.scratch().join("home/.local/state/jin-txn")
}

fn noted(repo: &Repo) -> Vec<PathBuf> {
    let entries = fs::read_dir(notes(repo)).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn is_protected_for_prompts(repo: &Repo) -> bool {
    let lock = repo.git_dir().join("packed-refs.lock");
    fs::write(&lock, "").expect("a lock can be left");
    let_the_clock_tick(&repo.git_dir());
    let said = text(&run(jin(repo, &["check", "--prompt"])).stdout).into_owned();
    fs::remove_file(&lock).expect("it is still there");
    said == "jin:interrupted"
}

#[test]
fn a_note_is_for_its_user_and_for_one_directory() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    assert!(!run_jin(&repo, &["status"]).1.contains("do not recover by themselves"), "status has nothing to say");
    let [note] = noted(&repo).try_into().expect("there is one note");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!((mode(&notes(&repo)), mode(&note)), (0o700, 0o600), "nobody else reads it");
    assert_eq!(mode(&repo.git_dir().join(".jin/id")), 0o600, "nor the id");
    let id = fs::read_to_string(repo.git_dir().join(".jin/id")).expect("it has an id");
    assert_eq!(note.file_name().and_then(|name| name.to_str()), Some(id.trim()), "it is named by the id");
    assert!(is_protected_for_prompts(&repo));

    // A copy has the id, and is another directory.
    let copied = Command::new("cp").arg("-a").arg(repo.path()).arg(repo.scratch().join("copy")).status();
    assert!(copied.is_ok_and(|status| status.success()), "it can be copied");
    assert!(!is_protected_for_prompts(&repo.sibling("copy")), "the note does not fit a copy");
    // One that was moved is the same directory, and goes on being it when other notes are written.
    fs::rename(repo.path(), repo.scratch().join("moved")).expect("it can be moved");
    let moved = repo.sibling("moved");
    assert!(is_protected_for_prompts(&moved), "moved");
    let other = repo.new_sibling("other", Options { guarded: true, ..Options::default() });
    assert_eq!(noted(&repo).len(), 2);
    assert!(is_protected_for_prompts(&moved), "moved, and another one protected");
    fs::remove_dir_all(other.path()).expect("it can be removed");
    repo.new_sibling("third", Options { guarded: true, ..Options::default() });
    assert_eq!(noted(&repo).len(), 2, "the note of a repository that is gone goes with the next one");

    // What others may have written is no note.
    fs::set_permissions(&note, fs::Permissions::from_mode(0o666)).expect("the mode can be set");
    assert!(!is_protected_for_prompts(&moved), "anybody may write it");
    fs::remove_file(&note).expect("it can be removed");
    assert!(!is_protected_for_prompts(&moved), "it is gone");
    let (_, said) = run_jin(&moved, &["status"]);
    assert!(said.contains("do not recover by themselves here: `jin-txn install` allows it"), "status says so: {said}");
    moved.jin(&["install"]);
    assert!(is_protected_for_prompts(&moved), "install writes it again");
    moved.jin(&["uninstall"]);
    assert!(!note.exists(), "uninstall takes it away");
}

#[test]
fn no_more_than_ten_thousand_notes_are_kept_and_the_oldest_go_first() {
    const MOST: usize = 10_000;
    let repo = Repo::new(Options::default());
    fs::create_dir_all(notes(&repo)).expect("it can be made");
    let note = serde_json::json!({ "version": 1, "path": "/", "ino": 2, "born": 3 }).to_string();
    for n in 0..MOST + 5 {
        fs::write(notes(&repo).join(format!("{n:032x}")), &note).expect("it can be written");
    }
    let oldest = fs::File::options().write(true).open(notes(&repo).join(format!("{:032x}", 77)));
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    oldest.expect("it is there").set_modified(long_ago).expect("its time can be set");
    fs::write(notes(&repo).join("template.json"), "{}").expect("it can be written");
    repo.jin(&["install"]);
    let left = noted(&repo);
    assert_eq!(left.len(), MOST + 1, "with what is no note");
    assert!(left.iter().any(|path| path.ends_with("template.json")), "which stays");
    assert!(!left.iter().any(|path| path.ends_with(format!("{:032x}", 77))), "the oldest one is gone");
    assert!(is_protected_for_prompts(&repo), "the newest one is there");
}

#[test]
fn a_hook_that_makes_the_state_directory_writes_the_note() {
    let repo = Repo::new(Options::default());
    let hooks = repo.git_dir().join("hooks");
    fs::create_dir_all(&hooks).expect("it can be made");
    symlink(jin_txn(), hooks.join("reference-transaction")).expect("a link can be made");
    repo.commit_all("one");
    assert_eq!(noted(&repo).len(), 1, "as from a template");
    assert!(is_protected_for_prompts(&repo));
    fs::remove_dir_all(notes(&repo)).expect("notes can be removed");
    repo.commit_all("two");
    assert_eq!(noted(&repo).len(), 0, "a hook that finds a state directory knows nothing of who made it");
}

#[test]
fn without_a_home_of_ones_own_there_is_no_note_and_no_word_about_it() {
    /// Sets HOME; the path is the scratch directory.
    type SetHome = fn(&mut Command, &Path);
    let places: [(&str, SetHome); 4] = [
        ("no HOME", |command, _| {
            command.env_remove("HOME");
        }),
        ("a HOME that is no directory", |command, scratch| {
            command.env("HOME", scratch.join("file"));
        }),
        ("a HOME that cannot be written", |command, _| {
            command.env("HOME", "/proc/self");
        }),
        ("the HOME of another user", |command, scratch| {
            command.env("HOME", scratch.join("theirs"));
        }),
    ];
    for (name, set) in places {
        let repo = Repo::new(Options::default());
        fs::write(repo.scratch().join("file"), "").expect("it can be written");
        let theirs = repo.scratch().join("theirs");
        fs::create_dir(&theirs).expect("it can be made");
        if name.starts_with("the HOME") {
            if !is_root("give a home away") {
                continue;
            }
            give_to(NOBODY, &theirs);
        }
        let before = tree(&theirs);
        let mut install = jin(&repo, &["install"]);
        set(&mut install, repo.scratch());
        let output = run(install);
        assert!(output.status.success(), "{name}: {}", shown(&repo, &output));
        assert!(!text(&output.stderr).contains("note"), "{name}: {}", shown(&repo, &output));
        let mut commit = git(&repo, &["commit", "-q", "--allow-empty", "-m", "one"]);
        set(&mut commit, repo.scratch());
        let output = run(commit);
        assert_eq!((output.status.code(), text(&output.stderr).as_ref()), (Some(0), ""), "{name}");
        assert_same(&before, &tree(&theirs), name);
        assert!(repo.logged().len() == 1, "{name}: it is logged");
    }
}
