//! Killed anywhere it has happened wholly or not at all, after recovery, after a killed recovery, and after undo.

use std::process::Command;

use crate::scene::{Scene, State};
use crate::support::crash::{jin, recover, run_jin};
use crate::support::invariants;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo};
use crate::support::table::{seed, stride};
use crate::support::tracer::{self, Action, Event, Isolation, Role};

/// Points by default.
const SAMPLE: usize = 30;

/// One command that is killed, in copies of a template that a preparation has been run in.
struct Bench<'b> {
    scene: &'b Scene,
    prepare: &'b dyn Fn(&Repo),
    command: &'b dyn Fn(&Repo) -> Command,
    input: &'b str,
    before: State,
    after: State,
}

impl<'b> Bench<'b> {
    fn new(
        scene: &'b Scene,
        prepare: &'b dyn Fn(&Repo),
        command: &'b dyn Fn(&Repo) -> Command,
        input: &'b str,
    ) -> Bench<'b> {
        let repo = scene.fresh();
        prepare(&repo);
        let before = State::of(&repo);
        let mut go_on = |_: &Event| Action::Continue;
        let outcome =
            tracer::trace(command(&repo), input.as_bytes(), Isolation::None, &mut go_on).expect("the command starts");
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
        let after = State::of(&repo);
        assert_ne!(before, after, "otherwise nothing can be told apart");
        Bench { scene, prepare, command, input, before, after }
    }

    fn fresh(&self) -> Repo {
        let repo = self.scene.fresh();
        (self.prepare)(&repo);
        repo
    }

    fn events(&self) -> Vec<Event> {
        let repo = self.fresh();
        tracer::events_of((self.command)(&repo), self.input.as_bytes()).expect("the command starts").0
    }

    /// Kills at event `n`; `false` when the run ended before.
    fn kill(&self, repo: &Repo, n: usize, action: Action) -> bool {
        let mut decide = |event: &Event| if event.n == n { action } else { Action::Continue };
        let outcome = tracer::trace((self.command)(repo), self.input.as_bytes(), Isolation::None, &mut decide);
        outcome.expect("the command starts").killed.is_some()
    }

    /// After recovery: exactly before or exactly after, nothing left, and a second recovery changes nothing.
    fn judge(&self, repo: &Repo) -> Result<bool, String> {
        let (code, said) = recover(repo);
        if code != 0 {
            return Err(format!("recovery ended with {code}: {said}"));
        }
        let found = State::of(repo);
        if found != self.before && found != self.after {
            let near = if found.refs == self.before.refs { &self.before } else { &self.after };
            return Err(format!("neither before nor after: {said}\nfound {found:#?}\nnear {near:#?}"));
        }
        let mut violations = invariants::judge_recovery(repo);
        violations.extend(invariants::judge_locks(repo, &|_| true));
        violations.extend(invariants::judge_markers(repo));
        if !violations.is_empty() {
            return Err(format!("{violations:#?}"));
        }
        let staged = std::fs::read_dir(repo.git_dir().join(".jin/tx")).expect("it is there").count();
        if staged != 0 || State::of(repo) != found {
            return Err(format!("{staged} stages are left, or a second recovery changed something"));
        }
        Ok(found == self.after)
    }
}

/// Kills at every point of the stride and returns how many ended before and after.
fn kill_everywhere(bench: &Bench<'_>, name: &str, action: Action, role: Option<Role>) {
    let events = bench.events();
    let is_wanted = |event: &&Event| match role {
        None => true,
        // Only one side is killed: while both are at work.
        Some(_) => event.path.as_deref().is_some_and(|p| !p.to_string_lossy().contains("/home/")),
    };
    let points: Vec<usize> = events.iter().filter(is_wanted).map(|event| event.n).collect();
    let step = stride("JIN_KILL", points.len().div_ceil(SAMPLE));
    let (mut before, mut after, mut bad) = (0, 0, Vec::new());
    for n in points.iter().copied().skip(seed("JIN_KILL_SEED") % step).step_by(step) {
        let repo = bench.fresh();
        bench.kill(&repo, n, action);
        match bench.judge(&repo) {
            Ok(true) => after += 1,
            Ok(false) => before += 1,
            Err(why) => bad.push(format!("{} ({action:?}): {why}", events[n - 1])),
        }
        if bad.last().is_none_or(|b| !b.starts_with(&events[n - 1].to_string())) {
            repo.discard();
        }
    }
    println!(
        "{name}, {action:?}: {} of {} points: {before} before, {after} after, {} bad",
        before + after + bad.len(),
        points.len(),
        bad.len()
    );
    println!("torture: kills={} violations={}", before + after + bad.len(), bad.len());
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    let is_small = step > points.len().div_ceil(SAMPLE);
    assert!(is_small || before > 0 && after > 0, "the sample lies on both sides of the commit point");
}

