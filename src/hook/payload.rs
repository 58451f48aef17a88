//! The hook's stdin: `<old> SP <new> SP <ref> LF`, one line per ref.

use crate::marker::PayloadKey;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'p> {
    /// What the caller *expected* the value to be; zeros when it did not say.
    pub old: &'p [u8],
    /// The new value; zeros mean delete, or verify only.
    pub new: &'p [u8],
    /// The ref as git named it.
    pub name: &'p [u8],
}

/// A parsed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'p> {
    /// Its lines.
    pub lines: Vec<Line<'p>>,
    /// Tells this payload from others.
    pub key: PayloadKey,
}

impl<'p> Payload<'p> {
    /// Parses the hook's stdin.
    ///
    /// # Errors
    /// A line that is not of the form, as text.
    pub fn parse(input: &'p [u8]) -> Result<Payload<'p>, String> {
        let mut lines = Vec::new();
        for line in input.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            // `ref:<target>` holds no space (ref names cannot), so two spaces part three words.
            let mut words = line.splitn(3, |b| *b == b' ');
            match (words.next(), words.next(), words.next()) {
                (Some(old), Some(new), Some(name)) => lines.push(Line { old, new, name }),
                _ => return Err(format!("git sent a line that is no ref update: {}", line.escape_ascii())),
            }
        }
        let key = PayloadKey { crc: crc32c::crc32c(input), len: input.len() as u64, count: lines.len() as u64 };
        Ok(Payload { lines, key })
    }
}

impl Line<'_> {
    /// Zeros: no value.
    #[must_use]
    pub fn is_null(value: &[u8]) -> bool {
        value.iter().all(|b| *b == b'0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed_and_garbage_is_named() {
        let payload = Payload::parse(b"00 11 refs/heads/a\n11 ref:refs/heads/b HEAD\n").unwrap();
        assert_eq!(payload.lines.len(), 2);
        assert_eq!(payload.lines[1].new, b"ref:refs/heads/b");
        assert!(Payload::parse(b"").unwrap().lines.is_empty(), "empty payloads happen");
        assert!(Payload::parse(b"only two\n").unwrap_err().contains("only two"));
    }
}
