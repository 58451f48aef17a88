//! A log and a marker, damaged everywhere: nothing panics, nothing is redone or taken back wrongly, and it is told.
//!
//! Every byte and every line is damaged before the reader of a segment, in this process. The program itself sees a choice of
//! it; `JIN_DAMAGE=N` is another stride, `JIN_DAMAGE=all` lets it see every byte (some hours).

mod scene;

use std::fs;
use std::ops::Range;
use std::path::Path;

use self::scene::{KINDS, Scene, kinds, with_checksum};
use crate::support::crash::run_jin;
use crate::support::observe::{calm, shown};
use crate::support::repo::{Options, Repo, text};
use crate::support::snapshot::Snapshot;
use jin_txn::internals::{Bounds, Record, Scan, read_segment};
use serde_json::Value;

/// How much was damaged, and how often that broke a promise.
#[derive(Default)]
struct Counts {
    flips: usize,
    truncations: usize,
    lines: usize,
    violations: Vec<String>,
}

impl Counts {
    fn conclude(&self) {
        let Counts { flips, truncations, lines, violations } = self;
        println!("torture: flips={flips} truncations={truncations} lines={lines} violations={}", violations.len());
        assert!(violations.is_empty(), "{} violations: {violations:#?}", violations.len());
    }
}

/// The lines of a log, and what they say.
struct Lines {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
    records: Vec<Record>,
}

impl Lines {
    fn of(bytes: Vec<u8>) -> Lines {
        let mut start = 0;
        let ranges = bytes.split_inclusive(|b| *b == b'\n').map(|line| {
            start += line.len();
            start - line.len()..start
        });
        let ranges = ranges.collect();
        let scan = read(&bytes, 1, None);
        assert!(scan.damage.is_empty(), "the log is whole: {:?}", scan.damage);
        Lines { ranges, records: scan.records, bytes }
    }

    fn line(&self, n: usize) -> &[u8] {
        &self.bytes[self.ranges[n].clone()]
    }

