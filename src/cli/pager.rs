//! Lists on a terminal: with colours and through a pager, as git chooses both.
//!
//! | what | from |
//! | --- | --- |
//! | colours | `--color`, `NO_COLOR`, then `color.ui` |
//! | pager | `GIT_PAGER`, `core.pager`, `PAGER`, else `less`; none when that is empty or `cat` |
//!
//! A pager is a program: a repository's own configuration does not name it, only the user's and the system's.

use std::io::{IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use anstream::{AutoStream, ColorChoice};

use crate::cli::color::{Line, When};
use crate::cli::{Session, real_git};
use crate::git::plumbing::ConfigQuery;
use crate::git::{Git, Plumbing, Repository};

/// Prints the lines.
pub(super) fn show(session: &Session, repo: &Repository, lines: &[Line]) -> anyhow::Result<()> {
    let (mut color, mut pager) = (session.color, None);
    if std::io::stdout().is_terminal() {
        let git = Git::new(&real_git()?).at(&repo.git_dir);
        if color == When::Auto && is_without_colours(&git)? {
            color = When::Never;
        }
        pager = choose(&git)?.and_then(|command| start(&command));
    }
    let is_coloured = match color {
        When::Always => true,
        When::Never => false,
        When::Auto => AutoStream::choice(&std::io::stdout()) != ColorChoice::Never,
    };
    let text: String = lines.iter().map(|line| format!("{}\n", line.text(is_coloured))).collect();
    match pager {
        Some(pager) => feed(pager, &text),
        None => session.print_as_is(&text),
    }
    Ok(())
}

fn is_without_colours(git: &Git) -> anyhow::Result<bool> {
    let value = git.config("color.ui")?;
    Ok(value.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "never" | "false" | "no" | "off" | "0")))
}

/// The command line of the pager.
fn choose(git: &Git) -> anyhow::Result<Option<String>> {
    let of_environment = |name: &str| std::env::var(name).ok();
    let command = match of_environment("GIT_PAGER") {
        Some(command) => command,
        None => of_configuration(git)?.or_else(|| of_environment("PAGER")).unwrap_or_else(|| "less".to_owned()),
    };
    Ok(Some(command).filter(|command| !command.is_empty() && command != "cat"))
}

fn of_configuration(git: &Git) -> anyhow::Result<Option<String>> {
    let listed = git.run(Plumbing::Config(ConfigQuery::Scoped("core.pager")))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words: Vec<&str> = text.split('\0').collect();
    let own = words.chunks_exact(2).rfind(|pair| matches!(pair[0], "system" | "global"));
    Ok(own.map(|pair| pair[1].to_owned()))
}

/// Starts it; `None` where it is not there.
fn start(command: &str) -> Option<Child> {
    let needs_shell = command.contains(|c: char| " \t|&;<>()$`\\\"'*?[#~=%\n".contains(c));
    let mut pager = if needs_shell { Command::new("sh") } else { Command::new(command) };
    if needs_shell {
        pager.args(["-c", command]);
    }
    for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            pager.env(name, value);
        }
    }
    pager.stdin(Stdio::piped()).spawn().ok()
}

/// Whoever leaves the pager has read enough.
fn feed(mut pager: Child, text: &str) {
    if let Some(mut input) = pager.stdin.take()
        && input.write_all(text.as_bytes()).is_err()
    {
        // It has ended.
    }
    if pager.wait().is_err() {
        // Nobody is left to be waited for.
    }
}
