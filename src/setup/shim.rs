//! A directory ahead of git in PATH, with links to this program under the names that git is called by.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;

use crate::fs::durable;
use crate::setup::{chaining, path};
use crate::util::text::shown;

/// Programs of git that a server is called by: each is a command of git. Its last argument names the repository, but the CGI
/// program's environment does.
pub(crate) const SERVER_PROGRAMS: [&str; 4] = ["git-receive-pack", "git-upload-pack", "git-upload-archive", CGI];

pub(crate) const CGI: &str = "git-http-backend";

/// What was put into a directory.
pub(crate) struct Shim {
    pub directory: PathBuf,
    pub links: Vec<PathBuf>,
    pub is_first_in_path: bool,
}

fn links(directory: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    ["git"].into_iter().chain(SERVER_PROGRAMS).map(|name| (name, directory.join(name)))
}

/// Links `git`, and the programs that servers are called by, to `binary`.
pub(crate) fn install(directory: &Path, binary: &Utf8Path, path: &OsStr) -> anyhow::Result<Shim> {
    for (name, link) in links(directory) {
        anyhow::ensure!(
            fs::symlink_metadata(&link).is_err() || is_ours(&link),
            "there is a `{name}` already: {}\nhint: nothing was changed; choose another directory",
            shown(&link)
        );
    }
    let cannot = || format!("cannot write to {}", shown(directory));
    durable::create_dirs(&durable::real_dir(directory), 0o777).with_context(cannot)?;
    let directory = fs::canonicalize(directory).with_context(cannot)?;
    let cannot = || format!("cannot write to {}", shown(&directory));
    for (_, link) in links(&directory) {
        durable::symlink(binary.as_std_path(), &link).with_context(cannot)?;
    }
    durable::fsync_dir(&directory).with_context(cannot)?;
    let first = std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| git.is_file());
    let is_first_in_path = first.is_some_and(|first| is_same(&first, &directory.join("git")));
    Ok(Shim { links: links(&directory).map(|(_, link)| link).collect(), is_first_in_path, directory })
}

/// Takes the links away, and nothing that is not ours. Says from where.
pub(crate) fn uninstall(directory: &Path) -> anyhow::Result<PathBuf> {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let ours: Vec<PathBuf> = links(&directory).map(|(_, link)| link).filter(|link| is_ours(link)).collect();
    anyhow::ensure!(!ours.is_empty(), "there is no shim of jin-txn in {}", shown(&directory));
    for link in &ours {
        durable::remove_file(link).with_context(|| format!("cannot remove {}", shown(link)))?;
    }
    durable::fsync_dir(&directory)?;
    Ok(directory)
}

/// A link to a jin-txn, also one that is gone, or a copy of this one.
fn is_ours(link: &Path) -> bool {
    chaining::is_ours(link) || path::is_this_program(link)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let place = |file: &Path| Some((fs::canonicalize(file.parent()?).ok()?, file.file_name()?.to_owned()));
    place(one).is_some_and(|found| place(other) == Some(found))
}
