//! Killed anywhere it has happened wholly or not at all, after recovery, after a killed recovery, and after undo.

use std::process::Command;

use crate::support::apply::{Scene, State};
use crate::support::crash::{jin, recover, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo};
use crate::support::table::{start, stride};
use crate::support::tracer::{self, Action, Event, Isolation, Role};
use crate::support::{invariants, reboot};

/// Points by default.
const SAMPLE: usize = 10;

/// Points in each of the other kinds of repository.
const SMALL_SAMPLE: usize = 4;

/// One command that is killed, in copies of a template that a preparation has been run in.
struct Bench<'b> {
    scene: &'b Scene,
    prepare: &'b dyn Fn(&Repo),
    command: &'b dyn Fn(&Repo) -> Command,
    input: &'b str,
    /// The worktree whose files it changes, by the main one's repository.
    place: fn(&Repo) -> Repo,
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
        Bench::at(Repo::clone, scene, prepare, command, input)
    }

    fn at(
        place: fn(&Repo) -> Repo,
        scene: &'b Scene,
        prepare: &'b dyn Fn(&Repo),
        command: &'b dyn Fn(&Repo) -> Command,
        input: &'b str,
    ) -> Bench<'b> {
        let repo = scene.fresh();
        prepare(&repo);
        let before = State::of(&place(&repo));
        let mut go_on = |_: &Event| Action::Continue;
        let outcome = tracer::trace(command(&place(&repo)), input.as_bytes(), Isolation::None, &mut go_on)
            .expect("the command starts");
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
        let after = State::of(&place(&repo));
        assert_ne!(before, after, "otherwise nothing can be told apart");
        Bench { scene, prepare, command, input, place, before, after }
    }

    fn state(&self, repo: &Repo) -> State {
        State::of(&(self.place)(repo))
    }

    fn fresh(&self) -> Repo {
        let repo = self.scene.fresh();
        (self.prepare)(&repo);
        repo
    }

    fn events(&self) -> Vec<Event> {
        let repo = self.fresh();
        tracer::events_of((self.command)(&(self.place)(&repo)), self.input.as_bytes()).expect("the command starts").0
    }

    /// Kills at event `n`; `false` when the run ended before.
    fn kill(&self, repo: &Repo, n: usize, action: Action) -> bool {
        let mut decide = |event: &Event| if event.n == n { action } else { Action::Continue };
        let outcome =
            tracer::trace((self.command)(&(self.place)(repo)), self.input.as_bytes(), Isolation::None, &mut decide);
        outcome.expect("the command starts").killed.is_some()
    }

    /// After recovery: exactly before or exactly after, nothing left, and a second recovery changes nothing.
    fn judge(&self, repo: &Repo) -> Result<bool, String> {
        let (code, said) = recover(repo);
        if code != 0 {
            return Err(format!("recovery ended with {code}: {said}"));
        }
        let found = self.state(repo);
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
        if staged != 0 || self.state(repo) != found {
            return Err(format!("{staged} stages are left, or a second recovery changed something"));
        }
        Ok(found == self.after)
    }
}

/// Kills at every point of the stride, which has to reach both sides of the commit point.
fn kill_everywhere(bench: &Bench<'_>, name: &str, action: Action, role: Option<Role>) {
    let (before, after) = kill_sample(bench, name, action, role, SAMPLE);
    assert!(is_other_sample() || before > 0 && after > 0, "the sample lies on both sides of the commit point");
}

/// Has somebody asked for other points, which may be few?
fn is_other_sample() -> bool {
    std::env::var_os("JIN_KILL").is_some_and(|stride| stride != "all")
}

