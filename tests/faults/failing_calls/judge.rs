//! One fault: let a call fail, look at what was said and done, let the fault go away, recover, look again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Point;
use super::errors::{Fault, Reach};
use super::subjects::{Stand, Subject};
use crate::support::crash::{git, run_jin};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text};
use crate::support::tracer::{self, Action, Calls, Event, Isolation, Outcome};
use crate::support::{invariants, snapshot};

/// What a fault hit first.
struct Hit {
    event: Event,
    /// Segments of the log that could not be written or synced; open, so that no other file gets their inodes.
    distrusted: Vec<File>,
}

/// Injects one fault and returns everything that is wrong afterwards; `None` when somebody else's git was in the way, every time.
pub fn inject(subject: &Subject, point: Point) -> Option<Vec<String>> {
    const TRIES: usize = 5;
    (1..=TRIES).find_map(|n| inject_once(subject, point, n < TRIES))
}

/// With `has_more_tries` a git that has ended by now is taken for somebody else's; one that is named every time is not.
fn inject_once(subject: &Subject, point: Point, has_more_tries: bool) -> Option<Vec<String>> {
    let repo = subject.fresh();
    let mut wrong = Vec::new();
    let (hit, outcome) = run(subject, &repo, point);
    if let Some(hit) = hit {
        judge_words(subject, &repo, point, &hit, &outcome, &mut wrong);
        judge_outcome(subject, &repo, &outcome, &mut wrong);
        judge_next(subject, &repo, &outcome, &hit, &mut wrong);
        if !wrong.is_empty() {
            let said = text(&outcome.stderr).trim().replace('\n', "\n    ");
            wrong.push(format!("hit {}; ended with {}; said:\n    {said}", hit.event, outcome.status));
        }
    }
    let is_disturbed = wrong.iter().any(|said| names_stranger(&repo, said, has_more_tries));
    if wrong.is_empty() || is_disturbed {
        repo.discard();
    }
    (!is_disturbed).then_some(wrong)
}

