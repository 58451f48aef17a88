use super::*;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::fs::durable;
use crate::git::Git;

/// Every shape, with arguments that make each of them do its work.
fn every<'a>(file: &'a str, oid: &'a str) -> Vec<Plumbing<'a>> {
    let key = "core.bare";
    let settings = [
        ConfigQuery::Value(key),
        ConfigQuery::PathValue(key),
        ConfigQuery::ScopedPaths(key),
        ConfigQuery::Scoped(key),
        ConfigQuery::Matching("^core"),
        ConfigQuery::NamesMatching("^core"),
        ConfigQuery::All,
        ConfigQuery::LocalNames,
    ];
    let mut all: Vec<_> = settings.into_iter().map(Plumbing::Config).collect();
    all.extend([
        Plumbing::Version,
        Plumbing::ExecPath,
        Plumbing::ConfigOfFile { file, key },
        Plumbing::ConfigText,
        Plumbing::SetInFile { file, key, value: Some("false") },
        Plumbing::SetInFile { file, key, value: None },
        Plumbing::RenameSection { old: "jin", new: "jin2" },
        Plumbing::GitDir,
        Plumbing::TopLevel,
        Plumbing::IsBare,
        Plumbing::ObjectFormat,
        Plumbing::Resolve("HEAD"),
        Plumbing::Symref("HEAD"),
        Plumbing::Symref("refs/heads/main"),
        Plumbing::SetSymref { name: "HEAD", target: "refs/heads/other", message: "m" },
        Plumbing::UpdateRefs { message: "m" },
        Plumbing::Refs { format: "%(refname)", below: Some("refs/heads"), points_at: Some(oid) },
        Plumbing::ObjectInfo { format: "%(objectname)" },
        Plumbing::ObjectContents,
        Plumbing::Tree("HEAD"),
        Plumbing::Subjects { of: "HEAD", without: oid, most: "1" },
        Plumbing::Walk,
        Plumbing::StoreBlob,
        Plumbing::EmptyTree,
        Plumbing::Tracked(None),
        Plumbing::Tracked(Some(":(exclude,attr:!filter)")),
        Plumbing::Staged,
        Plumbing::Flagged,
        Plumbing::Untracked,
        Plumbing::Ignored,
        Plumbing::WriteTree,
        Plumbing::CommitTree { tree: oid, parent: None },
        Plumbing::ReadTree(Some("HEAD")),
        Plumbing::ReadTree(None),
        Plumbing::FillIndex,
        Plumbing::SkipWorktree,
        Plumbing::SparsePaths,
        Plumbing::Connectivity,
        Plumbing::VerifyPack(file),
        Plumbing::IndexPack { pack: file, index: file },
        Plumbing::Unpack,
        Plumbing::Pack(file),
        Plumbing::Reachable,
    ]);
    all
}

fn shown(plumbing: Plumbing<'_>) -> String {
    plumbing.words().join(" ")
}

#[test]
fn no_command_that_runs_programs_can_be_written() {
    const RUN_PROGRAMS: [&str; 19] = [
        "status",
        "diff",
        "diff-tree",
        "diff-index",
        "diff-files",
        "reset",
        "stash",
        "log",
        "show",
        "reflog",
        "checkout",
        "checkout-index",
        "add",
        "commit",
        "fetch",
        "clone",
        "gc",
        "merge",
        "var",
    ];
    for plumbing in every("file", "oid") {
        let words = plumbing.words();
        let has = |option: &str| words.iter().any(|word| word.starts_with(option));
        assert!(!RUN_PROGRAMS.contains(&words[0].as_str()), "{words:?}");
        assert!(
            !["--textconv", "--filters", "--refresh", "--really-refresh", "--edit", "--exclude-per"]
                .into_iter()
                .any(has)
        );
        match words[0].as_str() {
            "hash-object" => assert!(has("--no-filters") && has("--stdin"), "{words:?}"),
            "read-tree" => assert!(!["-m", "-u", "--reset", "--prefix"].into_iter().any(has), "{words:?}"),
            "update-index" => assert!(has("--skip-worktree") || has("--index-info"), "{words:?}"),
            "ls-files" => assert!(!words.iter().any(|word| ["-m", "-d"].contains(&word.as_str())), "{words:?}"),
            "config" => assert!(!has("-e"), "{words:?}"),
            _ => {}
        }
    }
}

