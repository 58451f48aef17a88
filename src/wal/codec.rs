//! Records as bytes: `<crc32c, 8 hex digits> SP <JSON> LF`.
//!
//! The JSON has `v` (format), `lsn`, `tx`, `time` (Unix seconds), `type` and `data`. The checksum covers the text of the
//! JSON, which never holds a raw line feed: a line is a record. A line counts only if its checksum matches.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fs::Birth;
use crate::git::refs::RefSnapshot;
use crate::state::TxId;
use crate::util::checksum;
use crate::wal::record::{Body, Lsn, Outcome, Record};

/// The format that we write.
pub const FORMAT: u32 = 1;

/// No record and no transaction has a number this large, which is as far as JSON numbers are exact everywhere. Numbers that
/// are read can therefore be counted on from without overflow.
pub const TOO_LARGE: u64 = 1 << 53;

#[derive(Deserialize)]
struct Wire<'a> {
    v: u32,
    lsn: Lsn,
    #[serde(default)]
    tx: Option<TxId>,
    time: u64,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Refs {
    refs: Vec<RefSnapshot>,
}

#[derive(Deserialize)]
struct By {
    by: TxId,
}

#[derive(Deserialize)]
struct Recovered {
    outcome: Outcome,
    actions: Vec<String>,
    refs: Vec<RefSnapshot>,
}

#[derive(Deserialize)]
struct Checkpoint {
    in_flight: Vec<TxId>,
    boot: String,
    state_dir: Birth,
}

#[derive(Deserialize)]
struct Baseline {
    as_of: Lsn,
    actions: Vec<String>,
    refs: Vec<RefSnapshot>,
}

/// A body that is ready to be written once its number is known: encoding it under the lock would keep others waiting. Of a
/// large one only length and checksum are kept, and it is encoded again while it is written, so that the memory of a hook
/// does not grow with the text of the record.
pub struct Encoded<'b> {
    body: &'b Body,
    data: Measured,
}

/// What is written to it, as far as that is small; its checksum and length when not.
#[derive(Default)]
struct Measured {
    /// The text since `crc` and `len` were brought up to date.
    text: Vec<u8>,
    crc: u32,
    len: usize,
}

impl Measured {
    /// The most that is kept.
    const MOST: usize = 64 << 10;

    fn settle(&mut self) {
        self.crc = checksum::append(self.crc, &self.text);
        self.len += self.text.len();
        self.text.clear();
    }

    fn is_whole(&self) -> bool {
        self.len == 0
    }
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if self.text.len() > Self::MOST {
            self.settle();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body {
    /// Encodes the part that does not depend on the record's number.
    ///
    /// # Errors
    /// Encoding fails only when memory does.
    pub fn encode(&self) -> serde_json::Result<Encoded<'_>> {
        let mut data = Measured::default();
        self.write_data(&mut data)?;
        if !data.is_whole() {
            data.settle();
        }
        Ok(Encoded { body: self, data })
    }

    fn kind(&self) -> &'static str {
        match self {
            Body::Begin(_) => "begin",
            Body::Decided(_) => "decided",
            Body::Committed { .. } => "committed",
            Body::Aborted => "aborted",
            Body::Absorbed { .. } => "absorbed",
            Body::Moved { .. } => "moved",
            Body::Recovered { .. } => "recovered",
            Body::Checkout(_) => "checkout",
            Body::Baseline { .. } => "baseline",
            Body::Checkpoint { .. } => "checkpoint",
            Body::Unknown { .. } => "unknown",
        }
    }

    fn write_data(&self, to: &mut impl Write) -> serde_json::Result<()> {
        match self {
            Body::Aborted | Body::Unknown { .. } => to.write_all(b"{}").map_err(serde_json::Error::io),
            _ => serde_json::to_writer(to, self),
        }
    }