    fn end(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    /// Judges what is read of `bytes`, which were the lines `of` with those `touched` damaged.
    fn judge(&self, what: &str, bytes: &[u8], of: Range<usize>, touched: Range<usize>, counts: &mut Counts) {
        let scan = read(bytes, of.start as u64 + 1, Some(of.end as u64 + 1));
        let original = &self.records[of.clone()];
        let mut broken = |why: &str| counts.violations.push(format!("{what}: {why}: {:?}", scan.damage));
        if !scan.records.is_sorted_by(|a, b| a.lsn < b.lsn) {
            broken("records are out of order");
        }
        if !scan.records.iter().all(|r| original.contains(r)) {
            broken("a record that nobody wrote");
        }
        let kept = of.filter(|n| !touched.contains(n)).all(|n| scan.records.contains(&self.records[n]));
        if !kept {
            broken("a record that is intact is lost");
        }
        if scan.damage.is_empty() && scan.records != original {
            broken("something is missing and nobody says so");
        }
        // What stands where it should not is told even when nothing is lost.
        let is_as_written = original.len() == bytes.split_inclusive(|b| *b == b'\n').count();
        if scan.damage.is_empty() && !is_as_written {
            broken("something is added and nobody says so");
        }
    }

    /// A line with its neighbours.
    fn around(&self, n: usize) -> Range<usize> {
        n.saturating_sub(1)..(n + 2).min(self.ranges.len())
    }
}

fn read(bytes: &[u8], first: u64, end: Option<u64>) -> Scan {
    read_segment(Path::new("segment"), bytes, Bounds { first, end, newest: true })
}

/// The log of a repository with every kind of record.
fn log(repo: &Repo) -> Lines {
    Lines::of(fs::read(Scene::segment(repo)).expect("it can be read"))
}

#[test]
fn damage_of_any_byte_and_any_line_is_noticed_and_every_intact_record_is_read() {
    let scene = Scene::new();
    let lines = log(&scene.repo);
    let found = kinds(&text(&lines.bytes));
    println!("{} records, {} bytes: {found:?}", lines.records.len(), lines.bytes.len());
    assert!(lines.records.len() >= 30, "the log has only {} records", lines.records.len());
    let lacks: Vec<_> = KINDS.iter().filter(|kind| !found.contains_key(**kind)).collect();
    assert!(lacks.is_empty(), "the log has no {lacks:?}");

    let mut counts = Counts::default();
    for n in 0..lines.ranges.len() {
        // A byte of a line concerns that line and the one behind it; the others need not be read again for each.
        let window = lines.around(n);
        let offset = lines.ranges[window.start].start;
        let bytes = &lines.bytes[offset..lines.ranges[window.end - 1].end];
        for at in lines.ranges[n].clone() {
            for bits in [0x01, 0x80] {
                let mut flipped = bytes.to_vec();
                flipped[at - offset] ^= bits;
                let touched = n..n + 2;
                lines.judge(&format!("byte {at} flipped by {bits:#x}"), &flipped, window.clone(), touched, &mut counts);
                counts.flips += 1;
            }
            // Cut in front of this byte: what follows is gone.
            let cut = &bytes[..at - offset];
            lines.judge(&format!("cut to {at} bytes"), cut, window.clone(), n..lines.ranges.len(), &mut counts);
            counts.truncations += 1;
        }
    }
    // The whole, now and then.
    let all = 0..lines.ranges.len();
    for at in (0..lines.bytes.len()).step_by(97) {
        let n = lines.ranges.iter().position(|range| range.contains(&at)).expect("it lies in a line");
        let mut flipped = lines.bytes.clone();
        flipped[at] ^= 0x20;
        lines.judge(&format!("byte {at} flipped in the whole"), &flipped, all.clone(), n..n + 2, &mut counts);
        let cut = &lines.bytes[..at];
        lines.judge(&format!("the whole cut to {at}"), cut, all.clone(), n..lines.ranges.len(), &mut counts);
        counts.flips += 1;
        counts.truncations += 1;
    }
    for n in all.clone() {
        let mut taken: Vec<&[u8]> = all.clone().map(|n| lines.line(n)).collect();
        taken.remove(n);
        lines.judge(&format!("line {n} removed"), &taken.concat(), all.clone(), n..n + 1, &mut counts);
        taken.insert(n, lines.line(n));
        taken.insert(n, lines.line(n));
        lines.judge(&format!("line {n} doubled"), &taken.concat(), all.clone(), 0..0, &mut counts);
        taken.remove(n);
        taken.push(lines.line(n));
        lines.judge(&format!("line {n} again at the end"), &taken.concat(), all.clone(), 0..0, &mut counts);
        taken.pop();
        counts.lines += 3;
        if n + 1 < lines.ranges.len() {
            taken.swap(n, n + 1);
            let swapped = taken.concat();
            lines.judge(&format!("lines {n} and {} swapped", n + 1), &swapped, all.clone(), 0..0, &mut counts);
            if read(&swapped, 1, Some(lines.end())).damage.is_empty() {
                counts.violations.push(format!("lines {n} and {} are swapped and nobody says so", n + 1));
            }
            counts.lines += 1;
        }
    }
    counts.conclude();
}

/// `JIN_DAMAGE`: how many of the program's cases are left out between two, as a factor; 1 is all of them.
fn stride(usual: usize) -> usize {
    match std::env::var("JIN_DAMAGE").as_deref() {
        Ok("all") => 1,
        Ok(number) => number.parse().expect("JIN_DAMAGE is a number or `all`"),
        Err(_) => usual,
    }
}

/// What the program must say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The log is damaged.
    Damage,
    /// The log cannot be read at all.
    Unreadable,
    /// It need not say anything when recovery comes to the end that it would have come to anyway.
    IfStuck,
}

