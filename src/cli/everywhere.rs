//! All repositories that this user has protected, as his notes name them.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::unasked::{self, Standing};
use crate::cli::{Session, exit, notes};
use crate::git::repository::Found;
use crate::git::{Repository, openable};
use crate::util::text::shown;

/// What to say where there are none.
pub(super) const NONE: &str = "jin-txn: no repository is protected by you; `jin-txn install` in one protects it";

/// One of them.
pub(super) struct Place {
    /// Where its user works: the worktree, or the git directory without one.
    pub path: PathBuf,
    /// The repository, or why it is not looked at.
    pub repo: anyhow::Result<Repository>,
}

/// The repositories, in the order of their paths. What is gone is left out.
pub(super) fn places() -> anyhow::Result<Vec<Place>> {
    let notes = notes().context("there is no HOME, and no XDG_STATE_HOME: without one of them there are no notes")?;
    Ok(notes.git_dirs().iter().map(|git_dir| Place::at(git_dir)).collect())
}

impl Place {
    fn at(git_dir: &Path) -> Place {
        let top = git_dir.parent().filter(|_| git_dir.ends_with(".git"));
        Place { path: top.unwrap_or(git_dir).to_owned(), repo: open(git_dir, top) }
    }
}

/// Opens it where its note fits, and where git would.
fn open(git_dir: &Path, top: Option<&Path>) -> anyhow::Result<Repository> {
    let found = Found { top: top.map(Path::to_owned), ..Found::named(Repository::open(git_dir)?) };
    let Standing::Protected(found) = unasked::standing(Ok(found))? else {
        anyhow::bail!("another repository is there than the one that was protected: `jin-txn install` protects it")
    };
    anyhow::ensure!(!unasked::is_refused(&found)?, "it belongs to another user now");
    openable::require_start(&found.repo)?;
    Ok(found.repo)
}

/// Does `work` in each place, and says where something fails; goes on with the next. Nothing is said of a place where `work`
/// has nothing to say. The gravest exit code.
pub(super) fn each(
    session: &Session,
    mut work: impl FnMut(&Path, Repository) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    anyhow::ensure!(session.git_dir.is_none(), "--all is about every repository, and --git-dir names one");
    let mut gravest = exit::DONE;
    for Place { path, repo } in places()? {
        let code = repo.and_then(|repo| work(&path, repo)).unwrap_or_else(|error| {
            session.complain(&error.context(shown(&path).to_string()));
            exit::FAILED
        });
        gravest = graver(gravest, code);
    }
    Ok(gravest)
}

/// What could not be looked at is the gravest, then what waits for a person, then what waits for recovery.
fn graver(one: u8, other: u8) -> u8 {
    #[rustfmt::skip]
    const ORDER: [u8; 6] =
        [exit::DONE, exit::UNPROTECTED, exit::BUSY, exit::INTERRUPTED, exit::NEEDS_HUMAN, exit::FAILED];
    let place = |code: u8| ORDER.iter().position(|it| *it == code);
    if place(one) >= place(other) { one } else { other }
}