/// A repository whose configuration names the program `trap` wherever it can, and whose files look changed.
fn trapped(dir: &Path, trap: &str) -> String {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.env("GIT_AUTHOR_NAME", "A").env("GIT_AUTHOR_EMAIL", "a@x").env("GIT_COMMITTER_NAME", "A");
        let output = git.env("GIT_COMMITTER_EMAIL", "a@x").output().expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    git(&["init", "-q", "-b", "main", "--template="]);
    durable::create_new(&dir.join("tracked"), b"1\n").unwrap();
    git(&["add", "tracked"]);
    git(&["commit", "-q", "-m", "x"]);
    durable::remove_file(&dir.join("tracked")).unwrap();
    durable::create_new(&dir.join("tracked"), b"2\n").unwrap();
    durable::create_new(&dir.join("untracked"), b"1\n").unwrap();
    let mut config = String::from("[log]\nshowSignature=true\n[core]\nsparseCheckout=true\n[jin]\na=b\n");
    for (section, name) in [
        ("core", "fsmonitor"),
        ("core", "editor"),
        ("core", "pager"),
        ("core", "sshCommand"),
        ("filter \"trap\"", "clean"),
        ("filter \"trap\"", "smudge"),
        ("filter \"trap\"", "process"),
        ("diff \"trap\"", "textconv"),
        ("diff", "external"),
        ("gpg", "program"),
        ("credential", "helper"),
        ("hook \"a=b\"", "command"),
        ("hook \"c\"", "command"),
    ] {
        config += &format!("[{section}]\n{name} = {trap}\n");
    }
    config += &format!("[protocol]\nallow=always\n[remote \"o\"]\npromisor=true\nurl=\"ext::{trap}\"\n");
    config +=
        "[hook \"a=b\"]\nevent=reference-transaction\nevent=post-index-change\n[hook \"c\"]\nevent=post-index-change\n";
    config += "[extensions]\npartialClone=o\n[core]\nrepositoryFormatVersion=1\n";
    durable::append(&dir.join(".git/config"), config.as_bytes()).unwrap();
    durable::create_dirs(&dir.join(".git/info"), 0o777).unwrap();
    durable::append(&dir.join(".git/info/attributes"), b"* filter=trap diff=trap\n").unwrap();
    durable::append(&dir.join(".git/info/sparse-checkout"), b"/*\n").unwrap();
    git(&["rev-parse", "HEAD"])
}

#[test]
fn no_command_on_the_list_starts_a_program() {
    let scratch = tempfile::tempdir().unwrap();
    let ran = scratch.path().join("ran");
    let trap = scratch.path().join("trap");
    durable::create_new(&trap, format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\nexit 1\n", ran.display()).as_bytes())
        .unwrap();
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    let file = scratch.path().join("file").display().to_string();
    for n in 0..every("", "").len() {
        let dir = scratch.path().join(n.to_string());
        durable::create_dirs(&dir, 0o777).unwrap();
        let head = trapped(&dir, trap.to_str().unwrap());
        let plumbing = every(&file, &head)[n];
        let missing = "1".repeat(40);
        let stdin = match plumbing {
            Plumbing::UpdateRefs { .. } => format!("create refs/heads/new\0{head}\0"),
            Plumbing::SkipWorktree | Plumbing::SparsePaths => "tracked\0".to_owned(),
            Plumbing::FillIndex => format!("100644 {head} 0\ttracked\0"),
            Plumbing::StoreBlob => "2\n".to_owned(),
            Plumbing::ObjectInfo { .. } | Plumbing::ObjectContents | Plumbing::Walk => format!("{head}\n{missing}\n"),
            _ => String::new(),
        };
        let git = Git::new(Path::new("git")).at(&dir.join(".git")).worktree(&dir);
        let index = scratch.path().join(format!("index-{n}"));
        git.command(Plumbing::ReadTree(Some(&head))).index(&index).run_ok().unwrap();
        let command = git.command(plumbing).stdin(stdin);
        if plumbing.writes_index() { command.index(&index) } else { command }.run().unwrap();
        let said = fs::read_to_string(&ran).unwrap_or_default();
        assert_eq!(said, "", "{}", shown(plumbing));
    }
}