    fn decode(kind: &str, data: &RawValue) -> serde_json::Result<Body> {
        use serde_json::from_str;
        let data = data.get();
        Ok(match kind {
            "begin" => Body::Begin(from_str(data)?),
            "decided" => Body::Decided(from_str(data)?),
            "committed" => Body::Committed { refs: from_str::<Refs>(data)?.refs },
            "aborted" => Body::Aborted,
            "absorbed" => Body::Absorbed { by: from_str::<By>(data)?.by },
            "moved" => Body::Moved { refs: from_str::<Refs>(data)?.refs },
            "recovered" => {
                let Recovered { outcome, actions, refs } = from_str(data)?;
                Body::Recovered { outcome, actions, refs }
            }
            "checkout" => Body::Checkout(from_str(data)?),
            "baseline" => {
                let Baseline { as_of, actions, refs } = from_str(data)?;
                Body::Baseline { as_of, actions, refs }
            }
            "checkpoint" => {
                let Checkpoint { in_flight, boot, state_dir } = from_str(data)?;
                Body::Checkpoint { in_flight, boot, state_dir }
            }
            other => Body::Unknown { kind: other.to_owned(), format: FORMAT },
        })
    }
}

impl Encoded<'_> {
    /// Writes the whole line, checksum and line feed included, and says how long it is. A small one is written by one call.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, lsn: Lsn, tx: Option<TxId>, time: u64, to: &mut impl Write) -> io::Result<u64> {
        let head = head(self.body.kind(), lsn, tx, time);
        if self.data.is_whole() {
            let line = line(&head, &self.data.text);
            to.write_all(&line)?;
            return Ok(line.len() as u64);
        }
        let crc = checksum::combine(checksum::crc32c(head.as_bytes()), self.data.crc, self.data.len);
        let mut to = BufWriter::with_capacity(Measured::MOST, to);
        write!(to, "{:08x} {head}", checksum::append(crc, b"}"))?;
        self.body.write_data(&mut to)?;
        to.write_all(b"}\n")?;
        to.flush()?;
        Ok((CRC_WIDTH + head.len() + self.data.len + 2) as u64)
    }
}

/// The checksum and the space behind it.
const CRC_WIDTH: usize = 9;

