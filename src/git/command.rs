//! Running git itself: the only writer of refs.
//!
//! Every hook is off for these children (ours would log recovery as a transaction; the user's have seen
//! these updates already), and what a hook's environment says about "the" repository is taken away.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;

use crate::git::repository::Repository;
use crate::git::{RefName, Value};

/// The variables that tie git to a repository (`git rev-parse --local-env-vars`), and those that change
/// what a ref update does.
const LOCAL_VARIABLES: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REFLOG_ACTION",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// What a git child printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code 0.
    pub success: bool,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

/// Runs git on the git directory `git_dir` and waits for it.
///
/// # Errors
/// It cannot be started.
pub fn run(program: &Path, git_dir: &Path, args: &[&str], stdin: &[u8], index: Option<&Path>) -> anyhow::Result<Ran> {
    run_anywhere(program, git_dir, None, args, stdin, index)
}

/// Runs git on `git_dir` with the worktree `worktree`.
///
/// # Errors
/// It cannot be started.
pub fn run_at(program: &Path, git_dir: &Path, worktree: &Path, args: &[&str]) -> anyhow::Result<Ran> {
    run_anywhere(program, git_dir, Some(worktree), args, b"", None)
}

/// Runs git on no repository (`git config --file`).
///
/// # Errors
/// It cannot be started.
pub fn run_plain(program: &Path, args: &[&str]) -> anyhow::Result<Ran> {
    start(program, None, None, args, b"", None)
}

/// Runs git on `git_dir`, with a worktree and another index than its own if they are given.
///
/// # Errors
/// It cannot be started.
pub fn run_anywhere(
    program: &Path,
    git_dir: &Path,
    worktree: Option<&Path>,
    args: &[&str],
    stdin: &[u8],
    index: Option<&Path>,
) -> anyhow::Result<Ran> {
    start(program, Some(git_dir), worktree, args, stdin, index)
}

