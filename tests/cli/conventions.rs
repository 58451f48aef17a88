//! What users expect of a command-line program: completions, manual pages, colour, `-q` and `-v`, settings, documented JSON.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::hanging::Case;
use crate::support::observe::{shown, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::terminal::Terminal;
use serde_json::Value;

#[test]
fn a_first_look_that_takes_long_shows_a_line_on_terminals_only() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    let not_yet_looked = || {
        for entry in fs::read_dir(repo.git_dir().join(".jin")).expect("it can be read").flatten() {
            if entry.file_name().to_string_lossy().starts_with("verified.") {
                fs::remove_file(entry.path()).expect("it can be removed");
            }
        }
    };
    // Another runner of recovery, for which this one waits.
    let lock = repo.git_dir().join(".jin/recovery.lock");
    let hold = || {
        let file = fs::OpenOptions::new().write(true).open(&lock).expect("it is there");
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("nobody has it")
    };
    not_yet_looked();
    let held = hold();
    let mut command = repo.command(jin_txn().as_os_str());
    command.arg("recover").env("TERM", "xterm");
    let mut terminal = Terminal::start(command);
    terminal.wait_for("jin-txn: looking after what the last boot left ...");
    drop(held);
    terminal.wait_for("jin-txn: nothing to recover");
    assert!(terminal.ended().success(), "it goes on to its end");

    not_yet_looked();
    let held = hold();
    let child = repo.command(jin_txn().as_os_str()).arg("recover").stderr(std::process::Stdio::piped()).spawn();
    // A terminal would have the line after one second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    drop(held);
    let output = child.expect("it starts").wait_with_output().expect("it ends");
    assert_eq!(text(&output.stderr), "jin-txn: nothing to recover\n", "no terminal, no line");
}

