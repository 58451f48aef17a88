//! Somebody works in the repository while a rescue looks, or carries out: nothing of that is lost.

use super::damage::{remove, write};
use crate::support::crash::jin;
use crate::support::repo::{Options, Repo, text, write_file};
use crate::support::tracer::{self, Action, Event, Isolation};

/// Rescues with a git that commits when it is first asked about a pack: `times` times.
fn rescue_while_committing(repo: &Repo, times: usize) -> (Option<i32>, String) {
    let (programs, count) = (repo.scratch().join("programs"), repo.scratch().join("count"));
    let path = std::env::var("PATH").unwrap();
    let commit = "git -c user.name=x -c user.email=x@x commit -q --allow-empty -m meanwhile";
    write_file(
        &programs.join("git"),
        &format!(
            "#!/bin/sh\nPATH='{path}'\ncase \"$*\" in *verify-pack*)\nif [ \"$(cat '{count}' 2>/dev/null | wc -l)\" -lt {times} ]; then\n\
             echo >>'{count}'; (cd '{}' && unset GIT_DIR GIT_WORK_TREE && {commit}) >/dev/null 2>&1; fi;;\nesac\nexec git \"$@\"\n",
            repo.path().display(),
            count = count.display()
        ),
        0o755,
    );
    let mut command = jin(repo, &["rescue", "--yes"]);
    command.env("PATH", format!("{}:{path}", programs.display()));
    let output = command.output().unwrap();
    (output.status.code(), text(&output.stderr).into_owned())
}

#[test]
fn commits_that_are_made_while_a_rescue_looks_stay() {
    for (times, code) in [(1, 0), (100, 5)] {
        let repo = Repo::new(Options::default());
        repo.commit_all("one");
        repo.git(["gc", "-q"]);
        let (found, said) = rescue_while_committing(&repo, times);
        assert_eq!(found, Some(code), "{said}");
        let subjects = repo.read(["log", "--format=%s"]);
        assert!(subjects.starts_with("meanwhile\n"), "{subjects}\n{said}");
        assert!(!repo.git_dir().join("jin-rescue").exists(), "nothing is done");
        repo.git(["fsck"]);
    }
}

#[test]
fn a_ref_that_is_moved_after_the_diagnosis_is_not_replaced() {
    let repo = Repo::new(Options::default());
    let first = repo.commit_all("one");
    repo.git(["branch", "topic"]);
    let second = repo.commit_all("two");
    write(&repo, "refs/heads/topic", b"damaged\n");
    let mut is_moved = false;
    let mut decide = |event: &Event| {
        let is_carried_out = event.path.as_deref().is_some_and(|path| path.ends_with("jin-rescue/quarantine"));
        if is_carried_out && !is_moved {
            is_moved = true;
            remove(&repo, "refs/heads/topic");
            repo.git(["update-ref", "refs/heads/topic", &second]);
        }
        Action::Continue
    };
    tracer::trace(jin(&repo, &["rescue", "--yes"]), b"", Isolation::None, &mut decide).expect("it starts");
    assert!(is_moved);
    assert_ne!(first, second);
    assert_eq!(repo.read(["rev-parse", "topic"]), second);
}