/// Lets the program look at a damaged copy and recover it, and judges what it says and does.
fn trial(scene: &Scene, what: &str, told: Told, damage: impl FnOnce(&Repo), violations: &mut Vec<String>) {
    let repo = scene.copy();
    damage(&repo);
    let mut broken = |why: String| violations.push(format!("{what}: {why}"));
    let mut says = Vec::new();
    for command in [&["wal", "verify"][..], &["status"], &["doctor"], &["recover"], &["status"]] {
        let output = repo.jin_txn(command);
        calm(&output);
        says.push((output.status.code().unwrap_or(-1), shown(&repo, &output)));
    }
    let refs = Snapshot::of(&repo).refs;
    let is_reported = says[3].0 != 0 && says[4].0 != 0;
    let is_recovered = refs == scene.whole && says[4].0 != 3;
    if !(is_recovered || (refs == scene.torn && is_reported)) {
        broken(format!("a wrong end: {refs:#?}\n{says:#?}"));
    }
    if told != Told::IfStuck {
        let quiet = |(code, said): &(i32, String)| match told {
            Told::Damage => *code != 4 || !said.contains("damaged"),
            _ => *code == 0 || !said.contains(".wal"),
        };
        if says[..3].iter().any(quiet) {
            broken(format!("the damage is not told: {:#?}", &says[..3]));
        }
    }
    let (code, said) = run_jin(&repo, &["wal", "dump"]);
    if said.lines().filter(|line| line.starts_with('{')).any(|line| serde_json::from_str::<Value>(line).is_err()) {
        broken(format!("the dump ({code}) is no JSON: {said}"));
    }
}

#[test]
fn a_copy_that_is_not_damaged_recovers_like_the_original() {
    let scene = Scene::new();
    let repo = scene.copy();
    assert_eq!(run_jin(&repo, &["wal", "verify"]).0, 0);
    let (code, said) = run_jin(&repo, &["status"]);
    assert_eq!(code, 3, "only interrupted: {said}");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!((code, Snapshot::of(&repo).refs), (0, scene.whole), "{said}");
}

#[test]
fn the_program_sees_damage_of_the_log_and_makes_nothing_worse() {
    let scene = Scene::new();
    let mut counts = Counts::default();
    let lines = log(&scene.copy());
    let len = lines.bytes.len();
    let rewrite = |repo: &Repo, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let segment = Scene::segment(repo);
        fs::write(&segment, change(fs::read(&segment).expect("it is there"))).expect("it can be written");
    };
    // Odd strides, so that all parts of lines are met.
    for at in (0..len).step_by(stride(2399)) {
        let flip = |mut bytes: Vec<u8>| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1;
            bytes
        };
        let violations = &mut counts.violations;
        trial(&scene, &format!("byte {at} flipped"), Told::Damage, |repo| rewrite(repo, &flip), violations);
        counts.flips += 1;
    }
    for left in (0..len).step_by(stride(2203)) {
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(left);
            bytes
        };
        let violations = &mut counts.violations;
        trial(&scene, &format!("cut to {left} bytes"), Told::Damage, |repo| rewrite(repo, &cut), violations);
        counts.truncations += 1;
    }
    let count = lines.ranges.len();
    // The newest lines, which are about the killed transaction, and some of the others.
    let chosen = (0..count).filter(|n| n % stride(13).min(13) == 0 || n + 2 >= count);
    for n in chosen {
        type Change = fn(&mut Vec<Vec<u8>>, usize);
        let changes: [(&str, Change); 3] = [
            ("removed", |lines, n| drop(lines.remove(n))),
            ("doubled", |lines, n| lines.insert(n, lines[n].clone())),
            ("swapped with its neighbour", |lines, n| lines.swap(n, if n == 0 { 1 } else { n - 1 })),
        ];
        for (name, change) in changes {
            let change = |bytes: Vec<u8>| {
                let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                change(&mut lines, n);
                lines.concat()
            };
            let violations = &mut counts.violations;
            trial(&scene, &format!("line {n} {name}"), Told::Damage, |repo| rewrite(repo, &change), violations);
            counts.lines += 1;
        }
    }
    counts.conclude();
}

