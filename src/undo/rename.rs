//! What a `git branch -m` did, from its transactions.
//!
//! ```text
//!  delete OLD        a transaction, which names NEW by the command line and has the size of the reflog on its way
//!  create NEW        no transaction: its reflog says so
//!  HEAD to NEW       a transaction from git 2.46 on, where OLD was checked out
//! ```
//! An operation that did anything else is none: not one of an alias, of a run, of another program, or over a branch that was there.

use crate::fs::FileId;
use crate::git::{RefName, Value};
use crate::process::git_argv::global_options;
use crate::process::operation::{is_cut, words_of};
use crate::state::TxKind;
use crate::util::text::shell_quoted;
use crate::wal::{Begin, RefChange};

/// A branch that has got another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RenameStep {
    pub old: RefName,
    pub new: RefName,
    /// Its commit.
    pub value: Value,
    /// Its reflog before; `None` when there was none.
    pub log: Option<FileId>,
    /// HEAD of the worktree, where that was on the branch.
    pub head: Option<RefName>,
}

impl RenameStep {
    /// How a person gives it its old name again.
    pub(crate) fn way_back(&self) -> String {
        way_back(&self.old, &self.new)
    }

    /// The same, where the new name has gone on and the old one is free.
    pub(super) fn way_out_of(&self, moved: &[(RefName, Value)]) -> Option<String> {
        let has_gone_on = moved.iter().any(|(name, now)| *name == self.new && *now != Value::Absent);
        (has_gone_on && moved.iter().all(|(name, _)| *name != self.old)).then(|| self.way_back())
    }
}

/// What an operation with these transactions renamed; `None` when it renamed nothing.
pub(super) fn of(begins: &[&Begin]) -> Result<Option<RenameStep>, String> {
    let Some(begin) = begins.iter().find(|begin| begin.rename.is_some()) else { return Ok(None) };
    let rename = begin.rename.as_ref().ok_or("it renamed nothing")?;
    let is_gone = |it: &&RefChange| !it.name.is_head() && it.after == Value::Absent;
    let change = begin.refs.iter().find(is_gone).ok_or("it renamed a branch, and the log does not say which")?;
    let is_branch = |name: &RefName| name.as_bytes().starts_with(b"refs/heads/");
    if !is_branch(&change.name) {
        return Err(format!("it renamed {}, which is no branch", change.name));
    }
    let (Some(new), old) = (&rename.to, &change.name) else {
        return Err(format!("it renamed {}, and its new name does not follow from its command line", change.name));
    };
    let refused = |why: &str| Err(format!("{why}\nhint: {}", way_back(old, new)));
    let Some(Value::Oid(_)) = &change.before else { return refused("it renamed a branch of a reftable") };
    if old == new {
        return Err("it gave a branch the name that this had, and left nothing but a line in its reflog".to_owned());
    }
    if !begins.iter().all(|begin| is_of_git(begin)) {
        return refused("a run, an alias or another program renamed a branch, and may have done more");
    }
    if begins.iter().any(|begin| begin.refs.iter().any(|change| change.name == *new)) {
        return refused("it renamed a branch over another one, which would not come back");
    }
    let head = begin.head.as_ref().filter(|head| head.value == Value::Symref(old.clone()));
    let follows = |it: &RefChange| {
        let is_it = head.is_some_and(|head| head.name == it.name);
        is_it && it.before == Some(Value::Symref(old.clone())) && it.after == Value::Symref(new.clone())
    };
    let others = begins.iter().flat_map(|begin| &begin.refs).filter(|it| *it != change && !it.name.is_note());
    if !others.into_iter().all(follows) {
        return refused("it did more than rename a branch");
    }
    if !is_plain(&begin.operation) {
        return refused("what it did does not follow from its options");
    }
    let (value, head) = (change.before.clone().unwrap_or(Value::Absent), head.map(|head| head.name.clone()));
    Ok(Some(RenameStep { old: old.clone(), new: new.clone(), value, log: rename.log, head }))
}

/// Was it made by a git that was called for this, and for nothing else?
fn is_of_git(begin: &Begin) -> bool {
    let alone = begin.rename.as_ref().is_some_and(|rename| rename.alone);
    let is_own = begin.origin == TxKind::Hook && begin.root.is_none() && begin.part_of.is_none();
    is_own && !alone && !begin.batched && begin.left.is_empty()
}

/// `git branch -m [OLD] NEW`, with no option that is not known.
fn is_plain(operation: &str) -> bool {
    const OPTIONS: [&str; 8] = ["-m", "-M", "--move", "-f", "--force", "-fm", "-q", "--quiet"];
    let words = words_of(operation);
    let global = global_options(&words);
    let own: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word != "branch").skip(1).collect();
    let (options, names): (Vec<&str>, Vec<&str>) = own.into_iter().partition(|word| word.starts_with('-'));
    let is_known = options.iter().all(|word| OPTIONS.contains(word)) && (1..=2).contains(&names.len());
    global.command == Some("branch") && !global.unknown && is_known && !is_cut(operation)
}

fn way_back(old: &RefName, new: &RefName) -> String {
    let short = |name: &RefName| {
        let name = name.to_string();
        shell_quoted(name.strip_prefix("refs/heads/").unwrap_or(&name)).into_owned()
    };
    let (old, new) = (short(old), short(new));
    let end = if old.starts_with('-') || new.starts_with('-') { "-- " } else { "" };
    format!("`git branch -m {end}{new} {old}` renames it back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_is_plain_when_each_of_its_words_is_known() {
        for (operation, plain) in [
            ("git branch -m new", true),
            ("git -C x branch -M old new", true),
            ("git branch --move --force old new", true),
            ("git branch old new -m", true),
            ("git branch -fm old new", true),
            ("git branch -m old new more", false),
            ("git branch -m --sort=x old new", false),
            ("git branch -m", false),
            ("git --odd branch -m old new", false),
            ("git rn old new", false),
        ] {
            assert_eq!(is_plain(operation), plain, "{operation}");
        }
    }
}
