//! `shell-init` in the real shells, at a real terminal: what a person types, what is shown, and what git makes of it.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::hanging::Case;
use crate::support::repo::{Git, Options, Repo, jin_txn, text};
use crate::support::terminal::Terminal;

/// A shell, and how one says things in it.
struct Shell {
    name: &'static str,
    /// Options that keep its start-up files away.
    clean: &'static [&'static str],
    /// Takes `shell-init` in.
    init: &'static str,
    /// Puts the segment into the prompt, in angle brackets.
    prompt: &'static str,
    /// Shows the exit code of the last command between square brackets.
    code: &'static str,
    /// A variable for one command only.
    off: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell {
        name: "bash",
        clean: &["--norc", "--noprofile"],
        init: "eval \"$(\"$JIN\" shell-init bash)\"",
        prompt: "PS1='<$(jin_txn_prompt)>$ '",
        code: "echo \"[$?]\"",
        off: "JIN_TXN=off git add .",
    },
    Shell {
        name: "zsh",
        clean: &["--no-rcs"],
        init: "eval \"$(\"$JIN\" shell-init zsh)\"",
        prompt: "setopt prompt_subst; PROMPT='<$(jin_txn_prompt)>$ '",
        code: "echo \"[$?]\"",
        off: "JIN_TXN=off git add .",
    },
    Shell {
        name: "fish",
        // `--no-config` would take its completions away; HOME has no configuration.
        clean: &[],
        init: "\"$JIN\" shell-init fish | source",
        prompt: "function fish_prompt; echo -n '<'; jin_txn_prompt; echo -n '>$ '; end",
        code: "echo \"[$status]\"",
        off: "JIN_TXN=off git add .",
    },
];

impl Shell {
    fn command(&self, repo: &Repo) -> Command {
        let mut command = repo.command(OsStr::new(self.name));
        command.args(self.clean).env("JIN", jin_txn()).env("TERM", "xterm");
        command.env("XDG_CONFIG_HOME", repo.scratch().join("home")).env("XDG_DATA_HOME", repo.scratch().join("home"));
        command
    }

    /// The shell at a terminal, with `shell-init` taken in and its prompt set.
    fn at_terminal(&self, repo: &Repo) -> Terminal {
        let mut command = self.command(repo);
        command.arg("-i");
        let mut terminal = Terminal::start(command);
        terminal.type_line(&format!("{}; {}; echo re''ady", self.init, self.prompt));
        terminal.wait_for("ready\n");
        terminal
    }

    /// Waits until the prompt says `state`. fish draws only what has changed of its prompt.
    fn wait_for_prompt(&self, terminal: &mut Terminal, state: &str) {
        let whole = format!("<{state}>$ ");
        terminal.wait_for(if self.name == "fish" { state } else { &whole });
    }

    /// What a script of one line prints.
    fn run(&self, repo: &Repo, line: &str, init: bool) -> Output {
        let line = if init { format!("{}; {line}", self.init) } else { line.to_owned() };
        self.command(repo).args(["-c", &line]).stdin(Stdio::null()).output().expect("the shell runs")
    }
}

#[test]
fn a_killed_git_shows_in_the_prompt_and_the_next_git_command_recovers_it() {
    for shell in SHELLS {
        let case = Case::torn();
        let mut terminal = shell.at_terminal(&case.repo);
        shell.wait_for_prompt(&mut terminal, "jin:interrupted");
        terminal.type_line("git status --short --branch");
        let said = terminal.wait_for("<>$ ");
        assert_eq!(said.matches("jin-txn: rolled back tx-1").count(), 1, "{}: one line says so: {said}", shell.name);
        assert!(said.contains("jin-txn: moved 2 stale locks to quarantine"), "{}: {said}", shell.name);
        assert!(said.contains("## main\n"), "{}: and then comes git's own answer: {said}", shell.name);
        assert_eq!(case.values(), ["old"; 4], "{}: it is recovered", shell.name);

        fs::write(case.repo.git_dir().join("index.lock"), "").expect("a lock can be left");
        terminal.type_line("");
        shell.wait_for_prompt(&mut terminal, "jin:interrupted");
        terminal.type_line("git add .");
        let said = terminal.wait_for("<>$ ");
        assert!(said.contains("moved 1 stale lock to quarantine: index.lock"), "{}: {said}", shell.name);
        terminal.type_line("exit");
        assert!(terminal.ended().success(), "{}: the shell ends", shell.name);
    }
}

