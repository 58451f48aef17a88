//! The commands whose calls fail, and what they make of a repository when none does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::apply as scene;
use crate::support::crash::{git, jin};
use crate::support::invariants::Expectation;
use crate::support::operations::{self, INPUT, Operation};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo, text};
use crate::support::scenes::{self, Scene, What, Whole};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Outcome, Role};

/// How a command is to be judged.
enum Kind {
    /// One of git's, watched by the hook.
    Git(Box<Expectation>),
    /// One of ours: everything is as before, or as after.
    Ours { before: Box<Whole>, after: Box<Whole> },
    /// Recovery of one of git's: how it was before is torn.
    Recovery(Box<Expectation>),
}

/// Where a repository is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Before,
    After,
}

pub struct Subject {
    pub name: &'static str,
    template: Repo,
    prepare: fn(&Repo),
    command: Box<dyn Fn(&Repo) -> Command + Sync>,
    kind: Kind,
    /// The exit code when nothing fails.
    pub code: Option<i32>,
    /// The calls of ours, in order.
    pub calls: Vec<Event>,
    /// A commit that no ref has.
    pub spare: String,
}

const SUCCEEDING: &str = "set -e
echo script >a.txt
mkdir -p made && echo made >made/file
git add made
git commit -qam 'by the script'
git tag by-script
";

const FAILING: &str = "set -e
echo script >a.txt
rm untracked/todo
git commit -qam 'by the script'
git tag by-script
exit 3
";

