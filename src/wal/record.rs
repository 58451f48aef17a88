//! Records: `<crc32c, 8 hex digits> SP <JSON> LF`.
//!
//! The JSON carries `v` (format), `lsn`, `tx`, `time` (Unix seconds), `type` and `data`. The checksum
//! covers the JSON text. JSON never holds a raw line feed, so a line is a record.
//!
//! A record of a newer format or an unknown type is kept and shown, and never acted upon.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fs::Birth;
use crate::fs::FileId;
use crate::git::refs::RefSnapshot;
use crate::git::{RefName, Value};
use crate::process::owner::{Owner, Process};
use crate::state::TxId;
use crate::state::TxKind;
use crate::util::checksum;
use crate::wal::files::FileChange;

/// The format that we write.
pub const FORMAT: u32 = 1;

/// No record and no transaction has a number this large, which is as far as JSON numbers are exact everywhere: behind it
/// there is room to count on.
pub const TOO_LARGE: u64 = 1 << 53;

/// Log sequence number: the position of a record in the repository's history, counted from 1.
pub type Lsn = u64;

/// One ref of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefChange {
    /// Canonical name.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Before-image: the visible value, read under git's lock. `None` where we cannot read it (reftable).
    pub before: Option<Value>,
    /// After-image.
    pub after: Value,
    /// The loose file before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
    /// The lock; renamed into place it becomes the loose file, and is known by inode, size and mtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<FileId>,
    /// Size of the reflog before; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
}

/// A ref that git locks and logs in a transaction without changing its value (HEAD, mostly).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Canonical name.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Its lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<FileId>,
    /// Size of its reflog before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<u64>,
}

/// The transaction deletes a branch that is being renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rename {
    /// The reflog on its way, at `logs/refs/.tmp-renamed-log`; `None` when the branch has none.
    pub log: Option<FileId>,
    /// The new name, as the command line has it.
    pub to: Option<RefName>,
}

/// What an `undo` or `redo` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reversal {
    /// It takes this transaction back.
    Undo(TxId),
    /// It does this transaction, which had been undone, again.
    Redo(TxId),
}

impl std::fmt::Display for Reversal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reversal::Undo(id) => write!(f, "undo {id}"),
            Reversal::Redo(id) => write!(f, "redo {id}"),
        }
    }
}

impl std::str::FromStr for Reversal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("undo", id)) => Ok(Reversal::Undo(id.parse()?)),
            Some(("redo", id)) => Ok(Reversal::Redo(id.parse()?)),
            _ => Err(format!("`{}` is neither an undo nor a redo", text.escape_debug())),
        }
    }
}

/// `checkout`: what the post-checkout hook was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkout {
    /// HEAD before.
    pub from: String,
    /// HEAD after.
    pub to: String,
    /// A branch checkout (else a file checkout).
    pub branch: bool,
    /// HEAD of the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RefSnapshot>,
    /// The run whose command checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<TxId>,
}

/// `begin`: everything that recovery needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Who makes the transaction.
    pub origin: TxKind,
    /// git's command line.
    pub operation: String,
    /// The git process.
    #[serde(flatten)]
    pub owner: Owner,
    /// The hook process.
    pub hook_process: Process,
    /// The worktree's git directory, relative to the common one; empty for the main worktree.
    pub worktree: String,
    /// `true` when refs are stored in a reftable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reftable: bool,
    /// git may have rejected some of these updates and go on with the others, so that a lock listed here
    /// may belong to somebody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batched: bool,
    /// The refs that change.
    pub refs: Vec<RefChange>,
    /// The refs that are locked or logged only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<Watched>,
    /// `packed-refs.lock`, when git had to take it for this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_lock: Option<FileId>,
    /// `index.lock` of the worktree, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_lock: Option<FileId>,
    /// Set when this deletion is half of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// `packed-refs`: what showed the value of every ref without a loose file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<FileId>,
    /// HEAD of the worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RefSnapshot>,
    /// It takes back, or does again, what another one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<Reversal>,
    /// The `run` whose command made this transaction: they are taken back together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<TxId>,
    /// git was told to go on only when everything on the file system, objects included, was durable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barrier: bool,
    /// The files that change, in the order in which they are put into place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileChange>,
    /// The message for reflogs, of a transaction that we make.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Begin {
    /// A transaction that changes nothing yet; everything that `origin` knows of is filled in.
    #[must_use]
    pub fn new(origin: TxKind, operation: &str, owner: Owner, hook_process: Process) -> Begin {
        Begin {
            origin,
            operation: operation.to_owned(),
            owner,
            hook_process,
            worktree: String::new(),
            reftable: false,
            batched: false,
            refs: Vec::new(),
            watched: Vec::new(),
            packed_lock: None,
            index_lock: None,
            rename: None,
            packed: None,
            head: None,
            reverses: None,
            part_of: None,
            barrier: false,
            files: Vec::new(),
            message: String::new(),
        }
    }
}

