//! Reflogs: one line per update, `<old> SP <new> SP <who> TAB <message> LF`, appended before the ref is renamed
//! into place.
//!
//! A transaction that was rolled back leaves entries behind for updates that never happened. They are cut off
//! only when everything behind the recorded size is known to be that transaction's, and under the ref's lock,
//! because git appends under that lock.

use crate::fs::named as fs;
use std::io;
use std::path::Path;

use crate::fs::absent_is_none;
use crate::git::Oid;
use crate::git::refs::{RefName, Value};

/// The message that recovery leaves with its own updates, by which it knows them again.
pub(crate) const OUR_MESSAGE: &str = "jin-txn: ";

/// Where git keeps a reflog that is on its way to a new name.
pub(crate) const RENAMED_LOG: &str = "logs/refs/.tmp-renamed-log";

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine<'l> {
    /// Value before (hex).
    pub old: &'l [u8],
    /// Value after (hex).
    pub new: &'l [u8],
    /// The reason.
    pub message: &'l [u8],
}

impl<'l> LogLine<'l> {
    /// Parses a line without its line feed.
    pub(crate) fn parse(line: &'l [u8]) -> Option<LogLine<'l>> {
        let first = line.iter().position(|b| *b == b' ')?;
        let second = first + 1 + line[first + 1..].iter().position(|b| *b == b' ')?;
        let message = line.iter().position(|b| *b == b'\t').map_or(&[][..], |tab| &line[tab + 1..]);
        Some(LogLine { old: &line[..first], new: &line[first + 1..second], message })
    }

    /// Did recovery write it?
    pub(crate) fn is_ours(&self) -> bool {
        self.message.starts_with(OUR_MESSAGE.as_bytes())
    }
}

/// The branch that a line says HEAD moved to: `checkout: moving from a to b`, `rebase (finish): returning to
/// refs/heads/b`, `Branch: renamed refs/heads/a to refs/heads/b`.
pub(crate) fn moved_to(line: &LogLine<'_>) -> Option<RefName> {
    let moves = [b"checkout: moving from ".as_slice(), b"rebase (finish): returning to ", b"Branch: renamed "];
    // A renamed branch is logged twice: that it is gone (zeros), and that HEAD follows.
    let leaves = line.new.iter().all(|b| *b == b'0');
    if leaves || !moves.iter().any(|m| line.message.starts_with(m)) {
        return None;
    }
    let last = line.message.rsplit(|b| *b == b' ').next()?;
    let short = last.strip_prefix(b"refs/heads/").unwrap_or(last);
    RefName::parse(&[b"refs/heads/".as_slice(), short].concat()).ok()
}

/// All of a reflog; `None` when there is none. A link is none, nor is anything else that is no file: what it leads to is not
/// this ref's.
fn content(log: &Path) -> io::Result<Option<Vec<u8>>> {
    if !absent_is_none(fs::symlink_metadata(log))?.is_some_and(|found| found.is_file()) {
        return Ok(None);
    }
    absent_is_none(fs::read(log))
}

/// Is this one whole line, about a ref that went from `before` to `after`?
pub(crate) fn is_one_line(text: &[u8], before: &Value, after: &Value) -> bool {
    let is = |value: &Value, hex: &[u8]| match value {
        Value::Oid(oid) => oid.hex().as_bytes() == hex,
        Value::Absent => !hex.is_empty() && hex.iter().all(|byte| *byte == b'0'),
        _ => false,
    };
    let line = text.strip_suffix(b"\n").filter(|line| !line.contains(&b'\n')).and_then(LogLine::parse);
    line.is_some_and(|line| is(before, line.old) && is(after, line.new))
}

/// What lies behind the recorded size of a reflog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or the log is shorter than recorded (expired since): not ours to touch.
    Nothing,
    /// Only entries that `known` recognised, or a cut one: safe to take away.
    Known(Vec<u8>),
    /// Somebody else's entries are among them.
    Foreign,
}