impl Subject {
    /// One of the subjects by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn named(name: &'static str) -> Subject {
        match name {
            "apply" => Self::apply(name, |_| {}, &["apply", "--message", "layers"]),
            "undo" => Self::apply(name, apply_first, &["undo"]),
            "run" => Self::run(name, SUCCEEDING, true),
            "failing-run" => Self::run(name, FAILING, false),
            "recover-update-ref" => Self::recovery(name, "update-ref", |repo| tear(repo, "update-ref", is_third_ref)),
            "recover-branch-m" => Self::recovery(name, "branch-m", |repo| tear(repo, "branch-m", is_renamed_log)),
            "recover-commit-a" => Self::recovery(name, "commit-a", |repo| tear(repo, "commit-a", is_index)),
            "after-failure" => Self::git(name, "update-ref", poison),
            _ => Self::git(name, name, |_| {}),
        }
    }

    fn git(name: &'static str, operation: &str, prepare: fn(&Repo)) -> Subject {
        let operation = operations::named(operation);
        let (template, expected) = observe(operation);
        let command = Box::new(|repo: &Repo| git(repo, operation.command));
        Self::new(name, template, prepare, command, |_| Kind::Git(Box::new(expected)))
    }

    fn recovery(name: &'static str, operation: &str, prepare: fn(&Repo)) -> Subject {
        let (template, expected) = observe(operations::named(operation));
        let command = Box::new(|repo: &Repo| jin(repo, &["recover"]));
        Self::new(name, template, prepare, command, |_| Kind::Recovery(Box::new(expected)))
    }

    fn apply(name: &'static str, prepare: fn(&Repo), arguments: &'static [&'static str]) -> Subject {
        let scene = scene::Scene::template(Options::default());
        fs::write(scene.repo.scratch().join(INPUT), &scene.input).expect("the input can be written");
        let command = Box::new(move |repo: &Repo| jin(repo, arguments));
        Self::ours(name, scene.repo, prepare, command)
    }

    fn run(name: &'static str, script: &'static str, succeeds: bool) -> Subject {
        let busy = scenes::ALL.iter().find(|scene| scene.name == "script").expect("it is in the list");
        let scene = Scene { name, setup: busy.setup, command: What::Script(script), succeeds };
        Self::ours(name, scene.template(), |_| {}, Box::new(move |repo| scene.run(repo)))
    }

    fn ours(
        name: &'static str,
        template: Repo,
        prepare: fn(&Repo),
        command: Box<dyn Fn(&Repo) -> Command + Sync>,
    ) -> Subject {
        let before = |repo: &Repo| Kind::Ours { before: Box::new(whole(repo)), after: Box::new(whole(repo)) };
        let mut subject = Self::new(name, template, prepare, command, before);
        let repo = subject.fresh();
        subject.trace(&repo, &mut |_| Action::Continue);
        if let Kind::Ours { after, .. } = &mut subject.kind {
            **after = whole(&repo);
        }
        subject
    }

    fn new(
        name: &'static str,
        template: Repo,
        prepare: fn(&Repo),
        command: Box<dyn Fn(&Repo) -> Command + Sync>,
        kind: impl FnOnce(&Repo) -> Kind,
    ) -> Subject {
        let tree = text(&template.git(["hash-object", "-t", "tree", "-w", "--stdin"]).stdout).trim().to_owned();
        let spare = template.read(["commit-tree", "-m", "probe", &tree]);
        let repo = fresh(&template, prepare);
        let mut subject =
            Subject { name, kind: kind(&repo), template, prepare, command, code: None, calls: Vec::new(), spare };
        let mut calls = Vec::new();
        let outcome = subject.trace(&repo, &mut |event| {
            if subject.is_ours(event, &repo) {
                calls.push(event.clone());
            }
            Action::Continue
        });
        subject.code = outcome.status.code();
        subject.calls = calls;
        subject
    }

    /// A guarded copy in which the command may be run.
    pub fn fresh(&self) -> Repo {
        fresh(&self.template, self.prepare)
    }

    pub fn trace(&self, repo: &Repo, decide: &mut dyn FnMut(&Event) -> Action) -> Outcome {
        let input = fs::read(repo.scratch().join(INPUT)).unwrap_or_default();
        tracer::trace_calls((self.command)(repo), &input, Isolation::None, Calls::Failing, decide)
            .expect("the command starts")
    }

    /// A call by our program about this repository.
    pub fn is_ours(&self, event: &Event, repo: &Repo) -> bool {
        event.role == Role::Hook && event.path.as_deref().is_some_and(|path| path.starts_with(repo.scratch()))
    }

    /// Where the repository is, of the whole states; or what is wrong with it.
    pub fn stand(&self, repo: &Repo) -> Result<Vec<Stand>, String> {
        self.stand_by(repo, "")
    }

    /// The same of all but the files of the git directory of which `said` tells that a rollback leaves them.
    pub fn stand_by(&self, repo: &Repo, said: &str) -> Result<Vec<Stand>, String> {
        match &self.kind {
            Kind::Git(expected) | Kind::Recovery(expected) => {
                let violations = expected.judge_state(repo);
                if let Some(violation) = violations.first() {
                    return Err(format!("{}: {}", violation.damage.name(), violation.detail));
                }
                let refs = crate::support::snapshot::Snapshot::of(repo).refs;
                let is = [refs == expected.before.refs, refs == expected.after.refs];
                Ok([Stand::Before, Stand::After].into_iter().zip(is).filter(|(_, is)| *is).map(|(s, _)| s).collect())
            }
            Kind::Ours { before, after } => {
                let but_for_left = |mut state: Whole| {
                    state.git_dir.retain(|path, _| !is_told_as_left(said, path));
                    state
                };
                let [found, before, after] = [whole(repo), Whole::clone(before), Whole::clone(after)].map(but_for_left);
                let stands = [(Stand::Before, &before), (Stand::After, &after)];
                let stands: Vec<Stand> =
                    stands.into_iter().filter(|(_, state)| **state == found).map(|(s, _)| s).collect();
                if stands.is_empty() {
                    let (from_before, from_after) = (found.differences(&before), found.differences(&after));
                    return Err(format!("neither before:\n  {from_before}\n nor after:\n  {from_after}"));
                }
                Ok(stands)
            }
        }
    }

    /// Its whole states are those of something that was torn before.
    pub fn begins_torn(&self) -> bool {
        matches!(self.kind, Kind::Recovery(_))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.template.discard();
    }
}