/// A record's JSON up to its data.
fn head(kind: &str, lsn: Lsn, tx: Option<TxId>, time: u64) -> String {
    let tx = tx.map_or_else(String::new, |tx| format!(r#""tx":"{tx}","#));
    format!(r#"{{"v":{FORMAT},"lsn":{lsn},{tx}"time":{time},"type":"{kind}","data":"#)
}

fn line(head: &str, data: &[u8]) -> Vec<u8> {
    let mut line = vec![b' '; CRC_WIDTH];
    for part in [head.as_bytes(), data, b"}"] {
        line.extend_from_slice(part);
    }
    let crc = format!("{:08x}", checksum::crc32c(&line[CRC_WIDTH..]));
    line[..crc.len()].copy_from_slice(crc.as_bytes());
    line.push(b'\n');
    line
}

/// Can a line that begins like this be a record?
pub(super) fn is_beginning(line: &[u8]) -> bool {
    const JSON: &[u8] = b" {\"v\":";
    let (crc, json) = line.split_at(line.len().min(CRC_WIDTH - 1));
    let json = &json[..json.len().min(JSON.len())];
    crc.iter().all(u8::is_ascii_hexdigit) && JSON.starts_with(json)
}

/// The header of a line that passed its checksum: enough to follow the log without decoding everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its number.
    pub lsn: Lsn,
    /// The transaction that it is about.
    pub tx: Option<TxId>,
}

/// Checks a line (without its line feed) and decodes its header.
///
/// # Errors
/// Why it does not count.
pub fn decode_header(line: &[u8]) -> Result<Header, BadLine> {
    let wire = decode_wire(line)?;
    Ok(Header { lsn: wire.lsn, tx: wire.tx })
}

/// Checks and decodes a line (without its line feed).
///
/// # Errors
/// Why it does not count.
pub fn decode(line: &[u8]) -> Result<Record, BadLine> {
    let wire = decode_wire(line)?;
    let body = if wire.v == FORMAT {
        Body::decode(&wire.kind, wire.data).map_err(|e| BadLine::NotARecord(e.to_string()))?
    } else {
        Body::Unknown { kind: wire.kind.into_owned(), format: wire.v }
    };
    Ok(Record { lsn: wire.lsn, tx: wire.tx, time: wire.time, body })
}

fn decode_wire(line: &[u8]) -> Result<Wire<'_>, BadLine> {
    let (crc, json) = match line.split_at_checked(9) {
        Some((head, json)) if head[8] == b' ' => (&head[..8], json),
        _ => return Err(BadLine::TooShort),
    };
    let lower_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    let crc = std::str::from_utf8(crc).ok().filter(|t| t.bytes().all(|b| lower_hex(&b)));
    let expected = crc.and_then(|t| u32::from_str_radix(t, 16).ok()).ok_or(BadLine::Checksum)?;
    if checksum::crc32c(json) != expected {
        return Err(BadLine::Checksum);
    }
    let wire: Wire<'_> = serde_json::from_slice(json).map_err(|e| BadLine::NotARecord(e.to_string()))?;
    if wire.lsn >= TOO_LARGE || wire.tx.is_some_and(|tx| tx.0 >= TOO_LARGE) {
        return Err(BadLine::NotARecord("its number is too large".to_owned()));
    }
    Ok(wire)
}

/// Why a line does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// No room for a checksum.
    TooShort,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, yet it is no record.
    NotARecord(String),
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadLine::TooShort => f.write_str("the line is cut"),
            BadLine::Checksum => f.write_str("the checksum does not match"),
            BadLine::NotARecord(why) => write!(f, "not a record: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::Value;
    use crate::wal::Checkout;

    fn line() -> Vec<u8> {
        let body =
            Body::Checkout(Checkout { from: "a".repeat(40), to: "b".repeat(40), branch: true, ..Checkout::default() });
        let mut line = Vec::new();
        let len = body.encode().unwrap().write(9, Some(TxId(3)), 1_700_000_000, &mut line).unwrap();
        assert_eq!(len, line.len() as u64);
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn a_record_survives_the_way_to_disk() {
        let record = decode(&line()).unwrap();
        assert_eq!((record.lsn, record.tx), (9, Some(TxId(3))));
        assert!(matches!(record.body, Body::Checkout(Checkout { branch: true, .. })));
    }

    #[test]
    fn a_record_that_is_too_large_to_be_kept_is_written_like_any_other() {
        let settled = |n: usize| RefSnapshot {
            name: crate::git::RefName::parse(format!("refs/heads/b{n}").as_bytes()).unwrap(),
            value: Value::Absent,
            file: None,
        };
        for count in [0, 1, 1000, 2000, 5000, 20_000] {
            let body = Body::Committed { refs: (0..count).map(settled).collect() };
            let encoded = body.encode().unwrap();
            assert!(encoded.data.text.len() <= Measured::MOST, "{count} refs: no more than that is kept");
            let mut line = Vec::new();
            let len = encoded.write(7, Some(TxId(3)), 1, &mut line).unwrap();
            assert_eq!(len, line.len() as u64, "{count} refs");
            assert_eq!(line.pop(), Some(b'\n'));
            assert_eq!(decode(&line).unwrap().body, body, "{count} refs");
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let good = line();
        for at in 0..good.len() {
            for bit in [1, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                assert!(decode(&bad).is_err(), "byte {at} flipped by {bit:#x}");
            }
            assert!(decode(&good[..at]).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn an_unknown_type_is_kept_and_a_ref_outside_the_repository_is_no_record() {
        let encode = |kind: &str, data: &str| {
            let mut line = super::line(&head(kind, 1, None, 0), data.as_bytes());
            line.pop();
            line
        };
        let odd = decode(&encode("from-the-future", "{}")).unwrap();
        assert_eq!(odd.body, Body::Unknown { kind: "from-the-future".into(), format: FORMAT });
        let outside = r#"{"refs":[{"ref":"refs/../../etc/passwd","value":"absent"}]}"#;
        assert!(matches!(decode(&encode("moved", outside)), Err(BadLine::NotARecord(_))));
    }
}
