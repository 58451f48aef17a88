//! What was recovered while nobody looked, to be told once: by the first command of this user that has a terminal.
//!
//! ```text
//! .jin/told.<uid>.<unix time>.<nanoseconds>    lines, readable for that user only; kept for a week
//! .jin/telling.<uid>.<pid>                     one that a process is about to tell: who renames it, tells it
//! ```
//! A process that is killed in between leaves the second one, which goes with the old ones.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::fs::{durable, named as fs};
use crate::state::StateDir;
use crate::util::text::one_line;

const TOLD: &str = "told.";
const TELLING: &str = "telling.";

/// Older ones are not told any more.
const LONGEST_AGE: u64 = 7 * 24 * 3600;

/// The most that one has.
const LONGEST: u64 = 16 << 10;

/// The most that wait.
const MOST: usize = 16;

/// Is a name in the state directory one of these?
pub(crate) fn is_one(name: &str) -> bool {
    name.starts_with(TOLD)
}

/// Leaves `lines` for this user.
pub(crate) fn leave(state: &StateDir, lines: &[String]) -> io::Result<()> {
    let waiting = drop_old(state.path())?;
    if lines.is_empty() || waiting >= MOST {
        return Ok(());
    }
    let now = since_epoch();
    let name = format!("{TOLD}{}.{}.{}", user(), now.as_secs(), now.subsec_nanos());
    let text = cut(lines);
    durable::create_private(&state.path().join(name), text.as_bytes())
}

/// What is read again: long lines are cut, and what is too much is left away.
fn cut(lines: &[String]) -> String {
    const LONGEST_LINE: usize = 1000;
    let mut text = String::new();
    for line in lines {
        let line: String = line.chars().take(LONGEST_LINE).collect();
        if text.len() + line.len() + "...\n\n".len() > usize::try_from(LONGEST).unwrap_or(usize::MAX) {
            text.push_str("...\n");
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Takes what waits for this user, in the order in which it happened. Nobody else is told the same.
pub(crate) fn take(state: &Path) -> Vec<String> {
    let mut names = names(state).unwrap_or_default();
    names.sort_unstable_by_key(|name| (number(name, 2), number(name, 3)));
    let of_user: Vec<_> = names.into_iter().filter(|name| is_of_user(name, TOLD)).collect();
    of_user.iter().filter_map(|name| take_one(state, name)).flatten().collect()
}

fn take_one(state: &Path, name: &str) -> Option<Vec<String>> {
    let claimed = state.join(format!("{TELLING}{}.{}", user(), std::process::id()));
    // A directory would stay as what is being told, in the way of the others.
    fs::symlink_metadata(state.join(name)).ok().filter(std::fs::Metadata::is_file)?;
    durable::rename_new(&state.join(name), &claimed).ok()?;
    let is_own = fs::symlink_metadata(&claimed).is_ok_and(|found| found.uid() == user());
    let text = durable::read_own(&claimed, LONGEST);
    if durable::remove_file(&claimed).is_err() || !is_own || is_old(name) {
        return None;
    }
    let text = String::from_utf8(text.ok()?).ok()?;
    Some(text.lines().map(|line| one_line(line).into_owned()).collect())
}

/// Drops this user's old ones. How many wait still.
fn drop_old(state: &Path) -> io::Result<usize> {
    let mut waiting = 0;
    for name in names(state)? {
        let is_left = is_of_user(&name, TELLING) && is_older(&state.join(&name));
        let path = state.join(&name);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        if is_left || (is_of_user(&name, TOLD) && is_old(&name)) {
            durable::remove_file(&path)?;
        } else if is_of_user(&name, TOLD) {
            waiting += 1;
        }
    }
    Ok(waiting)
}

fn names(state: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(state)?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn is_of_user(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).and_then(|rest| rest.split('.').next()) == Some(user().to_string().as_str())
}

/// By the time in its name.
fn is_old(name: &str) -> bool {
    number(name, 2).is_none_or(|time| since_epoch().as_secs().saturating_sub(time) > LONGEST_AGE)
}

/// A part of a name, as a number.
fn number(name: &str, part: usize) -> Option<u64> {
    name.split('.').nth(part)?.parse().ok()
}

fn is_older(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    let age = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age.as_secs() > LONGEST_AGE)
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
