//! Every state in which recovery ends without success names the command that ends it.

use std::fs;

use crate::support::crash::{self, kill_at, run_jin, unseen_git, value};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::Repo;
use crate::support::tracer::Action;

use super::dead_ends::{flip, segment, state};
use super::{Torn, guarded, leave_stale_lock};

/// Does what the hints say until `check` is content.
#[track_caller]
pub fn ends_by_its_own_hints(repo: &Repo, name: &str) {
    const STEPS: usize = 5;
    let mut story = Vec::new();
    let mut next = vec!["recover".to_owned()];
    for _ in 0..STEPS {
        let_the_clock_tick(&repo.git_dir());
        let words: Vec<&str> = next.iter().map(String::as_str).collect();
        let (ended, told) = run_jin(repo, &words);
        story.push(format!("{words:?}: {ended}: {told}"));
        let (code, mut said) = run_jin(repo, &["check"]);
        if ended != 0 && told.contains("hint: ") {
            said = told;
        }
        if code == 0 {
            let (code, said) = run_jin(repo, &["recover"]);
            assert_eq!(code, 0, "{name}: {said}\n{story:#?}");
            repo.git(["commit", "-q", "--allow-empty", "-m", "life goes on"]);
            return;
        }
        if crash::outlive_stranger(repo, &said) {
            continue;
        }
        next = hinted(&said).unwrap_or_else(|| panic!("{name}: no command in a hint: {said}\n{story:#?}"));
        story.push(said);
    }
    panic!("{name}: no way out: {story:#?}");
}

/// The last command of the last hint: the one that ends it, whatever the others try.
fn hinted(said: &str) -> Option<Vec<String>> {
    let hint = said.lines().rfind(|line| line.starts_with("hint: "))?;
    let command = hint.split('`').rfind(|part| part.starts_with("git txn "))?;
    Some(command.split(' ').skip(2).map(str::to_owned).collect())
}