fn of_apply(scene: &Scene) -> Bench<'_> {
    Bench::new(scene, &|_| {}, &Scene::command, &scene.input)
}

#[test]
fn killed_with_everything_that_it_started_it_has_happened_wholly_or_not_at_all() {
    let scene = Scene::template(Options::default());
    kill_everywhere(&of_apply(&scene), "apply", Action::KillTree, None);
}

#[test]
fn when_git_alone_is_killed_it_has_happened_wholly_or_not_at_all() {
    let scene = Scene::template(Options::default());
    kill_everywhere(&of_apply(&scene), "apply", Action::KillGit, Some(Role::Git));
}

#[test]
fn when_jin_txn_alone_is_killed_it_has_happened_wholly_or_not_at_all() {
    let scene = Scene::template(Options::default());
    kill_everywhere(&of_apply(&scene), "apply", Action::KillHook, Some(Role::Hook));
}

#[test]
fn a_recovery_that_is_killed_is_finished_by_the_next() {
    let scene = Scene::template(Options::default());
    let bench = of_apply(&scene);
    // In the middle of git's writing: one ref and no file is there.
    let is_ref = |event: &&Event| {
        event.syscall.starts_with("rename")
            && event.path2.as_deref().is_some_and(|p| p.to_string_lossy().contains("/refs/heads/"))
    };
    let events = bench.events();
    let renames: Vec<usize> = events.iter().filter(is_ref).map(|e| e.n).collect();
    let torn = *renames.get(1).expect("two branches are renamed into place");
    // In the middle of the files.
    let exchange = events.iter().filter(|e| e.syscall == "renameat2").map(|e| e.n).nth(1).unwrap_or(torn);
    for n in [torn, exchange] {
        let repo = bench.fresh();
        assert!(bench.kill(&repo, n, Action::KillTree));
        let_the_clock_tick(&repo.git_dir());
        let recovery: Vec<usize> =
            tracer::events_of(jin(&repo, &["recover"]), b"").expect("it starts").0.iter().map(|e| e.n).collect();
        let step = stride("JIN_KILL", recovery.len().div_ceil(SAMPLE));
        let mut bad = Vec::new();
        let mut count = 0;
        for m in recovery.iter().copied().step_by(step) {
            let repo = bench.fresh();
            bench.kill(&repo, n, Action::KillTree);
            let_the_clock_tick(&repo.git_dir());
            let decide = |event: &Event| if event.n == m { Action::KillTree } else { Action::Continue };
            let mut killed = String::new();
            tracer::trace(jin(&repo, &["recover"]), b"", Isolation::None, &mut |event| {
                if event.n == m {
                    killed = event.to_string();
                }
                decide(event)
            })
            .expect("it starts");
            count += 1;
            match bench.judge(&repo) {
                Ok(true) => {}
                Ok(false) => bad.push(format!("recovery killed at {killed}: a decided transaction was lost")),
                Err(why) => bad.push(format!("recovery killed at {killed}: {why}")),
            }
        }
        println!("recovery of {}: {count} of {} points, {} bad", events[n - 1], recovery.len(), bad.len());
        assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    }
}

fn apply_first(repo: &Repo, input: &str) {
    let (code, said) = crate::scene::apply(repo, input);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn an_undo_that_is_killed_has_happened_wholly_or_not_at_all() {
    let scene = Scene::template(Options::default());
    let prepare = |repo: &Repo| {
        let_the_clock_tick(&repo.git_dir());
        apply_first(repo, &scene.input);
    };
    let bench = Bench::new(&scene, &prepare, &|repo| jin(repo, &["undo"]), "");
    kill_everywhere(&bench, "undo", Action::KillTree, None);
}

#[test]
fn a_redo_that_is_killed_has_happened_wholly_or_not_at_all() {
    let scene = Scene::template(Options::default());
    let prepare = |repo: &Repo| {
        apply_first(repo, &scene.input);
        let (code, said) = run_jin(repo, &["undo"]);
        assert_eq!(code, 0, "{said}");
    };
    let bench = Bench::new(&scene, &prepare, &|repo| jin(repo, &["redo"]), "");
    kill_everywhere(&bench, "redo", Action::KillTree, None);
}
