//! What is not ours: the gits, the file system, the clock, the space left.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::doctor::Check;
use crate::cli::doctor::checks::size;
use crate::cli::watch::{self, Standing};
use crate::cli::{PATIENCE, path_variable};
use crate::fs::durable;
use crate::git::{Git, Repository, exec};
use crate::process::owner;
use crate::setup::path;
use crate::state::{StateDir, Wait};
use crate::util::text::shown;
use crate::wal::Log;

/// With less than this a transaction may meet a full disk: a log segment has 4 MiB.
const LITTLE_SPACE: u64 = 16 << 20;

const FEW_INODES: u64 = 1000;

/// Every git that may work on the repository: in PATH, and where IDEs look. Started are the first one in PATH, which every
/// command starts, and those that nobody but root can have put there; the others are named.
pub(super) fn gits(first: &Path) -> Check {
    const NAME: &str = "git";
    let mut programs = vec![first.to_owned()];
    let usual = ["/usr/bin/git", "/usr/local/bin/git"].map(PathBuf::from);
    for program in path::all_gits(&path_variable()).into_iter().chain(usual.into_iter().filter(|p| p.is_file())) {
        if !programs.iter().any(|known| same(known, &program)) && !path::is_this_program(&program) {
            programs.push(program);
        }
    }
    let mut lines = Vec::new();
    let mut too_old = None;
    for program in &programs {
        if program != first && !is_of_the_system(program) {
            lines.push(format!("{}: not started, not only root may write there", shown(program)));
            continue;
        }
        let said = match Git::new(program).version() {
            Ok(version) if version < exec::OLDEST => {
                too_old.get_or_insert_with(|| program.clone());
                format!("{}.{}, too old: it calls no hook", version.0, version.1)
            }
            Ok(version) if version < (2, 54) => {
                format!("{}.{} (a stale lock stops it before it calls a hook)", version.0, version.1)
            }
            Ok(version) => format!("{}.{} (recovers before it locks)", version.0, version.1),
            Err(error) => format!("{error:#}"),
        };
        lines.push(format!("{}: {said}", shown(program)));
    }
    let rest = lines.split_off(1);
    let first_line = lines.remove(0);
    let check = match too_old {
        Some(program) => Check::failed(NAME, first_line, format!("upgrade {} to git 2.31 or newer", shown(&program))),
        None => Check::ok(NAME, first_line),
    };
    check.and_say(rest)
}

/// May only root write to the program, and to every directory on the way?
fn is_of_the_system(program: &Path) -> bool {
    let roots = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0);
    std::fs::canonicalize(program).is_ok_and(|program| program.ancestors().all(roots))
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::canonicalize(one).ok() == std::fs::canonicalize(other).ok()
}

pub(super) fn file_system(state: &StateDir, repo: &Repository) -> Check {
    const NAME: &str = "file system";
    let path = if state.exists() { state.path() } else { &repo.common_dir };
    let Ok(found) = rustix::fs::statfs(path) else { return Check::note(NAME, "cannot be looked at") };
    // The kernel's magic numbers have 32 bits; the field's type differs from platform to platform.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = found.f_type as u32;
    match magic {
        0xEF53 => Check::ok(NAME, "ext4 (or ext2, ext3)"),
        0x5846_5342 => Check::ok(NAME, "XFS"),
        0x9123_683E => Check::ok(NAME, "btrfs"),
        0x0102_1994 => Check::note(NAME, "tmpfs: nothing on it outlives a power cut"),
        0x794C_7630 => Check::note(NAME, "overlayfs: power cuts were not tested on it"),
        _ if durable::is_local_disk(path) => Check::note(NAME, format!("{magic:#x}: power cuts were not tested on it")),
        _ => Check::note(NAME, format!("{magic:#x}: other machines may use it, so nothing is verified after a reboot"))
            .and_say(["and a lock goes only when the log proves its owner dead".to_owned()]),
    }
}

pub(super) fn clock(state: &StateDir) -> anyhow::Result<Check> {
    const NAME: &str = "clock";
    if !state.exists() {
        return Ok(Check::skipped(NAME, "no transaction has been logged"));
    }
    let log = Log::new(state, &owner::boot_id()?, Wait::UpTo(PATIENCE));
    Ok(match log.clock_is_steady_since()? {
        Some(_) => Check::ok(NAME, "not set since the first transaction after the boot"),
        None => Check::note(
            NAME,
            "set, or not watched, since the boot: a stale lock may have to wait until other gits have ended",
        ),
    })
}

pub(super) fn space(repo: &Repository) -> anyhow::Result<Check> {
    const NAME: &str = "space";
    let found = rustix::fs::statvfs(&repo.common_dir)?;
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    // File systems without a fixed number of inodes say 0 of 0.
    let few_inodes = found.f_files > 0 && found.f_favail < FEW_INODES;
    if bytes < LITTLE_SPACE {
        let what = format!("{} left: when the log cannot be written, ref updates are refused", size(bytes));
        return Ok(Check::failed(NAME, what, "free some space; `git gc` may help"));
    }
    if few_inodes {
        let what = format!("{} inodes left: when the log cannot be written, ref updates are refused", found.f_favail);
        return Ok(Check::failed(NAME, what, "delete files; `git gc` may help"));
    }
    Ok(Check::ok(NAME, format!("{} left", size(bytes))))
}

/// Does a watch recover by itself? Nothing is said where the environment has switched it off.
pub(super) fn watch(state: &StateDir) -> Option<Check> {
    const NAME: &str = "watch";
    Some(match watch::standing(state.settings().watch)? {
        Standing::Runs(status) if status.limit_reached => {
            Check::failed(NAME, "some directories are not watched", "raise fs.inotify.max_user_watches")
        }
        Standing::Runs(status) => Check::ok(NAME, format!("pid {} recovers when a git is killed", status.pid)),
        Standing::NotYet => Check::note(NAME, "none runs; the next git command that changes a ref starts it"),
        Standing::Hindered(why) => Check::note(NAME, format!("none runs: {why}")),
    })
}
