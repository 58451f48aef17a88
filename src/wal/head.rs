//! `log-head`: where the log ends.
//!
//! One line of fixed width, overwritten in place: a hint, checked against the segment before it is believed. Within a boot
//! it is what shows that the end of a segment, or a whole one, is gone; so it has a checksum of its own.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;

use crate::fs::{absent_is_none, durable, named as fs};
use crate::state::StateDir;
use crate::state::directory::SMALL;
use crate::util::checksum::crc32c;
use crate::wal::record::Lsn;

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) boot: BootSum,
    pub(super) next_tx: u64,
    pub(super) next_lsn: Lsn,
    pub(super) segment: Lsn,
    pub(super) size: u64,
    /// Realtime minus time since boot, in milliseconds, when this boot's first note was made: it changes only when the
    /// clock is set.
    pub(super) clock: i64,
    /// Realtime in seconds of that note.
    pub(super) since: i64,
}

/// What `log-head` tells this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// Nothing: there is none, or one of another boot, or a damaged one.
    None,
    /// A write or a sync has failed, and so did marking the segment: this is all that a full disk allows.
    Emptied,
    /// This segment, and those after it, could not be written or synced. Nobody appends to them again.
    PoisonedFrom(Lsn),
    /// Where the log ends.
    End(Head),
}

/// The checksum of a boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootSum(u32);

impl BootSum {
    pub(super) fn of(boot: &str) -> BootSum {
        BootSum(crc32c(boot.as_bytes()))
    }
}

/// The size that no segment has: of a poisoned one.
const POISONED: u64 = u64::MAX;

impl Note {
    /// Reads `log-head`.
    pub(super) fn read(state: &StateDir, boot: BootSum) -> io::Result<Note> {
        let text = absent_is_none(durable::read_own(&path(state), SMALL))?;
        Ok(text.map_or(Note::None, |text| Note::parse(&text, boot)))
    }

    fn parse(text: &[u8], boot: BootSum) -> Note {
        match std::str::from_utf8(text).ok().and_then(|text| Head::parse(text, boot)) {
            Some(head) if head.size == POISONED => Note::PoisonedFrom(head.segment),
            Some(head) => Note::End(head),
            None if text.is_empty() => Note::Emptied,
            None => Note::None,
        }
    }

    pub(super) fn end(self) -> Option<Head> {
        match self {
            Note::End(head) => Some(head),
            Note::None | Note::Emptied | Note::PoisonedFrom(_) => None,
        }
    }
}

impl Head {
    fn parse(text: &str, boot: BootSum) -> Option<Head> {
        let (text, sum) = text.trim_end().rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32c(text.as_bytes()) {
            return None;
        }
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some("jin2") || u32::from_str_radix(words.next()?, 16).ok()? != boot.0 {
            return None;
        }
        let mut number = || words.next()?.parse().ok();
        let (next_tx, next_lsn, segment, size) = (number()?, number()?, number()?, number()?);
        let mut signed = || number().and_then(|n| i64::try_from(n).ok());
        Some(Head { boot, next_tx, next_lsn, segment, size, clock: signed()?, since: signed()? })
    }

    fn format(&self) -> String {
        let Head { boot: BootSum(boot), next_tx, next_lsn, segment, size, clock, since } = self;
        let text =
            format!("jin2 {boot:08x} {next_tx:020} {next_lsn:020} {segment:020} {size:020} {clock:020} {since:020}");
        format!("{text} {:08x}\n", crc32c(text.as_bytes()))
    }

    /// In place: one small write is not torn by a killed process, and after a power cut the boot id tells.
    pub(super) fn store(&self, state: &StateDir) -> io::Result<()> {
        let path = path(state);
        let file = match durable::open_own(&path, OpenOptions::new().write(true)) {
            // Under `append.lock` nobody else makes it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => durable::create_new(&path, b"")?,
            other => fs::at(&path, other)?,
        };
        fs::at(&path, file.write_all_at(self.format().as_bytes(), 0))
    }
}

/// Nobody appends to `segment` again, or trusts what it says to be on disk. Under `append.lock`.
pub(super) fn poison(state: &StateDir, boot: BootSum, segment: Lsn) -> anyhow::Result<()> {
    let segment = match Note::read(state, boot)? {
        Note::PoisonedFrom(earlier) => segment.min(earlier),
        _ => segment,
    };
    let poisoned = Head { boot, next_tx: 0, next_lsn: 0, segment, size: POISONED, clock: 0, since: 0 };
    // A disk that is full may take the second: it needs no space.
    poisoned.store(state).or_else(|_| durable::empty(&path(state))).context("the log cannot be marked as failed")
}

pub(super) fn path(state: &StateDir) -> PathBuf {
    state.path().join("log-head")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_with_any_byte_flipped_is_none() {
        let head = Head { boot: BootSum(7), next_tx: 12, next_lsn: 34, segment: 1, size: 5678, clock: 9, since: 10 };
        let text = head.format();
        assert_eq!(Head::parse(&text, BootSum(7)), Some(head));
        assert_eq!(Head::parse(&text, BootSum(8)), None, "of another boot");
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let flipped = String::from_utf8(bytes).unwrap();
            assert_eq!(Head::parse(&flipped, BootSum(7)), None, "byte {at}: {flipped}");
        }
    }
}