#[test]
fn segments_that_are_missing_empty_foreign_or_newer_are_told_and_nothing_is_built_on_them() {
    let scene = Scene::new();
    let other = Repo::new(Options { guarded: true, ..Options::default() });
    for n in 0..20 {
        other.commit_all(&format!("number {n}"));
    }
    let foreign = fs::read(Scene::segment(&other)).expect("it can be read");
    let mut violations = Vec::new();
    let mut case = |what: &str, damage: &dyn Fn(&Path)| {
        let told = if what == "a directory" { Told::Unreadable } else { Told::Damage };
        trial(&scene, what, told, |repo| damage(&Scene::segment(repo)), &mut violations);
    };
    case("the segment is missing", &|segment| fs::remove_file(segment).expect("it can be removed"));
    case("the segment is empty", &|segment| fs::write(segment, "").expect("it can be written"));
    case("another repository's segment in its place", &|segment| {
        fs::write(segment, &foreign).expect("it can be written");
    });
    case("another repository's segment behind it", &|segment| {
        fs::write(segment.with_file_name(format!("{:020}.wal", 2)), &foreign).expect("it can be written");
    });
    case("a newer format", &|segment| {
        let log = fs::read_to_string(segment).expect("the log is text");
        let newer = log.lines().map(|line| {
            let mut record: Value = serde_json::from_str(&line[9..]).expect("a record is JSON");
            record["v"] = 2.into();
            with_checksum(&record)
        });
        fs::write(segment, newer.collect::<String>()).expect("it can be written");
    });
    case("garbage", &|segment| fs::write(segment, vec![0xA5; 10_000]).expect("it can be written"));
    case("a directory", &|segment| {
        fs::remove_file(segment).expect("it can be removed");
        fs::create_dir(segment).expect("it can be made");
    });
    println!("torture: segments=7 violations={}", violations.len());
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_program_sees_damage_of_a_marker_and_makes_nothing_worse() {
    let scene = Scene::new();
    let len = fs::read(Scene::marker(&scene.copy())).expect("it is there").len();
    let mut counts = Counts::default();
    for at in (0..len).step_by(stride(41)) {
        for bits in [0x01, 0x08] {
            let flip = |repo: &Repo| {
                let marker = Scene::marker(repo);
                let mut bytes = fs::read(&marker).expect("it is there");
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= bits;
                fs::write(marker, bytes).expect("it can be written");
            };
            let what = format!("byte {at} of the marker flipped by {bits:#x}");
            trial(&scene, &what, Told::IfStuck, flip, &mut counts.violations);
            counts.flips += 1;
        }
    }
    for left in (0..len).step_by(stride(101)) {
        let cut = |repo: &Repo| {
            let marker = Scene::marker(repo);
            let bytes = fs::read(&marker).expect("it is there");
            fs::write(marker, &bytes[..left]).expect("it can be written");
        };
        let what = format!("the marker cut to {left} bytes");
        trial(&scene, &what, Told::IfStuck, cut, &mut counts.violations);
        counts.truncations += 1;
    }
    counts.conclude();
}

#[test]
fn the_last_record_lost_in_a_power_cut_does_not_make_a_torn_update_final() {
    let scene = Scene::new();
    for (what, left) in [("half of it is there", 100), ("none of it is there", 0)] {
        let repo = scene.copy();
        let segment = Scene::segment(&repo);
        let bytes = fs::read(&segment).expect("it can be read");
        let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').expect("there are lines") + 1;
        fs::write(&segment, &bytes[..last + left]).expect("it can be written");
        // What another boot has noted is not believed: nothing says any more how long the log was.
        fs::remove_file(repo.git_dir().join(".jin/log-head")).expect("it can be removed");
        assert_eq!(run_jin(&repo, &["wal", "verify"]).0, 0, "{what}: the log by itself is whole");
        for command in [&["status"][..], &["recover"], &["recover"], &["status"]] {
            let (code, said) = run_jin(&repo, command);
            assert_eq!(code, 4, "{what}, {command:?}: a ref shows that there was a record: {said}");
        }
        assert_eq!(Snapshot::of(&repo).refs, scene.torn, "{what}: nothing was touched");
        let marker = Scene::marker(&repo);
        let id = marker.extension().and_then(|id| id.to_str()).expect("it names its transaction").to_owned();
        assert_eq!(run_jin(&repo, &["recover", "--acknowledge", &id]).0, 0, "{what}: a human closes it");
        let (_, said) = run_jin(&repo, &["recover"]);
        assert_eq!(run_jin(&repo, &["check"]).0, 0, "{what}: and that is the end of it: {said}");
        repo.git(["commit", "-q", "--allow-empty", "-m", "next"]);
    }
}
