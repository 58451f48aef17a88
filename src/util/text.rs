//! Text that comes from elsewhere: bytes that survive as text, and text that is safe to print.

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

/// Names and command lines come from the repository and from other processes: none of them speaks to the terminal.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(harmless) {
        return text.into();
    }
    text.chars()
        .map(|c| if harmless(c) { c.to_string() } else { c.escape_default().to_string() })
        .collect::<String>()
        .into()
}

/// One word for a shell.
#[must_use]
pub fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path on one line.
#[must_use]
pub fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Text on one line: control characters are escaped.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
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
}