/// Looks at what was appended to `log` since it had `recorded` bytes (`None`: it did not exist).
pub(crate) fn tail(log: &Path, recorded: Option<u64>, known: impl Fn(&LogLine<'_>) -> bool) -> io::Result<Tail> {
    let Some(content) = content(log)? else { return Ok(Tail::Nothing) };
    let from = usize::try_from(recorded.unwrap_or(0)).unwrap_or(usize::MAX);
    // A log that did not exist and is empty now: git died between creating it and its first entry.
    let created = recorded.is_none();
    let Some(added) = content.get(from..).filter(|a| created || !a.is_empty()) else { return Ok(Tail::Nothing) };
    if from > 0 && content[from - 1] != b'\n' {
        return Ok(Tail::Foreign);
    }
    let complete = |line: &&[u8]| line.ends_with(b"\n");
    let all_known = added
        .split_inclusive(|b| *b == b'\n')
        .filter(complete)
        .all(|line| LogLine::parse(line.strip_suffix(b"\n").unwrap_or(line)).is_some_and(|l| known(&l)));
    Ok(if all_known { Tail::Known(added.to_vec()) } else { Tail::Foreign })
}

/// The first entry behind the recorded size, and whether more follow: proof of what a transaction did there.
pub(crate) fn entry_at(log: &Path, recorded: Option<u64>) -> io::Result<Option<(String, String, bool)>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let from = usize::try_from(recorded.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut lines = content.get(from..).unwrap_or_default().split_inclusive(|b| *b == b'\n');
    let Some(first) = lines.next().and_then(|l| l.strip_suffix(b"\n")) else { return Ok(None) };
    let Some(line) = LogLine::parse(first) else { return Ok(None) };
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ok(Some((text(line.old), text(line.new), lines.next().is_some())))
}

/// The first whole line behind the recorded size, without its line feed, if it is the last one as well.
pub(crate) fn line_at(log: &Path, recorded: Option<u64>) -> io::Result<Option<Vec<u8>>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let from = usize::try_from(recorded.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut lines = content.get(from..).unwrap_or_default().split_inclusive(|b| *b == b'\n');
    let first = lines.next().and_then(|line| line.strip_suffix(b"\n"));
    Ok(first.filter(|_| lines.next().is_none()).map(<[u8]>::to_vec))
}

/// The message of the newest entry about a checkout.
pub(crate) fn newest_checkout(log: &Path) -> io::Result<Option<String>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let mut lines = content.rsplit(|b| *b == b'\n').filter_map(LogLine::parse);
    let found = lines.find(|line| line.message.starts_with(b"checkout: moving from "));
    Ok(found.map(|line| String::from_utf8_lossy(line.message).into_owned()))
}

/// The first whole line behind the recorded size, without its line feed.
pub(crate) fn first_line_at(log: &Path, recorded: Option<u64>) -> io::Result<Option<Vec<u8>>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let from = usize::try_from(recorded.unwrap_or(0)).unwrap_or(usize::MAX);
    let first = content.get(from..).unwrap_or_default().split_inclusive(|b| *b == b'\n').next();
    Ok(first.and_then(|line| line.strip_suffix(b"\n")).map(<[u8]>::to_vec))
}

