//! `jin-txn apply`

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::apply::language::{Bytes, Ends, Item, LONGEST_LINE, Old, Parser};
use crate::apply::manifest::{self, Manifest};
use crate::apply::{Expected, Transaction};
use crate::cli::{Session, exit, real_git};
use crate::git::{Git, Oid, Plumbing, Repository};
use crate::recovery;
use crate::staging::stage::Source;
use crate::state::{StateDir, TxId};
use crate::util::text::shown;
use crate::wal::{FileChange, FileImage, RefChange};

/// The largest input, in bytes.
const LARGEST: u64 = 256 << 20;

/// Update refs and files as one crash-safe transaction
///
/// Reads the language of `git update-ref --stdin` (update, create, delete, verify, symref-..., option no-deref), with two
/// commands for files in the worktree:
///
///   write <path> <100644|100755|120000> <source> [<old>]
///   remove <path> [<old>]
///
/// <source> is a file to copy, <old> the blob that has to be there (as `git hash-object --no-filters` names it), or
/// `absent`. Or a JSON manifest with the same content (docs/apply.schema.json). One input is one transaction. When anything is not as
/// expected nothing is changed, and everything that is not is named.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags, reason = "it is the text of --help")]
pub(crate) struct Args {
    /// The file with the commands or the manifest; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,

    /// Fields end with NUL, as for `git update-ref -z`
    #[arg(short = 'z')]
    nul: bool,

    /// The message for reflogs; the id of the transaction is added
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Done {
    version: u32,
    id: Option<TxId>,
    done: bool,
    refs: Vec<Moved>,
    files: Vec<Written>,
    left: Vec<String>,
}

#[derive(Serialize)]
struct Moved {
    #[serde(rename = "ref")]
    name: String,
    old: Option<String>,
    new: String,
}

#[derive(Serialize)]
struct Written {
    path: String,
    old: Option<FileImage>,
    new: Option<FileImage>,
}

impl Done {
    fn new(id: Option<TxId>, refs: &[RefChange], files: &[FileChange], left: Vec<String>) -> Done {
        let moved = |c: &RefChange| Moved {
            name: c.name.to_string(),
            old: c.before.as_ref().map(ToString::to_string),
            new: c.after.to_string(),
        };
        let written = |f: &FileChange| Written { path: f.path.to_string(), old: f.before, new: f.after };
        let (refs, files) = (refs.iter().map(moved).collect(), files.iter().map(written).collect());
        Done { version: 1, id, done: id.is_some() && left.is_empty(), refs, files, left }
    }
}

pub(super) fn run(session: &Session, args: &Args) -> anyhow::Result<u8> {
    let repo = session.repository()?;
    let program = real_git()?;
    let from_stdin = args.file == Path::new("-");
    let manifest = if from_stdin {
        read(io::stdin().lock(), args.nul)?
    } else {
        let path = session.directory.join(&args.file);
        let file = File::open(&path).with_context(|| format!("cannot open {}", shown(&path)))?;
        read(file, args.nul)?
    };
    let Some(Manifest { items, message }) = manifest else {
        session.say("jin-txn: aborted, as the input says; nothing was changed");
        return Ok(exit::DONE);
    };
    let what = if from_stdin { String::new() } else { format!(" {}", shown(&args.file)) };
    let mut transaction = Transaction::begin(&repo, &format!("jin-txn apply{what}")).with_git(&program);
    transaction = transaction.in_run(super::run::joined(&StateDir::of(&repo)));
    if let Some(message) = args.message.as_ref().or(message.as_ref()) {
        transaction = transaction.with_message(message);
    }
    fill(&mut transaction, &items, &resolve(&repo, &program, &items)?, &session.directory)?;
    if args.dry_run {
        let (refs, files) = transaction.check()?;
        return tell(session, "would change", &Done::new(None, &refs, &files, Vec::new()));
    }
    if recovery::needs_recovery(&repo)? {
        for line in recovery::recover(&repo, &session.recovery_options()?)?.headlines() {
            session.say(&line);
        }
    }
    let done = transaction.prepare()?.commit()?;
    if !done.said.is_empty() {
        session.say(&done.said);
    }
    tell(session, "changed", &Done::new(Some(done.id), &done.refs, &done.files, done.left))
}

fn tell(session: &Session, what: &str, done: &Done) -> anyhow::Result<u8> {
    let code = if done.left.is_empty() { exit::DONE } else { exit::NEEDS_HUMAN };
    if session.json {
        session.print_json(done)?;
        return Ok(code);
    }
    let id = done.id.map_or_else(String::new, |id| format!(" in {id}"));
    let count = |n: usize, noun: &str| format!("{n} {}", recovery::plural(n, noun));
    let (refs, files) = (count(done.refs.len(), "ref"), count(done.files.len(), "file"));
    session.say(&format!("jin-txn: {what}{id}: {refs}, {files}"));
    for line in &done.left {
        session.say(&format!("  {line}"));
    }
    Ok(code)
}

/// Reads the input, never more of it at a time than a line; `None` when it says `abort`.
fn read(input: impl Read, nul: bool) -> anyhow::Result<Option<Manifest>> {
    let mut input = BufReader::new(input.take(LARGEST + 1));
    let is_json = !nul && input.fill_buf().context("cannot read the input")?.trim_ascii_start().starts_with(b"{");
    if is_json {
        let mut text = Vec::new();
        input.take(manifest::LARGEST as u64 + 1).read_to_end(&mut text).context("cannot read the manifest")?;
        anyhow::ensure!(text.len() <= manifest::LARGEST, "the manifest is larger than {} bytes", manifest::LARGEST);
        return manifest::parse(&text).map(Some);
    }
    let (ends, end) = if nul { (Ends::Nul, 0) } else { (Ends::LineFeed, b'\n') };
    let mut parser = Parser::new(ends);
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        line.clear();
        let limit = LONGEST_LINE as u64 + 2;
        let n = (&mut input).take(limit).read_until(end, &mut line).context("cannot read the input")?;
        if n == 0 {
            break;
        }
        total += n as u64;
        anyhow::ensure!(total <= LARGEST, "the input is larger than {LARGEST} bytes");
        parser.feed(line.strip_suffix(&[end]).unwrap_or(&line))?;
    }
    Ok(parser.finish()?.map(|items| Manifest { items, message: None }))
}

