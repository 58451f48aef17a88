//! What is ours: the state directory, hooks, alias, settings, log, locks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::cli::doctor::locks::Evidence;
use crate::cli::doctor::{Check, Fix};
use crate::cli::unasked;
use crate::git::{ConfigQuery, Git, Plumbing, Repository};
use crate::recovery::{Finding, Report};
use crate::setup::fsync::Weakness;
use crate::setup::preferences::Preferences;
use crate::setup::{alias, fsync, hooks};
use crate::state::{Durability, StateDir};
use crate::util::text::{counted, one_line, shown};

/// A quarantine of this many bytes is worth a note.
const MUCH: u64 = 256 << 20;

pub(super) fn state(repo: &Repository, state: &StateDir) -> Check {
    const NAME: &str = "state";
    let path = shown(state.path());
    if fs::symlink_metadata(state.path()).is_err() {
        if unasked::problems(repo).is_ok_and(|problems| problems.is_empty()) {
            return Check::ok(NAME, format!("{path} does not exist: the first transaction makes it"));
        }
        return Check::failed(NAME, format!("{path} does not exist"), "`jin-txn install`").mended_by(Fix::Install);
    }
    let parts = [state.quarantine(), state.tx_root()];
    let is_missing =
        |part: &&PathBuf| fs::symlink_metadata(part).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    if is_missing(&&state.wal()) {
        let what = format!("{} does not exist", shown(&state.wal()));
        return Check::failed(NAME, what, "`git txn recover` begins a new log").mended_by(Fix::Recover);
    }
    if let Some(missing) = parts.iter().find(is_missing) {
        let what = format!("{} does not exist", shown(missing));
        return Check::failed(NAME, what, "`jin-txn install`").mended_by(Fix::Install);
    }
    let locked = unwritable(state);
    let Some(first) = locked.first() else {
        return match state.verify() {
            Ok(()) if is_anybodys(state) => {
                let what = format!("every user may write to {path}, and so change what recovery does");
                Check::failed(NAME, what, format!("chmod -R o-w {path}"))
            }
            Ok(()) => Check::ok(NAME, path.to_string()),
            Err(error) => Check::failed(
                NAME,
                error.to_string(),
                "look at what is there, move it away, then run `jin-txn install`",
            ),
        };
    };
    let owner = fs::metadata(first).map_or(0, |m| m.uid());
    let what = format!("{} cannot be written: every ref update is refused", shown(first));
    if owner == rustix::process::geteuid().as_raw() && !is_read_only(&repo.common_dir) {
        return Check::failed(NAME, what, format!("chmod -R u+rwX {path}")).mended_by(Fix::Permissions);
    }
    let remedy = if is_read_only(&repo.common_dir) {
        "mount the file system writable".to_owned()
    } else {
        format!("chown -R \"$(id -u)\" {path} (it belongs to uid {owner})")
    };
    Check::failed(NAME, what, remedy)
}

/// May everybody write to the state directory or to one of its parts, and not to the git directory?
fn is_anybodys(state: &StateDir) -> bool {
    let open = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.mode() & 0o002 != 0);
    let parts = [state.path().to_owned(), state.wal(), state.quarantine(), state.tx_root()];
    parts.iter().any(|part| open(part)) && !state.path().parent().is_some_and(open)
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Directories and files of the state directory that we would have to write and may not.
fn unwritable(state: &StateDir) -> Vec<PathBuf> {
    // What a link leads to is none of ours.
    let is_dir = |dir: &PathBuf| fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir());
    let is_file = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    let mut wanted = vec![state.path().to_owned(), state.wal(), state.quarantine(), state.tx_root()];
    wanted.retain(is_dir);
    for dir in [state.path().to_owned(), state.wal()].into_iter().filter(is_dir) {
        wanted.extend(fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(is_file));
    }
    let refuses = |path: &Path| access(path, Access::WRITE_OK) == Err(rustix::io::Errno::ACCESS) || is_read_only(path);
    wanted.retain(|path| refuses(path));
    wanted
}

