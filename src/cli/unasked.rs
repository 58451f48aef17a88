//! Surfaces that nobody asked for, or that come before git: prompt, shell function, shim, `check`.
//!
//! They act by themselves only in a repository of this user's for which there is a note. Anywhere else they start no git, read
//! no file of the repository but the note's id, and say at most what to run.

use std::path::PathBuf;

use crate::cli::{notes, real_git, user};
use crate::git::repository::{Found, NotFound};
use crate::git::{CONFIGURATION, Repository, openable};
use crate::locks;
use crate::setup::hooks;
use crate::state::StateDir;
use crate::state::marker::Listing;
use crate::trust::ownership;
use crate::util::text::shown;

/// What such a surface may do.
pub(super) enum Standing {
    /// This user has protected the repository: look at all of it, recover.
    Protected(Found),
    /// The user's own, with a state directory and no note: say what to run.
    Unknown(Found),
    /// Nothing.
    None,
}

/// Judges without starting anything.
pub(super) fn standing(found: Result<Found, NotFound>) -> anyhow::Result<Standing> {
    let Ok(found) = found else { return Ok(Standing::None) };
    let state = StateDir::of(&found.repo);
    if !state.exists() || ownership::require_linked(&found.repo).is_err() {
        return Ok(Standing::None);
    }
    // A clone can bring a bare repository, and no inode that a note names.
    if notes().is_some_and(|notes| notes.cover(&state)) {
        return Ok(Standing::Protected(found));
    }
    if ownership::is_embedded(&found) {
        return Ok(Standing::None);
    }
    Ok(if user().owns(&found)? { Standing::Unknown(found) } else { Standing::None })
}

/// Does git refuse it although this user has protected it: it was given to somebody else, or `safe.bareRepository` is set?
/// Starts git for such repositories only.
pub(super) fn is_refused(found: &Found) -> anyhow::Result<bool> {
    if found.bare.is_none() && user().owns(found)? {
        return Ok(false);
    }
    let git = real_git()?;
    Ok(ownership::require_trusted(found, user(), &git).is_err() || ownership::is_bare_refused(found, &git)?)
}

/// Does git call our hooks? `false` when git has to be asked.
pub(super) fn is_certainly_called(repo: &Repository) -> bool {
    let says = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !CONFIGURATION.into_iter().any(says) && hooks::certainly_call_us(repo, &user_configuration())
}

/// Why git does not call our hooks; empty when it does. Starts git only where that does not show without.
pub(super) fn problems(repo: &Repository) -> anyhow::Result<Vec<String>> {
    if is_certainly_called(repo) {
        return Ok(Vec::new());
    }
    openable::require_start(repo)?;
    hooks::why_unprotected(&real_git()?, repo)
}

/// The configuration files of the user and of the machine.
fn user_configuration() -> Vec<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = path("HOME");
    let xdg = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let usual = [xdg.map(|dir| dir.join("git/config")), home.map(|home| home.join(".gitconfig"))];
    let users = path("GIT_CONFIG_GLOBAL").map_or_else(|| usual.into_iter().flatten().collect(), |file| vec![file]);
    let beside = real_git().ok().and_then(|git| Some(git.parent()?.parent()?.join("etc/gitconfig")));
    let machine = path("GIT_CONFIG_SYSTEM").or(beside);
    users.into_iter().chain(machine).chain([PathBuf::from("/etc/gitconfig")]).collect()
}

/// Of a repository without a note: what to run, where names of markers or locks say that something may be unfinished.
pub(super) fn advice(found: &Found) -> Option<String> {
    let repo = &found.repo;
    let markers = Listing::read(StateDir::of(repo).path()).is_ok_and(|listing| !listing.markers.is_empty());
    let is_there = || locks::well_known(repo).iter().any(|lock| lock.symlink_metadata().is_ok());
    let may_be = !ownership::is_embedded(found) && (markers || is_there());
    may_be.then(|| {
        format!(
            "something may be unfinished in {}, which is not protected by you: `jin-txn recover` recovers it, `jin-txn \
             install` lets that happen by itself",
            shown(&repo.common_dir)
        )
    })
}
