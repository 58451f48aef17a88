//! Runs that are killed at every file-system change: afterwards everything is as before, or as after.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::crash::{assert_fsck, recover, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::Repo;
use crate::support::scenes::{ALL, Scene, Whole};
use crate::support::tracer::{self, Action, Event, Isolation};
use crate::support::{invariants, snapshot, table};

/// How many places of a scene are killed by default; `JIN_KILL=all` takes all.
const PLACES: usize = 4;

/// How many places of a recovery.
const IN_RECOVERY: usize = 4;

/// Who is killed.
const VICTIMS: [(&str, Action); 4] =
    [("tree", Action::KillTree), ("one", Action::KillOne), ("git", Action::KillGit), ("jin-txn", Action::KillHook)];

struct Bench {
    scene: &'static Scene,
    template: Repo,
    before: Whole,
    after: Whole,
    events: usize,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let scene = ALL.iter().find(|scene| scene.name == name).expect("the scene is in the list");
        let template = scene.template();
        let repo = fresh(&template);
        let before = Whole::of(&repo);
        let mut events = 0;
        let outcome = trace(scene, &repo, &mut |_| {
            events += 1;
            Action::Continue
        });
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert_eq!(outcome.status.success(), scene.succeeds, "{name}, undisturbed: {said}");
        let after = Whole::of(&repo);
        if scene.succeeds {
            assert_ne!(before, after, "{name} changes something");
        } else {
            assert_eq!(before, after, "{name} fails, and leaves no trace:\n  {}\n{said}", after.differences(&before));
        }
        // Work of a git that comes after its transaction (`branch -m`) is settled by the next command.
        run_jin(&repo, &["recover"]);
        assert!(left_behind(&repo).is_empty(), "{name} leaves nothing behind: {:?}", left_behind(&repo));
        Bench { scene, template, before, after, events }
    }

    /// Kills at `place`, recovers, and says what is wrong then.
    fn kill(&self, (who, action): (&str, Action), place: usize) -> Option<String> {
        let repo = fresh(&self.template);
        let mut fatal = String::new();
        let outcome = trace(self.scene, &repo, &mut |event| {
            if event.n != place {
                return Action::Continue;
            }
            fatal = event.to_string();
            action
        });
        let ended = outcome.status;
        let wrong = self.judge(&repo);
        repo.discard();
        wrong.map(|wrong| format!("{}:{who}:{place}: killed before {fatal} ({ended})\n  {wrong}", self.scene.name))
    }

    fn judge(&self, repo: &Repo) -> Option<String> {
        let (code, said) = recover(repo);
        if code != 0 {
            return Some(format!("recover ends with {code}: {said}"));
        }
        let found = Whole::of(repo);
        if found != self.before && found != self.after {
            return Some(format!("neither before nor after: {}\nrecover: {said}", found.differences(&self.before)));
        }
        let left = left_behind(repo);
        if !left.is_empty() {
            return Some(format!("left behind: {left:?}"));
        }
        let once = snapshot::contents(repo.scratch());
        run_jin(repo, &["recover"]);
        if once != snapshot::contents(repo.scratch()) {
            return Some("a second recovery changes something".to_owned());
        }
        assert_fsck(repo);
        None
    }
}

fn trace(scene: &Scene, repo: &Repo, decide: &mut dyn FnMut(&Event) -> Action) -> tracer::Outcome {
    tracer::trace(scene.run(repo), b"", Isolation::None, decide).expect("jin-txn starts")
}

fn fresh(template: &Repo) -> Repo {
    let repo = template.copy();
    repo.install_guard();
    repo
}

/// Locks, markers, staged copies, packs that are kept.
fn left_behind(repo: &Repo) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(invariants::judge_locks(repo, &|_| true).map(|v| v.detail));
    left.extend(invariants::judge_markers(repo).map(|v| v.detail));
    let below = |dir: &str| snapshot::walk(&repo.git_dir().join(dir), &|_| true);
    left.extend(below(".jin/tx").into_iter().map(|path| path.display().to_string()));
    let keeps = below("objects/pack").into_iter().filter(|path| path.extension().is_some_and(|e| e == "keep"));
    left.extend(keeps.map(|path| path.display().to_string()));
    left
}

