//! `log-head`: where the log ends.
//!
//! Within a boot it is what shows that the end of a segment, or a whole one, is gone; so it has a checksum of its own.

use crate::wal::record::Lsn;

/// Where the log ends, as `log-head` has it. One line of fixed width, overwritten in place: a hint, checked
/// against the segment before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) boot: u32,
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

/// The size that no segment has: this one, and those after it, could not be written or synced. Nobody appends to them again.
pub(super) const POISONED: u64 = u64::MAX;

impl Head {
    pub(super) fn parse(text: &str, boot: u32) -> Option<Head> {
        let (text, sum) = text.trim_end().rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crate::util::checksum::crc32c(text.as_bytes()) {
            return None;
        }
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some("jin2") || u32::from_str_radix(words.next()?, 16).ok()? != boot {
            return None;
        }
        let mut number = || words.next()?.parse().ok();
        let (next_tx, next_lsn, segment, size) = (number()?, number()?, number()?, number()?);
        let mut signed = || number().and_then(|n| i64::try_from(n).ok());
        Some(Head { boot, next_tx, next_lsn, segment, size, clock: signed()?, since: signed()? })
    }

    pub(super) fn format(&self) -> String {
        let Head { boot, next_tx, next_lsn, segment, size, clock, since } = self;
        let text =
            format!("jin2 {boot:08x} {next_tx:020} {next_lsn:020} {segment:020} {size:020} {clock:020} {since:020}");
        format!("{text} {:08x}\n", crate::util::checksum::crc32c(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_with_any_byte_flipped_is_none() {
        let head = Head { boot: 7, next_tx: 12, next_lsn: 34, segment: 1, size: 5678, clock: 9, since: 10 };
        let text = head.format();
        assert_eq!(Head::parse(&text, 7), Some(head));
        assert_eq!(Head::parse(&text, 8), None, "of another boot");
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let flipped = String::from_utf8(bytes).unwrap();
            assert_eq!(Head::parse(&flipped, 7), None, "byte {at}: {flipped}");
        }
    }
}
