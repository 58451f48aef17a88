//! `jin-txn shell-init`: a `git` function and a prompt segment for the user's shell.

use crate::cli::{Session, exit};
use crate::setup::names::this_binary;
use crate::util::text::shell_quoted;

/// Print shell code that looks before each git command, and a prompt segment
///
/// For ~/.bashrc and ~/.zshrc: eval "$(jin-txn shell-init bash)", and zsh likewise. For config.fish:
/// jin-txn shell-init fish | source. It defines a function `git`, which recovers what was interrupted and then becomes
/// git, and a function `jin_txn_prompt`, which prints nothing as long as all is well.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Stands in the templates, quotes included, for the path of this program.
const BINARY: &str = "'@JIN_TXN@'";

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let binary = this_binary()?;
    session.print_as_is(&code(args.shell, binary.as_str()));
    Ok(exit::DONE)
}

fn code(shell: Shell, binary: &str) -> String {
    match shell {
        Shell::Bash | Shell::Zsh => include_str!("shell/init.sh").replace(BINARY, &shell_quoted(binary)),
        Shell::Fish => {
            include_str!("shell/init.fish").replace(BINARY, &fish_quoted(binary)) + include_str!("shell/git.fish")
        }
    }
}

/// In fish a backslash escapes inside of single quotes, too.
fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_gets_the_path_exactly_once() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let code = code(shell, "/opt/it's/jin-txn");
            assert!(!code.contains("@JIN_TXN@"), "{shell:?}: {code}");
            let quoted = if matches!(shell, Shell::Fish) { r"'/opt/it\'s/jin-txn'" } else { r#""/opt/it's/jin-txn""# };
            assert_eq!(code.matches(quoted).count(), 1, "{shell:?}: {code}");
        }
    }
}