/// Every `stride`-th place for each victim, by two threads.
fn nothing_is_bad(name: &str) {
    let bench = Bench::new(name);
    let stride = table::stride("JIN_KILL", bench.events.div_ceil(PLACES));
    let mut points = Vec::new();
    for (index, victim) in VICTIMS.into_iter().enumerate() {
        // The victims take turns, so that together they come to different places.
        let stride = if stride == 1 { 1 } else { stride * VICTIMS.len() };
        let first = 1 + (index * stride / VICTIMS.len() + table::start(name, stride, "JIN_KILL_SEED")) % stride;
        points.extend((first..=bench.events).step_by(stride).map(|place| (victim, place)));
    }
    if let Some(wanted) = table::wanted_point() {
        // `rebase:tree:85`, by the words of a failure.
        let every = VICTIMS.into_iter().flat_map(|victim| (1..=bench.events).map(move |place| (victim, place)));
        points = every.filter(|((who, _), place)| wanted == format!("{name}:{who}:{place}")).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut bad = Vec::new();
        while let Some((victim, place)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            bad.extend(bench.kill(*victim, *place));
        }
        bad
    };
    let workers = table::workers(1);
    let bad: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("a worker does not panic")).collect()
    });
    println!("run {name}: {} points at {} places, {} bad", points.len(), bench.events, bad.len());
    println!("torture: kills={} violations={}", points.len(), bad.len());
    assert!(bad.is_empty(), "{} of {} points are bad:\n{}", bad.len(), points.len(), bad.join("\n"));
}

macro_rules! scenes {
    ($($test:ident $name:literal;)*) => {
        $(#[test]
        fn $test() {
            nothing_is_bad($name);
        })*
    };
}

scenes! {
    a_kill_anywhere_in_a_script_leaves_all_or_nothing_of_it "script";
    a_kill_anywhere_in_a_script_that_no_hook_sees_leaves_nothing_of_it "blind-script";
    a_kill_anywhere_in_a_script_that_fails_leaves_nothing_of_it "failing-script";
    a_kill_anywhere_in_a_switch_leaves_all_or_nothing_of_it "switch";
    a_kill_anywhere_in_a_merge_leaves_all_or_nothing_of_it "merge";
    a_kill_anywhere_in_a_rebase_of_a_stack_leaves_all_or_nothing_of_it "rebase";
    a_kill_anywhere_in_a_rebase_that_conflicts_leaves_nothing_of_it "rebase-conflict";
    a_kill_anywhere_in_a_cherry_pick_leaves_all_or_nothing_of_it "cherry-pick";
    a_kill_anywhere_in_a_stash_push_leaves_all_or_nothing_of_it "stash-push";
    a_kill_anywhere_in_a_stash_pop_leaves_all_or_nothing_of_it "stash-pop";
    a_kill_anywhere_in_a_hard_reset_leaves_all_or_nothing_of_it "reset-hard";
    a_kill_anywhere_in_a_branch_rename_leaves_all_or_nothing_of_it "branch-m";
}

#[test]
fn a_recovery_of_a_run_that_is_killed_anywhere_comes_to_the_same_end() {
    let bench = Bench::new("failing-script");
    // The merge stops at a conflict: nearly everything has happened then.
    let torn = || {
        let repo = fresh(&bench.template);
        trace(bench.scene, &repo, &mut |event| {
            let merges = event.path.as_deref().is_some_and(|path| path.ends_with("MERGE_HEAD"));
            if merges { Action::KillTree } else { Action::Continue }
        });
        assert_ne!(Whole::of(&repo), bench.before, "without damage this test proves nothing");
        let_the_clock_tick(&repo.git_dir());
        repo
    };
    let recover = |repo: &Repo, decide: &mut dyn FnMut(&Event) -> Action| {
        let command = crate::support::crash::jin(repo, &["recover"]);
        tracer::trace(command, b"", Isolation::None, decide).expect("jin-txn starts")
    };
    let mut events: usize = 0;
    recover(&torn(), &mut |_| {
        events += 1;
        Action::Continue
    });
    let stride = table::stride("JIN_KILL", events.div_ceil(IN_RECOVERY));
    let mut bad = Vec::new();
    for place in (1 + table::seed("JIN_KILL_SEED") % stride..=events).step_by(stride) {
        let repo = torn();
        recover(&repo, &mut |event| if event.n == place { Action::KillTree } else { Action::Continue });
        bad.extend(bench.judge(&repo).map(|wrong| format!("killed at {place} of {events}: {wrong}")));
    }
    println!("recovery of a run: {} of {events} places, {} bad", events.div_ceil(stride), bad.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
