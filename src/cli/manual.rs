//! `jin-txn completions` and `jin-txn man`: both are made from the definition of the command line.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Session, exit};
use crate::fs::durable;
use crate::util::text::shown;

/// Print a completion script
///
/// bash: into ~/.local/share/bash-completion/completions/jin-txn. zsh: as _jin-txn into a directory in fpath. fish: into
/// ~/.config/fish/completions/jin-txn.fish. powershell: into the profile. install.sh does this for the first three.
#[derive(clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish", "powershell"])]
    shell: String,
}

/// Print the manual page, or write all pages into a directory
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
    // clap_complete 4.6 takes the hyphen in our name for the border of a command in half of the names that its bash script
    // compares, so that no option of a command would be completed.
    session.print_as_is(&String::from_utf8(script)?.replace("jin__subcmd__txn", "jin__txn"));
    Ok(exit::DONE)
}

pub(super) fn man(session: &Session, args: &ManArgs) -> anyhow::Result<u8> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        session.print_as_is(&String::from_utf8(page(&command)?)?);
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

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

fn write(dir: &Path, name: &str, command: &clap::Command) -> io::Result<()> {
    durable::replace_public(&dir.join(format!("{name}.1")), &page(command)?)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write(dir, &format!("{name}-{}", sub.get_name()), sub)?;
    }
    Ok(())
}