/// How recovery ended a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it had been applied.
    Committed,
    /// Some of it had been applied and was taken back, or nothing had been.
    RolledBack,
    /// It waits for a human: somebody else's value is in the way.
    NeedsHuman,
    /// A human has seen it.
    Acknowledged,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// About to be done.
    Begin(Box<Begin>),
    /// The commit point of a transaction that we make: everything as it was read under git's locks. From here on it is
    /// carried out, by recovery if need be.
    Decided(Box<Begin>),
    /// Done, as `committed` saw it.
    Committed {
        /// The refs as they are now.
        refs: Vec<RefSnapshot>,
    },
    /// git gave up before it changed anything.
    Aborted,
    /// This transaction is part of another one of the same process, which has all of it.
    Absorbed {
        /// The other one.
        by: TxId,
    },
    /// A `pack-refs` took the loose file away: from here on the packed entry speaks for this transaction.
    Moved {
        /// The refs that moved.
        refs: Vec<RefSnapshot>,
    },
    /// Recovery settled the transaction; this is the newest word on its refs.
    Recovered {
        /// How.
        outcome: Outcome,
        /// What was done, a line each.
        actions: Vec<String>,
        /// The refs as recovery left them.
        refs: Vec<RefSnapshot>,
    },
    /// A checkout was completed.
    Checkout(Checkout),
    /// After a reboot: what was mended, and how the refs are now that the log did not expect.
    Baseline {
        /// The last record when the refs were read: what began after it knows better.
        as_of: Lsn,
        /// What was done, a line each.
        actions: Vec<String>,
        /// The refs as they are.
        refs: Vec<RefSnapshot>,
    },
    /// Everything before is durable, but for what is in flight. The first record of a segment, and one after a reboot.
    Checkpoint {
        /// Transactions that were unfinished.
        in_flight: Vec<TxId>,
        /// Boot id.
        boot: String,
        /// The state directory: a copy is another one.
        state_dir: Birth,
    },
    /// Written by a newer version.
    Unknown {
        /// Its type.
        kind: String,
        /// Its format.
        format: u32,
    },
}

/// A record with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// The transaction that it is about, if any.
    pub tx: Option<TxId>,
    /// Unix time in seconds.
    pub time: u64,
    /// What it says.
    pub body: Body,
}

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

#[derive(Serialize, Deserialize)]
struct Refs<'a> {
    refs: Cow<'a, [RefSnapshot]>,
}

#[derive(Serialize, Deserialize)]
struct By {
    by: TxId,
}

#[derive(Serialize, Deserialize)]
struct Recovered<'a> {
    outcome: Outcome,
    actions: Cow<'a, [String]>,
    refs: Cow<'a, [RefSnapshot]>,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    in_flight: Vec<TxId>,
    boot: String,
    state_dir: Birth,
}

#[derive(Serialize, Deserialize)]
struct Baseline<'a> {
    as_of: Lsn,
    actions: Cow<'a, [String]>,
    refs: Cow<'a, [RefSnapshot]>,
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
        use serde_json::to_writer;
        match self {
            Body::Begin(begin) | Body::Decided(begin) => to_writer(to, begin),
            Body::Committed { refs } | Body::Moved { refs } => to_writer(to, &Refs { refs: refs.into() }),
            Body::Aborted | Body::Unknown { .. } => to_writer(to, &serde_json::Map::new()),
            Body::Absorbed { by } => to_writer(to, &By { by: *by }),
            Body::Recovered { outcome, actions, refs } => {
                to_writer(to, &Recovered { outcome: *outcome, actions: actions.into(), refs: refs.into() })
            }
            Body::Checkout(checkout) => to_writer(to, checkout),
            Body::Baseline { as_of, actions, refs } => {
                to_writer(to, &Baseline { as_of: *as_of, actions: actions.into(), refs: refs.into() })
            }
            Body::Checkpoint { in_flight, boot, state_dir } => {
                to_writer(to, &Checkpoint { in_flight: in_flight.clone(), boot: boot.clone(), state_dir: *state_dir })
            }
        }
    }

    fn decode(kind: &str, data: &RawValue) -> serde_json::Result<Body> {
        let data = data.get();
        Ok(match kind {
            "begin" => Body::Begin(serde_json::from_str(data)?),
            "decided" => Body::Decided(serde_json::from_str(data)?),
            "committed" => Body::Committed { refs: serde_json::from_str::<Refs<'_>>(data)?.refs.into_owned() },
            "aborted" => Body::Aborted,
            "absorbed" => Body::Absorbed { by: serde_json::from_str::<By>(data)?.by },
            "moved" => Body::Moved { refs: serde_json::from_str::<Refs<'_>>(data)?.refs.into_owned() },
            "recovered" => {
                let Recovered { outcome, actions, refs } = serde_json::from_str(data)?;
                Body::Recovered { outcome, actions: actions.into_owned(), refs: refs.into_owned() }
            }
            "checkout" => Body::Checkout(serde_json::from_str(data)?),
            "baseline" => {
                let Baseline { as_of, actions, refs } = serde_json::from_str(data)?;
                Body::Baseline { as_of, actions: actions.into_owned(), refs: refs.into_owned() }
            }
            "checkpoint" => {
                let Checkpoint { in_flight, boot, state_dir } = serde_json::from_str(data)?;
                Body::Checkpoint { in_flight, boot, state_dir }
            }
            other => Body::Unknown { kind: other.to_owned(), format: FORMAT },
        })
    }

    /// What a transaction says about its refs, where that counts as a word for others: an `apply` that was begun and never
    /// decided has said nothing.
    #[must_use]
    pub fn word(&self) -> Option<&Begin> {
        match self {
            Body::Begin(begin) if begin.origin != TxKind::Apply => Some(begin),
            Body::Decided(begin) => Some(begin),
            _ => None,
        }
    }

    /// Does this record end its transaction?
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Body::Committed { .. } | Body::Aborted | Body::Absorbed { .. } | Body::Recovered { .. })
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
            BadLine::NotARecord(why) => write!(f, "no record: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
