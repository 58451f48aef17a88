//! Which operations on the list of stashes can be reversed: a pure function of the log.
//!
//! | operation | files and index |
//! | --- | --- |
//! | `stash`, `stash push`, `stash save`, but for `--patch`, `--staged`, and `--keep-index` of some paths | go into the stash, which has all of it |
//! | `stash pop` of the last entry, without `--index` | come out of it |
//! | `stash drop` of the last entry, `stash clear` | stay |
//!
//! An operation is one of these only as a whole: an alias, a run or a rebase that also stashes is none. Options are read word by
//! word, and one that is not known refuses: what is abbreviated is not known.

use crate::git::Value;
use crate::process::git_argv::global_options;
use crate::process::operation::{is_cut, words_of};
use crate::wal::Begin;

const STASH: &[u8] = b"refs/stash";

const LIST: &str = "the list of stashes is in the reflog, which no ref update brings back";

const OPTIONS: &str = "what it did to index and files does not follow from its options";

/// What was done with the list of stashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StashStep {
    pub kind: Kind,
    /// The size of the list's log before; `None` when there was none.
    pub log: Option<u64>,
}

/// What a `git stash` was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Push {
        keeps_index: bool,
        /// Only some paths.
        some: bool,
    },
    Pop,
    /// One entry, or all.
    Drop,
}

/// What an operation with these transactions did to the list of stashes; `None` when it did not touch it.
pub(super) fn of(begins: &[&Begin]) -> Result<Option<StashStep>, String> {
    let is_stash = |begin: &&Begin| begin.refs.iter().any(|change| change.name.as_bytes() == STASH);
    let Some(begin) = begins.iter().find(|begin| is_stash(begin)) else { return Ok(None) };
    let refs = begins.iter().flat_map(|begin| &begin.refs).filter(|change| !change.name.is_note());
    let changes: Vec<_> = refs.collect();
    // Everything else that was done in the operation is git's own only when it was asked for this.
    let ([change], None, None) = (changes.as_slice(), &begin.root, begin.part_of) else { return Err(LIST.to_owned()) };
    let kind = kind(&begin.operation)?;
    let comes = match (&change.before, &change.after) {
        (Some(Value::Oid(_) | Value::Absent), Value::Oid(_)) => true,
        (Some(Value::Oid(_)), Value::Absent) => false,
        _ => return Err(LIST.to_owned()),
    };
    if comes == matches!(kind, Kind::Push { .. }) {
        Ok(Some(StashStep { kind, log: change.log }))
    } else {
        Err(LIST.to_owned())
    }
}

/// Does this command line leave index, files and what is in progress as they are, though it is a `git stash`?
pub(super) fn is_of_list_only(operation: &str) -> bool {
    kind(operation) == Ok(Kind::Drop)
}

fn kind(operation: &str) -> Result<Kind, String> {
    let words = words_of(operation);
    let global = global_options(&words);
    if global.command != Some("stash") {
        return Err(LIST.to_owned());
    }
    let elsewhere = global.unknown || global.work_tree || global.git_dir.is_some();
    let own: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word != "stash").skip(1).collect();
    let kind = match own.as_slice() {
        _ if is_cut(operation) || elsewhere => None,
        ["pop", rest @ ..] => only_quiet(rest).then_some(Kind::Pop),
        ["drop" | "clear", rest @ ..] => only_quiet(rest).then_some(Kind::Drop),
        ["push", rest @ ..] => push(rest, false),
        ["save", rest @ ..] => push(rest, true),
        [first, ..] if !first.starts_with('-') => return Err(LIST.to_owned()),
        rest => push(rest, false),
    };
    kind.ok_or_else(|| OPTIONS.to_owned())
}

fn only_quiet(words: &[&str]) -> bool {
    words.iter().all(|word| !word.starts_with('-') || ["-q", "--quiet"].contains(word))
}

/// `words_are_message`: what is no option is the message, not a path.
fn push(words: &[&str], words_are_message: bool) -> Option<Kind> {
    let (mut keeps_index, mut some) = (false, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-k" | "--keep-index" => keeps_index = true,
            "--no-keep-index" => keeps_index = false,
            "-q" | "--quiet" | "-u" | "--include-untracked" | "--no-include-untracked" | "-a" | "--all" => {}
            "-m" | "--message" => drop(words.next()?),
            "--" => {
                some |= !words_are_message && words.next().is_some();
                break;
            }
            word if word.starts_with("--message=") => {}
            word if word.starts_with("--") => return None,
            word if word.len() > 1 && word.starts_with('-') => {
                let (flags, message) = word[1..].split_once('m').map_or((&word[1..], None), |(f, m)| (f, Some(m)));
                if !flags.chars().all(|flag| "kqua".contains(flag)) {
                    return None;
                }
                keeps_index |= flags.contains('k');
                if message == Some("") {
                    words.next()?;
                }
            }
            _ => some |= !words_are_message,
        }
    }
    // There git may stop halfway: it checks the paths out of what was staged, which need not have them.
    (!(keeps_index && some)).then_some(Kind::Push { keeps_index, some })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stash_was_asked_to_do_follows_from_its_words_or_is_unknown() {
        let pushed = |keeps_index, some| Some(Kind::Push { keeps_index, some });
        for (operation, expected) in [
            ("git stash", pushed(false, false)),
            ("git stash -q", pushed(false, false)),
            ("git -C x stash push -u", pushed(false, false)),
            ("git stash -kqu", pushed(true, false)),
            ("git stash push -k --no-keep-index", pushed(false, false)),
            ("git stash push -m -p -k", pushed(true, false)),
            ("git stash push -qm -S", pushed(false, false)),
            ("git stash push -mpatch", pushed(false, false)),
            ("git stash push --message=x -- one", pushed(false, true)),
            ("git stash push one", pushed(false, true)),
            ("git stash save words of mine", pushed(false, false)),
            ("git stash -- one", pushed(false, true)),
            ("git stash push -k -- one", None),
            ("git stash push -p", None),
            ("git stash -qp", None),
            ("git stash push --staged", None),
            ("git stash push -S", None),
            ("git stash push --keep", None),
            ("git stash push --pathspec-from-file=x", None),
            ("git --work-tree=x stash", None),
            ("git stash store abc", None),
            ("git stash pop -q", Some(Kind::Pop)),
            ("git stash pop --index", None),
            ("git stash drop stash@{0}", Some(Kind::Drop)),
            ("git stash clear", Some(Kind::Drop)),
            ("git stash branch x", None),
            ("git -C stash stash", None),
            ("git st", None),
        ] {
            assert_eq!(kind(operation).ok(), expected, "{operation}");
        }
        assert!(!is_of_list_only("git stash pop"));
    }
}