/// Kills at every point of a stride and returns how many ended before and after.
fn kill_sample(bench: &Bench<'_>, name: &str, action: Action, role: Option<Role>, sample: usize) -> (usize, usize) {
    let events = bench.events();
    let is_wanted = |event: &&Event| match role {
        None => true,
        // Only one side is killed: while both are at work.
        Some(_) => event.path.as_deref().is_some_and(|p| !p.to_string_lossy().contains("/home/")),
    };
    let points: Vec<usize> = events.iter().filter(is_wanted).map(|event| event.n).collect();
    let step = stride("JIN_KILL", points.len().div_ceil(sample));
    let (mut before, mut after, mut bad) = (0, 0, Vec::new());
    let first = start(&format!("{name}{action:?}"), step, "JIN_KILL_SEED");
    for n in points.iter().copied().skip(first).step_by(step) {
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
    (before, after)
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

fn assert_whole_in(options: Options, name: &str, prepare: &dyn Fn(&Repo), place: fn(&Repo) -> Repo) {
    let scene = Scene::template(options);
    let bench = Bench::at(place, &scene, prepare, &Scene::command, &scene.input);
    let victims = [(Action::KillTree, None), (Action::KillGit, Some(Role::Git)), (Action::KillHook, Some(Role::Hook))];
    let ends = victims.map(|(action, role)| kill_sample(&bench, name, action, role, SMALL_SAMPLE));
    let both = ends.iter().any(|e| e.0 > 0) && ends.iter().any(|e| e.1 > 0);
    assert!(is_other_sample() || both, "both sides of the commit point: {ends:?}");
}

#[test]
fn in_a_repository_of_sha_256_it_has_happened_wholly_or_not_at_all() {
    let options = Options { object_format: Some("sha256"), ..Options::default() };
    assert_whole_in(options, "apply, SHA-256", &|_| {}, Repo::clone);
}

#[test]
fn with_a_reftable_it_has_happened_wholly_or_not_at_all() {
    if !Git::under_test().is_at_least(2, 45) {
        return;
    }
    let options = Options { ref_format: Some("reftable"), ..Options::default() };
    assert_whole_in(options, "apply, reftable", &|_| {}, Repo::clone);
}

#[test]
fn in_a_linked_worktree_it_has_happened_wholly_or_not_at_all() {
    let add = |repo: &Repo| {
        repo.git(["worktree", "add", "-q", "../linked"]);
    };
    assert_whole_in(Options::default(), "apply, linked worktree", &add, |repo| repo.sibling("linked"));
}

#[test]
fn without_safety_from_power_cuts_it_has_happened_wholly_or_not_at_all() {
    let lower = |repo: &Repo| {
        let (code, said) = run_jin(repo, &["install", "--durability", "process"]);
        assert_eq!(code, 0, "{said}");
    };
    assert_whole_in(Options::default(), "apply, safe from kills only", &lower, Repo::clone);
}

#[test]
fn what_a_reboot_interrupted_behind_its_commit_point_is_finished_and_before_it_nothing_happened() {
    let scene = Scene::template(Options::default());
    let bench = of_apply(&scene);
    let events = bench.events();
    let exchanges: Vec<usize> = events.iter().filter(|e| e.syscall == "renameat2").map(|e| e.n).collect();
    let is_ref = |event: &&Event| event.path2.as_deref().is_some_and(|p| p.to_string_lossy().contains("/refs/heads/"));
    let refs: Vec<usize> = events.iter().filter(is_ref).map(|e| e.n).collect();
    let locks = events.iter().find(|e| e.path.as_deref().is_some_and(|p| p.ends_with("refs/heads/main.lock")));
    let undecided = locks.expect("git locks the branch").n;
    let decided = [refs[0], refs[1], *exchanges.last().expect("files are exchanged")];
    for (n, expected) in std::iter::once((undecided, &bench.before)).chain(decided.map(|n| (n, &bench.after))) {
        // Each attempt has a crash of its own: a recovery that was held up has redone refs already.
        let mut repo = bench.fresh();
        let recovered = reboot::output_after(|| {
            repo = bench.fresh();
            assert!(bench.kill(&repo, n, Action::KillTree));
            let_the_clock_tick(&repo.git_dir());
            jin(&repo, &["recover"])
        });
        let said = String::from_utf8_lossy(&recovered.stderr);
        assert!(recovered.status.success(), "killed before {}: {said}", events[n - 1]);
        assert_eq!(&State::of(&repo), expected, "killed before {}: {said}", events[n - 1]);
    }
}

fn apply_first(repo: &Repo, input: &str) {
    let (code, said) = crate::support::apply::apply(repo, input);
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
