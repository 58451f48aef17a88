//! What must hold after a crash, and the checks that collect everything that does not.
//!
//! | damage | what broke |
//! | --- | --- |
//! | torn | the refs are in none of the legal states |
//! | lost branch | fewer branches than in any legal state |
//! | lock | a lock file, or a file that blocks like one, was left |
//! | reflog | entries are missing, or tell of something that did not happen |
//! | config | the branch configuration tells of the other name |
//! | index | unreadable, or it shows the commit as a change to be made |
//! | worktree | a file changed that the command must not touch, or a linked worktree is half-made |
//! | fsck | `git fsck` complains |
//! | blocked | an ordinary command fails |
//! | marker | a transaction is still marked as unfinished |
//! | recovery | recovery failed |
//! | again | a second recovery changed something |

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use std::{fs, thread};

use super::operations::{Legal, Operation};
use super::repo::{Repo, text};
use super::snapshot::{self, REF_FORMAT, Refs, Snapshot};

/// A kind of damage, named as in the table of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    Torn,
    LostBranch,
    Lock,
    Reflog,
    Config,
    Index,
    Worktree,
    Fsck,
    Blocked,
    Marker,
    Recovery,
    Again,
}

impl Damage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::LostBranch => "lost branch",
            Self::Lock => "lock",
            Self::Reflog => "reflog",
            Self::Config => "config",
            Self::Index => "index",
            Self::Worktree => "worktree",
            Self::Fsck => "fsck",
            Self::Blocked => "blocked",
            Self::Marker => "marker",
            Self::Recovery => "recovery",
            Self::Again => "again",
        }
    }
}

/// One broken invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub damage: Damage,
    pub detail: String,
}

impl Violation {
    pub fn new(damage: Damage, detail: impl Into<String>) -> Self {
        Self { damage, detail: detail.into() }
    }
}

/// Runs the operation where a repository lies, with additional variables in the environment.
pub type Run<'a> = dyn Fn(&Repo, &[(&str, &Path)]) + 'a;

/// What an operation makes of its template when nobody disturbs it.
pub struct Expectation {
    pub operation: &'static Operation,
    pub before: Snapshot,
    pub after: Snapshot,
    /// Every whole state of the refs.
    pub legal: Vec<Refs>,
}

impl Expectation {
    /// Observes undisturbed runs in copies of `template`.
    pub fn observe(operation: &'static Operation, template: &Repo, run: &Run<'_>) -> Self {
        let before = Snapshot::of(&template.sibling(operation.subject));
        let copy = template.copy();
        run(&copy, &[]);
        let after = Snapshot::of(&copy.sibling(operation.subject));
        copy.discard();
        let mut legal = vec![before.refs.clone()];
        if operation.legal == Legal::BetweenTransactions {
            legal.extend(states_between_transactions(operation, template, run));
        }
        legal.push(after.refs.clone());
        legal.dedup();
        Self { operation, before, after, legal }
    }

    /// Judges refs, reflogs, configuration, index and worktree.
    pub fn judge_state(&self, repo: &Repo) -> Vec<Violation> {
        let found = Snapshot::of(repo);
        let mut violations = Vec::new();
        if self.legal.contains(&found.refs) {
            violations.extend(self.judge_logs(&found));
            violations.extend(self.judge_config(&found));
        } else {
            violations.push(self.torn(&found.refs));
        }
        violations.extend(self.judge_index(&found));
        if self.operation.worktree_untouched && found.worktree != self.before.worktree {
            let names = differing(&self.before.worktree, &found.worktree);
            violations.push(Violation::new(Damage::Worktree, format!("changed: {names:?}")));
        }
        violations
    }

    fn torn(&self, found: &Refs) -> Violation {
        let nearest =
            self.legal.iter().min_by_key(|state| differing(state, found).len()).expect("before is always legal");
        let details: Vec<String> = differing(nearest, found)
            .iter()
            .map(|name| format!("{name} is {}, not {}", value(found, name), value(nearest, name)))
            .collect();
        let fewest = self.legal.iter().map(branch_count).min().expect("before is always legal");
        let damage = if branch_count(found) < fewest { Damage::LostBranch } else { Damage::Torn };
        Violation::new(damage, details.join("; "))
    }

