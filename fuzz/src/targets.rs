//! What is fuzzed: every reader of bytes that somebody else may have written.
//!
//! A target takes any bytes and panics when a promise is broken. Here they are plain functions, so that `cargo test`
//! (`tests/pure/fuzz_corpus.rs`) runs the corpora through them without a fuzzer.

use std::path::Path;

use jin_txn::internals::codec::{self, FORMAT};
use jin_txn::internals::{
    Begin, Body, Bounds, Ends, IndexFound, Item, Marker, PackedRefs, Parser, Payload, Record, Snapshot, escape,
    include_paths, index_entries, manifest, read_segment, unescape,
};
use jin_txn::{RefName, RelPath, Value};

/// A target and its name, which is that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 10] = [
    ("wal_scan", wal_scan),
    ("record_decode", record_decode),
    ("marker", marker),
    ("hook_stdin", hook_stdin),
    ("apply_language", apply_language),
    ("apply_manifest", apply_manifest),
    ("refs", refs),
    ("snapshot", snapshot),
    ("index", index),
    ("includes", includes),
];

/// A whole segment. A line that begins with `!` stands as it is (without the `!`); any other gets a checksum that is right, so
/// that more than the checksum is reached.
pub fn wal_scan(data: &[u8]) {
    let mut bytes = Vec::new();
    for line in data.split_inclusive(|b| *b == b'\n') {
        match line.strip_prefix(b"!") {
            Some(raw) => bytes.extend_from_slice(raw),
            None => bytes.extend(with_checksum(line)),
        }
    }
    for (end, newest) in [(None, true), (None, false), (Some(3), true), (Some(3), false)] {
        let scan = read_segment(Path::new("segment"), &bytes, Bounds { first: 1, end, newest });
        assert!(scan.records.is_sorted_by(|a, b| a.lsn < b.lsn), "in order, each once");
        assert!(scan.damage.iter().all(|d| d.offset <= bytes.len() as u64), "damage lies in the segment");
        scan.records.iter().for_each(holds);
        let contiguous = scan.records.iter().zip(1..).all(|(record, lsn)| record.lsn == lsn);
        let whole = contiguous && end.is_none_or(|end| scan.records.len() as u64 + 1 >= end);
        assert!(whole || !scan.damage.is_empty(), "what is missing is told");
        // What was salvaged is a whole log by itself, as far as its numbers go.
        let known = |r: &&Record| !matches!(r.body, Body::Unknown { .. });
        let salvaged: Vec<u8> = scan.records.iter().filter(known).flat_map(line_of).collect();
        let again = read_segment(Path::new("salvaged"), &salvaged, Bounds { first: 1, end: None, newest: true });
        assert!(again.records.iter().eq(scan.records.iter().filter(known)), "salvage keeps every record");
    }
}

/// One record.
pub fn record_decode(data: &[u8]) {
    if let Ok(record) = codec::decode(data) {
        holds(&record);
    }
    let line = with_checksum(data);
    let header = codec::decode_header(&line);
    let Ok(record) = codec::decode(&line) else { return };
    let header = header.expect("a record has a header");
    assert_eq!((header.lsn, header.tx), (record.lsn, record.tx));
    holds(&record);
    if !matches!(record.body, Body::Unknown { .. }) {
        let mut again = line_of(&record);
        again.pop();
        assert_eq!(codec::decode(&again).as_ref(), Ok(&record), "what is written is what was read");
    }
}

/// An index.
pub fn index(data: &[u8]) {
    let IndexFound::Entries(entries) = index_entries(data) else { return };
    assert!(entries.len() <= data.len() / 62, "each entry has its bytes");
    assert!(entries.iter().all(|entry| !entry.path.contains(&0)), "a path ends with a NUL");
}

/// A configuration file that includes others.
pub fn includes(data: &[u8]) {
    let paths = include_paths(data);
    let len: usize = paths.iter().map(Vec::len).sum();
    assert!(len <= data.len(), "every path is in the file");
}

/// A marker file.
pub fn marker(data: &[u8]) {
    let Ok(marker) = Marker::decode(data) else { return };
    let again = marker.encode().expect("a marker can be written");
    assert_eq!(Marker::decode(&again).expect("and read"), marker);
}

/// What git sends to the hook.
pub fn hook_stdin(data: &[u8]) {
    let payload = Payload::parse(data);
    assert!(payload.lines().count() <= payload.count());
    for line in payload.lines() {
        for value in [line.old, line.new] {
            if let Value::Symref(target) = Value::of_payload(value) {
                stays_inside(&target);
            }
        }
        if let Ok(name) = RefName::parse(line.name) {
            stays_inside(&name);
        }
        let text = escape(line.name);
        assert!(!text.chars().any(char::is_control), "nothing speaks to a terminal");
        assert_eq!(unescape(&text).as_deref(), Some(line.name), "and nothing is lost");
    }
}

