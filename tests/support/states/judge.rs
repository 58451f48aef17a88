//! Recovers a materialised state as after a reboot, and collects everything that does not hold then.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use super::Rule;
use super::enumerate::State;
use super::recording::Recording;
use crate::support::invariants::{self, Damage, Violation};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Repo, text};
use crate::support::snapshot::{self, Refs, Snapshot};
use crate::support::{crash, reboot};

/// One state after its recovery.
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// What recovery said.
    pub said: String,
    /// Somebody else was at work all the time, so that the state says nothing.
    pub skipped: bool,
}

/// `recover` exits with this while somebody may be at work: after a reboot only a git of another repository of this machine.
const BUSY: i32 = 5;
/// How long such a git is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Materialises `state`, recovers it twice, and judges.
pub fn judge(recording: &Recording, rule: Rule, state: &State) -> Verdict {
    let repo = &recording.repo;
    let boot_id = reboot::new_boot_id();
    let recovery = || reboot::after(crash::jin(repo, &["recover"]), &boot_id).output().expect("jin-txn starts");
    let materialise_and_recover = || {
        recording.materialise(&recording.tree(state.prefix, &state.fates)).expect("a state can be put on the disk");
        let_the_clock_tick(&repo.git_dir());
        recovery()
    };

    let started = Instant::now();
    let mut first = materialise_and_recover();
    while first.status.code() == Some(BUSY) {
        if started.elapsed() > PATIENCE {
            return Verdict { violations: Vec::new(), said: said(&first), skipped: true };
        }
        first = materialise_and_recover();
    }
    let mut violations = Vec::new();
    violations.extend(judge_exit(Damage::Recovery, "recovery", &first));
    let once = snapshot::contents(&repo.git_dir());
    let second = recovery();
    violations.extend(judge_exit(Damage::Again, "the second recovery", &second));
    if once != snapshot::contents(&repo.git_dir()) {
        violations.push(Violation::new(Damage::Again, format!("a second recovery did: {}", said(&second))));
    }

    let found = Snapshot::of(repo);
    violations.extend(judge_refs(&found.refs, &recording.legal(state.prefix), rule));
    violations.extend(judge_reflogs(repo));
    violations.extend(found.index.err().map(|complaint| Violation::new(Damage::Index, complaint)));
    if found.worktree != recording.before.worktree {
        violations.push(Violation::new(Damage::Worktree, "a file changed"));
    }
    violations.extend(invariants::judge_locks(repo, &|_| true));
    violations.extend(invariants::judge_markers(repo));
    violations.extend(judge_use(repo, &boot_id));
    Verdict { violations, said: said(&first), skipped: false }
}

/// The refs are whole: one of the legal states; where each ref has its own transaction, each is in one of them.
fn judge_refs(found: &Refs, legal: &[&Refs], rule: Rule) -> Option<Violation> {
    let names = legal.iter().flat_map(|state| state.keys()).chain(found.keys());
    let differs = |from: &Refs, name: &String| from.get(name) != found.get(name);
    let wrong: Vec<&String> = match rule {
        Rule::Whole => {
            let differing = |state: &&Refs| names.clone().filter(|name| differs(state, name)).collect::<Vec<_>>();
            legal.iter().map(differing).min_by_key(Vec::len).unwrap_or_default()
        }
        Rule::EachRef => names.filter(|name| legal.iter().all(|state| differs(state, name))).collect(),
    };
    let show = |value: Option<&String>| value.map_or("absent".to_owned(), |value| value.chars().take(17).collect());
    let mut details: Vec<String> = wrong
        .iter()
        .map(|name| {
            let mut wanted: Vec<_> = legal.iter().map(|state| show(state.get(*name))).collect();
            wanted.dedup();
            format!("{name} is {}, not {}", show(found.get(*name)), wanted.join(" or "))
        })
        .collect();
    details.sort();
    details.dedup();
    (!details.is_empty()).then(|| Violation::new(Damage::Torn, details.join("; ")))
}

/// Every reflog is whole lines of what git writes.
fn judge_reflogs(repo: &Repo) -> Vec<Violation> {
    let logs = snapshot::walk(&repo.git_dir().join("logs"), &|_| true);
    let complaints = logs.iter().filter_map(|path| {
        let content = fs::read(path).ok()?;
        let whole = content.is_empty() || content.ends_with(b"\n");
        let torn = content.split_inclusive(|byte| *byte == b'\n').find(|line| !is_entry(line));
        let shown = torn.map(|line| text(&line[..line.len().min(60)]).into_owned());
        (!whole || shown.is_some()).then(|| format!("{}: {shown:?}", path.display()))
    });
    complaints.map(|detail| Violation::new(Damage::Reflog, detail)).collect()
}

fn is_entry(line: &[u8]) -> bool {
    let is_id = |word: &str| word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let Some((head, time)) = line.trim_end().rsplit_once("> ") else { return false };
    let mut words = head.splitn(3, ' ');
    words.next().is_some_and(is_id)
        && words.next().is_some_and(is_id)
        && words.next().is_some_and(|who| who.contains('<'))
        && time.starts_with(|first: char| first.is_ascii_digit())
        && !line.contains('\0')
}

/// Nothing is missing or corrupt, and the next commands work.
fn judge_use(repo: &Repo, boot_id: &str) -> Vec<Violation> {
    let git = |arguments: &[&str]| reboot::after(crash::git(repo, arguments), boot_id).output().expect("git starts");
    let mut violations = Vec::new();
    let fsck = git(&["fsck", "--full", "--no-progress"]);
    let complains = text(&fsck.stderr).lines().any(|line| line.starts_with("error") || line.starts_with("fatal"));
    let is_missing = text(&fsck.stdout).lines().any(|line| line.starts_with("missing") || line.starts_with("broken"));
    if !fsck.status.success() || complains || is_missing {
        violations.push(Violation::new(Damage::Fsck, said(&fsck)));
    }
    for arguments in [&["status", "--porcelain"][..], &["commit", "-q", "--allow-empty", "-m", "after the reboot"]] {
        violations.extend(judge_exit(Damage::Blocked, arguments[0], &git(arguments)));
    }
    violations
}

fn judge_exit(damage: Damage, what: &str, output: &Output) -> Option<Violation> {
    (!output.status.success()).then(|| Violation::new(damage, format!("{what}: {}: {}", output.status, said(output))))
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr)).trim().to_owned()
}