    fn judge_logs(&self, found: &Snapshot) -> Vec<Violation> {
        let silent = self.before.refs == self.after.refs;
        let one_step = self.operation.legal == Legal::BeforeOrAfter;
        let mut names: Vec<&String> =
            self.before.logs.keys().chain(self.after.logs.keys()).chain(found.logs.keys()).collect();
        names.sort();
        names.dedup();
        let is_wrong = |name: &String| {
            let [before, after, now] = [&self.before, &self.after, found].map(|state| state.logs.get(name));
            if !one_step {
                !is_on_the_way(before, now, after)
            } else if silent {
                now != before && now != after
            } else if found.refs == self.before.refs {
                now != before
            } else {
                now != after
            }
        };
        let wrong: Vec<_> = names.into_iter().filter(|name| is_wrong(name)).collect();
        if wrong.is_empty() {
            return Vec::new();
        }
        vec![Violation::new(Damage::Reflog, format!("does not fit the refs: {wrong:?}"))]
    }

    fn judge_config(&self, found: &Snapshot) -> Option<Violation> {
        let [before, after, now] = [&self.before, &self.after, found].map(|state| &state.branch_config);
        let right = match self.operation.config_follows_refs {
            true if found.refs == self.before.refs => now == before,
            true if found.refs == self.after.refs => now == after,
            _ => now == before || now == after,
        };
        (!right).then(|| Violation::new(Damage::Config, format!("does not fit the refs:\n{now}")))
    }

    fn judge_index(&self, found: &Snapshot) -> Option<Violation> {
        let index = match &found.index {
            Ok(index) => index,
            Err(complaint) => {
                return Some(Violation::new(Damage::Index, format!("unreadable: {complaint}")));
            }
        };
        if !self.operation.index_follows_refs {
            return None;
        }
        let is_after = self.after.index.as_ref() == Ok(index);
        let is_before = self.before.index.as_ref() == Ok(index);
        if found.refs == self.after.refs && !is_after {
            return Some(Violation::new(Damage::Index, "the commit is there, the index shows it as a change to undo"));
        }
        (!is_after && !is_before).then(|| Violation::new(Damage::Index, "neither the old nor the new content"))
    }
}

/// Whether a reflog has all of the old entries and a part of the new ones.
fn is_on_the_way(before: Option<&String>, now: Option<&String>, after: Option<&String>) -> bool {
    if now == before || now == after {
        return true;
    }
    let [before, now, after] = [before, now, after].map(|log| log.map_or("", String::as_str));
    now.starts_with(before) && after.starts_with(now) && (now.is_empty() || now.ends_with('\n'))
}

fn branch_count(refs: &Refs) -> usize {
    refs.keys().filter(|name| name.starts_with("refs/heads/")).count()
}

fn value<'a>(refs: &'a Refs, name: &String) -> &'a str {
    refs.get(name).map_or("absent", String::as_str)
}

