//! What `--help` and the manual pages say beside the definitions of the arguments: groups of commands, examples, exit codes,
//! files and variables.

use std::fmt::Write;

use clap::{Command, CommandFactory};

use crate::cli::Cli;

/// The commands by what they are for; what is in no group is listed behind them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Protect repositories", &["install", "uninstall", "doctor", "list", "watch", "shell-init"]),
    ("See what is unfinished, and recover it", &["status", "check", "recover", "rescue", "quarantine"]),
    ("See what was done, and take it back", &["log", "show", "undo", "redo"]),
    ("Run things as one transaction", &["run", "apply", "git"]),
    ("Learn more", &["help", "man", "demo", "wal", "completions"]),
];

/// What to type, and what for.
type Example = (&'static str, &'static str);

/// Examples of the program and of its commands.
const EXAMPLES: [(&str, &[Example]); 17] = [
    (
        "jin-txn",
        &[
            ("jin-txn install", "protect the repository that you are in"),
            ("git txn status", "is it protected, is anything unfinished?"),
            ("git txn log", "the last operations, newest first"),
            ("git txn undo", "take back the newest one"),
            ("git tx rebase main", "a rebase that happens wholly or not at all"),
        ],
    ),
    (
        "install",
        &[
            ("jin-txn install", "the repository that you are in"),
            ("jin-txn install --template", "every repository that is made or cloned from now on"),
            ("jin-txn install --durability process ~/scratch", "killed processes only: commits cost no sync"),
        ],
    ),
    (
        "uninstall",
        &[
            ("jin-txn uninstall", "hooks and configuration as before; the log stays"),
            ("jin-txn uninstall --purge", "the log and the quarantine go, too"),
        ],
    ),
    ("doctor", &[("jin-txn doctor", "look"), ("jin-txn doctor --fix", "and mend what can be mended safely")]),
    ("list", &[("jin-txn list --json", "for a script")]),
    ("watch", &[("jin-txn watch --status", "does it run, and what did it do last?")]),
    ("shell-init", &[("eval \"$(jin-txn shell-init bash)\"", "in ~/.bashrc")]),
    ("status", &[("git txn status", "this repository"), ("git txn status --all", "all that you have protected")]),
    ("check", &[("jin-txn check -q || echo 'look at it'", "in a script: the exit code is the answer")]),
    (
        "recover",
        &[
            ("git txn recover --dry-run", "say what would be done"),
            ("git txn recover", "do it"),
            ("git txn recover --acknowledge tx-7", "close tx-7 as it is"),
        ],
    ),
    (
        "log",
        &[
            ("git txn log --ref main --since '2 hours ago'", "what moved main lately"),
            ("git txn log -v -n 5", "with the values before and after"),
        ],
    ),
    ("show", &[("git txn show", "the newest operation"), ("git txn show tx-7", "that one")]),
    (
        "undo",
        &[
            ("git txn undo --dry-run", "say what would change"),
            ("git txn undo tx-7", "take that one back"),
            ("git txn undo --to tx-7", "and this all that is newer"),
        ],
    ),
    ("redo", &[("git txn redo", "do again what was undone last")]),
    (
        "run",
        &[
            ("jin-txn run -- ./release.sh", "all of it, or nothing when it fails"),
            ("git tx rebase main", "the same as `jin-txn run -- git rebase main`"),
        ],
    ),
    (
        "apply",
        &[
            ("printf 'delete refs/heads/old\\n' | jin-txn apply", "one ref"),
            ("jin-txn apply --dry-run manifest.json", "look"),
        ],
    ),
    ("git", &[("jin-txn git commit -am 'more'", "recover first, then commit")]),
];

/// The exit codes, the same for every command.
pub(super) const EXIT_CODES: [(&str, &str); 8] = [
    ("0", "Done; or clean."),
    ("1", "The command failed; the error says what was changed."),
    ("2", "The command line is wrong. Nothing was done."),
    ("3", "Something was interrupted and waits for recovery: git txn recover."),
    ("4", "A person has to decide; git txn status says what about."),
    ("5", "A live transaction is in the way, or one whose process cannot be seen. Try again later."),
    ("6", "Nothing is unfinished, but git does not call the hooks (check, status)."),
    ("other", "run, git and git tx end as the command that they run; 126 and 127 when it cannot be run."),
];

/// Where things lie.
pub(super) const FILES: [(&str, &str); 6] = [
    (
        ".git/.jin/",
        "Everything of jin-txn's: log, markers, what recovery moved aside. In the git directory that worktrees share.",
    ),
    (".git/.jin/wal/", "The write-ahead log."),
    (".git/.jin/quarantine/", "What recovery, undo and run have moved aside."),
    (".git/hooks/reference-transaction", "A link to jin-txn; post-checkout beside it is a script that calls it."),
    ("$XDG_STATE_HOME/jin-txn/", "Notes of the repositories that you have protected (~/.local/state/jin-txn/)."),
    ("$XDG_RUNTIME_DIR/", "The socket of the watch."),
];

