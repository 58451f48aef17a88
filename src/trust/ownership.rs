//! Is it the user's own repository, or one that git accepts?
//!
//! Judged as git does: the `.git` file, the root of the worktree and the git directories, after links are resolved, all belong
//! to the user. Otherwise git is asked, and has to name this very git directory (device and inode): it may have found another
//! repository further up. Where git cannot name any (an empty HEAD, a torn configuration: when we are needed most),
//! `safe.directory` decides, read from the system's and the user's configuration only.
//!
//! A git directory that is neither the common one nor one of its `worktrees/` is refused: its `commondir` leads into a
//! repository that knows nothing of it.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::named as fs;
use crate::git::plumbing::ConfigQuery;
use crate::git::repository::Found;
use crate::git::{Git, Plumbing, Repository};
use crate::util::text::shown;

/// The first git that knows `safe.directory=<path>/*`.
const PREFIXES: (u32, u32) = (2, 46);

/// The user who runs this program, as git counts: root is also the user who called `sudo`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    uid: u32,
    sudo: Option<u32>,
}

impl User {
    /// The user of this process; `sudo_uid`: the variable `SUDO_UID`.
    pub(crate) fn new(sudo_uid: Option<&str>) -> User {
        let uid = rustix::process::geteuid().as_raw();
        User { uid, sudo: sudo_uid.filter(|_| uid == 0).and_then(|text| text.parse().ok()) }
    }

    fn is(self, uid: u32) -> bool {
        uid == self.uid || self.sudo == Some(uid)
    }

    /// Does all of it belong to this user?
    pub(crate) fn owns(self, found: &Found) -> std::io::Result<bool> {
        let Found { repo, gitfile, top, bare: _ } = found;
        let places = [Some(&repo.git_dir), Some(&repo.common_dir), gitfile.as_ref(), top.as_ref()];
        for place in places.into_iter().flatten() {
            if !self.is(fs::metadata(place)?.uid()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Refuses a git directory that the common one has no place for.
pub(crate) fn require_linked(repo: &Repository) -> anyhow::Result<()> {
    let is_linked = repo.git_dir.parent().is_some_and(|parent| parent == repo.common_dir.join("worktrees"));
    anyhow::ensure!(
        repo.git_dir == repo.common_dir || is_linked,
        "{} is not a worktree of {}, which its `commondir` names\nhint: nothing was done; find out who wrote that file",
        shown(&repo.git_dir),
        shown(&repo.common_dir)
    );
    Ok(())
}

/// Refuses a repository that belongs to somebody else, unless git accepts it.
pub(crate) fn require_trusted(found: &Found, user: User, git: &Path) -> anyhow::Result<()> {
    require_linked(&found.repo)?;
    if user.owns(found)? {
        return Ok(());
    }
    let from = found.top.as_ref().unwrap_or(&found.repo.git_dir);
    let asked = Git::new(git).command(Plumbing::GitDir).directory(from).run()?;
    if !asked.success {
        anyhow::ensure!(is_safe(found, git)?, "{}", asked.stderr);
        return Ok(());
    }
    let named = asked.stdout.strip_suffix(b"\n").unwrap_or(&asked.stdout);
    let named = PathBuf::from(std::ffi::OsString::from_vec(named.to_vec()));
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    anyhow::ensure!(
        identity(&named)? == identity(&found.repo.git_dir)?,
        "{} belongs to another user, and git takes {} for the repository here\nhint: name the one that you mean with --git-dir",
        shown(&found.repo.git_dir),
        shown(&named)
    );
    Ok(())
}

/// Does `safe.directory` name it? As git reads it: an empty value takes back what came before.
fn is_safe(found: &Found, git: &Path) -> anyhow::Result<bool> {
    let place = found.top.as_ref().unwrap_or(&found.repo.git_dir);
    let place = fs::canonicalize(place)?;
    let values = protected_values(git, "safe.directory")?;
    let knows_prefixes = values.iter().any(|value| value.ends_with(b"/*")) && Git::new(git).version()? >= PREFIXES;
    Ok(values.iter().fold(false, |safe, value| !value.is_empty() && (safe || names(value, &place, knows_prefixes))))
}

/// Does one value of `safe.directory` name `place`?
fn names(value: &[u8], place: &Path, knows_prefixes: bool) -> bool {
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let resolved = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    match value.strip_suffix(b"/*") {
        _ if value == b"*" => true,
        Some(prefix) if knows_prefixes => place.starts_with(resolved(path(prefix))) && place != path(prefix),
        _ => value.starts_with(b"/") && resolved(path(value)) == place,
    }
}

/// Will git refuse a bare repository that it has only found (`safe.bareRepository`)?
pub(crate) fn is_bare_refused(found: &Found, git: &Path) -> anyhow::Result<bool> {
    let is_inside = |dir: &PathBuf| dir.iter().any(|part| part == ".git");
    if found.bare.as_ref().is_none_or(is_inside) {
        return Ok(false);
    }
    Ok(protected_values(git, "safe.bareRepository")?.last().is_some_and(|value| value == b"explicit"))
}

/// Is it a bare repository inside of another one's worktree? A clone brings those.
pub(crate) fn is_embedded(found: &Found) -> bool {
    found.bare.as_ref().is_some_and(|dir| {
        let is_inside = dir.iter().any(|part| part == ".git");
        !is_inside && dir.ancestors().skip(1).any(|above| fs::symlink_metadata(above.join(".git")).is_ok())
    })
}

/// The values of a setting that git takes only from the system's and the user's configuration, in git's order.
fn protected_values(git: &Path, key: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    for scope in ["--system", "--global"] {
        let asked = Git::new(git)
            .command(Plumbing::Config(ConfigQuery::PathsIn { scope, key }))
            .directory(Path::new("/"))
            .run()
            .with_context(|| format!("cannot ask git for {key}"))?;
        let text = asked.stdout.strip_suffix(b"\0").map(<[u8]>::to_vec);
        values.extend(text.iter().flat_map(|text| text.split(|byte| *byte == 0)).map(<[u8]>::to_vec));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_safe_directory_name_what_git_says_they_name() {
        for (value, knows_prefixes, named) in [
            ("*", false, true),
            ("/srv/none/x", false, true),
            ("/srv/none", true, false),
            ("/srv/none/*", true, true),
            ("/srv/none/*", false, false),
            ("/srv/none/x/*", true, false),
            ("x", true, false),
            (".", true, false),
        ] {
            assert_eq!(names(value.as_bytes(), Path::new("/srv/none/x"), knows_prefixes), named, "{value}");
        }
    }
}
