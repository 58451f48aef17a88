//! What a run leaves running: daemons that take no lock keep no rollback waiting; of anything else the way out is named.

use nix::sys::signal::Signal;

use super::processes::{Gate, end, send, start};
use super::restoring::guarded;
use crate::support::crash::{run_jin, value};
use crate::support::observe::shown;
use crate::support::repo::{Git, Repo};
use crate::support::scenes::Whole;
use crate::support::wait::wait_until;

/// Leaves a process with the program file of an agent, and one that it has started.
const AGENT: &str = "cp /bin/bash ../gpg-agent; (setsid ../gpg-agent -c 'cat ../gate; true' >/dev/null 2>&1 &); ";

/// As the master of a shared connection calls itself.
const MASTER: &str = "cp /bin/cat ../ssh; (exec setsid bash -c 'exec -a \"ssh: /run/master [mux]\" ../ssh ../gate' \
                      >/dev/null 2>&1 &); ";

/// A real one, which git starts by itself.
const CACHE: &str = "printf 'protocol=https\\nhost=h\\nusername=u\\npassword=p\\n' | git credential-cache store; ";

fn end_cache(repo: &Repo) {
    repo.try_git(["credential-cache", "exit"]);
}

/// Whether the cache, which has its socket in the test's home, still answers.
fn cache_answers(repo: &Repo) -> bool {
    let asked = repo.run(
        Git::under_test().program.as_os_str(),
        repo.path(),
        ["credential-cache", "get"],
        b"protocol=https\nhost=h\n",
    );
    asked.stdout.windows(10).any(|word| word == b"password=p")
}

#[test]
fn a_daemon_that_takes_no_lock_keeps_no_rollback_waiting() {
    for (kind, leave) in [("an agent", AGENT), ("a master", MASTER), ("a credential cache", CACHE)] {
        let repo = guarded();
        repo.git(["config", "jin.runGrace", "1"]);
        let gate = Gate::new(&repo);
        let before = Whole::of(&repo);
        let script = format!("{leave}echo changed >file; git tag t; exit 9");
        let (code, said) = run_jin(&repo, &["run", "--", "bash", "-c", &script]);
        assert_eq!(code, 9, "{kind}: {said}");
        let after = Whole::of(&repo);
        assert!(after == before, "{kind}: {}", after.differences(&before));
        if leave == CACHE {
            assert!(cache_answers(&repo), "it lives on");
            end_cache(&repo);
        } else {
            gate.open();
        }
    }
}

#[test]
fn a_run_whose_runner_was_killed_goes_back_beside_the_daemon_that_it_left() {
    for (kind, leave) in [("an agent", AGENT), ("a credential cache", CACHE)] {
        let repo = guarded();
        let gate = Gate::new(&repo);
        let before = Whole::of(&repo);
        // The script ends with the reader of its fifo.
        let script = format!("{leave}echo changed >file; git tag t; echo >../started; exec sleep 600");
        let child = start(&repo, &script);
        wait_until("it sleeps", || sleeper(&child).is_some());
        let sleeping = sleeper(&child).expect("it is there");
        send(&child, Signal::SIGKILL);
        end(&repo, child);
        assert_eq!(run_jin(&repo, &["check"]).0, 5, "{kind}: its script is at work");
        nix::sys::signal::kill(sleeping, Signal::SIGKILL).expect("it sleeps");
        wait_until("its end has come", || run_jin(&repo, &["check"]).0 != 5);
        let (code, said) = run_jin(&repo, &["recover"]);
        assert_eq!(code, 0, "{kind}: {said}");
        let after = Whole::of(&repo);
        assert!(after == before, "{kind}: {}", after.differences(&before));
        if leave == CACHE {
            assert!(cache_answers(&repo), "it lives on");
            end_cache(&repo);
        } else {
            gate.open();
        }
    }
}

/// The child of a runner, when it has become `sleep`.
fn sleeper(runner: &std::process::Child) -> Option<nix::unistd::Pid> {
    let tasks = format!("/proc/{0}/task/{0}/children", runner.id());
    let children = std::fs::read_to_string(tasks).ok()?;
    let is_it = |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
    let pid: i32 = children.split_ascii_whitespace().find(is_it)?.parse().ok()?;
    Some(nix::unistd::Pid::from_raw(pid))
}

/// A server of the user's, say. It has a session of its own, and never ends.
#[test]
fn beside_what_is_left_for_ever_a_person_can_take_the_run_back_or_leave_it() {
    for answer in ["--take-back", "--acknowledge"] {
        let repo = guarded();
        repo.git(["config", "jin.runGrace", "0"]);
        let gate = Gate::new(&repo);
        let before = Whole::of(&repo);
        let script = "(setsid cat ../gate >/dev/null 2>&1 &); echo x >file; git tag t; exit 9";
        let output = repo.jin_txn(["run", "--", "bash", "-c", script]);
        let (code, said) = (output.status.code(), shown(&repo, &output));
        assert_eq!(code, Some(5), "{said}");
        for words in ["it has left", "git txn recover --take-back tx-3", "--acknowledge tx-3"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let (code, said) = run_jin(&repo, &["recover"]);
        assert!(code == 5 && said.contains("cat ../gate (pid ") && said.contains("--take-back tx-3"), "{code} {said}");
        let (code, said) = run_jin(&repo, &["recover", answer, "tx-3"]);
        assert_eq!(code, 0, "{answer}: {said}");
        assert_eq!(run_jin(&repo, &["check"]).0, 0, "nothing waits any more");
        if answer == "--take-back" {
            let after = Whole::of(&repo);
            assert!(after == before, "{}", after.differences(&before));
        } else {
            assert_ne!(value(&repo, "t"), "", "it is left as it is");
        }
        gate.open();
    }
}

/// As long as its runner lives, nobody else takes a run back.
#[test]
fn a_run_that_is_at_work_is_not_taken_back_whoever_says_so() {
    let repo = guarded();
    let gate = Gate::new(&repo);
    let child = start(&repo, "echo changed >file; git tag t; echo >../started; cat ../gate");
    for arguments in [["recover", "--take-back", "tx-3"], ["recover", "--acknowledge", "tx-3"]] {
        let (code, said) = run_jin(&repo, &arguments);
        assert_ne!(code, 0, "{arguments:?}: {said}");
    }
    assert_ne!(value(&repo, "t"), "", "nothing was taken back");
    gate.open();
    assert_eq!(end(&repo, child).0, Some(0));
    assert_ne!(value(&repo, "t"), "", "it is kept");
}
