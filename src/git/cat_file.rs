//! Objects through git: whether they are there, how long they are, what is in them.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context;

use crate::git::exec::{Git, kill_group};
use crate::git::{Oid, Plumbing};

/// Those of `oids` that the repository has; `None` when git did not answer for each of them.
pub(crate) fn present(git: &Git, oids: &[Oid]) -> anyhow::Result<Option<HashSet<Oid>>> {
    if oids.is_empty() {
        return Ok(Some(HashSet::new()));
    }
    let stdin: String = oids.iter().map(|oid| format!("{oid}\n")).collect();
    let ran = git.command(Plumbing::ObjectInfo { format: "%(objectname) %(objecttype)" }).stdin(stdin).run()?;
    let lines: Vec<&[u8]> = ran.split(b'\n').collect();
    if !ran.success || lines.len() != oids.len() {
        return Ok(None);
    }
    let found = lines.into_iter().filter(|line| !line.ends_with(b" missing"));
    Ok(Some(found.filter_map(|line| Oid::parse(line.split(|b| *b == b' ').next()?)).collect()))
}

/// The sizes of objects, in order; `None` for those that the repository does not have. Those of a partial clone are on its
/// server; a git before 2.44 dies when it is asked for one, and does not answer for those after it.
pub(crate) fn sizes(git: &Git, oids: impl ExactSizeIterator<Item = Oid>) -> anyhow::Result<Vec<Option<u64>>> {
    let count = oids.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    let stdin: String = oids.map(|oid| format!("{oid}\n")).collect();
    let ran = git.command(Plumbing::ObjectInfo { format: "%(objectsize)" }).stdin(stdin).run()?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let mut sizes: Vec<_> = text.lines().map(|line| line.parse().ok()).collect();
    sizes.resize(count, None);
    Ok(sizes)
}

/// A git that hands out objects, one after the other.
#[derive(Debug)]
pub(crate) struct Batch {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// `true` when a request begins, `false` when it was answered.
    watchdog: Sender<bool>,
}

impl Batch {
    /// Starts it.
    pub(crate) fn start(git: &Git) -> anyhow::Result<Batch> {
        let mut child = git.command(Plumbing::ObjectContents).spawn(Stdio::null())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("git cat-file has no pipes")?;
        let (watchdog, requests) = channel();
        let (leader, limit) = (child.id(), Plumbing::ObjectContents.limit());
        std::thread::spawn(move || watch(&requests, leader, limit));
        Ok(Batch { child, input, output: BufReader::new(output), watchdog })
    }

    /// Writes the content of `object` to `to`, without ever holding all of it.
    pub(crate) fn copy(&mut self, object: &str, to: &mut impl Write) -> anyhow::Result<()> {
        self.watchdog.send(true).context("git cat-file took too long, and was killed")?;
        let copied = self.answer(object, to);
        self.watchdog.send(false).context("git cat-file took too long, and was killed")?;
        copied
    }

    fn answer(&mut self, object: &str, to: &mut impl Write) -> anyhow::Result<()> {
        writeln!(self.input, "{object}")
            .and_then(|()| self.input.flush())
            .context("git cat-file has ended, or took too long")?;
        let mut header = String::new();
        self.output.read_line(&mut header).context("git cat-file cannot be read")?;
        let size = header.trim_end().rsplit_once(' ').and_then(|(_, size)| size.parse::<u64>().ok());
        let size = size.with_context(|| format!("object {object} is not there: `{}`", header.trim_end()))?;
        let copied = io::copy(&mut self.output.by_ref().take(size), to)?;
        anyhow::ensure!(copied == size, "object {object} is cut");
        // A line feed ends every answer.
        self.output.read_exact(&mut [0]).context("git cat-file cannot be read")
    }

    /// The content of `object`.
    pub(crate) fn content(&mut self, object: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(object, &mut bytes)?;
        Ok(bytes)
    }
}

/// Kills a git that takes too long for a request; then its output ends.
fn watch(requests: &Receiver<bool>, leader: u32, limit: Duration) {
    while requests.recv() == Ok(true) {
        if requests.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            return kill_group(leader);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Its input is still open: it would wait for more.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            // It is gone either way.
        }
    }
}
