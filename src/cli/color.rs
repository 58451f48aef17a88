//! Colour: for words that say how things stand, on terminals, unless the user says otherwise.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal;

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum When {
    #[default]
    Auto,
    Always,
    Never,
}

impl When {
    /// What the command line says, read before it is parsed: usage errors and help are coloured, too.
    pub(super) fn of(args: &[OsString]) -> When {
        let mut words = args.iter().map(|a| a.to_string_lossy()).take_while(|word| word != "--");
        let mut when = When::Auto;
        while let Some(word) = words.next() {
            let value = if word == "--color" {
                words.next()
            } else {
                word.strip_prefix("--color=").map(|v| v.to_owned().into())
            };
            when = match value.as_deref() {
                Some("always") => When::Always,
                Some("never") => When::Never,
                Some("auto") => When::Auto,
                _ => when,
            };
        }
        when
    }

    pub(super) fn for_clap(self) -> clap::ColorChoice {
        match self {
            When::Auto => clap::ColorChoice::Auto,
            When::Always => clap::ColorChoice::Always,
            When::Never => clap::ColorChoice::Never,
        }
    }

    /// Is `stream` to be coloured?
    pub(super) fn colours(self, stream: &impl IsTerminal) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        match self {
            When::Always => true,
            When::Never => false,
            When::Auto => stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb"),
        }
    }
}

const RED: &str = "1;31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// Words at the beginning of a line, and how they are shown.
const WORDS: [(&str, &str); 14] = [
    ("error:", RED),
    ("caused by:", YELLOW),
    ("hint:", CYAN),
    ("warning:", YELLOW),
    ("jin-txn: warning:", YELLOW),
    ("jin-txn: needs you:", RED),
    ("not protected:", RED),
    ("protected:", GREEN),
    ("clean:", GREEN),
    ("ok ", GREEN),
    ("note ", CYAN),
    ("failed ", RED),
    ("skipped ", YELLOW),
    ("                     mend:", CYAN),
];

/// Colours the word that a line begins with.
pub(super) fn paint(line: &str) -> Cow<'_, str> {
    match WORDS.iter().find(|(word, _)| line.starts_with(word)) {
        Some((word, colour)) => format!("\u{1b}[{colour}m{word}\u{1b}[0m{}", &line[word.len()..]).into(),
        None => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_what_belongs_to_another_program_does_not() {
        for (args, when) in [
            (&["status"][..], When::Auto),
            (&["--color", "never", "status"], When::Never),
            (&["status", "--color=always"], When::Always),
            (&["--color=always", "--color=auto"], When::Auto),
            (&["git", "--", "--color=always"], When::Auto),
            (&["--color"], When::Auto),
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(When::of(&args), when, "{args:?}");
        }
    }

    #[test]
    fn only_the_first_word_is_coloured() {
        assert_eq!(paint("error: clean: x"), "\u{1b}[1;31merror:\u{1b}[0m clean: x");
        assert_eq!(paint("tx-1: needs you"), "tx-1: needs you");
    }
}
