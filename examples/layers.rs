//! Five refs and three files at once, as a tool for layered configuration would: each layer is a ref, the merged result
//! lies in the worktree, and nobody may ever see the one without the other.
//!
//! `cargo run --example layers` makes a repository in a temporary directory, applies, and shows what it did.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use jin_txn::{Expected, FileMode, Oid, RefName, RelPath, Repository, Source, Transaction};

fn main() -> anyhow::Result<()> {
    let scratch = std::env::temp_dir().join(format!("jin-layers-{}", std::process::id()));
    git(Path::new("."), &["init", "-q", scratch.to_str().context("a path that is no text")?])?;
    let result = apply_layers(&scratch);
    // A scratch repository of our own.
    Command::new("rm").arg("-rf").arg(&scratch).status()?;
    result
}

fn apply_layers(directory: &Path) -> anyhow::Result<()> {
    let repo = Repository::discover(directory)?;
    let mut transaction = Transaction::begin(&repo, "layers: apply global, mode and project");
    for layer in ["global", "mode/dark", "scope/team", "project/web", "user"] {
        let text = format!("# {layer}\n");
        let blob = git_with_input(directory, &["hash-object", "-w", "--stdin"], &text)?;
        let name = RefName::parse(format!("refs/jin/layers/{layer}").as_bytes())?;
        transaction.update(name, blob, Expected::Absent);
    }
    for (path, text) in
        [(".editorconfig", "root = true\n"), ("app/config.toml", "dark = true\n"), ("app/team", "web\n")]
    {
        let bytes = Source::Bytes(text.as_bytes().to_vec());
        transaction.write(RelPath::parse(path.as_bytes())?, FileMode::Plain, bytes, Expected::Absent);
    }
    let done = transaction.prepare()?.commit()?;
    println!("{} changed {} refs and {} files:", done.id, done.refs.len(), done.files.len());
    for change in &done.refs {
        println!("  {}  {}", change.after, change.name);
    }
    for file in &done.files {
        println!("  {}", file.path);
    }
    Ok(())
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("git").current_dir(directory).args(arguments).status()?;
    anyhow::ensure!(status.success(), "git {arguments:?} failed");
    Ok(())
}

fn git_with_input(directory: &Path, arguments: &[&str], input: &str) -> anyhow::Result<Oid> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("it has no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Oid::parse(output.stdout.trim_ascii()).context("git printed no object name")
}
