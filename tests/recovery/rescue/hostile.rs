//! A repository that somebody prepared cannot make a rescue run, write or remove anything outside of it, or wait for ever.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;

use super::damage::{append, copy, empty, object, remove, rescue, template, write};
use crate::support::crash::jin;
use crate::support::observe::{Tree, tree};
use crate::support::repo::{Repo, text, write_file};
use crate::support::wait::comes_true;

/// What lies outside of the repository.
fn outside(repo: &Repo) -> Tree {
    let inside = |path: &Path| path.starts_with("repo") || path.starts_with("home");
    tree(repo.scratch()).into_iter().filter(|(path, _)| !inside(path)).collect()
}

/// A configuration that names a program wherever it can, before and behind something that git cannot read.
fn trap(repo: &Repo) {
    let trap = repo.scratch().join("trap");
    write_file(&trap, &format!("#!/bin/sh\ntouch '{}'\n", repo.scratch().join("ran").display()), 0o755);
    let trap = trap.display();
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {trap}\n\thooksPath = {0}\n\tsshCommand = {trap}\n\tpager = {trap}\n\
         [filter \"trap\"]\n\tclean = {trap}\n\tsmudge = {trap}\n\tprocess = {trap}\n\trequired\n[diff]\n\texternal = {trap}\n\
         [gpg]\n\tprogram = {trap}\n[log]\n\tshowSignature\n[remote \"origin\"]\n\turl = ext::{trap}\n\tuploadpack = {trap}\n\
         [credential]\n\thelper = {trap}\n[protocol]\n\tallow = always\n[hook \"x\"]\n\tcommand = {trap}\n\tevent = reference-transaction\n\
         [garbage\n",
        repo.scratch().join("hooks").display()
    );
    write(repo, "config", config.as_bytes());
    write(repo, "info/attributes", b"* filter=trap diff=trap\n");
    for hook in ["reference-transaction", "post-checkout", "post-index-change", "pre-auto-gc"] {
        write_file(&repo.scratch().join("hooks").join(hook), &format!("#!/bin/sh\n{trap}\n"), 0o755);
    }
}

type Prepared = (&'static str, fn(&Repo, &Path));

/// What is prepared in the repository, with a path outside.
const PREPARED: &[Prepared] = &[
    ("a ref is a link", |r, out| link(r, "refs/heads/evil", &out.join("file"))),
    ("HEAD is a link", |r, out| link(r, "HEAD", &out.join("file"))),
    ("the index is a link", |r, out| link(r, "index", &out.join("file"))),
    ("packed-refs is a link", |r, out| link(r, "packed-refs", &out.join("file"))),
    ("a reflog is a link", |r, out| link(r, "logs/refs/heads/main", &out.join("file"))),
    ("refs/heads is a link", |r, out| link(r, "refs/heads", out)),
    ("objects is a link", |r, out| link(r, "objects", out)),
    ("objects/pack is a link", |r, out| link(r, "objects/pack", out)),
    ("objects of one kind are a link", |r, out| link(r, "objects/aa", out)),
    ("the quarantine is a link", |r, out| link(r, "jin-rescue", out)),
    ("its inside is a link", |r, out| {
        write(r, "jin-rescue/x", b"");
        link(r, "jin-rescue/quarantine", out)
    }),
    ("a worktree is a link", |r, out| link(r, "worktrees/linked", out)),
    ("a worktree is somebody else's", |r, out| {
        write(r, "worktrees/linked/gitdir", format!("{}/.git\n", out.display()).as_bytes());
        empty(r, "worktrees/linked/index");
    }),
    ("the common directory is elsewhere", |r, out| write(r, "commondir", out.display().to_string().as_bytes())),
    ("the configuration is a FIFO", |r, _| fifo(r, "config")),
    ("HEAD is a FIFO", |r, _| fifo(r, "HEAD")),
    ("a ref is a FIFO", |r, _| fifo(r, "refs/heads/evil")),
    ("an object is a FIFO", |r, _| fifo(r, "objects/aa/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")),
    ("a pack is a FIFO", |r, _| {
        fifo(r, "objects/pack/pack-x.pack");
        fifo(r, "objects/pack/pack-x.idx")
    }),
    ("the alternates are a FIFO", |r, _| fifo(r, "objects/info/alternates")),
    ("a pack of an alternate is a FIFO", |r, out| {
        fs::create_dir_all(out.join("other/pack")).unwrap();
        nix::unistd::mkfifo(&out.join("other/pack/pack-x.idx"), Mode::S_IRWXU).unwrap();
        write(r, "objects/info/alternates", format!("{}\n", out.join("other").display()).as_bytes())
    }),
    ("an object of an alternate is a FIFO", |r, _| {
        let wanted = object(r, "HEAD");
        let other = format!("other/{}", wanted.trim_start_matches("objects/"));
        remove(r, &wanted);
        fifo(r, &other);
        write(r, "objects/info/alternates", format!("{}\n", r.git_dir().join("other").display()).as_bytes());
    }),
    ("the index is a FIFO", |r, _| fifo(r, "index")),
    ("a reflog is a FIFO", |r, _| fifo(r, "logs/HEAD")),
];

fn link(repo: &Repo, name: &str, to: &Path) {
    remove(repo, name);
    let path = repo.git_dir().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(to, path).unwrap();
}

fn fifo(repo: &Repo, name: &str) {
    remove(repo, name);
    let path = repo.git_dir().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
}

#[test]
fn a_prepared_repository_makes_a_rescue_run_and_write_nothing_outside() {
    let template = template("sha1", false);
    let repo = copy(&template);
    trap(&repo);
    rescue(&repo, &[]);
    let is_run = |repo: &Repo| repo.scratch().join("ran").exists();
    assert!(!is_run(&repo), "nothing is run");
    repo.try_git(["status"]);
    assert!(is_run(&repo), "the trap works: a git that obeys this configuration runs it");
    for (name, prepare) in PREPARED {
        let repo = copy(&template);
        let out = repo.scratch().join("victims");
        write_file(&out.join("file"), "precious\n", 0o644);
        write_file(&out.join("dir/file"), "precious\n", 0o644);
        trap(&repo);
        empty(&repo, "refs/heads/side");
        append(&repo, "logs/refs/heads/beside", b"\0\0");
        prepare(&repo, &out);
        let before = outside(&repo);
        let mut command = jin(&repo, &["rescue", "--yes"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).env("TMPDIR", "/dev/shm");
        let mut child = command.spawn().unwrap();
        if !comes_true(|| child.try_wait().unwrap().is_some()) {
            child.kill().ok();
            panic!("{name}: it hangs");
        }
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr).into_owned();
        assert!(!is_run(&repo), "{name}: something was run\n{said}");
        assert!(outside(&repo) == before, "{name}: something outside has changed\n{said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{name}: {said}");
        repo.discard();
    }
}