/// Returns the keys whose values differ.
fn differing<K: Ord + Clone, V: PartialEq>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> Vec<K> {
    let mut keys: Vec<K> =
        one.keys().chain(other.keys()).filter(|key| one.get(key) != other.get(key)).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Runs the operation under a hook that notes all refs at each call, and keeps what was visible outside any transaction.
///
/// Calls nest (deleting a packed ref), so a state counts only where no transaction is open.
fn states_between_transactions(operation: &Operation, template: &Repo, run: &Run<'_>) -> Vec<Refs> {
    let copy = template.copy();
    let subject = copy.sibling(operation.subject);
    let hook = subject.git_dir().join("hooks/reference-transaction");
    fs::create_dir_all(hook.parent().expect("a hook lies in a directory")).expect("the hooks directory can be made");
    fs::write(&hook, RECORDER.replace("REF_FORMAT", REF_FORMAT)).expect("the hook can be written");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("the hook can be made executable");
    let record = copy.scratch().join("record");
    run(&copy, &[("RECORD_GIT_DIR", &subject.git_dir()), ("RECORD_TO", &record)]);
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    copy.discard();

    let mut depth = 0_usize;
    let mut states = Vec::new();
    for call in recorded.split("=== ").filter(|call| !call.is_empty()) {
        let (phase, listing) = call.split_once('\n').unwrap_or((call, ""));
        let ends = phase == "committed" || phase == "aborted";
        depth = if ends { depth.saturating_sub(1) } else { depth };
        let state = snapshot::parse_refs(listing);
        if depth == 0 && state.values().all(|value| is_set(value)) {
            states.push(state);
        }
        depth += usize::from(phase == "prepared");
    }
    states
}

/// The `HEAD` of a worktree that is being made is all zeros for a while, which is no whole state.
fn is_set(value: &str) -> bool {
    !value.bytes().all(|byte| byte == b'0')
}

const RECORDER: &str = r#"#!/bin/sh
cat >/dev/null
cd "$RECORD_GIT_DIR" || exit 0
unset GIT_DIR GIT_QUARANTINE_PATH
{
    echo "=== $1"
    git --git-dir=. for-each-ref --format='REF_FORMAT'
    for head in HEAD worktrees/*/HEAD; do
        [ ! -f "$head" ] || printf '%s %s\n' "$head" "$(cat "$head")"
    done
} >>"$RECORD_TO"
"#;

/// Returns the lock files, and what blocks like one, below a git directory; relative paths.
pub fn locks(git_dir: &Path) -> Vec<PathBuf> {
    let ours = git_dir.join(".jin");
    let files = snapshot::walk(git_dir, &|directory| directory != ours);
    let relative = files.iter().filter_map(|path| path.strip_prefix(git_dir).ok());
    relative.filter(|path| blocks(path)).map(Path::to_owned).collect()
}

fn blocks(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock")
        || path == Path::new("packed-refs.new")
        || path.starts_with("logs/refs")
            && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp-renamed-log"))
}

/// Judges that no lock is left, of those that `concerns` selects.
pub fn judge_locks(repo: &Repo, concerns: &dyn Fn(&Path) -> bool) -> Option<Violation> {
    let left: Vec<_> = locks(&repo.git_dir()).into_iter().filter(|path| concerns(path)).collect();
    (!left.is_empty()).then(|| Violation::new(Damage::Lock, format!("left: {left:?}")))
}

/// Judges that no linked worktree was left half-made: git keeps it locked for ever.
pub fn judge_linked_worktrees(repo: &Repo) -> Option<Violation> {
    let linked = fs::read_dir(repo.git_dir().join("worktrees")).into_iter().flatten().flatten();
    let half_made: Vec<_> = linked
        .filter(|entry| {
            fs::read_to_string(entry.path().join("locked")).is_ok_and(|why| why.starts_with("initializing"))
        })
        .map(|entry| entry.file_name())
        .collect();
    (!half_made.is_empty()).then(|| Violation::new(Damage::Worktree, format!("half-made: {half_made:?}")))
}

/// Judges that nothing is marked as unfinished.
pub fn judge_markers(repo: &Repo) -> Option<Violation> {
    let names =
        fs::read_dir(repo.git_dir().join(".jin")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names
        .filter(|name| {
            [&b".transaction_"[..], b"tmp."].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix))
        })
        .collect();
    (!left.is_empty()).then(|| Violation::new(Damage::Marker, format!("left: {left:?}")))
}

/// A git of another test, whose repository cannot be told as it begins or ends, may be in the way for a moment: then again.
pub fn unless_hindered(mut attempt: impl FnMut() -> Output) -> Output {
    const BUSY: Option<i32> = Some(5);
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        let output = attempt();
        if output.status.code() != BUSY {
            return output;
        }
        thread::sleep(Duration::from_millis(20));
    }
    attempt()
}

/// Recovers, judges the result, and judges that recovering again changes nothing.
pub fn judge_recovery(repo: &Repo) -> Vec<Violation> {
    let mut violations = Vec::new();
    let recovery = unless_hindered(|| repo.jin_txn(["recover"]));
    if !recovery.status.success() {
        let detail = format!("{}: {}{}", recovery.status, text(&recovery.stdout), text(&recovery.stderr));
        violations.push(Violation::new(Damage::Recovery, detail));
    }
    let once = snapshot::contents(&repo.git_dir());
    repo.jin_txn(["recover"]);
    let changed = differing(&once, &snapshot::contents(&repo.git_dir()));
    if !changed.is_empty() {
        violations.push(Violation::new(Damage::Again, format!("changed: {changed:?}")));
    }
    violations
}