#[test]
fn a_git_that_is_alive_shows_as_busy_and_is_left_alone() {
    for shell in SHELLS {
        let case = Case::new();
        let hanging = case.hang();
        let mut terminal = shell.at_terminal(&case.repo);
        shell.wait_for_prompt(&mut terminal, "jin:busy");
        hanging.let_go();
        terminal.type_line("git txn status");
        let said = terminal.wait_for("<>$ ");
        assert!(said.contains("clean: nothing is unfinished"), "{}: {said}", shell.name);
        assert_eq!(case.values(), ["new"; 4], "{}: git has finished", shell.name);
    }
}

/// Runs `line` with and without the function, in copies of one repository.
fn compare(shell: &Shell, repo: &Repo, line: &str) {
    let plain = shell.run(repo, line, false);
    let ours = shell.run(repo, line, true);
    assert_eq!(ours.status.code(), plain.status.code(), "{}: `{line}`: {}", shell.name, text(&ours.stderr));
    assert_eq!(text(&ours.stdout), text(&plain.stdout), "{}: `{line}`", shell.name);
    assert_eq!(text(&ours.stderr), text(&plain.stderr), "{}: `{line}`", shell.name);
}

#[test]
fn the_function_is_git_to_the_letter() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("a file with 'quotes' and \"more\" $HOME *", "x\n");
    repo.write("-- sub/file", "y\n");
    repo.commit_all("a 'message' with \"quotes\"");
    let directory = repo.path().display().to_string();
    for shell in &SHELLS {
        for line in [
            "git",
            "git version",
            "git --version",
            "git -v",
            "git --help",
            "git -h",
            "git status --no-such-option",
            "git rev-parse --verify -q no-such-branch",
            "git no-such-command",
            "git -c alias.x='!exit 42' x",
            "git -c alias.x='!echo \"$@\" $# #' x 'a  b' '' '*' '$HOME'",
            "git log -q --format='%s %%' -- .",
            "git ls-files -- '-- sub/file' '*quotes*'",
            "git -C . -C '-- sub' ls-files",
            "git --git-dir=.git --json",
            "git -q",
            "git rev-parse --sq-quote '' 'a b' -- '--' '-C' 'ü'",
            "echo content | git hash-object --stdin",
            "git log --oneline | cat | git stripspace",
            "echo (git rev-parse HEAD) | cat",
            "command git rev-parse HEAD",
            "git --exec-path",
        ] {
            // fish substitutes commands without a dollar.
            let line = if shell.name == "fish" { line.to_owned() } else { line.replace("echo (", "echo $(") };
            compare(shell, &repo, &line);
        }
        compare(shell, &repo, &format!("cd / && git -C '{directory}' rev-parse --show-toplevel"));
        compare(shell, &repo, "cd / && git status");
        compare(shell, &repo, &format!("git no-such-command; {}", shell.code));
    }
}

#[test]
fn off_and_command_git_are_git_alone() {
    for shell in &SHELLS {
        let repo = Repo::new(Options { guarded: true, ..Options::default() });
        repo.commit_all("one");
        let lock = repo.git_dir().join("index.lock");
        fs::write(&lock, "").expect("a lock can be left");
        for line in [shell.off, "command git add .", "git add . 2>/dev/null"] {
            let output = shell.run(&repo, line, true);
            assert_eq!(output.status.code(), Some(128), "{}: `{line}` meets the lock", shell.name);
            assert!(lock.exists(), "{}: `{line}` leaves it", shell.name);
        }
        let output = shell.run(&repo, "git add . 2>err", true);
        assert_eq!(output.status.code(), Some(0), "{}: a message in a file is seen", shell.name);
        let said = fs::read_to_string(repo.path().join("err")).expect("there is a file");
        assert!(said.contains("moved 1 stale lock"), "{}: {said}", shell.name);
    }
}