/// Is the first whole line behind the recorded size one that `wanted` recognises?
pub(crate) fn goes_on_with(
    log: &Path,
    recorded: Option<u64>,
    wanted: impl Fn(&LogLine<'_>) -> bool,
) -> io::Result<bool> {
    let first = first_line_at(log, recorded)?;
    Ok(first.as_deref().and_then(LogLine::parse).is_some_and(|line| wanted(&line)))
}

/// The value that the last complete entry of a log leads to.
pub(crate) fn newest_value(log: &Path) -> io::Result<Option<String>> {
    let Some(content) = content(log)? else { return Ok(None) };
    Ok(last_line(&content).map(|l| String::from_utf8_lossy(l.new).into_owned()))
}

/// The values that the last entries of a log speak of, zeros excepted.
pub(crate) fn newest_values(log: &Path, entries: usize) -> io::Result<Vec<Oid>> {
    let Some(content) = content(log)? else { return Ok(Vec::new()) };
    let lines = content.rsplit(|b| *b == b'\n').filter_map(LogLine::parse).take(entries);
    let values = lines.flat_map(|line| [Oid::parse(line.old), Oid::parse(line.new)]);
    Ok(values.flatten().filter(|oid| !oid.is_null()).collect())
}

/// The size of a log without the NULs, half lines, garbage, and entries about objects that `is_there` does not know, at its
/// end; `None` when there are none.
pub(crate) fn sound_size(log: &Path, is_there: impl Fn(&Oid) -> bool) -> io::Result<Option<u64>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let is_known = |value: &[u8]| Oid::parse(value).is_some_and(|oid| oid.is_null() || is_there(&oid));
    let is_sound = |line: &&[u8]| {
        let complete = line.strip_suffix(b"\n").filter(|l| !l.contains(&0));
        complete.and_then(LogLine::parse).is_some_and(|l| is_known(l.old) && is_known(l.new))
    };
    let lines: Vec<&[u8]> = content.split_inclusive(|b| *b == b'\n').collect();
    let cut: usize = lines.iter().rev().take_while(|line| !is_sound(line)).map(|line| line.len()).sum();
    Ok((cut > 0).then_some((content.len() - cut) as u64))
}

/// The branch that HEAD's reflog last says HEAD moved to.
pub(crate) fn newest_branch(log: &Path) -> io::Result<Option<RefName>> {
    let Some(content) = content(log)? else { return Ok(None) };
    Ok(content.rsplit(|b| *b == b'\n').filter_map(LogLine::parse).find_map(|line| moved_to(&line)))
}

/// Does HEAD's reflog prove that HEAD is on this branch, and that the branch has this value? The last move that it tells of led to
/// the branch, and its last entry to the value. Some moves are not logged (`checkout --orphan`), so what HEAD says alone is no proof.
pub(crate) fn proves_branch(head_log: &Path, branch: &RefName, value: &Oid) -> io::Result<bool> {
    let is_last = newest_value(head_log)?.is_some_and(|newest| *newest == *value.hex());
    Ok(is_last && newest_branch(head_log)?.as_ref() == Some(branch))
}

/// The size of a log without those of its last entries, `at_most` so many, that `unwanted` recognises (or that are cut);
/// `None` when there is nothing to take away.
pub(crate) fn size_without_last(
    log: &Path,
    at_most: usize,
    unwanted: impl Fn(&LogLine<'_>) -> bool,
) -> io::Result<Option<u64>> {
    let Some(content) = content(log)? else { return Ok(None) };
    let lines: Vec<&[u8]> = content.split_inclusive(|b| *b == b'\n').collect();
    let goes = |line: &&&[u8]| match line.strip_suffix(b"\n") {
        Some(complete) => LogLine::parse(complete).is_some_and(|l| unwanted(&l)),
        None => true,
    };
    let cut: usize = lines.iter().rev().take(at_most).take_while(goes).map(|line| line.len()).sum();
    Ok((cut > 0).then_some((content.len() - cut) as u64))
}

/// Did recovery write the last complete entry?
pub(crate) fn ends_with_ours(log: &Path) -> io::Result<bool> {
    ends_with(log, |line| line.is_ours())
}

/// Is this the last entry? What is behind the last line feed is none.
pub(crate) fn ends_with(log: &Path, wanted: impl Fn(&LogLine<'_>) -> bool) -> io::Result<bool> {
    let Some(content) = content(log)? else { return Ok(false) };
    Ok(last_line(&content).is_some_and(|line| wanted(&line)))
}

fn last_line(content: &[u8]) -> Option<LogLine<'_>> {
    content.strip_suffix(b"\n")?.rsplit(|b| *b == b'\n').next().and_then(LogLine::parse)
}