fn fresh(template: &Repo, prepare: fn(&Repo)) -> Repo {
    let repo = template.copy();
    repo.install_guard();
    prepare(&repo);
    repo
}

fn observe(operation: &'static Operation) -> (Repo, Expectation) {
    let template = Repo::new(Options::default());
    (operation.setup)(&template);
    let expected = Expectation::observe(operation, &template, &|repo, variables| {
        let mut command = git(repo, operation.command);
        command.envs(variables.iter().copied());
        let input = fs::read(repo.scratch().join(INPUT)).unwrap_or_default();
        let outcome = tracer::trace(command, &input, Isolation::None, &mut |_| Action::Continue).expect("git starts");
        assert!(outcome.status.success(), "{} fails by itself: {}", operation.name, text(&outcome.stderr));
    });
    (template, expected)
}

fn is_told_as_left(said: &str, path: &Path) -> bool {
    let told = format!("{} in the git directory cannot be read: a rollback leaves it as it is then", path.display());
    said.contains(&told)
}

/// Everything, without the numbers of transactions.
fn whole(repo: &Repo) -> Whole {
    let mut whole = Whole::of(repo);
    let unnumbered = |text: &String| {
        text.lines().map(|line| line.split(" (tx-").next().unwrap_or(line).to_owned() + "\n").collect::<String>()
    };
    whole.logs = whole.logs.iter().map(|(name, text)| (name.clone(), unnumbered(text))).collect::<BTreeMap<_, _>>();
    whole
}

fn apply_first(repo: &Repo) {
    let input = fs::read_to_string(repo.scratch().join(INPUT)).expect("the input is there");
    let (code, said) = scene::apply(repo, &input);
    assert_eq!(code, 0, "{said}");
}

/// Runs an operation and kills it where `wanted` says.
fn tear(repo: &Repo, operation: &str, wanted: fn(&mut usize, &Event) -> bool) {
    let input = fs::read(repo.scratch().join(INPUT)).unwrap_or_default();
    let mut seen = 0;
    let mut decide = |event: &Event| if wanted(&mut seen, event) { Action::KillTree } else { Action::Continue };
    let command = git(repo, operations::named(operation).command);
    let outcome = tracer::trace(command, &input, Isolation::None, &mut decide).expect("git starts");
    assert!(outcome.killed.is_some(), "{operation} comes to the point that is to be killed");
    let_the_clock_tick(&repo.git_dir());
}

fn renamed_to(event: &Event) -> String {
    let is_rename = event.syscall.starts_with("rename");
    event.path2.as_deref().filter(|_| is_rename).map(|path| path.display().to_string()).unwrap_or_default()
}

fn is_third_ref(seen: &mut usize, event: &Event) -> bool {
    *seen += usize::from(event.role == Role::Git && renamed_to(event).contains(".git/refs/heads/"));
    *seen == 3
}

fn is_renamed_log(seen: &mut usize, event: &Event) -> bool {
    *seen += usize::from(renamed_to(event).contains("/logs/refs/"));
    *seen == 2
}

fn is_index(_: &mut usize, event: &Event) -> bool {
    event.role == Role::Git && renamed_to(event).ends_with(".git/index")
}

/// Lets the disk refuse a barrier: the log has a segment that is not to be trusted.
fn poison(repo: &Repo) {
    let mut decide = |event: &Event| {
        if event.syscall == "syncfs" { Action::Fail(nix::errno::Errno::EIO) } else { Action::Continue }
    };
    let commit = repo.read(["rev-parse", "HEAD"]);
    let command = git(repo, &["update-ref", "refs/tags/never", &commit]);
    let outcome = tracer::trace_calls(command, b"", Isolation::None, Calls::Failing, &mut decide).expect("git starts");
    assert!(!outcome.status.success(), "the hook refuses what it could not log");
}
