//! Reading a segment: which records count, and what is missing.
//!
//! Records are numbered without gaps, and a segment is named after its first one. So a line that was taken out, put in
//! twice or moved shows, although each line by itself is whole. Records are returned in the order of their numbers, each
//! once: that is the order in which they were written.
//!
//! Limit: of a log whose end is lost with everything that says how long it was, nothing shows what there was. Within one
//! boot `log-head` says it; after a power cut a lost end is what an unfinished write leaves, and no damage.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::util::text::shown;
use crate::wal::codec;
use crate::wal::record::{Body, Lsn, Record};

/// A damaged place of the log: a line that does not count, or records that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: PathBuf,
    /// Byte offset of the line.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}: {}", shown(&self.segment), self.offset, self.why)
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Valid records in the order of the log.
    pub records: Vec<Record>,
    /// What is damaged or missing.
    pub damage: Vec<Damage>,
}

/// What is known of a segment from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The number of its first record: its name.
    pub first: Lsn,
    /// The number behind its last record: the name of the next segment, or what `log-head` says.
    pub end: Option<Lsn>,
    /// Nothing follows: a bad end is what a crash in the middle of a write leaves.
    pub newest: bool,
}

impl Scan {
    /// Puts an older part in front.
    pub(super) fn prepend(&mut self, mut older: Scan) {
        std::mem::swap(self, &mut older);
        self.records.append(&mut older.records);
        self.damage.append(&mut older.damage);
        if !self.damage.is_empty() {
            in_order(&mut self.records);
        }
    }
}

/// How many bad lines of a segment are told one by one: a flood of garbage is no flood of messages.
const TOLD: usize = 100;

/// The bytes of a segment, or of its end, that can be records of ours.
#[derive(Debug)]
pub(super) struct Content<'c> {
    /// Where they begin.
    pub(super) offset: u64,
    pub(super) bytes: Cow<'c, [u8]>,
    /// Where something begins that no record can be, and that was not read.
    pub(super) foreign: Option<u64>,
    /// Where the file ends.
    pub(super) end: u64,
}

impl Content<'_> {
    /// Lines with their offsets, line feeds included.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut offset = self.offset;
        self.bytes.split_inclusive(|b| *b == b'\n').map(move |line| {
            let start = offset;
            offset += line.len() as u64;
            (start, line)
        })
    }
}

/// Reads the segment that lies at `path` and holds `bytes`.
#[must_use]
pub fn read_segment(path: &Path, bytes: &[u8], bounds: Bounds) -> Scan {
    let content = Content { offset: 0, bytes: Cow::Borrowed(bytes), foreign: None, end: bytes.len() as u64 };
    read_content(path, &content, bounds)
}

/// Reads the segment that lies at `path`.
pub(super) fn read_content(path: &Path, content: &Content<'_>, bounds: Bounds) -> Scan {
    let mut reading = Reading::default();
    let mut more = None;
    for (offset, line) in content.lines() {
        match codec::decode(line.strip_suffix(b"\n").unwrap_or(line)) {
            Ok(record) => reading.good.push((offset, record)),
            Err(why) if reading.bad.len() < TOLD => reading.bad.push((offset, why.to_string())),
            Err(_) => more = Some((offset, more.map_or(1, |(_, count)| count + 1))),
        }
    }
    reading.bad.extend(more.map(|(offset, count): (u64, u64)| (offset, format!("{count} more lines do not count"))));
    reading.bad.extend(content.foreign.map(|offset| (offset, "no record begins so far behind".to_owned())));
    reading.look_at_order(bounds);
    reading.look_for_gaps(bounds, content.end);
    let mut found = reading.wrong;
    found.sort_by_key(|(offset, _)| *offset);
    let damage = |(offset, why): (u64, String)| Damage { segment: path.to_owned(), offset, why };
    Scan {
        records: reading.good.into_iter().map(|(_, record)| record).collect(),
        damage: found.into_iter().map(damage).collect(),
    }
}

#[derive(Default)]
struct Reading {
    good: Vec<(u64, Record)>,
    bad: Vec<(u64, String)>,
    wrong: Vec<(u64, String)>,
}

impl Reading {
    /// Reports records that are out of place or there twice, and sorts.
    fn look_at_order(&mut self, Bounds { first, end, newest }: Bounds) {
        let mut highest = 0;
        let next = end.filter(|_| !newest);
        for (offset, record) in &self.good {
            let lsn = record.lsn;
            if lsn < first {
                self.wrong.push((*offset, format!("record {lsn} stands in a segment that begins with {first}")));
            } else if next.is_some_and(|next| lsn >= next) {
                self.wrong.push((*offset, format!("record {lsn} stands before the segment where it belongs")));
            } else if lsn < highest {
                self.wrong.push((*offset, format!("record {lsn} stands behind record {highest}")));
            }
            if let Body::Unknown { format, .. } = record.body
                && format > codec::FORMAT
            {
                self.wrong.push((*offset, format!("record {lsn} has format {format}: a newer jin-txn wrote it")));
            }
            highest = highest.max(lsn);
        }
        self.good.sort_by_key(|(_, record)| record.lsn);
        let wrong = &mut self.wrong;
        self.good.dedup_by(|(offset, later), (_, earlier)| {
            if later.lsn != earlier.lsn {
                return false;
            }
            let what =
                if later == earlier { "is there twice" } else { "is there twice, and only the first one counts" };
            wrong.push((*offset, format!("record {} {what}", later.lsn)));
            true
        });
    }