#[test]
fn the_prompt_is_empty_where_there_is_nothing_to_say() {
    for shell in &SHELLS {
        let case = Case::new();
        let unprotected = case.repo.new_sibling("unprotected", Options::default());
        let linked = case.repo.sibling("linked");
        case.repo.git(["worktree", "add", "-q", "../linked"]);
        for repo in [&case.repo, &unprotected, &linked, &case.repo.sibling("home")] {
            let output = shell.run(repo, "jin_txn_prompt", true);
            assert_eq!(text(&output.stdout), "", "{} in {}", shell.name, repo.path().display());
            assert_eq!(text(&output.stderr), "", "{} in {}", shell.name, repo.path().display());
        }
        let off = shell.run(&case.repo, "JIN_TXN=off jin_txn_prompt", true);
        assert_eq!(text(&off.stdout), "jin:off", "{}: no protection is something to say", shell.name);
        case.hang().kill();
        for repo in [&case.repo, &linked] {
            let output = shell.run(repo, "jin_txn_prompt", true);
            assert_eq!(text(&output.stdout), "jin:interrupted", "{} in {}", shell.name, repo.path().display());
        }
    }
}

#[test]
fn a_binary_that_is_gone_takes_nothing_away() {
    for shell in &SHELLS {
        let repo = Repo::new(Options::default());
        let binary = repo.scratch().join("it's \\a \"place\"");
        fs::create_dir(&binary).expect("it can be made");
        let binary = binary.join("jin-txn");
        let copied = Command::new("cp").arg(jin_txn()).arg(&binary).status();
        assert!(copied.is_ok_and(|status| status.success()), "the binary can be copied");
        let script = format!("{}; rm \"$JIN\"; git rev-parse --git-dir; jin_txn_prompt", shell.init);
        let output = shell.command(&repo).args(["-c", &script]).env("JIN", &binary).output().expect("the shell runs");
        assert_eq!(text(&output.stdout), ".git\n", "{}: {}", shell.name, text(&output.stderr));
    }
}

/// Where Debian's packages put completions for git.
#[test]
fn the_completion_of_git_goes_on_working() {
    let completions: [(&str, &str); 3] = [
        (
            "bash",
            "source /usr/share/bash-completion/bash_completion; source /usr/share/bash-completion/completions/git",
        ),
        ("zsh", "autoload -Uz compinit; compinit -u -D"),
        ("fish", "true"),
    ];
    for (shell, (_, load)) in SHELLS.iter().zip(completions) {
        let case = Case::new();
        case.repo.git(["branch", "a-branch-with-a-long-name"]);
        let mut command = shell.command(&case.repo);
        command.arg("-i");
        let mut terminal = Terminal::start(command);
        terminal.type_line(&format!("{load}; {}; {}; echo re''ady", shell.init, shell.prompt));
        terminal.wait_for("ready\n");
        terminal.wait_for("<>$ ");
        case.hang().kill();
        // The completion asks git for branches, and what was interrupted is not recovered behind the user's back.
        terminal.press("git switch a-bra\t");
        terminal.wait_for("nch-with-a-long-name");
        assert_eq!(case.values(), ["new", "new", "old", "old"], "{}: a completion recovered", shell.name);
        terminal.press("\r");
        let said = terminal.wait_for("<>$ ");
        assert!(said.contains("rolled back tx-2"), "{}: the command itself recovers: {said}", shell.name);
        let head = fs::read_to_string(case.repo.git_dir().join("HEAD")).expect("there is a HEAD");
        assert_eq!(head, "ref: refs/heads/a-branch-with-a-long-name\n", "{}", shell.name);
    }
}

#[test]
fn an_alias_called_git_does_not_break_the_function() {
    for shell in &SHELLS {
        let repo = Repo::new(Options { guarded: true, ..Options::default() });
        repo.commit_all("one");
        let mut command = shell.command(&repo);
        command.arg("-i");
        let mut terminal = Terminal::start(command);
        terminal.type_line("alias git='git --no-pager'");
        terminal.type_line("alias g=git");
        terminal.type_line(&format!("{}; {}; echo re''ady", shell.init, shell.prompt));
        terminal.wait_for("ready\n");
        terminal.wait_for("<>$ ");
        terminal.type_line("g log -1 --format=subject:%s");
        let said = terminal.wait_for("<>$ ");
        assert!(said.contains("subject:one"), "{}: {said}", shell.name);
    }
}

#[test]
fn the_git_under_test_is_the_one_that_the_shells_find() {
    let repo = Repo::new(Options::default());
    for shell in &SHELLS {
        let output = shell.run(&repo, "git version", true);
        assert_eq!(text(&output.stdout).trim(), format!("git version {}", Git::under_test().version), "{}", shell.name);
    }
}
