//! Refs through git: it alone writes them, and it alone reads a reftable.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;

use crate::git::exec::{Command, Git};
use crate::git::name::in_the_way;
use crate::git::{Oid, Plumbing, RefName, Repository, Value};

/// One ref to be written, if it still has the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefWrite {
    /// Canonical name.
    pub name: RefName,
    /// The value that it must have.
    pub from: Value,
    /// The value to give it.
    pub to: Value,
}

/// Writes all refs, or none, as a transaction like any other: with the hooks, ours and the user's. `variable` is set for them.
pub(crate) fn write_refs_with_hooks(
    git: &Git,
    writes: &[RefWrite],
    message: &str,
    variable: (&'static str, &str),
) -> anyhow::Result<()> {
    let mut stdin = Vec::new();
    for RefWrite { name, from, to } in writes {
        let zero = null_of(from, to);
        let hex = |value: &Value| value.oid().map_or_else(|| zero.clone(), |oid| oid.hex().to_owned());
        let (from, to) = (hex(from), hex(to));
        push_line(&mut stdin, &[b"update ", name.as_bytes(), b"\0", to.as_bytes(), b"\0", from.as_bytes(), b"\0"]);
    }
    let session = update_session(git, message).watched(variable.0, variable.1);
    accepted("update-ref", session.stdin(stdin))
}

/// Writes refs without any hook: all or none, but for symrefs, and where some have to go before others can come. That fails when a
/// ref has another value by now, or somebody holds its lock; who calls again finishes it.
pub(crate) fn write_refs(git: &Git, writes: &[RefWrite], message: &str) -> anyhow::Result<()> {
    if are_in_each_others_way(writes) {
        let (gone, come): (Vec<RefWrite>, Vec<RefWrite>) = writes.iter().cloned().partition(|w| w.to == Value::Absent);
        return [gone, come].iter().try_for_each(|writes| write_at_once(git, writes, message));
    }
    write_at_once(git, writes, message)
}

/// Must some of them go before others can come?
pub(crate) fn are_in_each_others_way(writes: &[RefWrite]) -> bool {
    let names = |goes: bool| writes.iter().filter(move |w| (w.to == Value::Absent) == goes).map(|w| &w.name);
    in_the_way(names(true), names(false)).is_some()
}

/// In one `git update-ref` session, and symrefs one by one. What was deleted comes back first, what was made goes last: the
/// reverse of what git did. In any other order a rollback that is cut would look as if somebody else had deleted what is
/// still missing. Within the session git makes its updates in this order, before its first deletion.
fn write_at_once(git: &Git, writes: &[RefWrite], message: &str) -> anyhow::Result<()> {
    let (missing, there): (Vec<&RefWrite>, Vec<&RefWrite>) = writes.iter().partition(|w| w.from == Value::Absent);
    let symrefs = |writes: &[&RefWrite]| {
        writes.iter().try_for_each(|write| match &write.to {
            Value::Symref(target) => write_symref(git, write.name.as_bytes(), target, message),
            _ => Ok(()),
        })
    };
    let mut stdin = Vec::new();
    for RefWrite { name, from, to } in missing.iter().chain(&there) {
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
            Value::Symref(_) => {}
            Value::Broken => anyhow::bail!("a broken value cannot be written"),
        }
    }
    symrefs(&missing)?;
    if !stdin.is_empty() {
        accepted("update-ref", update_session(git, message).stdin(stdin))?;
    }
    symrefs(&there)
}

/// Points a symref (a `HEAD`) to `target`, without any hook.
pub(crate) fn write_symref(git: &Git, name: &[u8], target: &RefName, message: &str) -> anyhow::Result<()> {
    // Another worktree's HEAD has no name that `git symbolic-ref` takes: it is asked from there.
    let own = name.strip_prefix(b"worktrees/").and_then(|rest| rest.strip_suffix(b"/HEAD"));
    let (git, name) = match own.zip(git.git_dir()) {
        Some((worktree, git_dir)) => {
            let common_dir = Repository::open(git_dir)?.common_dir;
            (git.at(&common_dir.join("worktrees").join(OsStr::from_bytes(worktree))), b"HEAD".as_slice())
        }
        None => (git.clone(), name),
    };
    let name = std::str::from_utf8(name).context("a symref with a name that is not UTF-8")?;
    let target = std::str::from_utf8(target.as_bytes()).context("a symref to a name that is not UTF-8")?;
    accepted("symbolic-ref", git.command(Plumbing::SetSymref { name, target, message }))
}

fn update_session(git: &Git, message: &str) -> Command {
    git.command(Plumbing::UpdateRefs { message })
}

fn accepted(name: &str, command: Command) -> anyhow::Result<()> {
    let ran = command.run()?;
    anyhow::ensure!(ran.success, "git {name} refused: {}", ran.stderr);
    Ok(())
}

fn push_line(stdin: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| stdin.extend_from_slice(part));
}

/// Zeros of the repository's hash length, taken from whichever value there is.
fn null_of(from: &Value, to: &Value) -> String {
    from.oid().or(to.oid()).map_or_else(|| "0".repeat(40), Oid::null_like)
}

/// The visible values of `names`, asked from git (for reftable, which only git reads).
pub(crate) fn read_refs(git: &Git, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    names.iter().map(|name| read_ref(git, name)).collect()
}

