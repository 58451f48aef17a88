use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::fs::durable;
use crate::state::settings::Settings;
use crate::state::{StateDir, TxId, Wait};
use crate::util::clock;
use crate::wal::log::{Flush, Log};
use crate::wal::record::{Body, Checkout, Lsn};
use crate::wal::{head, segments};

struct Fixture {
    _dir: tempfile::TempDir,
    state: StateDir,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let repo = crate::git::Repository {
            git_dir: dir.path().to_owned(),
            common_dir: dir.path().to_owned(),
            ref_format: crate::git::RefFormat::Files,
        };
        let state = StateDir::of(&repo);
        state.create().unwrap();
        Fixture { _dir: dir, state }
    }

    fn log(&self) -> Log<'_> {
        Log::new(&self.state, "boot", Wait::UpTo(Duration::from_secs(5)))
    }

    fn fill(&self, count: u64) {
        for n in 0..count {
            self.log().append(Some(TxId(n + 1)), &Body::Aborted, Flush::No).unwrap();
        }
    }

    fn segment(&self) -> PathBuf {
        segments::path(&self.state, *segments::list(&self.state).unwrap().last().unwrap())
    }

    fn lsns(&self) -> Vec<Lsn> {
        self.log().scan().unwrap().records.iter().map(|r| r.lsn).collect()
    }
}