/// The language of `apply`, in both forms.
pub fn apply_language(data: &[u8]) {
    for (ends, end) in [(Ends::LineFeed, b'\n'), (Ends::Nul, 0)] {
        let mut parser = Parser::new(ends);
        let mut text = data.split(|b| *b == end);
        if text.all(|line| parser.feed(line).is_ok())
            && let Ok(Some(items)) = parser.finish()
        {
            items.iter().for_each(item_stays_inside);
        }
    }
}

/// The same as JSON.
pub fn apply_manifest(data: &[u8]) {
    if let Ok(found) = manifest::parse(data) {
        found.items.iter().for_each(item_stays_inside);
    }
}

/// A loose ref, and `packed-refs` with a name to look for in its first line.
pub fn refs(data: &[u8]) {
    if let Value::Symref(target) = Value::of_file(data) {
        stays_inside(&target);
    }
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (name, text) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let linear = text.split(|b| *b == b'\n').any(|line| line.splitn(2, |b| *b == b' ').nth(1) == Some(name));
    let found = PackedRefs::of(text.to_vec()).find(name).expect("it is in memory");
    assert!(found.is_none() || linear, "what is found is there");
}

/// The snapshot of a run.
pub fn snapshot(data: &[u8]) {
    let Ok(found) = serde_json::from_slice::<Snapshot>(data) else { return };
    let kept = found.own.iter().chain(&found.shared).chain(&found.files).chain(&found.index);
    kept.map(|k| &k.path)
        .chain(found.ignored.iter().map(|i| &i.path))
        .chain(&found.by_name)
        .for_each(path_stays_inside);
    let text = serde_json::to_vec(&found).expect("a snapshot can be written");
    assert_eq!(serde_json::from_slice::<Snapshot>(&text).expect("and read"), found);
}

fn with_checksum(line: &[u8]) -> Vec<u8> {
    let json = line.strip_suffix(b"\n").unwrap_or(line);
    let mut whole = format!("{:08x} ", crc32c::crc32c(json)).into_bytes();
    whole.extend_from_slice(line);
    whole
}

fn line_of(record: &Record) -> Vec<u8> {
    let encoded = record.body.encode().expect("a record can be written");
    let mut line = Vec::new();
    encoded.write(record.lsn, record.tx, record.time, &mut line).expect("with its number");
    line
}

fn holds(record: &Record) {
    assert!(record.lsn < codec::TOO_LARGE && record.tx.is_none_or(|tx| tx.0 < codec::TOO_LARGE));
    match &record.body {
        Body::Begin(begin) | Body::Decided(begin) => begin_stays_inside(begin),
        Body::Committed { refs } | Body::Moved { refs } => refs.iter().for_each(|r| stays_inside(&r.name)),
        Body::Recovered { refs, .. } | Body::Baseline { refs, .. } => refs.iter().for_each(|r| stays_inside(&r.name)),
        Body::Unknown { kind, format } => assert!(*format != FORMAT || kind != "begin", "a begin of ours is known"),
        _ => {}
    }
}

fn begin_stays_inside(begin: &Begin) {
    for change in &begin.refs {
        stays_inside(&change.name);
        for value in [change.before.as_ref(), Some(&change.after)].into_iter().flatten() {
            if let Value::Symref(target) = value {
                stays_inside(target);
            }
        }
    }
    begin.watched.iter().for_each(|w| stays_inside(&w.name));
    begin.files.iter().for_each(|f| path_stays_inside(&f.path));
}

fn stays_inside(name: &RefName) {
    let bytes = name.as_bytes();
    assert!(!bytes.starts_with(b"/") && !bytes.starts_with(b"-"), "{name} is a name below the git directory");
    assert!(bytes.split(|b| *b == b'/').all(|part| !part.is_empty() && !part.starts_with(b".")), "{name} stays inside");
    assert!(!bytes.iter().any(u8::is_ascii_control), "{name} has no control character");
}

fn path_stays_inside(path: &RelPath) {
    let parts = path.as_bytes().split(|b| *b == b'/');
    assert!(parts.into_iter().all(|part| !matches!(part, b"" | b"." | b"..")), "{path} stays inside");
}

fn item_stays_inside(item: &Item) {
    match item {
        Item::Update(name, ..) | Item::Delete(name, ..) | Item::Verify(name, ..) => stays_inside(name),
        Item::Point(name, target, _) => [name, target].into_iter().for_each(stays_inside),
        Item::Write(path, ..) | Item::Remove(path, _) => path_stays_inside(path),
    }
}