/// A git that is alive, and of another repository that cannot be told: its lock it could be.
fn names_stranger(repo: &Repo, said: &str, or_is_gone: bool) -> bool {
    said.lines().filter(|line| line.contains("is running and may hold it")).any(|line| {
        let pid = line.split("(pid ").nth(1).and_then(|rest| rest.split(')').next());
        let cwd = pid.and_then(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
        cwd.map_or(or_is_gone, |cwd| !cwd.starts_with(repo.scratch()))
    })
}

fn run(subject: &Subject, repo: &Repo, point: Point) -> (Option<Hit>, Outcome) {
    let mut seen = 0;
    let mut hit: Option<Hit> = None;
    let outcome = subject.trace(repo, &mut |event| {
        let is_ours = subject.is_ours(event, repo);
        let is_here = event.path.as_deref().is_some_and(|path| path.starts_with(repo.scratch()));
        seen += usize::from(is_ours);
        let concerned = match (&hit, point.reach) {
            (None, _) => is_ours && seen == point.at,
            (Some(_), Reach::Once) => false,
            (Some(_), Reach::Ours) => is_ours,
            (Some(_), Reach::Everybody) => is_here,
        };
        // Processes that run at once may come in another order than in the undisturbed run.
        if !concerned || !Fault::possible(event).contains(&point.fault) {
            return Action::Continue;
        }
        let hit = hit.get_or_insert_with(|| Hit { event: event.clone(), distrusted: Vec::new() });
        // A disk that takes nothing any more does not take the note either that a segment is not to be trusted.
        let is_disk_gone = point.reach != Reach::Once && point.fault != Fault::Error(nix::errno::Errno::ENOSPC);
        let harmless = is_disk_gone || matches!(point.fault, Fault::Short | Fault::Error(nix::errno::Errno::EINTR));
        if let Some(segment) = segment(event).filter(|_| is_ours && !harmless && !event.syscall.starts_with("open")) {
            hit.distrusted.extend(File::open(segment));
        }
        point.fault.action()
    });
    (hit, outcome)
}

/// What was said must name the cause and the file, and must be true.
fn judge_words(subject: &Subject, repo: &Repo, point: Point, hit: &Hit, outcome: &Outcome, wrong: &mut Vec<String>) {
    let said = text(&outcome.stderr);
    if said.contains("panicked") {
        wrong.push("it panicked".to_owned());
    }
    let as_usual = outcome.status.code() == subject.code;
    let is_told = point.fault.words().is_none_or(|words| said.contains(&words));
    let is_sync = hit.event.syscall.contains("sync");
    if point.reach != Reach::Everybody && !is_told && (!as_usual || is_sync) {
        wrong.push("the cause is not told".to_owned());
    }
    if point.reach == Reach::Once && !as_usual && !names_file(repo, &hit.event, &said) {
        wrong.push("the file is not named".to_owned());
    }
    let claims = ["nothing was changed", "nothing was run", "nothing has been"];
    if claims.iter().any(|claim| said.contains(claim)) && !subject.begins_torn() {
        match subject.stand(repo) {
            Ok(stands) if stands.contains(&Stand::Before) => {}
            Ok(_) => wrong.push("it says that nothing was changed, and it was".to_owned()),
            Err(why) => wrong.push(format!("it says that nothing was changed, and it was: {why}")),
        }
    }
}

/// The file, or one of the directories that it lies in, up to our own; or its name below the git directory.
fn names_file(repo: &Repo, event: &Event, said: &str) -> bool {
    let paths = [&event.path, &event.path2];
    let mut paths = paths.into_iter().flatten().map(|path| path.components().collect::<PathBuf>());
    paths.any(|path| {
        // An open directory that paths are beneath has no name; what lies in it has.
        let root = [repo.git_dir(), repo.path().to_owned()].into_iter().find(|root| path.starts_with(root));
        let Some(root) = root.filter(|root| *root != path) else { return true };
        let inside = path.strip_prefix(&root).unwrap_or(&path);
        let mut parents = path.ancestors().take_while(|parent| *parent != root);
        said.contains(&*inside.to_string_lossy()) || parents.any(|parent| said.contains(&*parent.to_string_lossy()))
    })
}

/// Success means that it has happened.
fn judge_outcome(subject: &Subject, repo: &Repo, outcome: &Outcome, wrong: &mut Vec<String>) {
    if outcome.status.code().is_none() {
        wrong.push(format!("it was killed: {}", outcome.status));
    }
    if outcome.status.code() != subject.code {
        return;
    }
    match subject.stand_by(repo, &text(&outcome.stderr)) {
        Ok(stands) if stands.contains(&Stand::After) || subject.begins_torn() => {}
        Ok(_) => wrong.push("it says that it has happened, and it has not".to_owned()),
        Err(why) => wrong.push(format!("it says that it has happened, but: {why}")),
    }
}

/// The fault is gone: the next command recovers, everything is whole, and the log can be trusted.
fn judge_next(subject: &Subject, repo: &Repo, outcome: &Outcome, hit: &Hit, wrong: &mut Vec<String>) {
    let_the_clock_tick(&repo.git_dir());
    let (code, said) = run_jin(repo, &["recover"]);
    if code != 0 {
        wrong.push(format!("recover ends with {code}: {said}"));
    }
    match subject.stand_by(repo, &text(&outcome.stderr)) {
        Ok(stands) => {
            let succeeded = outcome.status.code() == subject.code && !subject.begins_torn();
            if succeeded && !stands.contains(&Stand::After) {
                wrong.push(format!("recovery has taken back what had succeeded: {said}"));
            }
        }
        // git itself has found the disk full between the refs and the index, which is no crash, and has said so.
        Err(_) if text(&outcome.stderr).contains("repository has been updated, but unable to write") => {}
        Err(why) => wrong.push(format!("after recovery ({}): {why}", said.trim())),
    }
    let once = snapshot::contents(repo.scratch());
    run_jin(repo, &["recover"]);
    let twice = snapshot::contents(repo.scratch());
    let names: Vec<&PathBuf> = once.keys().chain(twice.keys()).filter(|it| once.get(*it) != twice.get(*it)).collect();
    if !names.is_empty() {
        wrong.push(format!("a second recovery changes {names:?}"));
    }
    wrong.extend(left_behind(repo));
    wrong.extend(judge_log(repo, &subject.spare, &hit.distrusted));
    let fsck = repo.try_git(["fsck", "--full", "--no-progress"]);
    if !fsck.status.success() {
        wrong.push(format!("fsck: {}", text(&fsck.stderr)));
    }
    let (code, said) = run_jin(repo, &["check"]);
    if code != 0 {
        wrong.push(format!("check ends with {code}: {said}"));
    }
}

fn left_behind(repo: &Repo) -> Vec<String> {
    let mut left: Vec<String> = invariants::judge_locks(repo, &|_| true).map(|v| v.detail).into_iter().collect();
    left.extend(invariants::judge_markers(repo).map(|v| v.detail));
    left.extend(invariants::judge_linked_worktrees(repo).map(|v| v.detail));
    let below = |dir: &str| snapshot::walk(&repo.git_dir().join(dir), &|_| true);
    left.extend(below(".jin/tx").into_iter().map(|path| format!("left: {}", path.display())));
    let keeps = below("objects/pack").into_iter().filter(|path| path.extension().is_some_and(|e| e == "keep"));
    left.extend(keeps.map(|path| format!("left: {}", path.display())));
    left
}

/// The next transaction is silent, and appends to no file that could not be written or synced.
fn judge_log(repo: &Repo, spare: &str, distrusted: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    let command = git(repo, &["update-ref", "refs/heads/jin-probe", spare]);
    let mut decide = |event: &Event| {
        let written =
            segment(event).filter(|_| event.syscall.contains("write")).and_then(|path| inode(fs::metadata(path)));
        let mut distrusted = distrusted.iter().map(|file| inode(file.metadata()));
        if written.is_some() && distrusted.any(|inode| inode == written) {
            wrong.push(format!("a file that could not be synced is written to again: {event}"));
        }
        Action::Continue
    };
    let outcome = tracer::trace_calls(command, b"", Isolation::None, Calls::Changing, &mut decide).expect("git starts");
    if !outcome.status.success() || !outcome.stderr.is_empty() {
        wrong.push(format!("the next update ends with {}: {}", outcome.status, text(&outcome.stderr)));
    }
    wrong
}

/// The segment of the log that a call is about.
fn segment(event: &Event) -> Option<&Path> {
    event.path.as_deref().filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
}

fn inode(metadata: io::Result<fs::Metadata>) -> Option<u64> {
    metadata.ok().map(|metadata| metadata.ino())
}
