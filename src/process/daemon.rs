//! Programs that gits start and leave behind: known to take no lock and to write no file of a repository.
//!
//! They are told by the program file that runs, not by a name that anybody may give himself, and by their arguments.
//!
//! Limit: the list is short on purpose. Whatever it does not name counts as at work; a `gc` in the background takes locks.

use std::fs;

use crate::process::git_argv::global_options;
use crate::process::owner;

/// Daemons whatever their arguments: of GnuPG and of OpenSSH.
const AGENTS: [&str; 5] = ["gpg-agent", "scdaemon", "keyboxd", "dirmngr", "ssh-agent"];

/// Commands of git that only answer on a socket.
const SERVING: [&str; 2] = ["fsmonitor--daemon", "credential-cache--daemon"];

/// Is this process one of them?
pub(crate) fn is_known(pid: u32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // An upgrade replaces the file of a program that runs.
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    AGENTS.contains(&name) || serves(name, &owner::argv(pid).unwrap_or_default())
}

fn serves(program: &str, argv: &[String]) -> bool {
    match program {
        // The master of a shared connection calls itself `ssh: <socket> [mux]`.
        "ssh" => argv.first().is_some_and(|title| title.starts_with("ssh: ") && title.trim_end().ends_with("[mux]")),
        _ if program.starts_with("git") => global_options(argv).command.is_some_and(|c| SERVING.contains(&c)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_serves_without_locks_is_known() {
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (program, words, known) in [
            ("ssh", &["ssh: /home/u/.ssh/master-x [mux]"][..], true),
            ("ssh", &["ssh", "host", "git-upload-pack", "[mux]"], false),
            ("git", &["git", "credential-cache--daemon", "/run/socket"], true),
            ("git", &["/usr/lib/git-core/git", "fsmonitor--daemon", "run", "--detach"], true),
            ("git", &["git", "gc", "--auto", "--detach"], false),
            ("git", &["git", "maintenance", "run", "--detach"], false),
            ("bash", &["git", "credential-cache--daemon", "/run/socket"], false),
        ] {
            assert_eq!(serves(program, &argv(words)), known, "{program} {words:?}");
        }
    }
}
