//! The hook that was in our place: called after ours, as if git had called it.
//!
//! This process becomes that hook: git is its parent, what it prints and how it ends are its own. What git sent to
//! stdin we have read already, and send again.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};

/// What the name of a directory with hooks that stepped aside ends in.
pub(crate) const ASIDE: &str = ".before-jin-txn";

/// Which hook to become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// One that stepped aside.
    Other,
    /// The script that called us, for the lines behind the one that did.
    Rest,
}

/// What that line tells the second call by: its own pid, which stays the same, so that no child takes it for itself.
const VARIABLE: &str = "JIN_TXN_THEN";

/// The last line of ours in such a script.
pub(crate) const END_ALONE: &str = "\nunset JIN_TXN_THEN\n";

/// Becomes the hook at `path`, `None` when there is nothing to become: no such file, or one that git would ignore as well.
///
/// `input`: what to send to its stdin; without, it gets ours.
pub(crate) fn become_hook(
    path: &Path,
    which: &Which,
    args: &[OsString],
    input: Option<&[u8]>,
) -> io::Result<Option<Infallible>> {
    if calls_us_itself(path) || *which == Which::Rest && !has_more(path) {
        return Ok(None);
    }
    let command = |program: &Path| -> io::Result<Command> {
        let mut command = Command::new(program);
        if let Some(input) = input {
            command.stdin(Stdio::from(replay(input)?));
        }
        if *which == Which::Rest {
            command.env(VARIABLE, std::process::id().to_string());
        }
        Ok(command)
    };
    let error = command(path)?.args(args).exec();
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS) if !is_program(path) => Ok(None),
        // A script without `#!`: git lets the shell run it.
        Some(rustix::io::Errno::NOEXEC) => Err(command(Path::new("/bin/sh"))?.arg(path).args(args).exec()),
        _ => Err(error),
    }
}

fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Is there anything behind our lines that a shell would run?
fn has_more(script: &Path) -> bool {
    let Ok(text) = fs::read(script) else { return false };
    let last = END_ALONE.as_bytes();
    let Some(end) = text.windows(last.len()).position(|window| window == last) else { return false };
    let is_code = |line: &[u8]| !line.is_empty() && !line.starts_with(b"#");
    text[end + last.len()..].split(|byte| *byte == b'\n').any(|line| is_code(line.trim_ascii()))
}

/// A hook manager that was there before us has put the same hook into our place again, and calls us from it.
fn calls_us_itself(aside: &Path) -> bool {
    let hook = || {
        let beside = aside.parent()?;
        let directory = beside.to_str()?.strip_suffix(ASIDE)?;
        Some(Path::new(directory).join(aside.file_name()?))
    };
    let same = |hook: &Path| Some(fs::read(hook).ok()? == fs::read(aside).ok()?);
    hook().and_then(|hook| same(&hook)).unwrap_or(false)
}

/// A pipe, as git's is, while it holds everything at once; nobody is left to fill it later.
fn replay(input: &[u8]) -> io::Result<OwnedFd> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let mut writer = File::from(writer);
    if input.is_empty() || matches!(writer.write(input), Ok(written) if written == input.len()) {
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty())?;
        return Ok(reader);
    }
    let mut file = File::from(memfd_create("hook input", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file.into())
}
