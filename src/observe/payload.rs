//! The hook's stdin: `<old> SP <new> SP <ref> LF`, one line per ref.

use crate::git::{Value, name};
use crate::state::marker::PayloadKey;

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
    input: &'p [u8],
    /// Tells this payload from others.
    pub key: PayloadKey,
}

impl<'p> Payload<'p> {
    /// Parses the hook's stdin. A line that is not of the form is counted, and otherwise left to git.
    #[must_use]
    pub fn parse(input: &'p [u8]) -> Payload<'p> {
        let count = texts(input).count() as u64;
        let key = PayloadKey { crc: crate::util::checksum::crc32c(input), len: input.len() as u64, count };
        Payload { input, key }
    }

    /// Its lines. They are parsed on the way: a list of them would be as large as the payload.
    pub fn lines(&self) -> impl Iterator<Item = Line<'p>> + use<'p> {
        texts(self.input).filter_map(Line::parse)
    }

    /// Are all of them of the notes that git makes for itself beside the work (`AUTO_MERGE`, `ORIG_HEAD`)? git changes those in
    /// the middle of a command, when refs are done and the index is not: whoever refuses such a change leaves the command half
    /// done, and the next commit reverts this one.
    #[must_use]
    pub fn is_of_notes(&self) -> bool {
        self.lines().all(|line| name::is_note(line.name))
    }

    /// Their number.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.key.count).unwrap_or(usize::MAX)
    }
}

fn texts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|b| *b == b'\n').filter(|l| !l.is_empty())
}

impl<'p> Line<'p> {
    fn parse(text: &'p [u8]) -> Option<Line<'p>> {
        // `ref:<target>` holds no space (ref names cannot), so two spaces part three words.
        let mut words = text.splitn(3, |b| *b == b' ');
        Some(Line { old: words.next()?, new: words.next()?, name: words.next()? })
    }

    /// Is the ref to be deleted, or only verified?
    #[must_use]
    pub fn deletes(&self) -> bool {
        is_null(self.new)
    }

    /// Did the caller say what the value is?
    #[must_use]
    pub fn expects_a_value(&self) -> bool {
        !is_null(self.old)
    }

    /// The new value.
    #[must_use]
    pub fn after(&self) -> Value {
        Value::of_payload(self.new)
    }
}

/// Zeros: no value.
fn is_null(value: &[u8]) -> bool {
    value.iter().all(|b| *b == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed_and_garbage_is_left_out() {
        let payload = Payload::parse(b"00 11 refs/heads/a\n11 ref:refs/heads/b HEAD\n");
        assert_eq!((payload.lines().count(), payload.count()), (2, 2));
        assert_eq!(payload.lines().last().unwrap().new, b"ref:refs/heads/b");
        assert_eq!(Payload::parse(b"").count(), 0, "empty payloads happen");
        let odd = Payload::parse(b"only two\n00 11 refs/heads/a\n");
        assert_eq!((odd.lines().count(), odd.count()), (1, 2));
    }

    #[test]
    fn notes_are_told_from_refs_by_their_names() {
        for (names, is_of_notes) in [
            (&["AUTO_MERGE"][..], true),
            (&["ORIG_HEAD", "worktrees/w/REBASE_HEAD", "main-worktree/CHERRY_PICK_HEAD"], true),
            (&["HEAD"], false),
            (&["worktrees/w/HEAD"], false),
            (&["ORIG_HEAD", "refs/heads/main"], false),
            (&["refs/heads/MAIN"], false),
            (&["worktrees/w/refs/bisect/bad"], false),
            (&["worktrees/w/refs/worktree/MARK"], false),
            (&["main-worktree/refs/worktree/MARK"], false),
        ] {
            let input: String = names.iter().map(|name| format!("0 1 {name}\n")).collect();
            assert_eq!(Payload::parse(input.as_bytes()).is_of_notes(), is_of_notes, "{names:?}");
        }
    }
}
