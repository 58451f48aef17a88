//! What a checkout would write of an object, filters and line endings included.
//!
//! `git cat-file --filters --batch` says how long an object is, not how long its filtered content. So each question is followed
//! by one for a name that no object has, and the answer to that ends the content.
//!
//! Limit: git cuts its questions at blanks and line feeds, so that it is not asked about paths that begin with one, or have a
//! line feed in them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::Context;

use crate::git::hash::Hash;
use crate::git::{Git, Oid, Plumbing};
use crate::util::clock;
use crate::util::text::escape;

/// Since this version git takes attributes from a commit.
pub(crate) const ATTRIBUTES_OF_A_COMMIT: (u32, u32) = (2, 41);

/// A git that hands out objects as a checkout would write them.
#[derive(Debug)]
pub(crate) struct Filtered {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    no_object: String,
}

impl Filtered {
    /// Starts it; attributes are those of the worktree that `git` works in, or of a commit ([`ATTRIBUTES_OF_A_COMMIT`]).
    pub(crate) fn start(git: &Git, attributes: Option<&Oid>) -> anyhow::Result<Filtered> {
        let command = git.command(Plumbing::Filtered).for_checkout(attributes);
        let mut child = command.spawn(Stdio::inherit())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("git cat-file has no pipes")?;
        // Nobody who wrote a file knew the time and the process.
        let seed = format!("{} {}", clock::now(), child.id());
        let no_object = format!("jin-end-{}", Hash::Sha256.blob(seed.as_bytes()));
        Ok(Filtered { child, input, output: BufReader::new(output), no_object })
    }

    /// The content of the blob `oid` as the file `path`.
    pub(crate) fn content(&mut self, oid: &Oid, path: &[u8]) -> anyhow::Result<Vec<u8>> {
        let shown = || escape(path).into_owned();
        let is_cut = path.contains(&b'\n') || path.first().is_none_or(|first| b" \t".contains(first));
        anyhow::ensure!(!is_cut, "git cannot be asked for the content of `{}`", shown());
        let question = [format!("{oid} ").as_bytes(), path, b"\n", self.no_object.as_bytes(), b"\n"].concat();
        let asked = self.input.write_all(&question).and_then(|()| self.input.flush());
        asked.with_context(|| format!("git cat-file has ended before `{}`", shown()))?;
        let mut header = Vec::new();
        self.output.read_until(b'\n', &mut header).context("git cat-file cannot be read")?;
        anyhow::ensure!(
            header == b"blob\n",
            "the content of `{}`, {oid}, cannot be had: {}",
            shown(),
            String::from_utf8_lossy(header.trim_ascii_end())
        );
        let end = format!("\n{} missing\n", self.no_object).into_bytes();
        let mut content = Vec::new();
        while !content.ends_with(&end) {
            let read = self.output.read_until(b'\n', &mut content).context("git cat-file cannot be read")?;
            anyhow::ensure!(read > 0, "git cat-file has ended in the middle of `{}`", shown());
        }
        content.truncate(content.len() - end.len());
        Ok(content)
    }
}

impl Drop for Filtered {
    fn drop(&mut self) {
        // Its input is still open: it would wait for more.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            // It is gone either way.
        }
    }
}