/// Variables that are heeded.
pub(super) const ENVIRONMENT: [(&str, &str); 7] = [
    ("JIN_TXN=off", "Hooks, shim and shell function let git through: nothing is checked, logged or recovered."),
    ("JIN_WATCH=off", "Hooks start no watch."),
    ("GIT_DIR", "The repository, as for git; --git-dir comes first."),
    ("GIT_WORK_TREE, GIT_CEILING_DIRECTORIES", "As for git."),
    ("NO_COLOR", "No colours, whatever color.ui says."),
    ("HOME, XDG_STATE_HOME", "Where the notes lie."),
    ("MANPAGER, PAGER", "What jin-txn man shows its page with, on a terminal."),
];

/// The examples of a command, or of the program.
pub(super) fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// The definition of the command line with what is not in its arguments. Options of the whole program are told once.
pub(super) fn definition() -> Command {
    let mut program = Cli::command();
    // Only then every command has the options of the program, which are hidden there.
    program.build();
    let groups = listed(&program);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{}\n{{options}}{{after-help}}",
        heading("Options")
    );
    of_each(program, finished).help_template(template).after_help(shown(examples("jin-txn")))
}

/// Does something to each command below `command`.
fn of_each(command: Command, change: fn(Command) -> Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, change))
}

/// A command with its examples, and without the options that every command has.
fn finished(command: Command) -> Command {
    const FOOTER: &str = "Options of every command: jin-txn --help";
    let own = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    let help = match examples(own.get_name()) {
        [] => FOOTER.to_owned(),
        examples => format!("{}\n{FOOTER}", shown(examples)),
    };
    of_each(own, finished).after_help(help)
}

fn heading(text: &str) -> String {
    format!("{0}{text}:{0:#}", anstyle::Style::new().bold().underline())
}

fn shown(examples: &[Example]) -> String {
    let width = examples.iter().map(|(typed, _)| typed.len()).max().unwrap_or_default();
    let mut text = heading("Examples") + "\n";
    for (typed, why) in examples {
        writeln!(text, "  {typed:<width$}  # {why}").expect("writing to a string cannot fail");
    }
    text
}

/// The commands, group by group.
fn listed(program: &Command) -> String {
    const WIDTH: usize = 12;
    let mut text = String::new();
    let mut tell = |title: &str, commands: &[&Command]| {
        writeln!(text, "{}", heading(title)).expect("writing to a string cannot fail");
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(text, "  {:<WIDTH$}{about}", command.get_name()).expect("writing to a string cannot fail");
        }
        text.push('\n');
    };
    let mut left: Vec<&Command> = program.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    for (title, names) in GROUPS {
        let group: Vec<&Command> = names.iter().filter_map(|name| program.find_subcommand(name)).collect();
        left.retain(|command| !names.contains(&command.get_name()));
        tell(title, &group);
    }
    if !left.is_empty() {
        tell("Other commands", &left);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for (command, examples) in EXAMPLES {
            assert!(command == "jin-txn" || Cli::command().find_subcommand(command).is_some(), "{command}");
            for (typed, _) in examples {
                let words = shlex::split(typed).expect("it is a line for a shell");
                // The part that is ours: behind what a shell puts in front, before what it puts behind.
                let start = words.iter().position(|word| word == "jin-txn" || word == "git");
                let Some(start) = start else { continue };
                let mut ours: Vec<&str> = words[start..].iter().map(String::as_str).collect();
                if let Some(end) = ours.iter().position(|word| *word == "||") {
                    ours.truncate(end);
                }
                let ours = match ours[..] {
                    ["git", "txn", ref rest @ ..] => [&["jin-txn"][..], rest].concat(),
                    ["git", "tx", ref rest @ ..] => [&["jin-txn", "run", "--", "git"][..], rest].concat(),
                    ref all => all.to_vec(),
                };
                assert_eq!(ours[0], "jin-txn", "{typed}");
                Cli::command().try_get_matches_from(&ours).unwrap_or_else(|error| panic!("{typed}: {error}"));
            }
        }
    }

    #[test]
    fn every_command_is_in_the_help_once() {
        let help = listed(&definition());
        for command in Cli::command().get_subcommands() {
            let is_it = |line: &&str| line.trim_start().split(' ').next() == Some(command.get_name());
            assert_eq!(help.lines().filter(is_it).count(), 1, "{}: {help}", command.get_name());
        }
    }
}
