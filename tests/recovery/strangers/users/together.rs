//! Two users of one group work in the same repositories, with umasks of 077 and 022, are killed, and recover each other.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use super::{ALICE, BOB, GROUP, User, chmod, is_root, open, recovers, succeeds, walk};
use crate::support::crash::{self, is_ref_rename, nth};
use crate::support::invariants;
use crate::support::repo::{Options, Repo, text};
use crate::support::tracer::{self, Action, Event, Role};

/// A bare repository and one with a worktree, shared by the group, and a clone for each of the two.
struct Scene {
    bare: Repo,
    worktree: Repo,
    clones: [Repo; 2],
}

const USERS: [User; 2] = [ALICE, BOB];

impl Scene {
    fn new() -> Scene {
        let worktree = Repo::new(Options::default());
        open(&worktree);
        worktree.git(["config", "core.sharedRepository", "group"]);
        worktree.commit_all("one");
        let bare = worktree.new_sibling("bare.git", Options { bare: true, ..Options::default() });
        bare.git(["config", "core.sharedRepository", "group"]);
        worktree.git(["push", "-q", "../bare.git", "HEAD:refs/heads/main"]);
        for repo in [&worktree, &bare] {
            share(repo.path());
        }
        let clones = ["alice", "bob"].map(|name| {
            worktree.git(["clone", "-q", "../bare.git", &format!("../{name}")]);
            worktree.sibling(name)
        });
        for (user, clone) in USERS.iter().zip(&clones) {
            walk(clone.path()).iter().for_each(|it| lchown(it, Some(user.uid), Some(user.uid)).expect("root gives"));
            succeeds(user.jin(clone, &["install"]));
        }
        // One of them installs for both.
        succeeds(ALICE.jin(&bare, &["install"]));
        succeeds(BOB.jin(&worktree, &["install"]));
        Scene { bare, worktree, clones }
    }

    /// Nobody is shut out of anything of ours, and no crash has left anything.
    fn assert_calm(&self, when: &str) {
        for repo in [&self.bare, &self.worktree] {
            for path in walk(&repo.git_dir().join(".jin")) {
                let found = fs::symlink_metadata(&path).expect("it is there");
                let wanted = if found.is_dir() { 0o770 } else { 0o660 };
                let mode = found.mode() & 0o777;
                assert_eq!(found.gid(), GROUP, "{when}: {} is the group's", path.display());
                // Files that were moved aside, and other names of git's own, are as git has made them.
                let is_below = |dir| path.components().any(|part| part.as_os_str() == dir);
                let is_ours = found.nlink() == 1 && !is_below("quarantine") && !is_below("kept");
                assert!(!is_ours || mode == wanted, "{when}: {} has mode {mode:o}", path.display());
                let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
                let is_left =
                    name.starts_with(".transaction_") || name.starts_with("tmp.") || name.contains(".jin-tmp.");
                assert!(!is_left, "{when}: {} is left", path.display());
            }
            assert_eq!(invariants::locks(&repo.git_dir()), Vec::<std::path::PathBuf>::new(), "{when}: no lock is left");
            let transactions = fs::read_dir(repo.git_dir().join(".jin/tx")).expect("it can be listed");
            assert_eq!(transactions.count(), 0, "{when}: no transaction has left files");
        }
    }
}

/// Gives a directory to the group, as `git init --shared` makes it.
fn share(root: &Path) {
    for path in walk(root) {
        lchown(&path, None, Some(GROUP)).expect("root gives");
        let mode = fs::symlink_metadata(&path).expect("it is there").mode() & 0o777;
        let is_dir = path.is_dir();
        chmod(&path, mode | if is_dir { 0o2070 } else { 0o060 });
    }
}

/// What a seed makes of it: the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("it is small")
    }
}

/// What one of the two does.
fn operation(scene: &Scene, who: usize, round: usize, kind: usize) -> (&Repo, std::process::Command) {
    let (user, clone) = (USERS[who], &scene.clones[who]);
    let branch = format!("branch-{}", round % 3);
    let message = format!("round {round}");
    match kind {
        0 | 1 => {
            succeeds(user.git(clone, &["commit", "-q", "--allow-empty", "-m", &message]));
            let target = format!("HEAD:refs/heads/{branch}");
            (&scene.bare, user.git(clone, &["push", "-q", "--force", "../bare.git", &target]))
        }
        2 => (&scene.bare, user.git(&scene.bare, &["update-ref", &format!("refs/heads/new/{branch}"), "main"])),
        3 => (&scene.bare, user.git(&scene.bare, &["update-ref", "-d", &format!("refs/heads/new/{branch}")])),
        4 => (&scene.worktree, user.git(&scene.worktree, &["branch", "-f", &branch])),
        _ => (&scene.worktree, user.git(&scene.worktree, &["commit", "-q", "--allow-empty", "-m", &message])),
    }
}

#[test]
fn two_users_of_one_group_work_are_killed_and_recover_each_other_and_nobody_is_refused() {
    const OPERATIONS: usize = 200;
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut killed = 0;
    for round in 0..OPERATIONS {
        let (who, kind, fate, place) = (dice.roll(2), dice.roll(6), dice.roll(4), 1 + dice.roll(12));
        let (repo, command) = operation(&scene, who, round, kind);
        if fate > 0 {
            succeeds(command);
            continue;
        }
        // At a call of a hook in that repository, or at the rename of a ref.
        let here = repo.git_dir();
        let is_here = |path: &Option<std::path::PathBuf>| path.as_deref().is_some_and(|path| path.starts_with(&here));
        let wanted = |event: &Event| (event.role == Role::Hook && is_here(&event.path)) || is_ref_rename(event);
        let mut chosen = nth(place, wanted);
        let mut decide = |event: &Event| if chosen(event) { Action::KillTree } else { Action::Continue };
        let outcome = tracer::trace(command, b"", tracer::Isolation::None, &mut decide).expect("setpriv starts");
        let Some(at) = outcome.killed else {
            assert!(outcome.status.success(), "round {round}: {}", text(&outcome.stderr));
            continue;
        };
        killed += 1;
        let other = USERS[1 - who];
        recovers(repo, other);
        scene.assert_calm(&format!("round {round}, {:?} was killed at {at:?}", USERS[who]));
    }
    assert!(killed > 20, "{killed} were killed");
    for (user, clone) in USERS.iter().zip(&scene.clones) {
        recovers(clone, *user);
        recovers(&scene.bare, *user);
        recovers(&scene.worktree, *user);
    }
    scene.assert_calm("in the end");
    for repo in [&scene.bare, &scene.worktree] {
        crash::assert_fsck(repo);
    }
}

#[test]
fn a_marker_of_a_colleague_is_read_whatever_his_umask_and_his_work_is_recovered() {
    if !is_root() {
        return;
    }
    for (one, other) in [(ALICE, BOB), (BOB, ALICE)] {
        let scene = Scene::new();
        let killed = one.git(&scene.bare, &["update-ref", "refs/heads/torn", "main"]);
        crash::kill_at(killed, "", Action::KillTree, is_ref_rename);
        // Without a command of ours: a push, whose hooks recover.
        let clone = &scene.clones[usize::from(other.uid == BOB.uid)];
        succeeds(other.git(clone, &["push", "-q", "../bare.git", "HEAD:refs/heads/another"]));
        recovers(&scene.bare, other);
        scene.assert_calm(&format!("{one:?} was killed"));
        succeeds(one.git(&scene.bare, &["update-ref", "refs/heads/torn", "main"]));
    }
}
