//! What a move of HEAD did to the worktree, from what git wrote into HEAD's reflog about it.
//!
//! | reflog says | index and files |
//! | --- | --- |
//! | `commit`, `Branch: renamed` | stay |
//! | `checkout`, `merge`, `rebase`, `pull`, `cherry-pick`, `revert`, `am` | follow HEAD |
//! | `checkout` with `-f`, `-m` or `--orphan` | unknown: changes may be lost or merged, files may stay |
//! | `reset: moving to` | as the options say: `--soft` stay; none, `--mixed`, `-N` the index; `--hard`, `--keep`, `--merge` both |
//! | anything else | unknown: refused. But `git update-ref` and `git symbolic-ref` never touch them |
//!
//! Where HEAD has no reflog, the command of the git that moved it says the same.

use std::io;
use std::path::Path;

use crate::git::reflog::{self, LogLine};
use crate::git::{Oid, Value};
use crate::process::operation::{command_of, is_cut, words_of};
use crate::staging::own::moving_message;
use crate::undo::history::{HeadRecord, LogPlace};

/// What of the worktree goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Stays,
    /// The index.
    Index,
    /// Index and files.
    Follows,
}

/// One move of HEAD: from which commit to which, where that is known; no commit is known as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub effect: Effect,
    /// A commit: it takes what is staged, and perhaps stages it first.
    pub commits: bool,
    /// A commit that ended a merge or a cherry-pick.
    pub ends: bool,
    /// A `git reset`: of no path it leaves what was staged.
    pub resets: bool,
    pub from: Option<Option<Oid>>,
    pub to: Option<Option<Oid>>,
}

impl Move {
    pub(super) fn reversed(self) -> Move {
        Move { from: self.to, to: self.from, ..self }
    }
}

/// The move, or why it is unknown what it did.
pub(super) fn read(log: &Path, record: &HeadRecord) -> io::Result<Result<Move, String>> {
    let found = match record.log {
        LogPlace::Behind(size) => reflog::first_line_at(log, size)?,
        LogPlace::Unknown if !says_so(log, record)? => {
            return Ok(Err("HEAD's reflog does not say what the log says of where HEAD was before".to_owned()));
        }
        LogPlace::Unknown => None,
    };
    let line = found.as_deref().and_then(LogLine::parse).filter(|line| is_of(line, record));
    let message = line.as_ref().map(|line| String::from_utf8_lossy(line.message).into_owned());
    let commits = message.as_deref().is_some_and(|message| message.starts_with("commit"));
    const ENDS: [&str; 2] = ["commit (merge)", "commit (cherry-pick)"];
    let ends = message.as_deref().is_some_and(|message| ENDS.iter().any(|it| message.starts_with(it)));
    let resets = match message.as_deref() {
        Some(message) => message.starts_with("reset: "),
        None => command_of(&record.operation).as_deref() == Some("reset"),
    };
    let effect = match (effect(message.as_deref(), record), message) {
        (Some(effect), _) => effect,
        (None, Some(message)) => return Ok(Err(format!("what `{message}` did to index and files is unknown"))),
        (None, None) => return Ok(Err("what it did to index and files is not in HEAD's reflog any more".to_owned())),
    };
    let commit = |value: &Value, hex: Option<&[u8]>| match value {
        Value::Oid(oid) => Some(Some(*oid)),
        Value::Absent => Some(None),
        _ => hex.and_then(Oid::parse).map(|oid| Some(oid).filter(|oid| !oid.is_null())),
    };
    let from = commit(&record.before, line.as_ref().map(|line| line.old));
    let to = commit(&record.after, line.as_ref().map(|line| line.new));
    Ok(Ok(Move { effect, commits, ends, resets, from, to }))
}

