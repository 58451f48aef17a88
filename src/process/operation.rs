//! Operations: what a person or a script asked git to do, one command line, whatever gits that starts.
//!
//! The *root* of an operation is the outermost git above a hook. Above it the walk does not go on, and below some gits it ends:
//! they wait for others' commands (`daemon`, `gui`, an alias or an editor on the terminal, from which somebody types the next).
//!
//! git puts its own directory in front of `PATH` for what it starts. A hook that finds it there once has no other git above its
//! own, and looks no further: that costs no system call.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::fs::named as fs;
use crate::process::git_argv::global_options;
use crate::process::owner::{self, Process, Stat};
use crate::process::redact;
use crate::process::words;

/// The longest command line that is written down, in characters.
pub(crate) const LONGEST: usize = 500;

/// The root of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Its command line, fit to be shown.
    pub operation: String,
}

/// gits below which commands are others' own.
const WAITING: [&str; 8] =
    ["citool", "daemon", "difftool", "gui", "http-backend", "mergetool", "receive-pack", "shell"];

/// What passes a command line on and is nobody's program.
const SHELLS: [&str; 7] = ["ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"];

/// Does `path` (PATH) say that git has started a git: is `exec_path` (GIT_EXEC_PATH) in front of it twice?
pub(crate) fn is_nested(path: &OsStr, exec_path: &OsStr) -> bool {
    let mut first = path.as_bytes().split(|byte| *byte == b':').take(2);
    !exec_path.is_empty() && first.by_ref().all(|part| part == exec_path.as_bytes()) && path.len() > 2 * exec_path.len()
}

/// The outermost git above `git`; `None` when that is `git` itself.
pub(crate) fn root_above(git: &Stat) -> io::Result<Option<Root>> {
    let (mut pid, mut root) = (git.parent, None);
    while pid > 0 {
        let Ok(Some(stat)) = Stat::look(pid) else { break };
        // What cannot be read is not looked through.
        let Some(argv) = owner::argv(pid) else { break };
        if owner::may_be_git(&stat) {
            if global_options(&argv).command.is_some_and(|command| WAITING.contains(&command)) {
                break;
            }
            root = Some(Root { process: stat.process(), operation: command_line(&argv, &stat.comm) });
        } else if is_typed_into(pid, &stat, &argv) {
            break;
        }
        pid = stat.parent;
    }
    Ok(root)
}

/// A program that has the terminal: an editor, an interactive shell. Whoever sits there types commands of his own.
fn is_typed_into(pid: u32, stat: &Stat, argv: &[String]) -> bool {
    let is_option = |word: &&String| word.starts_with('-') || word.starts_with('+');
    let options: Vec<_> = argv.iter().skip(1).take_while(is_option).collect();
    let has_command = options.iter().any(|word| !word.starts_with("--") && word.contains('c'));
    let is_script = argv.len() > options.len() + 1 || has_command;
    let passes_on = SHELLS.contains(&stat.comm.as_str()) && is_script && !options.iter().any(|word| *word == "-i");
    let has_terminal = || {
        let input = fs::read_link(format!("/proc/{pid}/fd/0"));
        input.is_ok_and(|input| input.starts_with("/dev/pts") || input.as_os_str().as_bytes().starts_with(b"/dev/tty"))
    };
    !passes_on && has_terminal()
}

/// The words of a command line that was written down, as far as they are whole.
pub(crate) fn words_of(line: &str) -> Vec<String> {
    let mut words = words::split(line);
    if is_cut(line) {
        words.pop();
    }
    words
}

/// May words be missing at the end of a command line that was written down?
pub(crate) fn is_cut(line: &str) -> bool {
    line.chars().count() >= LONGEST
}

/// The command of a git whose command line was written down: `rebase` of `git -C x rebase main`.
pub(crate) fn command_of(line: &str) -> Option<String> {
    global_options(&words_of(line)).command.map(str::to_owned)
}

/// A command line, fit to be shown: without the directory of the program, and without secrets.
pub(crate) fn command_line(argv: &[String], comm: &str) -> String {
    let Some((program, rest)) = argv.split_first() else { return comm.to_owned() };
    let program = program.rsplit('/').next().unwrap_or(program);
    let words = std::iter::once(program).chain(rest.iter().map(String::as_str));
    let line = redact::command_line(&words.collect::<Vec<_>>());
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_line_is_the_word_that_git_took_for_it() {
        let long = format!("git -c {} push", "x".repeat(LONGEST));
        let cut: String = format!("git -C {} pushes", "x".repeat(LONGEST - 12)).chars().take(LONGEST).collect();
        for (line, command) in [
            ("git -C 'x update-ref' merge", Some("merge")),
            ("git --attr-source x commit -m merge", Some("commit")),
            ("git-receive-pack x", Some("receive-pack")),
            ("git", None),
            (long.as_str(), None),
            (cut.as_str(), None),
        ] {
            assert_eq!(command_of(line).as_deref(), command, "{line}");
        }
    }

    #[test]
    fn git_in_front_of_the_path_twice_means_a_git_above() {
        for (path, exec_path, nested) in [
            ("/lib/git-core:/lib/git-core:/bin", "/lib/git-core", true),
            ("/lib/git-core:/lib/git-core", "/lib/git-core", true),
            ("/lib/git-core:/bin:/lib/git-core", "/lib/git-core", false),
            ("/lib/git-core:/bin", "/lib/git-core", false),
            ("/lib/git-core", "/lib/git-core", false),
            ("/bin", "/lib/git-core", false),
            ("::/bin", "", false),
            ("", "", false),
        ] {
            assert_eq!(is_nested(path.as_ref(), exec_path.as_ref()), nested, "{path}");
        }
    }
}