fn read_ref(git: &Git, name: &RefName) -> anyhow::Result<Value> {
    let text = OsStr::from_bytes(name.as_bytes()).to_string_lossy().into_owned();
    let symbolic = git.run(Plumbing::Symref(&text));
    if let Ok(ran) = symbolic
        && let Ok(target) = RefName::parse(ran.stdout.trim_ascii())
    {
        return Ok(Value::Symref(target));
    }
    let ran = git.run(Plumbing::Resolve(&text))?;
    Ok(Oid::parse(ran.stdout.trim_ascii()).map_or(Value::Absent, Value::Oid))
}

/// As [`read_refs`], in one process for all refs that are no symbolic ones.
pub(crate) fn read_refs_at_once(git: &Git, names: &[&RefName]) -> anyhow::Result<Vec<Value>> {
    let mut input = Vec::new();
    names.iter().for_each(|name| push_line(&mut input, &[name.as_bytes(), b"\n"]));
    let ran = git.command(Plumbing::ObjectInfo { format: "%(objectname)" }).stdin(input).run()?;
    if !ran.success {
        // It may die of an object that a partial clone has left on its server.
        return read_refs(git, names);
    }
    let mut lines = ran.stdout.split(|b| *b == b'\n');
    let read = names.iter().map(|name| {
        let line = lines.next().unwrap_or_default();
        // Only what lies right below the git directory is symbolic by itself: HEAD.
        if !name.as_bytes().starts_with(b"refs/") {
            return read_ref(git, name);
        }
        Ok(Oid::parse(line).map_or(Value::Absent, Value::Oid))
    });
    read.collect()
}

/// The symbolic refs of a worktree, with what they point to (for reftable, which only git reads).
pub(crate) fn symbolic_refs(git: &Git) -> anyhow::Result<HashMap<RefName, RefName>> {
    const SYMREFS: &str = "%(if)%(symref)%(then)%(refname) %(symref)%(end)";
    let listed = git.run(Plumbing::Refs { format: SYMREFS, below: None, points_at: None })?;
    let head = git.run(Plumbing::Symref("HEAD"))?;
    let head = [b"HEAD ".as_slice(), head.stdout.trim_ascii()].concat();
    let pair = |line: &[u8]| {
        let space = line.iter().position(|b| *b == b' ')?;
        Some((RefName::parse(&line[..space]).ok()?, RefName::parse(&line[space + 1..]).ok()?))
    };
    Ok(listed.split(b'\n').chain([head.as_slice()]).filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What `git` prints in `dir`, as a user would run it.
    fn git(dir: &Path, args: &[&str]) -> String {
        let mut git = std::process::Command::new("git");
        git.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_symref_that_was_deleted_comes_back_before_what_was_made_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        git(dir, &["init", "-q", "-b", "main", "."]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", "x"]);
        let name = |text: &str| RefName::parse(text.as_bytes()).unwrap();
        let to = Value::Symref(name("refs/heads/main"));
        let back = RefWrite { name: name("refs/remotes/origin/HEAD"), from: Value::Absent, to };
        let other = Value::Oid(Oid::parse(&[b'1'; 40]).unwrap());
        let refused = RefWrite { name: name("refs/heads/main"), from: other, to: Value::Absent };
        write_refs(&Git::new(Path::new("git")).at(&dir.join(".git")), &[refused, back], "m")
            .expect_err("main has another value");
        assert_eq!(git(dir, &["symbolic-ref", "refs/remotes/origin/HEAD"]), "refs/heads/main");
    }

    #[test]
    fn no_hook_of_the_configuration_runs_whatever_its_name() {
        let program = Git::new(Path::new("git"));
        if program.version().unwrap() < (2, 54) {
            return println!("skipped: before 2.54 git has no hooks in its configuration");
        }
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        git(dir, &["init", "-q", "."]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", "x"]);
        let head = git(dir, &["rev-parse", "HEAD"]);
        let ran = dir.join("ran");
        let command = format!("touch '{}'; exit 1; :", ran.display());
        for name in ["plain", "a=b", "a.b = c", "jin-ä"] {
            git(dir, &["config", &format!("hook.{name}.event"), "reference-transaction"]);
            git(dir, &["config", &format!("hook.{name}.command"), &command]);
        }
        let value = |text: &str| Value::Oid(Oid::parse(text.as_bytes()).unwrap());
        let name = RefName::parse(b"refs/heads/x").unwrap();
        let write = RefWrite { name, from: Value::Absent, to: value(&head) };
        let on_dir = program.at(&dir.join(".git"));
        let refused =
            write_refs_with_hooks(&on_dir, std::slice::from_ref(&write), "m", ("JIN_TXN_REVERSES", "")).is_err();
        assert!(refused && ran.exists(), "the hooks run, and refuse");
        crate::fs::durable::remove_file(&ran).unwrap();
        write_refs(&on_dir, &[write], "m").expect("no hook refuses it");
        write_symref(&on_dir, b"HEAD", &RefName::parse(b"refs/heads/x").unwrap(), "m").expect("no hook refuses it");
        assert!(!ran.exists(), "no hook has run");
        assert_eq!(git(dir, &["rev-parse", "refs/heads/x"]), head);
    }
}
