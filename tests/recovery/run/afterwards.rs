//! What a person does between the crash of a run and its recovery.

use std::fs;
use std::time::{Duration, Instant};

use super::restoring::{guarded, kill_script, quarantined};
use crate::support::crash::run_jin;
use crate::support::repo::text;
use crate::support::scenes::Whole;
use crate::support::wait::wait_until;

/// What changes later than three seconds after the last sign of a run's life was changed by somebody else. Times of status changes
/// cannot be set.
fn let_the_last_heartbeat_pass() {
    let killed = Instant::now();
    wait_until("the run has been dead for a while", || killed.elapsed() > Duration::from_millis(4500));
}

/// Nothing but the index shows it, and git writes that whenever somebody looks.
#[test]
fn what_was_staged_after_the_crash_is_not_replaced_before_a_human_says_so() {
    for answer in ["--take-back", "--acknowledge"] {
        let repo = guarded();
        repo.write("mine", "not staged yet\n");
        let before = Whole::of(&repo);
        kill_script(&repo, "echo script >file; git add file; : now");
        let_the_last_heartbeat_pass();
        repo.git(["add", "mine"]);
        let staged = fs::read(repo.git_dir().join("index")).expect("it is there");
        for _ in 0..2 {
            let (code, said) = run_jin(&repo, &["recover"]);
            assert_eq!(code, 4, "{said}");
            let options = ["--take-back tx-3", "--acknowledge tx-3"];
            assert!(options.iter().any(|option| said.contains(option)), "{said}");
        }
        assert_eq!(fs::read(repo.git_dir().join("index")).expect("it is there"), staged, "it is not touched");
        let (code, said) = run_jin(&repo, &["recover", answer, "tx-3"]);
        assert_eq!((code, run_jin(&repo, &["check"]).0), (0, 0), "{said}");
        if answer == "--acknowledge" {
            assert!(repo.read(["ls-files"]).contains("mine"), "it is staged still");
            continue;
        }
        let now = Whole::of(&repo);
        assert!(now == before, "{}", now.differences(&before));
        assert!(quarantined(&repo).contains(&text(&staged).into_owned()), "the index that made way is kept");
        assert!(repo.jin(&["show", "tx-3"]).contains("quarantine"), "and named");
    }
}

/// git refreshes the index then: what is in it stays the run's.
#[test]
fn a_run_goes_back_by_itself_when_somebody_has_only_looked_since_its_crash() {
    let repo = guarded();
    let before = Whole::of(&repo);
    kill_script(&repo, "echo script >file; git add file; : now");
    let_the_last_heartbeat_pass();
    let index = repo.git_dir().join("index");
    let written = fs::read(&index).expect("it is there");
    // Times that the index does not have, in a file that has not changed.
    let touched = std::time::SystemTime::now() - Duration::from_secs(3 * 3600);
    fs::File::options()
        .write(true)
        .open(repo.path().join("dir/inner"))
        .and_then(|f| f.set_modified(touched))
        .expect("x");
    repo.git(["status"]);
    assert_ne!(fs::read(&index).expect("it is there"), written, "git has refreshed it");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert_eq!(code, 0, "{said}");
    let now = Whole::of(&repo);
    assert!(now == before, "{}", now.differences(&before));
}