#[test]
fn every_command_has_a_manual_page_that_man_shows() {
    let repo = Repo::new(Options::default());
    let pages = repo.scratch().join("man/man1");
    let written = repo.jin_txn(["man", &pages.display().to_string()]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let help = text(&repo.jin_txn(["help"]).stdout).into_owned();
    let commands: Vec<String> = help
        .lines()
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')))
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .filter(|command| command != "help")
        .collect();
    assert!(commands.len() > 12, "the help lists commands: {help}");
    let names = commands.iter().map(|c| format!("jin-txn-{c}")).chain(["jin-txn".to_owned(), "git-txn".to_owned()]);
    for name in names {
        let mut man = repo.command("man".as_ref());
        let shown = man.args(["-P", "cat", "1", &name]).env("MANPATH", repo.scratch().join("man")).output();
        let shown = shown.expect("man runs");
        assert!(shown.status.success(), "{name}: {}", text(&shown.stderr));
        for section in ["SYNOPSIS", "EXIT STATUS"] {
            assert!(text(&shown.stdout).contains(section), "{name}: {}", text(&shown.stdout));
        }
        assert!(!text(&shown.stderr).contains("warning"), "{name}: {}", text(&shown.stderr));
    }
    let mut at_terminal = repo.command(jin_txn().as_os_str());
    at_terminal.arg("man").env("TERM", "xterm").env("MANPAGER", "cat");
    let mut terminal = Terminal::start(at_terminal);
    // (Headings are overstruck.)
    for section in ["Done; or clean.", "The write-ahead log.", "Hooks start no watch.", "take back the newest one"] {
        terminal.wait_for(section);
    }
    let main = repo.jin_txn(["man"]);
    assert_eq!(
        main.stdout,
        fs::read(pages.join("jin-txn.1")).expect("it is there"),
        "the main page is the printed one"
    );
}

#[test]
fn git_help_txn_is_the_alias_or_with_git_txn_in_path_the_manual_page() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let bin = repo.scratch().join("bin");
    let pages = repo.scratch().join("share/man/man1");
    fs::create_dir(&bin).expect("it can be made");
    assert!(repo.jin_txn(["man", &pages.display().to_string()]).status.success());
    let real = Git::under_test().program.parent().expect("a program lies in a directory").display();
    let git = |arguments: &[&str]| {
        let mut git = repo.command(Git::under_test().program.as_os_str());
        git.args(arguments).env("PATH", format!("{}:{real}:/usr/bin:/bin", bin.display()));
        git.env("MANPATH", repo.scratch().join("share/man")).env("MANPAGER", "cat").env("PAGER", "cat");
        git.output().expect("git runs")
    };
    for arguments in [["help", "txn"], ["txn", "--help"]] {
        let output = git(&arguments);
        assert!(text(&output.stdout).starts_with("'txn' is aliased to "), "{arguments:?}: {}", shown(&repo, &output));
    }
    assert!(text(&git(&["txn", "-h"]).stdout).contains("Usage: "), "-h is ours");
    symlink(jin_txn(), bin.join("git-txn")).expect("a link can be made");
    for arguments in [["help", "txn"], ["txn", "--help"]] {
        let output = git(&arguments);
        assert!(text(&output.stdout).contains("SYNOPSIS"), "{arguments:?}: {}", shown(&repo, &output));
    }
    let other = repo.new_sibling("other", Options::default());
    let mut git = other.command(Git::under_test().program.as_os_str());
    let output = git.args(["txn", "install"]).env("PATH", format!("{}:{real}:/usr/bin:/bin", bin.display())).output();
    let output = output.expect("git runs");
    assert!(output.status.success(), "`git txn` works before it is set up: {}", shown(&repo, &output));
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    let run = |arguments: &[&str], no_color: bool| {
        let mut jin = repo.command(jin_txn().as_os_str());
        jin.args(arguments);
        if no_color {
            jin.env("NO_COLOR", "1");
        }
        jin.output().expect("it runs")
    };
    let is_coloured = |output: &Output| output.stdout.contains(&0x1b) || output.stderr.contains(&0x1b);
    for (arguments, no_color, coloured) in [
        (&["status"][..], false, false),
        (&["--color", "always", "status"], false, true),
        (&["--color", "always", "status"], true, true),
        (&["--color=never", "status"], false, false),
        (&["--color", "always", "show", "tx-9"], false, true),
        (&["--color", "always", "show"], false, true),
        (&["--color", "always", "--help"], false, true),
        (&["--color", "always", "status", "--json"], false, false),
        (&["--color", "always", "shell-init", "bash"], false, false),
    ] {
        assert_eq!(is_coloured(&run(arguments, no_color)), coloured, "{arguments:?}, NO_COLOR: {no_color}");
    }
    for (options, no_color, coloured) in
        [("", false, true), ("", true, false), ("--color=never", false, false), ("--color=always", true, true)]
    {
        let mut script = repo.command("script".as_ref());
        script.args(["-qec", &format!("'{}' {options} status", jin_txn().display()), "/dev/null"]).env("TERM", "xterm");
        if no_color {
            script.env("NO_COLOR", "1");
        }
        let output = script.output().expect("script runs");
        assert_eq!(is_coloured(&output), coloured, "at a terminal, `{options}`, NO_COLOR: {no_color}");
    }
}

