//! Everything that a person sees of a worktree: refs, HEAD, index, files, branch configuration, what is in progress.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::repo::Repo;

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub refs: Vec<String>,
    pub stashes: String,
    pub head: String,
    pub index: Vec<String>,
    pub files: BTreeMap<String, String>,
    pub configuration: String,
    pub in_progress: Vec<String>,
}

impl Whole {
    /// The worktree as it is now.
    pub fn of(repo: &Repo) -> Whole {
        let lines = |text: String| text.lines().map(str::to_owned).collect();
        let symbolic = repo.try_git(["symbolic-ref", "-q", "HEAD"]);
        let head = if symbolic.status.success() { symbolic } else { repo.try_git(["rev-parse", "HEAD"]) };
        let mut files = BTreeMap::new();
        collect(repo.path(), repo.path(), &mut files);
        let states = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "sequencer"];
        let git_dir = repo.read(["rev-parse", "--absolute-git-dir"]);
        let in_progress = states.into_iter().filter(|name| Path::new(&git_dir).join(name).exists());
        let configuration = repo.try_git(["config", "--get-regexp", r"^branch\."]);
        Whole {
            refs: lines(repo.read(["for-each-ref"])),
            stashes: fs::read_to_string(repo.git_dir().join("logs/refs/stash")).unwrap_or_default(),
            head: String::from_utf8_lossy(&head.stdout).trim().to_owned(),
            index: lines(repo.read(["ls-files", "-s", "-v"])),
            files,
            configuration: String::from_utf8_lossy(&configuration.stdout).into_owned(),
            in_progress: in_progress.map(str::to_owned).collect(),
        }
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path.strip_prefix(root).expect("it lies there").display().to_string();
        let found = fs::symlink_metadata(&path).expect("it is there");
        if name == ".git" {
        } else if found.is_dir() {
            files.insert(format!("{name}/"), String::new());
            collect(root, &path, files);
        } else if found.is_symlink() {
            files.insert(name, format!("-> {}", fs::read_link(&path).expect("it is a link").display()));
        } else {
            let content = String::from_utf8_lossy(&fs::read(&path).expect("it can be read")).into_owned();
            let mark = if found.permissions().mode() & 0o100 == 0 { "" } else { "x " };
            files.insert(name, format!("{mark}{content}"));
        }
    }
}