/// Is the newest checkout in HEAD's reflog this one, or its reversal? Up to 2.45 the hook that is called after a checkout does not
/// say which branch HEAD has left.
fn says_so(log: &Path, record: &HeadRecord) -> io::Result<bool> {
    let message = reflog::newest_checkout(log)?;
    let is_from = |value: &Value| {
        let start = moving_message(value, &Value::Absent);
        message.as_deref().is_some_and(|message| message.starts_with(start.strip_suffix("absent").unwrap_or(&start)))
    };
    Ok(is_from(&record.before) || is_from(&record.after))
}

/// Is the line about this very move?
fn is_of(line: &LogLine<'_>, record: &HeadRecord) -> bool {
    let is = |value: &Value, hex: &[u8]| match value {
        Value::Oid(oid) => oid.hex().as_bytes() == hex,
        Value::Absent => hex.iter().all(|b| *b == b'0'),
        _ => true,
    };
    let is_between_branches = matches!((&record.before, &record.after), (Value::Symref(_), Value::Symref(_)));
    let tells_of_it = || {
        let start = moving_message(&record.before, &Value::Absent);
        let start = start.strip_suffix("absent").unwrap_or(&start);
        line.message.starts_with(start.as_bytes()) || line.message.starts_with(b"Branch: renamed ")
    };
    is(&record.before, line.old) && is(&record.after, line.new) && (!is_between_branches || tells_of_it())
}

fn effect(message: Option<&str>, record: &HeadRecord) -> Option<Effect> {
    let command = command_of(&record.operation);
    let command = command.as_deref();
    if record.is_ours || matches!(command, Some("update-ref" | "symbolic-ref")) {
        return Some(Effect::Stays);
    }
    let is_checkout = message.map_or(matches!(command, Some("checkout" | "switch")), |m| m.starts_with("checkout"));
    if is_checkout && is_special(&record.operation) {
        return None;
    }
    let by_command = COMMANDS.iter().find(|(it, _)| Some(*it) == command).map(|(_, effect)| *effect);
    let Some(message) = message else {
        return if command == Some("reset") { of_reset(&record.operation) } else { by_command };
    };
    if message.starts_with("reset: moving to ") {
        return of_reset(&record.operation);
    }
    let is_it = |what: &str| message.strip_prefix(what).is_some_and(|rest| rest.starts_with([':', ' ']));
    let by_message = MESSAGES.iter().find(|(what, _)| is_it(what)).map(|(_, effect)| *effect);
    // Who calls git chooses the message: GIT_REFLOG_ACTION. What concludes a merge says that it commits.
    let concludes = words_of(&record.operation).iter().any(|word| word == "--continue");
    let contradicts = by_command == Some(Effect::Follows) && by_message == Some(Effect::Stays) && !concludes;
    by_message.filter(|_| !contradicts)
}

const MESSAGES: [(&str, Effect); 11] = [
    ("commit", Effect::Stays),
    ("Branch: renamed", Effect::Stays),
    ("checkout", Effect::Follows),
    ("merge", Effect::Follows),
    ("rebase", Effect::Follows),
    ("pull", Effect::Follows),
    ("initial pull", Effect::Follows),
    ("cherry-pick", Effect::Follows),
    ("revert", Effect::Follows),
    ("am", Effect::Follows),
    ("rebase finished", Effect::Follows),
];

const COMMANDS: [(&str, Effect); 9] = [
    ("commit", Effect::Stays),
    ("checkout", Effect::Follows),
    ("switch", Effect::Follows),
    ("merge", Effect::Follows),
    ("rebase", Effect::Follows),
    ("pull", Effect::Follows),
    ("cherry-pick", Effect::Follows),
    ("revert", Effect::Follows),
    ("am", Effect::Follows),
];

/// May a checkout throw changes away, merge them with the other branch, or keep the files of the one before?
fn is_special(operation: &str) -> bool {
    const LONG: [&str; 5] = ["--force", "--discard-changes", "--merge", "--conflict", "--orphan"];
    let is_short = |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains(['f', 'm']);
    let is_long = |word: &str| {
        LONG.iter().any(|long| word.starts_with(long) || (word.len() >= "--x".len() && long.starts_with(word)))
    };
    is_cut(operation) || words_of(operation).iter().skip(2).any(|word| is_short(word) || is_long(word))
}

