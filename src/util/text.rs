//! Text that comes from elsewhere: bytes that survive as text, and text that is safe to print.
//!
//! Names and command lines come from the repository and from other processes. None of them may speak to the terminal, change
//! the order in which a line is read, or begin a line of its own.

use std::borrow::Cow;
use std::path::Path;

/// Bytes as UTF-8 text that can be turned back: what is no UTF-8, and the backslash itself (which no ref
/// name may hold, but a path may), is written as `\xNN`; so are control characters, so that a hostile name
/// cannot speak to a terminal.
#[must_use]
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    let plain = |t: &str| !t.chars().any(|c| c == '\\' || c.is_control());
    if let Ok(text) = std::str::from_utf8(bytes)
        && plain(text)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    push_escaped(&mut out, byte);
                }
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            push_escaped(&mut out, *byte);
        }
    }
    Cow::Owned(out)
}

fn push_escaped(out: &mut String, byte: u8) {
    use std::fmt::Write;
    write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
}

/// The inverse of [`escape`]; `None` when the text is no such escape.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at..at + 4)?.strip_prefix("\\x")?;
        out.push(u8::from_str_radix(code, 16).ok()?);
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

/// `1 lock`, `2 locks`, `2 repositories`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("{count} {noun}"),
        Some(stem) if noun.ends_with("ry") => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

/// `text` on one line: what is not fit for a terminal is escaped, line feeds included.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unfit, |c| c.escape_default().to_string())
}

/// JSON that is fit for a terminal, and means the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // Line breaks are between values; those in strings are escaped already.
    escaped(text, |c| is_unfit(c) && c != '\n', |c| format!("\\u{:04x}", u32::from(c)))
}

/// At most `limit` characters of `text` on one line, for what is only a reminder: what is not fit for a terminal is a blank.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    text.chars().map(|c| if is_unfit(c) { ' ' } else { c }).take(limit).collect()
}

/// A path on one line.
pub(crate) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string()).into_owned()
}

/// One word for a POSIX shell.
pub(crate) fn shell_quoted(text: &str) -> Cow<'_, str> {
    shlex::try_quote(text).expect("neither a path nor an argument contains NUL")
}

/// Controls of the terminal, and those that change the direction of text.
fn is_unfit(c: char) -> bool {
    let changes_direction =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || changes_direction(c)
}

fn escaped(text: &str, unfit: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&unfit) {
        return text.into();
    }
    text.chars().map(|c| if unfit(c) { escape(c) } else { c.to_string() }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_the_way_through_text() {
        for bytes in [b"refs/heads/x".as_slice(), b"\xff\x00a\\b\n", "ä\u{1b}".as_bytes(), b"\\x41"] {
            let text = escape(bytes).into_owned();
            assert!(!text.chars().any(char::is_control), "{text:?} is safe on a terminal");
            assert_eq!(unescape(&text).unwrap(), bytes);
        }
        assert_eq!(unescape("a\\x4"), None, "a cut escape is none");
    }

    #[test]
    fn a_name_stays_on_its_line_and_does_not_speak_to_the_terminal() {
        for (text, shown) in [
            ("a.lock", "a.lock"),
            ("ä\\ö", "ä\\ö"),
            ("a\nhint: run evil.lock", r"a\nhint: run evil.lock"),
            ("\u{1b}[2J\r", r"\u{1b}[2J\r"),
            ("\u{202e}kcol.a\u{2066}\u{200f}\u{61c}", r"\u{202e}kcol.a\u{2066}\u{200f}\u{61c}"),
            ("\u{7f}\u{9b}", r"\u{7f}\u{9b}"),
        ] {
            assert_eq!(one_line(text), shown, "{text:?}");
        }
    }

    #[test]
    fn json_that_is_fit_for_a_terminal_means_the_same() {
        let name = "a\u{7f}\u{9b}\u{202e}\n\u{1b}\\";
        let text = serde_json::to_string_pretty(&[name]).unwrap();
        let shown = json(&text);
        assert!(!shown.chars().any(|c| is_unfit(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [name]);
    }

    #[test]
    fn a_reminder_is_cut_at_its_limit() {
        for (text, limit, expected) in
            [("git commit", 80, "git commit"), ("git commit", 3, "git"), ("ä\nö\u{202e}", 3, "ä ö"), ("", 3, "")]
        {
            assert_eq!(shortened(text, limit), expected, "{text:?}");
        }
    }

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in ["/bin/jin-txn", "", "it's", "a \"b\" $HOME;`x` \\ \n!*", "-x=~"] {
            let script = format!("printf %s {}", shell_quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
        }
    }
}