/// Gives the owner, whom we are, write access; says to how many files.
pub(super) fn make_writable(state: &StateDir) -> anyhow::Result<String> {
    let mut count = 0;
    // Twice: what lies in a directory is seen when the directory can be.
    for _ in 0..2 {
        for path in unwritable(state) {
            let metadata = fs::metadata(&path)?;
            let bits = if metadata.is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(&path, fs::Permissions::from_mode((metadata.mode() & 0o7777) | bits))?;
            count += 1;
        }
    }
    Ok(counted(count, "file"))
}

pub(super) fn config(git: &Path, repo: &Repository, state: &StateDir) -> anyhow::Result<Check> {
    const NAME: &str = "config";
    let listed = Git::new(git).at(&repo.git_dir).run(Plumbing::Config(ConfigQuery::All))?;
    if !listed.success {
        let why = listed.stderr.lines().next().unwrap_or("git does not say why").to_owned();
        let saved = state.saved_config();
        let kept = saved.is_file().then(|| format!(" (as the last transaction found it: {})", shown(&saved)));
        return Ok(Check::failed(
            NAME,
            why,
            format!("mend it in {}{}", shown(&repo.common_dir.join("config")), kept.unwrap_or_default()),
        ));
    }
    let preferences = Preferences::read(git, repo)?;
    let unknown =
        (!preferences.unknown.is_empty()).then(|| format!("has no effect: {}", preferences.unknown.join(", ")));
    if let Some((first, more)) = preferences.invalid.split_first() {
        let check = Check::failed(NAME, first.clone(), "`git config` it, then `jin-txn install`");
        return Ok(check.and_say(more.iter().cloned()).and_say(unknown));
    }
    if state.exists() && preferences.settings != state.settings() {
        let what = "jin.lockTimeout or jin.retention has changed since the last `jin-txn install`";
        return Ok(Check::failed(NAME, what, "`jin-txn install`").mended_by(Fix::Install).and_say(unknown));
    }
    Ok(match unknown {
        Some(unknown) => Check::note(NAME, unknown),
        None => Check::ok(NAME, "readable; every jin.* setting has an effect"),
    })
}

pub(super) fn binary() -> anyhow::Result<Check> {
    let program = crate::setup::names::this_binary()?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(Check::ok("binary", format!("{program}, version {version}")))
}

pub(super) fn hooks(repo: &Repository) -> anyhow::Result<Check> {
    const NAME: &str = "hooks";
    let mut problems = hooks::why_unprotected(&crate::cli::real_git()?, repo)?;
    if problems.is_empty() {
        problems = crate::setup::hooks::hindrances(&crate::cli::real_git()?, repo)?;
    }
    let Some((first, more)) = problems.split_first() else {
        return Ok(Check::ok(NAME, "git finds both hooks, and they call jin-txn"));
    };
    let (what, remedy) = match first.split_once(": run ") {
        Some((what, remedy)) => (what, remedy),
        None => (first.as_str(), "`jin-txn install` says what is in its way"),
    };
    Ok(Check::failed(NAME, what, remedy).and_say(more.iter().cloned()).mended_by(Fix::Install))
}

pub(super) fn git_txn(git: &Path, repo: &Repository) -> anyhow::Result<Check> {
    const NAME: &str = "alias";
    let Some(set) = Git::new(git).at(&repo.git_dir).config(alias::KEY)? else {
        let check = Check::failed(NAME, "`git txn` is not set", "`jin-txn install`");
        return Ok(check.mended_by(Fix::Install));
    };
    if !alias::is_ours(&set) {
        let what = format!("`git txn` is another alias: `{}`", one_line(&set));
        return Ok(Check::failed(NAME, what, "rename it (`git config --edit`), then `jin-txn install`"));
    }
    if let Some(program) = alias::program(&set).filter(|program| program.is_absolute() && !program.exists()) {
        let what = format!("`git txn` calls {}, which is gone", shown(&program));
        return Ok(Check::failed(NAME, what, "`jin-txn install`").mended_by(Fix::Install));
    }
    Ok(Check::ok(NAME, "`git txn` calls jin-txn"))
}