/// Exit code 3: nobody is needed, but somebody has to say so.
#[test]
fn what_check_finds_interrupted_is_ended_by_the_command_that_its_hint_names() {
    type State = (&'static str, fn() -> Repo);
    let states: &[State] = &[
        ("a torn update", || Torn::new().repo),
        ("a run", killed_run),
        ("a lock of a dead git", || {
            let repo = guarded();
            leave_stale_lock(&repo, "index.lock");
            repo
        }),
        ("a branch without its new name", || {
            let repo = guarded();
            let command = crash::git(&repo, &["branch", "-m", "new"]);
            kill_at(command, "", Action::KillTree, |event| crash::is_rename_to(event, "refs/heads/new"));
            let_the_clock_tick(&repo.git_dir());
            repo
        }),
    ];
    for (name, make) in states {
        let repo = make();
        let (code, said) = run_jin(&repo, &["check"]);
        assert_eq!(code, 3, "{name}: {said}");
        let command = hinted(&said).unwrap_or_else(|| panic!("{name}: no command in a hint: {said}"));
        let (code, told) = run_jin(&repo, &command.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, 0, "{name}: {command:?}: {told}");
        let (code, said) = run_jin(&repo, &["check"]);
        assert_eq!(code, 0, "{name}: {said}");
        repo.git(["commit", "-q", "--allow-empty", "-m", "life goes on"]);
    }
}

/// A run that cannot be taken back is not begun.
#[test]
fn what_keeps_a_run_from_beginning_is_ended_by_what_its_message_names() {
    type Row = (&'static str, fn(&Repo), &'static str, fn(&Repo));
    let rows: &[Row] = &[
        (
            "an index that cannot be read",
            |repo| fs::write(repo.git_dir().join("index"), "garbage").expect("it can be written"),
            "`git reset`",
            |repo| {
                fs::rename(repo.git_dir().join("index"), repo.scratch().join("index")).expect("it is there");
                repo.git(["reset", "-q"]);
            },
        ),
        (
            "nothing that protects it",
            |repo| drop(repo.jin(&["uninstall", "-q"])),
            "`jin-txn install`",
            |repo| drop(repo.jin(&["install", "-q"])),
        ),
        (
            "a directory where a lock is taken",
            |repo| fs::create_dir(repo.git_dir().join("index.lock")).expect("it can be made"),
            "try again when it has ended",
            |repo| fs::remove_dir(repo.git_dir().join("index.lock")).expect("it is there"),
        ),
    ];
    for (name, spoil, named, mend) in rows {
        let repo = guarded();
        spoil(&repo);
        let (code, said) = run_jin(&repo, &["run", "--", "touch", "made"]);
        assert!(code != 0 && said.contains(named), "{name}: {code}: {said}");
        assert!(!repo.path().join("made").exists(), "{name}: nothing was run");
        mend(&repo);
        let (code, said) = run_jin(&repo, &["run", "--", "touch", "made"]);
        assert_eq!(code, 0, "{name}: {said}");
        assert_eq!(run_jin(&repo, &["check"]).0, 0, "{name}");
    }
}

/// A run that was killed with its tree after it had committed and changed a file.
fn killed_run() -> Repo {
    let repo = guarded();
    let mut command = crash::jin(&repo, &["run", "--", "sh", "-ec"]);
    command.arg("echo two >file; git commit -qam two; echo >../now");
    kill_at(command, "", Action::KillTree, |event| event.path.as_deref().is_some_and(|path| path.ends_with("now")));
    let_the_clock_tick(&repo.git_dir());
    repo
}

#[test]
fn every_state_in_which_recovery_ends_has_a_way_out_that_its_hint_names() {
    type State = (&'static str, fn() -> Repo);
    let states: &[State] = &[
        ("another writer's value", || {
            let torn = Torn::new();
            let third = crash::spare_commit(&torn.repo, "third");
            unseen_git(&torn.repo, &["update-ref", "refs/heads/b1", &third]);
            torn.repo
        }),
        ("a damaged log", || {
            let repo = guarded();
            flip(&repo);
            repo
        }),
        ("no log", || {
            let repo = guarded();
            fs::remove_dir_all(state(&repo).join("wal")).expect("there is one");
            repo
        }),
        ("a directory in the place of a segment", || {
            let torn = Torn::new();
            let segment = segment(&torn.repo);
            fs::remove_file(&segment).expect("it is there");
            fs::create_dir(&segment).expect("it can be made");
            torn.repo
        }),
        ("a torn update and garbage for a log", || {
            let torn = Torn::new();
            fs::write(segment(&torn.repo), vec![0xA5; 10_000]).expect("it can be written");
            torn.repo
        }),
        ("a torn update and a damaged marker", || {
            let torn = Torn::new();
            let marker = fs::read_dir(state(&torn.repo)).expect("it is there").flatten().map(|entry| entry.path());
            let mut markers = marker.filter(|path| path.display().to_string().contains(".transaction_"));
            fs::write(markers.next().expect("there is one"), "{").expect("it can be written");
            flip(&torn.repo);
            torn.repo
        }),
        ("a run, and files that changed later", || {
            let repo = killed_run();
            let file = fs::File::options().append(true).open(repo.path().join("file")).expect("it is there");
            std::thread::sleep(std::time::Duration::from_millis(3600));
            file.set_modified(std::time::SystemTime::now()).expect("it can be touched");
            repo
        }),
        ("a run, and its snapshot is gone", || {
            let repo = killed_run();
            fs::remove_dir_all(state(&repo).join("tx")).expect("there is one");
            repo
        }),
        ("a run, and the log is damaged", || {
            let repo = killed_run();
            flip(&repo);
            repo
        }),
        ("a run, and the log is gone", || {
            let repo = killed_run();
            fs::remove_dir_all(state(&repo).join("wal")).expect("there is one");
            repo
        }),
        ("a run, and a ref that git will not write", || {
            let repo = killed_run();
            fs::create_dir(repo.git_dir().join("refs/heads/main.lock")).expect("it can be made");
            repo
        }),
    ];
    for (name, make) in states {
        let repo = make();
        let (code, said) = run_jin(&repo, &["recover"]);
        assert!([1, 4, 5].contains(&code), "{name}: without that this proves nothing: {code}: {said}");
        // What keeps git out passes, and has to be what the hint does not rest on.
        fs::remove_dir(repo.git_dir().join("refs/heads/main.lock")).ok();
        ends_by_its_own_hints(&repo, name);
        assert_ne!(value(&repo, "HEAD"), "", "{name}");
    }
}

#[test]
fn a_run_that_recovery_cannot_end_can_be_closed_although_nobody_was_asked_yet() {
    let repo = killed_run();
    let lock = repo.git_dir().join("refs/heads/main.lock");
    fs::create_dir(&lock).expect("it can be made");
    let (code, said) = run_jin(&repo, &["recover"]);
    assert!(code == 5 && said.contains("recover --acknowledge tx-2"), "{code}: {said}");
    let (code, said) = run_jin(&repo, &["recover", "--acknowledge", "tx-2"]);
    assert_eq!(code, 0, "{said}");
    fs::remove_dir(&lock).expect("it is there");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}
