//! A `git update-ref --stdin` that holds its locks while we decide.
//!
//! git alone writes refs, and runs the hooks. When we die its input ends, and it gives up whatever it has not been told to
//! commit: so its locks outlive us only if it is killed as well.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use anyhow::Context;

use crate::apply::queue::{Expected, RefTo};
use crate::apply::refs::Target;
use crate::git::refs::Value;
use crate::git::{Git, Plumbing};
use crate::process::owner::{Process, Stat};
use crate::state::TxId;

/// What git wrote to stderr is kept up to here; hooks may be talkative.
const LONGEST_COMPLAINT: u64 = 64 << 10;

/// The child.
#[derive(Debug)]
pub(crate) struct GitSession {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl GitSession {
    /// Starts git, which waits for its orders.
    pub(super) fn start(git: &Git, directory: &Path, id: TxId, message: &str) -> anyhow::Result<GitSession> {
        let session = git.command(Plumbing::UpdateRefs { message }).directory(directory);
        // The log has the new values: they need no sync of their own, one barrier serves them all.
        let session = session.config("core.fsync", "-reference").watched(crate::util::env::WITHIN, &id.to_string());
        let mut child = session.spawn(Stdio::piped())?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("the child has no output")?);
        let stderr = child.stderr.take().context("the child has no stderr")?;
        // Read at the same time: a hook that says much must not wait for us while we wait for git.
        let stderr = Some(std::thread::spawn(move || drain(stderr)));
        Ok(GitSession { child, stdin, stdout, stderr })
    }

    /// The process.
    pub(super) fn process(&self) -> anyhow::Result<Process> {
        let stat = Stat::of(self.child.id()).context("git has gone already")?;
        Ok(stat.process())
    }

    /// Hands over the updates and lets git take all locks and ask the hooks. Nothing is changed yet.
    pub(super) fn prepare(&mut self, targets: &[Target]) -> anyhow::Result<()> {
        let mut input = b"start\0".to_vec();
        targets.iter().for_each(|target| push(&mut input, target));
        input.extend_from_slice(b"prepare\0");
        // git may have given up in the middle; what it says about that is worth more than the broken pipe.
        let _ended = self.send(&input);
        self.expect("start: ok").and_then(|()| self.expect("prepare: ok")).map_err(|_| self.refusal())
    }

    /// Lets git put the new values into place.
    pub(super) fn commit(mut self) -> anyhow::Result<String> {
        let _ended = self.send(b"commit\0");
        let answered = self.expect("commit: ok");
        self.stdin = None;
        let status = self.child.wait()?;
        if answered.is_err() || !status.success() {
            return Err(self.refusal());
        }
        Ok(self.said())
    }

    /// Lets git give up: it releases its locks, and nothing was changed.
    pub(super) fn abort(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let _ended = self.send(b"abort\0");
        self.stdin = None;
        self.child.wait().map(|_| ())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        stdin.write_all(bytes).and_then(|()| stdin.flush())
    }

    fn expect(&mut self, wanted: &str) -> io::Result<()> {
        let mut line = String::new();
        (&mut self.stdout).take(1024).read_line(&mut line)?;
        if line.trim_end() == wanted { Ok(()) } else { Err(io::Error::other(line)) }
    }

    /// Why git ended. It reads until its input ends.
    fn refusal(&mut self) -> anyhow::Error {
        self.stdin = None;
        let ended = self.child.wait();
        let said = self.said();
        let why = match (said.is_empty(), ended) {
            (false, _) => said,
            (true, Ok(status)) => format!("it ended with {status}"),
            (true, Err(error)) => error.to_string(),
        };
        anyhow::anyhow!("git update-ref refused: {why}")
    }

    fn said(&mut self) -> String {
        let bytes = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for GitSession {
    /// Releases git's locks. Nobody listens to what goes wrong here: recovery sees to what is left.
    fn drop(&mut self) {
        if self.stdin.is_some() {
            let _ended = self.end();
        }
    }
}

fn drain(mut from: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let complete = (&mut from).take(LONGEST_COMPLAINT).read_to_end(&mut kept);
    // The rest is read as well, or git would wait for us.
    let _rest = complete.and_then(|_| io::copy(&mut from, &mut io::sink()));
    kept
}

/// One line of git's language, `-z`: each command has a fixed number of fields.
fn push(input: &mut Vec<u8>, target: &Target) {
    let zeros = target.zeros.as_bytes();
    let exact;
    let old = match &target.expected {
        Expected::Absent => zeros,
        Expected::Exactly(oid) => {
            exact = oid.hex();
            exact.as_bytes()
        }
        // Compared by us, under git's lock.
        Expected::PointsTo(_) | Expected::Anything => b"",
    };
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| input.extend_from_slice(part));
    let name = target.given.as_bytes();
    match &target.to {
        RefTo::Value(Value::Oid(new)) => {
            line(&[b"update ", name, b"\0", new.hex().as_bytes(), b"\0", old, b"\0"]);
        }
        RefTo::Value(Value::Symref(to)) => {
            let kind: &[u8] = if old.is_empty() { b"" } else { b"oid" };
            line(&[b"symref-update ", name, b"\0", to.as_bytes(), b"\0", kind, b"\0", old, b"\0"]);
        }
        RefTo::Value(_) => line(&[b"delete ", name, b"\0", old, b"\0"]),
        RefTo::Same => line(&[b"verify ", name, b"\0", old, b"\0"]),
    }
}