pub(super) fn durability(git: &Path, repo: &Repository) -> anyhow::Result<Check> {
    const NAME: &str = "durability";
    let weaknesses = fsync::weaknesses(git, repo)?;
    if let Some((first, more)) = weaknesses.split_first() {
        let check = Check::failed(NAME, first.what(), first.remedy()).and_say(more.iter().map(ToString::to_string));
        let by_install = weaknesses.iter().any(Weakness::is_mended_by_install);
        return Ok(if by_install { check.mended_by(Fix::Install) } else { check });
    }
    Ok(match StateDir::of(repo).durability() {
        Durability::Full => Check::ok(NAME, "full (power cuts), and git syncs what it must"),
        Durability::Process => {
            Check::note(NAME, "process: killed processes, not power cuts (`jin-txn install --durability full`)")
        }
    })
}

pub(super) fn unfinished(report: &Report) -> Check {
    const NAME: &str = "unfinished";
    let open: Vec<_> = report.transactions.iter().filter(|t| !t.quiet).collect();
    let line = |t: &&crate::recovery::TxFinding| {
        let pid = t.pid.map_or_else(String::new, |p| format!(", pid {p}"));
        format!("{} (`{}`{pid}) was interrupted", t.id, t.operation)
    };
    if let Some(human) = open.iter().find(|t| t.finding == Finding::NeedsHuman) {
        let remedy = format!("`git txn show {0}`, then `git txn recover --acknowledge {0}`", human.id);
        return Check::failed(NAME, format!("{} needs manual resolution", human.id), remedy);
    }
    if let Some((first, more)) = open.split_first() {
        let check = Check::failed(NAME, line(first), "`git txn recover`");
        return check.and_say(more.iter().map(line)).mended_by(Fix::Recover);
    }
    if let Some((first, more)) = report.notes.split_first() {
        let check = Check::failed(NAME, first.clone(), "`git txn recover`");
        return check.and_say(more.iter().cloned()).mended_by(Fix::Recover);
    }
    match report.busy.split_first() {
        Some((first, more)) => Check::note(NAME, first.clone()).and_say(more.iter().cloned()),
        None => Check::ok(NAME, "nothing"),
    }
}

pub(super) fn locks(found: &[Evidence], report: &Report) -> Check {
    const NAME: &str = "locks";
    let lines = || found.iter().map(Evidence::line);
    match lines().next() {
        None => Check::ok(NAME, "none"),
        Some(first) if report.locks.iter().all(|l| l.held) => Check::note(NAME, first).and_say(lines().skip(1)),
        Some(first) => {
            let check = Check::failed(NAME, first, "`git txn recover`").and_say(lines().skip(1));
            check.mended_by(Fix::Recover)
        }
    }
}

pub(super) fn log(state: &StateDir, report: &Report) -> Check {
    const NAME: &str = "log";
    if let Some((first, more)) = report.damage.split_first() {
        let check =
            Check::failed(NAME, format!("damaged: {first}"), "`git txn recover` sets it aside and begins a new one");
        return check.and_say(more.iter().cloned()).mended_by(Fix::Recover);
    }
    let (count, bytes) = size_of(&state.wal());
    let kept = state.settings();
    let (segments, days) = (counted(count, "segment"), counted(kept.retained_seconds / 86_400, "day"));
    Check::ok(NAME, format!("{segments}, {}; kept {days}, up to {}", size(bytes), size(kept.retained_bytes)))
}

pub(super) fn quarantine(state: &StateDir) -> Check {
    const NAME: &str = "quarantine";
    let (count, bytes) = size_of(&state.quarantine());
    let days = state.settings().retained_seconds / 86_400;
    let what = format!("{}, {}; each goes {} after it came", counted(count, "file"), size(bytes), counted(days, "day"));
    if bytes > MUCH {
        return Check::note(NAME, format!("{what} (what you have looked at you may delete)"));
    }
    Check::ok(NAME, what)
}

/// How many files lie below `dir`, and their size.
fn size_of(dir: &Path) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (inner_count, inner_bytes) = if metadata.is_dir() { size_of(&entry.path()) } else { (1, metadata.len()) };
        count += inner_count;
        bytes += inner_bytes;
    }
    (count, bytes)
}

/// `3.2 MiB`.
pub(in crate::cli) fn size(bytes: u64) -> String {
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} bytes")
}