#[test]
fn records_are_numbered_without_gaps_and_ids_are_never_given_twice() {
    let fixture = Fixture::new();
    fixture.fill(3);
    assert_eq!(fixture.lsns(), [1, 2, 3, 4], "a checkpoint and three records");
    assert_eq!(fixture.log().next_id().unwrap(), TxId(1));
    fs::remove_file_for_test(&head::path(&fixture.state));
    assert_eq!(fixture.log().next_id().unwrap(), TxId(4), "the log itself knows the highest id");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_kept_aside() {
    let fixture = Fixture::new();
    fixture.fill(3);
    let whole = fs::read(fixture.segment()).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last + 1..whole.len() {
        fs::write_for_test(&fixture.segment(), &whole[..cut]);
        fs::remove_file_for_test(&head::path(&fixture.state));
        let lsn = fixture.log().append(None, &Body::Aborted, Flush::No).unwrap();
        assert_eq!(lsn, 4, "cut at {cut}: the torn record's number is free again");
        assert_eq!(fixture.lsns(), [1, 2, 3, 4], "cut at {cut}");
        assert!(fixture.log().scan().unwrap().damage.is_empty(), "a torn tail is no damage");
    }
    let kept = fs::read_dir(fixture.state.quarantine()).unwrap().count();
    assert!(kept > 0, "the torn bytes are kept");
}

#[test]
fn a_bad_line_before_valid_ones_is_damage_and_the_valid_ones_still_count() {
    let fixture = Fixture::new();
    fixture.fill(3);
    let mut bytes = fs::read(fixture.segment()).unwrap();
    let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    bytes[second + 20] ^= 1;
    fs::write_for_test(&fixture.segment(), &bytes);
    let scan = fixture.log().scan().unwrap();
    assert_eq!(scan.records.iter().map(|r| r.lsn).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!((scan.damage.len(), scan.damage[0].offset), (1, second as u64));
}

#[test]
fn a_poisoned_segment_is_never_appended_to() {
    let fixture = Fixture::new();
    fixture.fill(1);
    let before = fixture.segment();
    fixture.log().poison(1).unwrap();
    fixture.fill(1);
    assert_ne!(fixture.segment(), before, "a new segment was begun");
    assert_eq!(fixture.lsns(), [1, 2, 3, 4]);
}

#[test]
fn what_could_not_be_synced_is_written_anew_from_the_first_failure_on() {
    let fixture = Fixture::new();
    fixture.fill(1);
    let first = (fs::File::open(fixture.segment()).unwrap(), fixture.segment());
    // Somebody whose sync failed may find that others have begun a new segment since.
    fixture.log().poison(1).unwrap();
    fixture.fill(1);
    let second = (fs::File::open(fixture.segment()).unwrap(), fixture.segment());
    fixture.log().poison(1).unwrap();
    fixture.log().poison(3).unwrap();
    fixture.fill(1);
    for (old, path) in [first, second] {
        let (old, new) = (old.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert_ne!(old, new, "{} is another file now", path.display());
    }
    assert_eq!(fixture.lsns(), [1, 2, 3, 4, 5, 6], "and nothing of it is lost");
    assert!(fixture.log().scan().unwrap().damage.is_empty());
}

#[test]
fn an_emptied_note_distrusts_the_last_segment() {
    let fixture = Fixture::new();
    fixture.fill(1);
    let before = fixture.segment();
    durable::empty(&head::path(&fixture.state)).unwrap();
    fixture.fill(1);
    assert_ne!(fixture.segment(), before, "a new segment was begun");
    assert_eq!(fixture.lsns(), [1, 2, 3, 4]);
}

#[test]
fn a_rotation_that_was_cut_before_it_was_noted_is_made_again() {
    let fixture = Fixture::new();
    let filler = Body::Checkout(Checkout { from: "x".repeat(5 << 20), ..Checkout::default() });
    fixture.log().append(None, &filler, Flush::No).unwrap();
    let note = fs::read(head::path(&fixture.state)).unwrap();
    fixture.fill(1);
    let cut = fs::read(fixture.segment()).unwrap();
    let checkpoint = cut.iter().position(|b| *b == b'\n').unwrap() + 1;
    for left in [0, checkpoint / 2, checkpoint] {
        fs::write_for_test(&fixture.segment(), &cut[..left]);
        fs::write_for_test(&head::path(&fixture.state), &note);
        fixture.fill(1);
        assert_eq!(fixture.lsns(), [1, 2, 3, 4], "{left} bytes had been written");
    }
}

#[test]
fn a_record_written_but_not_noted_is_found_again() {
    let fixture = Fixture::new();
    fixture.fill(1);
    let note = fs::read(head::path(&fixture.state)).unwrap();
    fixture.fill(1);
    fs::write_for_test(&head::path(&fixture.state), &note);
    fixture.fill(1);
    assert_eq!(fixture.lsns(), [1, 2, 3, 4], "no number is used twice");
}

/// A reader holds no lock: what a writer replaces or drops under its hands is read again, and is no damage.
#[test]
fn a_log_that_is_begun_anew_while_it_is_read_is_read_again() {
    let fixture = Fixture::new();
    fixture.fill(2);
    let mut head = fixture.log().note().unwrap().end().unwrap();
    super::rotate::rotate(&fixture.state, "boot", &mut head).unwrap();
    let mut aside = None;
    let scan = fixture.log().scan_while(|_| {
        aside = aside.take().or_else(|| fixture.log().set_aside().unwrap());
        true
    });
    assert!(aside.is_some(), "the older segment was moved away after the newer one was read");
    let scan = scan.unwrap();
    assert_eq!(scan.damage, []);
    assert_eq!(scan.records.iter().map(|r| r.lsn).collect::<Vec<_>>(), fixture.lsns());
}

#[test]
fn the_log_stays_as_small_as_it_is_told_to() {
    let mut settings = Settings::default();
    settings.set_retention("8m").unwrap();
    let fixture = Fixture::new();
    fixture.state.set_settings(&settings).unwrap();
    let filler = Body::Checkout(Checkout { from: "x".repeat(1 << 20), ..Checkout::default() });
    // Half as much again as it may keep.
    for _ in 0..24 {
        fixture.log().append(None, &filler, Flush::No).unwrap();
    }
    let log = fixture.log();
    let segments = segments::list(&fixture.state).unwrap();
    let size = |s: &Lsn| fs::metadata(segments::path(&fixture.state, *s)).unwrap().len();
    let total: u64 = segments.iter().map(size).sum();
    let most = settings.retained_bytes + 2 * segments::SEGMENT_SIZE;
    assert!(total <= most, "{total} bytes after 24 MiB");
    assert!(total > settings.retained_bytes / 2, "and no more goes than has to: {total} bytes");
    assert!(log.scan().unwrap().damage.is_empty());
}

#[test]
fn what_was_moved_aside_goes_with_the_log_that_explains_it() {
    let fixture = Fixture::new();
    let quarantine = fixture.state.quarantine();
    let long_ago = clock::unix_time() - Settings::default().retained_seconds - 1;
    let names = ["run.tx-1", "index.lock"].map(|what| [long_ago, clock::unix_time()].map(|t| format!("{t}-{what}")));
    for [old, new] in &names {
        for name in [old, new] {
            durable::create_dirs(&quarantine.join(name).join("kept"), 0o777).unwrap();
        }
    }
    fs::write_for_test(&quarantine.join(format!("{long_ago}-file")), b"kept");
    let filler = Body::Checkout(Checkout { from: "x".repeat(1 << 20), ..Checkout::default() });
    while segments::list(&fixture.state).unwrap().len() < 2 {
        fixture.log().append(None, &filler, Flush::No).unwrap();
    }
    let mut left: Vec<_> =
        fs::read_dir(&quarantine).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let mut expected: Vec<_> = names.map(|[_, new]| new).into();
    expected.sort();
    assert_eq!(left, expected);
}

/// Tests damage files on purpose; everything else goes through `durable`.
mod fs {
    #![allow(clippy::disallowed_methods)]
    pub use std::fs::*;

    pub fn write_for_test(path: &std::path::Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
    }

    pub fn remove_file_for_test(path: &std::path::Path) {
        std::fs::remove_file(path).unwrap();
    }
}
