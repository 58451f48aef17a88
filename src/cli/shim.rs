//! `jin-txn install --shim` and `uninstall --shim`: a directory ahead of git in PATH.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::cli::git::SERVER_PROGRAMS;
use crate::cli::{Session, exit, path};
use crate::fs::durable;
use crate::setup::hooks::this_binary;

#[derive(Serialize)]
struct Outcome {
    version: u32,
    shims: Vec<String>,
    git: String,
    first_in_path: bool,
}

fn names() -> impl Iterator<Item = &'static str> {
    ["git"].into_iter().chain(SERVER_PROGRAMS)
}

/// Links `git`, and the programs that servers are called by, to this binary.
pub(super) fn install(session: &Session, dir: &Path) -> anyhow::Result<u8> {
    let dir = session.directory.join(dir);
    let binary = this_binary()?;
    let git = path::first_git()?;
    for name in names() {
        let link = dir.join(name);
        anyhow::ensure!(
            fs::symlink_metadata(&link).is_err() || is_ours(&link),
            "there is a `{name}` already: {}\nhint: nothing was changed; choose another directory",
            link.display()
        );
    }
    let cannot = || format!("cannot write to {}", dir.display());
    durable::create_dirs(&dir, 0o777).with_context(cannot)?;
    let dir = fs::canonicalize(&dir).with_context(cannot)?;
    let cannot = || format!("cannot write to {}", dir.display());
    for name in names() {
        durable::symlink(binary.as_std_path(), &dir.join(name)).with_context(cannot)?;
    }
    durable::fsync_dir(&dir).with_context(cannot)?;

    let first = first_in_path().is_some_and(|first| is_same(&first, &dir.join("git")));
    if session.json {
        let shims = names().map(|name| dir.join(name).display().to_string()).collect();
        session.print_json(&Outcome { version: 1, shims, git: git.display().to_string(), first_in_path: first })?;
        return Ok(exit::DONE);
    }
    session.say(&format!("jin-txn: {} is git after a check; the git behind it is {}", dir.display(), git.display()));
    if !first {
        session.say(&format!("hint: put it first: export PATH={}:$PATH", shell_word(&dir)));
    }
    Ok(exit::DONE)
}

/// Takes the links away, and nothing that is not ours.
pub(super) fn uninstall(session: &Session, dir: &Path) -> anyhow::Result<u8> {
    let dir = session.directory.join(dir);
    let dir = fs::canonicalize(&dir).unwrap_or(dir);
    let ours: Vec<PathBuf> = names().map(|name| dir.join(name)).filter(|link| is_ours(link)).collect();
    anyhow::ensure!(!ours.is_empty(), "there is no shim of jin-txn in {}", dir.display());
    for link in &ours {
        durable::remove_file(link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    durable::fsync_dir(&dir)?;
    session.say(&format!("jin-txn: {} is out of git's way", dir.display()));
    Ok(exit::DONE)
}

/// A link to a jin-txn, also one that is gone, or a copy of this one.
fn is_ours(link: &Path) -> bool {
    crate::setup::chaining::is_ours(link) || path::is_this_program(link)
}

fn first_in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.is_file())
}

fn is_same(one: &Path, other: &Path) -> bool {
    let place = |file: &Path| Some((fs::canonicalize(file.parent()?).ok()?, file.file_name()?.to_owned()));
    place(one).is_some_and(|found| place(other) == Some(found))
}

/// As the user may paste it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./@%+,".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
