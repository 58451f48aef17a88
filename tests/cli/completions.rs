//! Completion in the real shells: `jin-txn`, `git txn` (our words) and `git tx` (git's own).

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::repo::{Options, Repo, jin_txn, text};
use crate::support::terminal::Terminal;

/// What is typed, and a word that has to be offered.
const TYPED: [(&str, &str); 9] = [
    ("jin-txn doctor --f", "--fix"),
    ("jin-txn show tx-", "tx-1"),
    ("jin-txn recover --acknowledge ", "tx-1"),
    ("jin-txn quarantine drop 17", "1700000000-index.lock"),
    ("git txn unins", "uninstall"),
    ("git -C . txn undo ", "tx-1"),
    ("git tx comm", "commit"),
    ("git tx checkout on-ma", "on-main"),
    ("git tx commit --amen", "--amend"),
];

fn repo() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.commit_all("one");
    repo.git(["branch", "on-main"]);
    fs::write(repo.git_dir().join(".jin/quarantine/1700000000-index.lock"), "").expect("it can be written");
    repo
}

/// The completion script of a shell, in a file.
fn script(repo: &Repo, shell: &str) -> String {
    let output = repo.jin_txn(["completions", shell]);
    assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
    let file = repo.scratch().join(format!("completion.{shell}"));
    fs::write(&file, &output.stdout).expect("it can be written");
    file.display().to_string()
}

fn run(repo: &Repo, shell: &str, line: &str) -> String {
    let mut command = repo.command(shell.as_ref());
    let output = command.env("XDG_CONFIG_HOME", repo.scratch()).args(["-c", line]).output().expect("the shell runs");
    assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
    text(&output.stdout).into_owned()
}

#[test]
fn bash_completes_our_words_and_those_of_git_behind_ours() {
    const GITS: &str = "/usr/share/bash-completion/completions/git";
    let repo = repo();
    let script = script(&repo, "bash");
    for (typed, word) in TYPED {
        let words: Vec<String> = typed.split(' ').map(|word| format!("'{word}'")).collect();
        let offered = run(
            &repo,
            "bash",
            &format!(
                "source {GITS}; source {script}; COMP_WORDS=({}); COMP_CWORD={}; COMP_LINE='{typed}'; COMP_POINT={}
                 read -r _ _ _ how < <(complete -p \"${{COMP_WORDS[0]}}\" | sed 's/.*-F/x x -F/')
                 ${{how%% *}} \"${{COMP_WORDS[0]}}\" \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"
                 printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                words.join(" "),
                words.len() - 1,
                typed.len()
            ),
        );
        assert!(offered.lines().any(|line| line.trim_end() == word), "{typed}: {offered}");
        assert!(!offered.contains('['), "{typed}: a placeholder is no word: {offered}");
    }
}

#[test]
fn fish_completes_our_words_and_those_of_git_behind_ours() {
    let repo = repo();
    let script = script(&repo, "fish");
    for (typed, word) in TYPED {
        let offered = run(&repo, "fish", &format!("source {script}; complete -C '{typed}'"));
        assert!(offered.lines().any(|line| line.split('\t').next() == Some(word)), "{typed}: {offered}");
    }
    // Who has the shell function needs no script for `git txn`.
    let line = format!("'{}' shell-init fish | source; complete -C 'git tx comm'", jin_txn().display());
    assert!(run(&repo, "fish", &line).contains("commit\t"));
}

#[test]
fn zsh_completes_our_words_and_those_of_git_behind_ours() {
    let repo = repo();
    let bin = repo.scratch().join("bin");
    fs::create_dir(&bin).expect("it can be made");
    symlink(jin_txn(), bin.join("jin-txn")).expect("a link can be made");
    let functions = repo.scratch().join("functions");
    fs::create_dir(&functions).expect("it can be made");
    fs::rename(script(&repo, "zsh"), functions.join("_jin-txn")).expect("it can be moved");
    // As install.sh has it. (`git tx` is an alias only.)
    symlink("jin-txn", bin.join("git-txn")).expect("a link can be made");
    symlink("_jin-txn", functions.join("_git-txn")).expect("a link can be made");
    let mut command = repo.command("zsh".as_ref());
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value.map(|v| v.to_owned()));
    let path = path.expect("PATH is set").into_string().expect("it is text");
    command.args(["--no-rcs", "-i"]).env("TERM", "xterm").env("PATH", format!("{}:{path}", bin.display()));
    let mut terminal = Terminal::start(command);
    let fpath = functions.display();
    terminal.type_line(&format!("fpath=({fpath} $fpath); autoload -Uz compinit; compinit -u -D; echo re''ady"));
    terminal.wait_for("ready\n");
    for (typed, word) in TYPED {
        terminal.press(&format!("{typed}\t"));
        // The first key completes what is certain; a second one lists.
        if word == "tx-1" {
            terminal.press("\t");
        }
        terminal.wait_for(word);
        // The line is thrown away.
        terminal.press("\u{15}");
        terminal.type_line("echo go''ne");
        terminal.wait_for("gone\n");
    }
}

#[test]
fn powershell_gets_what_is_made_from_the_definition() {
    assert!(
        fs::read_to_string(script(&repo(), "powershell")).expect("a script").contains("Register-ArgumentCompleter")
    );
}