#[test]
fn more_is_told_when_asked() {
    let case = Case::torn();
    let said = shown(&case.repo, &case.repo.jin_txn(["recover", "-v"]));
    // git 2.54 and newer write down beside each lock who holds it.
    let said: Vec<&str> = said.lines().filter(|line| !line.contains("~pid.lock: ")).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    --- stderr
    jin-txn: rolled back tx-1 (`git update-ref --stdin`, pid [PID]): refs/heads/alpha is back at [ID], refs/heads/beta is back at [ID], trimmed the reflog of refs/heads/alpha and 1 more; see `git txn show tx-1`
    jin-txn: moved 2 stale locks to quarantine: refs/heads/gamma.lock, refs/heads/omega.lock
      refs/heads/alpha is back at [ID]
      refs/heads/beta is back at [ID]
      trimmed the reflog of refs/heads/alpha
      trimmed the reflog of refs/heads/beta
      refs/heads/gamma.lock: the log has it as the lock of a process that is dead
      refs/heads/omega.lock: the log has it as the lock of a process that is dead
    --- exit 0
    ");
    insta::assert_snapshot!(shown(&case.repo, &case.repo.jin_txn(["log", "-v"])), @"
    tx-1     [TIME]  rolled back    4 refs  git update-ref --stdin
               refs/heads/alpha  [ID] -> [ID]
               refs/heads/beta  [ID] -> [ID]
               refs/heads/gamma  [ID] -> [ID]
               refs/heads/omega  [ID] -> [ID]
    --- stderr
    --- exit 0
    ");
    let both = case.repo.jin_txn(["status", "-q", "-v"]);
    assert_eq!(both.status.code(), Some(2), "quiet and verbose are two things: {}", text(&both.stderr));
    let verbose = text(&case.repo.jin_txn(["status", "-v"]).stdout).into_owned();
    assert!(verbose.contains("\ngit: ") && verbose.contains("\nlog: "), "{verbose}");
}

/// Holds a lock of the state directory until it is dropped.
fn hold(lock: &Path) -> nix::fcntl::Flock<fs::File> {
    let file = fs::File::open(lock).expect("the lock file is there");
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("nobody holds it")
}

#[test]
fn a_hook_waits_for_the_log_as_long_as_configured() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    for (timeout, least, most) in [("0", 0, 5_000), ("500ms", 500, 9_000)] {
        repo.git(["config", "jin.lockTimeout", timeout]);
        repo.install_guard();
        let held = hold(&repo.git_dir().join(".jin/append.lock"));
        let start = std::time::Instant::now();
        let output = repo.try_git(["branch", "topic"]);
        let took = start.elapsed().as_millis();
        drop(held);
        assert!(!output.status.success(), "{timeout}: without the log there is no change");
        let holder = format!("(pid {}) holds ", std::process::id());
        assert!(text(&output.stderr).contains(&holder), "{timeout}: {}", text(&output.stderr));
        assert!((least..most).contains(&took), "{timeout}: it took {took} ms");
    }
    assert!(repo.git_dir().join(".jin/settings").is_file(), "install has written it down");
    repo.git(["config", "jin.retention", "soon"]);
    let before = tree(&repo.git_dir());
    let output = repo.jin_txn(["install"]);
    crate::support::observe::assert_same(&before, &tree(&repo.git_dir()), "it was refused, and yet something changed");
    insta::assert_snapshot!(shown(&repo, &output), @"
    --- stderr
    error: jin.retention is `soon`: it should be days, a size or both, e.g. 30d, 64m or 30d 1g
    hint: nothing was changed; `git config` it
    --- exit 1
    ");
    repo.git(["config", "--unset", "jin.retention"]);
    repo.git(["config", "--unset", "jin.lockTimeout"]);
    repo.install_guard();
    let held = hold(&repo.git_dir().join(".jin/append.lock"));
    let waiting = repo.command(Git::under_test().program.as_os_str()).args(["branch", "topic"]).spawn();
    let mut waiting = waiting.expect("git starts");
    // Longer than the timeout that was configured before: the default is 10 s.
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    assert!(waiting.try_wait().expect("git can be asked").is_none(), "it waits");
    drop(held);
    assert!(waiting.wait().is_ok_and(|status| status.success()), "and goes on when the lock is free");
}

/// The fields that docs/json.md lists under a heading: the first word of each row of its table, in backticks.
fn documented(heading: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).expect("the documentation is there");
    let section = text.split("\n## ").find(|s| s.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("docs/json.md has a section `{heading}`"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

/// The paths of all fields: `refs[].before`. What lies in an object with free keys counts as one.
fn fields(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                into.insert(path.clone());
                fields(value, &path, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, &format!("{prefix}[]"), into)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_is_documented_and_every_documented_one_exists() {
    let mut seen: Vec<(&str, BTreeSet<String>)> = Vec::new();
    let mut take = |heading: &'static str, output: &Output| {
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{heading}: {error}: {}{}", text(&output.stdout), text(&output.stderr)));
        assert_eq!(value["version"], 1, "{heading} is versioned");
        let mut found = BTreeSet::new();
        fields(&value, "", &mut found);
        match seen.iter_mut().find(|(name, _)| *name == heading) {
            Some((_, known)) => known.extend(found),
            None => seen.push((heading, found)),
        }
    };
    let case = Case::new();
    let jin = |arguments: &[&str]| case.repo.jin_txn([arguments, &["--json"]].concat());
    take("install", &jin(&["install"]));
    take("install --shim", &jin(&["install", "--shim", "../shim"]));
    case.repo.git(["branch", "-D", "omega"]);
    case.repo.git(["branch", "omega", &case.old]);
    take("undo and redo", &jin(&["undo"]));
    take("undo and redo", &jin(&["redo"]));
    case.repo.write("source", "content\n");
    case.repo.write("input", &format!("create refs/heads/applied {}\nwrite made 100644 source\n", case.old));
    take("apply", &jin(&["apply", "input"]));
    jin(&["run", "-m", "why", "--", "git", "tag", "in-a-run"]);
    case.hang().kill();
    take("check", &jin(&["check"]));
    take("status", &jin(&["status"]));
    take("list", &jin(&["list"]));
    take("log", &jin(&["log"]));
    take("doctor", &jin(&["doctor"]));
    take("wal verify", &jin(&["wal", "verify"]));
    let torn = text(&jin(&["log"]).stdout).into_owned();
    let id = serde_json::from_str::<Value>(&torn).expect("it is JSON")["transactions"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    take("recover", &jin(&["recover"]));
    take("show", &jin(&["show", &id]));
    case.repo.git(["commit", "-q", "--allow-empty", "-m", "three"]);
    let log = serde_json::from_slice::<Value>(&jin(&["log"]).stdout).expect("it is JSON");
    for transaction in log["transactions"].as_array().expect("a list") {
        take("show", &jin(&["show", transaction["id"].as_str().expect("an id")]));
    }
    for (heading, found) in seen {
        let documented = documented(heading);
        let (optional, wanted): (BTreeSet<_>, BTreeSet<_>) =
            documented.into_iter().partition(|field| is_optional(heading, field));
        let missing: Vec<_> = wanted.difference(&found).collect();
        assert!(missing.is_empty(), "docs/json.md, {heading}: documented and not there: {missing:?}");
        let undocumented: Vec<_> = found.iter().filter(|f| !wanted.contains(*f) && !optional.contains(*f)).collect();
        assert!(undocumented.is_empty(), "docs/json.md, {heading}: not documented: {undocumented:?}");
    }
}

/// Fields that this test brings about in no run; the table says so.
fn is_optional(heading: &str, field: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).expect("the documentation is there");
    let section = text.split("\n## ").find(|s| s.lines().next() == Some(heading)).unwrap_or_default();
    section.lines().any(|line| line.starts_with(&format!("| `{field}` ")) && line.contains("(not always there)"))
}

#[test]
fn the_templates_are_clean_in_the_eyes_of_shellcheck_and_of_the_shells() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/shell");
    for (program, arguments, file) in [
        ("shellcheck", &[][..], "init.sh"),
        ("bash", &["-n"], "init.sh"),
        ("zsh", &["-n"], "init.sh"),
        ("fish", &["-n"], "init.fish"),
    ] {
        let output = Command::new(program).args(arguments).arg(root.join(file)).output().expect("it runs");
        assert!(output.status.success(), "{program} {file}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}
