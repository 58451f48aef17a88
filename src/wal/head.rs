//! `next-id`: where the log ends.

use super::record::Lsn;

/// Where the log ends, as `next-id` has it. One line of fixed width, overwritten in place: a hint, checked
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
        let mut words = text.trim_end().split_ascii_whitespace();
        if words.next() != Some("jin1") || u32::from_str_radix(words.next()?, 16).ok()? != boot {
            return None;
        }
        let mut number = || words.next()?.parse().ok();
        let (next_tx, next_lsn, segment, size) = (number()?, number()?, number()?, number()?);
        let mut signed = || number().and_then(|n| i64::try_from(n).ok());
        Some(Head { boot, next_tx, next_lsn, segment, size, clock: signed()?, since: signed()? })
    }

    pub(super) fn format(&self) -> String {
        let Head { boot, next_tx, next_lsn, segment, size, clock, since } = self;
        format!("jin1 {boot:08x} {next_tx:020} {next_lsn:020} {segment:020} {size:020} {clock:020} {since:020}\n")
    }
}