/// What git makes of everything that is no full object name.
fn resolve(repo: &Repository, program: &Path, items: &[Item]) -> anyhow::Result<HashMap<Vec<u8>, Oid>> {
    let mut wanted: Vec<&Vec<u8>> = Vec::new();
    for item in items {
        match item {
            Item::Update(_, new, old, _) => {
                wanted.push(new);
                wanted.extend(revision(old));
            }
            Item::Delete(_, old, _)
            | Item::Point(_, _, old)
            | Item::Verify(_, old, _)
            | Item::Write(_, _, _, old)
            | Item::Remove(_, old) => wanted.extend(revision(old)),
        }
    }
    wanted.retain(|text| Oid::parse(text).is_none());
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let mut input = Vec::new();
    for text in &wanted {
        let plain = !text.is_empty() && !text.contains(&b'\n');
        anyhow::ensure!(plain, "`{}` is not an object", text.escape_ascii());
        input.extend_from_slice(text);
        input.push(b'\n');
    }
    // What the user calls `main^` is what the user's git does.
    let git = Git::new(program).at(&repo.git_dir).replacing();
    let ran = git.command(Plumbing::ObjectInfo { format: "%(objectname)" }).stdin(input).run()?;
    let mut lines = ran.stdout.split(|b| *b == b'\n');
    let mut resolved = HashMap::new();
    for text in wanted {
        let oid =
            lines.next().and_then(Oid::parse).with_context(|| format!("`{}` is not an object", text.escape_ascii()))?;
        resolved.insert(text.clone(), oid);
    }
    Ok(resolved)
}

fn revision(old: &Old) -> Option<&Vec<u8>> {
    if let Old::Revision(text) = old { Some(text) } else { None }
}

fn fill(
    transaction: &mut Transaction,
    items: &[Item],
    resolved: &HashMap<Vec<u8>, Oid>,
    directory: &Path,
) -> anyhow::Result<()> {
    use crate::apply::Deref;
    let oid = |text: &Vec<u8>| Oid::parse(text).or_else(|| resolved.get(text).copied()).context("an unknown object");
    let expected = |old: &Old| {
        Ok::<_, anyhow::Error>(match old {
            Old::Anything => Expected::Anything,
            Old::Absent => Expected::Absent,
            Old::Revision(text) => Expected::Exactly(oid(text)?),
            Old::Target(name) => Expected::PointsTo(name.clone()),
        })
    };
    for item in items {
        match item.clone() {
            Item::Update(name, new, old, Deref::Yes) => transaction.update(name, oid(&new)?, expected(&old)?),
            Item::Update(name, new, old, Deref::No) => transaction.update_itself(name, oid(&new)?, expected(&old)?),
            Item::Delete(name, old, Deref::Yes) => transaction.delete(name, expected(&old)?),
            Item::Delete(name, old, Deref::No) => transaction.delete_itself(name, expected(&old)?),
            Item::Point(name, target, old) => transaction.point(name, target, expected(&old)?),
            Item::Verify(name, old, deref) => transaction.verify(name, expected(&old)?, deref),
            Item::Write(path, mode, bytes, old) => {
                let source = match bytes {
                    Bytes::Here(bytes) => Source::Bytes(bytes),
                    Bytes::At(path) => Source::File(directory.join(std::ffi::OsStr::from_bytes(&path))),
                };
                transaction.write(path, mode, source, expected(&old)?)
            }
            Item::Remove(path, old) => transaction.remove(path, expected(&old)?),
        };
    }
    Ok(())
}
