//! Colour: for words that say how things stand, on terminals, unless the user says otherwise.

use std::borrow::Cow;
use std::ffi::OsString;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::util::text::one_line;

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

    /// `stream`, which shows colours or not.
    pub(super) fn stream<S: RawStream>(self, stream: S) -> AutoStream<S> {
        let choice = match self {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::Always,
            When::Never => ColorChoice::Never,
        };
        AutoStream::new(stream, choice)
    }
}

/// Git's `color.ui` is `value`: it may switch colours off. That of pipes it cannot switch on, for programs read those.
pub(super) fn heed(value: &str) {
    if ["false", "never", "no", "off", "0"].iter().any(|off| value.eq_ignore_ascii_case(off)) {
        ColorChoice::Never.write_global();
    }
}

const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// What a part of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Plain,
    /// An operation or a commit.
    Id,
    /// What came, or is well.
    Good,
    /// What went, or needs somebody.
    Bad,
    /// What stands back.
    Faint,
}

impl Part {
    fn style(self) -> Style {
        match self {
            Part::Plain => Style::new(),
            Part::Id => YELLOW,
            Part::Good => GREEN,
            Part::Bad => RED,
            Part::Faint => Style::new().dimmed(),
        }
    }
}

/// A line of several parts.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<(Part, String)>);

impl Line {
    /// With one more part, fit for a terminal.
    pub(super) fn and(mut self, part: Part, text: &str) -> Line {
        self.0.push((part, one_line(text).into_owned()));
        self
    }

    /// A line of one part.
    pub(super) fn of(text: &str) -> Line {
        Line::default().and(Part::Plain, text)
    }

    pub(super) fn text(&self, is_coloured: bool) -> String {
        let shown = |(part, text): &(Part, String)| {
            let style = part.style();
            let is_plain = !is_coloured || *part == Part::Plain || text.trim().is_empty();
            if is_plain { text.clone() } else { format!("{style}{text}{style:#}") }
        };
        self.0.iter().map(shown).collect()
    }
}

/// Words at the beginning of a line, and how they are shown.
const WORDS: [(&str, Style); 14] = [
    ("error:", RED),
    ("caused by:", YELLOW),
    ("hint:", CYAN),
    ("warning:", YELLOW),
    ("jin-txn: warning:", YELLOW),
    ("jin-txn: needs manual resolution:", RED),
    ("not protected:", RED),
    ("protected:", GREEN),
    ("clean:", GREEN),
    ("ok ", GREEN),
    ("note ", CYAN),
    ("failed ", RED),
    ("skipped ", YELLOW),
    ("                     mend:", CYAN),
];

/// Colours the word that a line begins with; a stream without colours leaves them out.
pub(super) fn paint(line: &str) -> Cow<'_, str> {
    match WORDS.iter().find(|(word, _)| line.starts_with(word)) {
        Some((word, colour)) => format!("{colour}{word}{colour:#}{}", &line[word.len()..]).into(),
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
        assert_eq!(paint("error: clean: x"), "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m clean: x");
        assert_eq!(paint("tx-1: needs you"), "tx-1: needs you");
    }
}