/// By its options, which may be abbreviated, and of which the last one counts. Of an alias they are unknown, and of a command line
/// that was cut.
fn of_reset(operation: &str) -> Option<Effect> {
    const MODES: [(&str, Effect); 5] = [
        ("--hard", Effect::Follows),
        ("--keep", Effect::Follows),
        ("--merge", Effect::Follows),
        ("--mixed", Effect::Index),
        ("--soft", Effect::Stays),
    ];
    let is_known = command_of(operation).as_deref() == Some("reset") && !is_cut(operation);
    let words = words_of(operation);
    let mut options = words.iter().skip_while(|word| *word != "reset").take_while(|word| *word != "--");
    let mode = |word: &str| MODES.iter().find(|(mode, _)| word.len() > 2 && mode.starts_with(word)).map(|(_, it)| *it);
    is_known.then(|| options.by_ref().filter_map(|word| mode(word)).last().unwrap_or(Effect::Index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_move_did_is_told_by_the_reflog_and_else_by_the_command() {
        for (message, operation, expected) in [
            (Some("commit: x"), "git commit -m x", Some(Effect::Stays)),
            (Some("commit (amend): merge: x"), "git commit --amend", Some(Effect::Stays)),
            (Some("commits: x"), "git y", None),
            (Some("merge topic: Fast-forward"), "git merge topic", Some(Effect::Follows)),
            (Some("pull --rebase (start): checkout abc"), "git pull --rebase", Some(Effect::Follows)),
            (Some("reset: moving to HEAD~1"), "git reset HEAD~1", Some(Effect::Index)),
            (Some("reset: moving to HEAD~1"), "git reset --soft HEAD~1", Some(Effect::Stays)),
            (Some("reset: moving to HEAD~1"), "git -c a=b reset --hard HEAD~1", Some(Effect::Follows)),
            (Some("reset: moving to HEAD~1"), "git back", None),
            (Some("merge topic: Fast-forward"), "git -C 'x update-ref' merge topic", Some(Effect::Follows)),
            (Some("checkout: moving from a to b"), "git checkout 'x -f' b", Some(Effect::Follows)),
            (Some("reset: moving to HEAD~1"), "git reset --har HEAD~1", Some(Effect::Follows)),
            (Some("reset: moving to HEAD~1"), "git reset --hard --soft HEAD~1", Some(Effect::Stays)),
            (Some("reset: moving to HEAD~1"), "git reset HEAD~1 -- --hard", Some(Effect::Index)),
            (Some("merge topic: Fast-forward"), "git merge -m update-ref topic", Some(Effect::Follows)),
            (Some("commit tool: x"), "git merge topic", None),
            (Some("commit (merge): x"), "git merge --continue", Some(Effect::Stays)),
            (None, "git merge -m commit topic", Some(Effect::Follows)),
            (Some("checkout: moving from a to b"), "git checkout -q b", Some(Effect::Follows)),
            (Some("checkout: moving from a to b"), "git checkout -qf b", None),
            (Some("checkout: moving from a to b"), "git switch --discard-changes b", None),
            (Some("checkout: moving from a to b"), "git checkout --f b", None),
            (Some("checkout: moving from a to b"), "git checkout --m b", None),
            (Some("checkout: moving from a to b"), "git switch -c form --no-track b", Some(Effect::Follows)),
            (Some("push"), "git receive-pack x", None),
            (Some(""), "git update-ref HEAD abc", Some(Effect::Stays)),
            (None, "git switch main", Some(Effect::Follows)),
            (None, "git checkout --orphan b", None),
            (None, "git frotz", None),
        ] {
            let record = HeadRecord {
                before: Value::Absent,
                after: Value::Absent,
                log: LogPlace::Unknown,
                operation: operation.to_owned(),
                is_ours: false,
            };
            assert_eq!(effect(message, &record), expected, "{message:?}, {operation}");
        }
    }
}