fn start(
    program: &Path,
    git_dir: Option<&Path>,
    worktree: Option<&Path>,
    args: &[&str],
    stdin: &[u8],
    index: Option<&Path>,
) -> anyhow::Result<Ran> {
    let mut full: Vec<OsString> = vec!["-c".into(), "core.hooksPath=/dev/null".into()];
    full.extend(git_dir.into_iter().flat_map(|dir| ["--git-dir".into(), dir.into()]));
    if let Some(worktree) = worktree {
        // Otherwise `core.worktree` decides, and that may be another one.
        full.extend(["--work-tree".into(), worktree.into()]);
    }
    full.extend(args.iter().map(OsString::from));
    let mut command =
        duct::cmd(program.as_os_str(), full).stdin_bytes(stdin).stdout_capture().stderr_capture().unchecked();
    // duct lets the innermost wrapper win: what is set comes before what is taken away.
    command = command.env("JIN_TXN", "off").env("LC_ALL", "C").env("GIT_NO_LAZY_FETCH", "1");
    if let Some(index) = index {
        command = command.env("GIT_INDEX_FILE", index);
    }
    for variable in LOCAL_VARIABLES {
        command = command.env_remove(variable);
    }
    if let Some(worktree) = worktree {
        command = command.dir(worktree);
    }
    let output = command.run().with_context(|| format!("cannot run {}", program.display()))?;
    Ok(Ran {
        success: output.status.success(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The value of a configuration setting, `None` when it is not set.
///
/// # Errors
/// git cannot be started.
pub fn config(program: &Path, repo: &Repository, key: &str) -> anyhow::Result<Option<String>> {
    let ran = run(program, &repo.git_dir, &["config", "--get", key], b"", None)?;
    Ok(ran.success.then(|| String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()))
}

/// Options that switch off hooks which are set in the configuration (2.54 and newer).
fn config_hooks_off(program: &Path, git_dir: &Path) -> anyhow::Result<Vec<String>> {
    let listed = run(program, git_dir, &["config", "--name-only", "--get-regexp", r"^hook\..*\.event$"], b"", None)?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|key| key.strip_prefix("hook.")?.strip_suffix(".event"));
    Ok(names.flat_map(|name| ["-c".to_owned(), format!("hook.{name}.enabled=false")]).collect())
}

/// One ref to be written, if it still has the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefWrite {
    /// Canonical name.
    pub name: RefName,
    /// The value that it must have.
    pub from: Value,
    /// The value to give it.
    pub to: Value,
}

/// Writes all refs, or none, as a transaction like any other: with the hooks, ours and the user's. `variable` is set for them.
///
/// # Errors
/// git cannot be started, or refuses, or a hook does.
pub fn write_refs_with_hooks(
    program: &Path,
    git_dir: &Path,
    writes: &[RefWrite],
    message: &str,
    variable: (&str, &str),
) -> anyhow::Result<()> {
    let mut stdin = Vec::new();
    for RefWrite { name, from, to } in writes {
        let zero = null_of(from, to);
        let hex = |value: &Value| value.oid().map_or_else(|| zero.clone(), |oid| oid.hex().to_owned());
        let (from, to) = (hex(from), hex(to));
        push_line(&mut stdin, &[b"update ", name.as_bytes(), b"\0", to.as_bytes(), b"\0", from.as_bytes(), b"\0"]);
    }
    let mut args: Vec<OsString> = vec!["--git-dir".into(), git_dir.into()];
    args.extend(["update-ref", "--no-deref", "-m", message, "-z", "--stdin"].map(OsString::from));
    let mut command =
        duct::cmd(program.as_os_str(), args).stdin_bytes(stdin).stdout_capture().stderr_capture().unchecked();
    command = command.env("LC_ALL", "C").env(variable.0, variable.1);
    for name in LOCAL_VARIABLES.iter().chain(&["JIN_TXN"]) {
        command = command.env_remove(name);
    }
    let output = command.run().with_context(|| format!("cannot run {}", program.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "git update-ref refused: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Writes all refs, or none, in one `git update-ref` session (symrefs one by one afterwards).
///
/// # Errors
/// git cannot be started, or refuses: a ref has another value by now, or somebody holds its lock.
pub fn write_refs(program: &Path, git_dir: &Path, writes: &[RefWrite], message: &str) -> anyhow::Result<()> {
    let mut stdin = Vec::new();
    let mut symrefs = Vec::new();
    for RefWrite { name, from, to } in writes {
        let (name, zero) = (name.as_bytes(), null_of(from, to));
        let old = match from {
            Value::Oid(oid) => oid.hex().to_owned(),
            Value::Absent => zero,
            // The session cannot compare with a symref: nothing is compared, the caller has just read it.
            Value::Symref(_) | Value::Broken => String::new(),
        };
        match to {
            Value::Oid(new) => {
                push_line(&mut stdin, &[b"update ", name, b"\0", new.hex().as_bytes(), b"\0", old.as_bytes(), b"\0"])
            }
            Value::Absent => push_line(&mut stdin, &[b"delete ", name, b"\0", old.as_bytes(), b"\0"]),
            Value::Symref(target) => symrefs.push((name, target)),
            Value::Broken => anyhow::bail!("a broken value cannot be written"),
        }
    }
    if !stdin.is_empty() {
        let mut args = config_hooks_off(program, git_dir)?;
        args.extend(["update-ref", "--no-deref", "-m", message, "-z", "--stdin"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = run(program, git_dir, &args, &stdin, None)?;
        anyhow::ensure!(ran.success, "git update-ref refused: {}", ran.stderr);
    }
    for (name, target) in symrefs {
        write_symref(program, git_dir, name, target, message)?;
    }
    Ok(())
}

/// Points a symref (a `HEAD`) to `target`.
///
/// # Errors
/// git cannot be started or refuses.
pub fn write_symref(
    program: &Path,
    git_dir: &Path,
    name: &[u8],
    target: &RefName,
    message: &str,
) -> anyhow::Result<()> {
    // Another worktree's HEAD has no name that `git symbolic-ref` takes: it is asked from there.
    let own = name.strip_prefix(b"worktrees/").and_then(|rest| rest.strip_suffix(b"/HEAD"));
    let there = match own {
        Some(worktree) => {
            let common_dir = Repository::open(git_dir)?.common_dir;
            Some(common_dir.join("worktrees").join(std::ffi::OsStr::from_bytes(worktree)))
        }
        None => None,
    };
    let (git_dir, name) = there.as_deref().map_or((git_dir, name), |dir| (dir, b"HEAD"));
    let name = std::str::from_utf8(name).context("a symref with a name that is no UTF-8")?;
    let target = std::str::from_utf8(target.as_bytes()).context("a symref to a name that is no UTF-8")?;
    let mut args = config_hooks_off(program, git_dir)?;
    args.extend(["symbolic-ref", "-m", message, name, target].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = run(program, git_dir, &args, b"", None)?;
    anyhow::ensure!(ran.success, "git symbolic-ref refused: {}", ran.stderr);
    Ok(())
}

fn push_line(stdin: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        stdin.extend_from_slice(part);
    }
}

/// Zeros of the repository's hash length, taken from whichever value there is.
fn null_of(from: &Value, to: &Value) -> String {
    from.oid().or(to.oid()).map_or_else(|| "0".repeat(40), crate::git::Oid::null_like)
}

/// The visible values of `names`, asked from git (for reftable, which only git reads).
///
/// # Errors
/// git cannot be started or fails.
pub fn read_refs(program: &Path, git_dir: &Path, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    for name in names {
        let text = std::ffi::OsStr::from_bytes(name.as_bytes()).to_string_lossy();
        let symbolic = run(program, git_dir, &["symbolic-ref", "-q", "--no-recurse", &text], b"", None);
        // `--no-recurse` came with 2.39; without it a symref to a symref is followed, which HEAD never is.
        if let Ok(ran) = symbolic
            && let Ok(target) = RefName::parse(ran.stdout.trim_ascii())
        {
            values.push(Value::Symref(target));
            continue;
        }
        let ran = run(program, git_dir, &["rev-parse", "-q", "--verify", &text], b"", None)?;
        values.push(super::Oid::parse(ran.stdout.trim_ascii()).map_or(Value::Absent, Value::Oid));
    }
    Ok(values)
}

/// The root of the worktree that `directory` lies in, as the user's own git would find it; `None` in a bare repository.
///
/// # Errors
/// git cannot be started, or there is no worktree.
pub fn top_level(
    program: &Path,
    directory: &Path,
    git_dir: Option<&Path>,
) -> anyhow::Result<Option<std::path::PathBuf>> {
    let ask = |what: &str| {
        let mut command = duct::cmd(program.as_os_str(), ["rev-parse", what]).dir(directory).env("LC_ALL", "C");
        if let Some(git_dir) = git_dir {
            command = command.env("GIT_DIR", git_dir);
        }
        let ran = command.stdin_null().stdout_capture().stderr_capture().unchecked().run();
        ran.with_context(|| format!("cannot run {}", program.display()))
    };
    let top = ask("--show-toplevel")?;
    if top.status.success() {
        let path = top.stdout.strip_suffix(b"\n").unwrap_or(&top.stdout);
        return Ok(Some(std::ffi::OsStr::from_bytes(path).into()));
    }
    if ask("--is-bare-repository")?.stdout.trim_ascii() == b"true" {
        return Ok(None);
    }
    anyhow::bail!("{}", String::from_utf8_lossy(&top.stderr).trim().trim_start_matches("fatal: "))
}

/// A git that hands out objects, one after the other.
#[derive(Debug)]
pub struct Batch {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Batch {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, git_dir: &Path) -> anyhow::Result<Batch> {
        use std::process::{Command, Stdio};
        let mut command = Command::new(program);
        for variable in LOCAL_VARIABLES {
            command.env_remove(variable);
        }
        command.env("JIN_TXN", "off").env("LC_ALL", "C").env("GIT_NO_LAZY_FETCH", "1");
        command.arg("--git-dir").arg(git_dir).args(["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).context("git cat-file has no pipes")?;
        Ok(Batch { child, input, output: std::io::BufReader::new(output) })
    }

    /// Writes the content of `object` to `to`, without ever holding all of it.
    ///
    /// # Errors
    /// There is no such object, or it cannot be written.
    pub fn copy(&mut self, object: &str, to: &mut impl std::io::Write) -> anyhow::Result<()> {
        use std::io::{BufRead, Read, Write};
        writeln!(self.input, "{object}").and_then(|()| self.input.flush()).context("git cat-file has ended")?;
        let mut header = String::new();
        self.output.read_line(&mut header).context("git cat-file cannot be read")?;
        let size = header.trim_end().rsplit_once(' ').and_then(|(_, size)| size.parse::<u64>().ok());
        let size = size.with_context(|| format!("object {object} is not there: `{}`", header.trim_end()))?;
        let copied = std::io::copy(&mut self.output.by_ref().take(size), to)?;
        anyhow::ensure!(copied == size, "object {object} is cut");
        // A line feed ends every answer.
        self.output.read_exact(&mut [0]).context("git cat-file cannot be read")
    }

    /// The content of `object`.
    ///
    /// # Errors
    /// There is no such object.
    pub fn content(&mut self, object: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(object, &mut bytes)?;
        Ok(bytes)
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

/// As [`read_refs`], in one process for all refs that are no symbolic ones.
///
/// # Errors
/// git cannot be started or fails.
pub fn read_refs_at_once(program: &Path, git_dir: &Path, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    let mut input = Vec::new();
    for name in names {
        push_line(&mut input, &[name.as_bytes(), b"\n"]);
    }
    let ran = run(program, git_dir, &["cat-file", "--batch-check=%(objectname)"], &input, None)?;
    let mut lines = ran.stdout.split(|b| *b == b'\n');
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        let line = lines.next().unwrap_or_default();
        // Only what lies right below the git directory is symbolic by itself: HEAD.
        if !name.as_bytes().starts_with(b"refs/") {
            values.append(&mut read_refs(program, git_dir, &[name])?);
            continue;
        }
        values.push(super::Oid::parse(line).map_or(Value::Absent, Value::Oid));
    }
    Ok(values)
}

/// The symbolic refs of a worktree, with what they point to (for reftable, which only git reads).
///
/// # Errors
/// git cannot be started or fails.
pub fn symbolic_refs(program: &Path, git_dir: &Path) -> anyhow::Result<HashMap<RefName, RefName>> {
    let format = "--format=%(if)%(symref)%(then)%(refname) %(symref)%(end)";
    let listed = run(program, git_dir, &["for-each-ref", format], b"", None)?;
    let head = run(program, git_dir, &["symbolic-ref", "-q", "HEAD"], b"", None)?;
    let mut lines: Vec<Vec<u8>> = listed.stdout.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    lines.push([b"HEAD ".as_slice(), head.stdout.trim_ascii()].concat());
    let pair = |line: &Vec<u8>| {
        let space = line.iter().position(|b| *b == b' ')?;
        Some((RefName::parse(&line[..space]).ok()?, RefName::parse(&line[space + 1..]).ok()?))
    };
    Ok(lines.iter().filter_map(pair).collect())
}

/// Takes away what the environment says about "the" repository.
pub fn forget_repository(command: &mut std::process::Command) {
    for variable in LOCAL_VARIABLES.iter().chain(&["JIN_TXN", crate::util::env::REVERSES]) {
        command.env_remove(variable);
    }
}

/// The version of the git program, as `(major, minor)`.
///
/// # Errors
/// It cannot be started, or does not say.
pub fn version(program: &Path) -> anyhow::Result<(u32, u32)> {
    let output = duct::cmd(program.as_os_str(), ["version"]).stdout_capture().stderr_null().unchecked().run();
    let output = output.with_context(|| format!("cannot run {}: is git installed?", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.trim().strip_prefix("git version ").unwrap_or_default().split('.');
    let mut number = || numbers.next().and_then(|n| n.parse().ok());
    number().zip(number()).with_context(|| {
        let shown = crate::util::text::shortened(&text, 80);
        format!("`{} version` says {shown}, which is no git version", program.display())
    })
}