    /// Reports bad lines and missing records; of those that are missing where a bad line is, the line alone.
    fn look_for_gaps(&mut self, bounds: Bounds, len: u64) {
        let (mut expected, mut from) = (bounds.first, 0);
        for (offset, record) in self.good.iter().filter(|(_, record)| record.lsn >= bounds.first) {
            let told = self.bad.iter().any(|(bad, _)| (from..*offset).contains(bad));
            if record.lsn > expected && !told {
                self.wrong.push((*offset, missing(expected, record.lsn)));
            }
            (expected, from) = (record.lsn + 1, *offset);
        }
        let behind_all = self.good.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
        let is_short = bounds.end.is_some_and(|end| expected < end);
        let tail = self.bad.iter().any(|(bad, _)| *bad >= behind_all);
        if let Some(end) = bounds.end.filter(|_| is_short && !tail) {
            self.wrong.push((len, missing(expected, end)));
        }
        let is_torn = |bad: u64| bad >= behind_all && bounds.newest && !is_short;
        self.wrong.extend(self.bad.drain(..).filter(|(bad, _)| !is_torn(*bad)));
    }
}

fn missing(from: Lsn, to: Lsn) -> String {
    match to - from {
        1 => format!("record {from} is missing"),
        _ => format!("records {from} to {} are missing", to - 1),
    }
}

fn in_order(records: &mut Vec<Record>) {
    records.sort_by_key(|record| record.lsn);
    records.dedup_by_key(|record| record.lsn);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TxId;

    fn segment(numbers: &[Lsn]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for lsn in numbers {
            Body::Aborted.encode().unwrap().write(*lsn, Some(TxId(*lsn)), 0, &mut bytes).unwrap();
        }
        bytes
    }

    fn read(bytes: &[u8], end: Option<Lsn>) -> (Vec<Lsn>, Vec<String>) {
        let scan = read_segment(Path::new("s"), bytes, Bounds { first: 1, end, newest: true });
        let numbers = scan.records.iter().map(|r| r.lsn).collect();
        (numbers, scan.damage.into_iter().map(|d| d.why).collect())
    }

    #[test]
    fn what_is_missing_twice_or_in_another_place_shows() {
        /// What happened, the numbers that are there, those that are read, and what is said.
        type Row = (&'static str, &'static [Lsn], &'static [Lsn], &'static [&'static str]);
        let rows: &[Row] = &[
            ("as it was written", &[1, 2, 3, 4], &[1, 2, 3, 4], &[]),
            ("one is gone", &[1, 2, 4], &[1, 2, 4], &["record 3 is missing"]),
            ("the first two are gone", &[3, 4], &[3, 4], &["records 1 to 2 are missing"]),
            ("one is there twice", &[1, 2, 2, 3, 4], &[1, 2, 3, 4], &["record 2 is there twice"]),
            ("two are swapped", &[1, 3, 2, 4], &[1, 2, 3, 4], &["record 2 stands behind record 3"]),
            ("the end is gone", &[1, 2], &[1, 2], &["records 3 to 4 are missing"]),
            ("all of it is gone", &[], &[], &["records 1 to 4 are missing"]),
        ];
        for (name, there, numbers, said) in rows {
            let (found, damage) = read(&segment(there), Some(5));
            assert_eq!(
                (found.as_slice(), damage),
                (*numbers, said.iter().map(ToString::to_string).collect()),
                "{name}"
            );
        }
        assert_eq!(read(&segment(&[1, 2]), None), (vec![1, 2], vec![]), "nobody says how long it was");
    }

    #[test]
    fn a_bad_end_is_torn_only_where_nothing_is_missing() {
        let mut bytes = segment(&[1, 2, 3]);
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        assert_eq!(read(&bytes, Some(3)), (vec![1, 2], vec![]), "it was being written");
        assert_eq!(read(&bytes, Some(4)), (vec![1, 2], vec!["the checksum does not match".to_owned()]));
    }

    #[test]
    fn a_record_of_a_newer_format_is_told() {
        let json = r#"{"v":2,"lsn":1,"tx":"tx-1","time":0,"type":"begin","data":{}}"#;
        let line = format!("{:08x} {json}\n", crate::util::checksum::crc32c(json.as_bytes()));
        let (numbers, damage) = read(line.as_bytes(), None);
        assert_eq!(numbers, [1]);
        assert_eq!(damage, ["record 1 has format 2: a newer jin-txn wrote it"]);
    }
}
