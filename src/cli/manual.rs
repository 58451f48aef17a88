//! `jin-txn completions` and `jin-txn man`: both are made from the definition of the command line.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Session, exit, help};
use crate::fs::durable;
use crate::util::text::shown;

/// Print a completion script
///
/// It completes `jin-txn`, and the words behind `git txn` (ours) and `git tx` (git's own). bash: into
/// ~/.local/share/bash-completion/completions as jin-txn, with links to it named git-txn and git-tx. zsh: into a directory in
/// fpath as _jin-txn, with a link _git-txn. fish: into ~/.config/fish/completions/jin-txn.fish; `git txn` and `git tx` come with
/// shell-init. powershell: into the profile. install.sh does this for the first three.
#[derive(clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish", "powershell"])]
    shell: String,
}

/// Show the manual page, or write all pages into a directory
///
/// On a terminal the page is shown; elsewhere its source is printed.
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Write jin-txn.1, a page for each command, and git-txn.1 into DIR
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(session: &Session, args: &CompletionArgs) -> anyhow::Result<u8> {
    let shell: clap_complete::Shell = args.shell.parse().map_err(anyhow::Error::msg)?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "jin-txn", &mut script);
    session.print_as_is(&completed(shell, &String::from_utf8(script)?));
    Ok(exit::DONE)
}

/// clap's script with what clap cannot know.
fn completed(shell: clap_complete::Shell, script: &str) -> String {
    match shell {
        // clap_complete 4.6 takes the hyphen in our name for the border of a command in half of the names that its bash script
        // compares, so that no option of a command would be completed.
        clap_complete::Shell::Bash => {
            script.replace("jin__subcmd__txn", "jin__txn") + include_str!("shell/complete.bash")
        }
        clap_complete::Shell::Zsh => zsh(script),
        clap_complete::Shell::Fish => {
            script.to_owned() + include_str!("shell/complete.fish") + include_str!("shell/git.fish")
        }
        _ => script.to_owned(),
    }
}

/// Ids of operations and names in quarantine are those, and the words of a command to run are completed as that command's. zsh looks behind git's aliases by
/// itself.
fn zsh(script: &str) -> String {
    const END: &str = "if [ \"$funcstack[1]\" = \"_jin-txn\" ]";
    let mut text = String::with_capacity(script.len());
    for line in script.split_inclusive('\n') {
        let is_id = line.starts_with("'::id -- ") || line.contains(":ID:_default");
        let is_command = line.starts_with("'*::command -- ");
        let is_kept = line.contains(", as `list` says ");
        let actions = [(is_id, "_jin-txn-ids"), (is_command, "_normal"), (is_kept, "_jin-txn-kept")];
        let action = actions.into_iter().find_map(|(applies, action)| applies.then_some(action));
        text += &action.map_or_else(|| line.to_owned(), |action| line.replace(":_default", &format!(":{action}")));
    }
    text.replace(END, &format!("{}{END}", include_str!("shell/complete.zsh")))
}

pub(super) fn man(session: &Session, args: &ManArgs) -> anyhow::Result<u8> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(&command)?;
        if !(std::io::stdout().is_terminal() && show(&page)) {
            session.print_as_is(&String::from_utf8(page)?);
        }
        return Ok(exit::DONE);
    };
    let dir = session.directory.join(dir);
    let cannot = || format!("cannot write manual pages into {}", shown(&dir));
    durable::create_dirs(&durable::real_dir(&dir), 0o777).with_context(cannot)?;
    write(&dir, "jin-txn", &command).with_context(cannot)?;
    // `git help txn` looks for this name.
    durable::replace_public(&dir.join("git-txn.1"), b".so man1/jin-txn.1\n").with_context(cannot)?;
    session.say(&format!("jin-txn: wrote the manual pages into {}", shown(&dir)));
    Ok(exit::DONE)
}

/// Shows a page as man shows it; `false` where there is no man.
fn show(page: &[u8]) -> bool {
    let Ok(mut man) = Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn() else { return false };
    // A pager that is left early takes not all of it.
    let sent = man.stdin.take().is_some_and(|mut stdin| stdin.write_all(page).is_ok());
    man.wait().is_ok_and(|status| status.success()) || sent
}

/// A page. What all commands have in common is in that of the program.
fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let is_program = command.get_name() == "jin-txn";
    let own = command.clone().mut_args(|arg| if arg.is_global_set() && !is_program { arg.hide(true) } else { arg });
    let man = clap_mangen::Man::new(own);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let name = command.get_name().trim_start_matches("jin-txn-");
    list(&mut page, "EXIT STATUS", &help::EXIT_CODES);
    if is_program {
        list(&mut page, "FILES", &help::FILES);
        list(&mut page, "ENVIRONMENT", &help::ENVIRONMENT);
    }
    examples(&mut page, help::examples(name));
    if is_program {
        man.render_version_section(&mut page)?;
    } else {
        page.extend_from_slice(
            b".SH \"SEE ALSO\"\n\\fBjin\\-txn\\fR(1) has the options of every command, files and variables.\n",
        );
    }
    Ok(page)
}

/// A section with terms and what they mean.
fn list(page: &mut Vec<u8>, title: &str, terms: &[(&str, &str)]) {
    page.extend(format!(".SH \"{title}\"\n").bytes());
    for (term, meaning) in terms {
        page.extend(format!(".TP\n\\fB{}\\fR\n{}\n", roff(term), roff(meaning)).bytes());
    }
}

fn examples(page: &mut Vec<u8>, examples: &[(&str, &str)]) {
    if examples.is_empty() {
        return;
    }
    page.extend_from_slice(b".SH EXAMPLES\n");
    for (typed, why) in examples {
        page.extend(format!(".TP\n\\fB{}\\fR\n{}\n", roff(typed), roff(why)).bytes());
    }
}

/// Text as roff takes it.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    // At the beginning of a line a dot would be a request.
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

fn write(dir: &Path, name: &str, command: &clap::Command) -> io::Result<()> {
    durable::replace_public(&dir.join(format!("{name}.1")), &page(command)?)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write(dir, &format!("{name}-{}", sub.get_name()), sub)?;
    }
    Ok(())
}
