//! The repositories that are damaged: history with merges, tags, a stash, a remote, a submodule, a linked worktree; loose or packed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::crash::run_jin;
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Options, Repo};
use crate::support::snapshot::walk;
use crate::support::wait::wait_until;

/// A repository with everything in it.
pub fn template(format: &'static str, packed: bool) -> Repo {
    let repo = Repo::new(Options { object_format: Some(format), ..Options::default() });
    let upstream =
        repo.new_sibling("upstream", Options { object_format: Some(format), bare: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.write("dir/deep", "deep\n");
    repo.commit_all("one");
    repo.git(["branch", "old"]);
    repo.git(["checkout", "-q", "-b", "side"]);
    repo.write("side", "side\n");
    repo.commit_all("side");
    repo.git(["checkout", "-q", "main"]);
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo.git(["merge", "-q", "-m", "merged", "side"]);
    repo.git(["tag", "-a", "-m", "first", "v1"]);
    repo.git(["tag", "light"]);
    repo.git(["remote", "add", "origin", upstream.path().to_str().unwrap()]);
    repo.git(["push", "-q", "origin", "main"]);
    repo.git(["fetch", "-q"]);
    // No clone: of one that runs nobody can tell whose locks it holds, and other tests would leave theirs.
    let sub = repo.new_sibling("repo/sub", Options { object_format: Some(format), ..Options::default() });
    sub.commit_all("sub");
    repo.write(".gitmodules", &format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {}\n", upstream.path().display()));
    repo.git(["-c", "advice.addEmbeddedRepo=false", "add", "sub", ".gitmodules"]);
    repo.git(["submodule", "--quiet", "absorbgitdirs"]);
    repo.commit_all("with a submodule");
    for text in ["first", "second"] {
        repo.write("file", &format!("{text} stash\n"));
        repo.git(["stash", "push", "-q", "-m", text]);
    }
    let linked = repo.scratch().join("linked");
    repo.git(["worktree", "add", "-q", "-b", "beside", linked.to_str().unwrap()]);
    if packed {
        // The clock of these repositories stands still: all of their reflogs would expire.
        let never = ["gc.reflogExpire=never", "gc.reflogExpireUnreachable=never"];
        repo.git(["-c", never[0], "-c", never[1], "gc", "-q", "--prune=now"]);
    }
    repo.write("file", "three\n");
    repo.commit_all("three");
    repo.write("staged", "staged\n");
    repo.git(["add", "staged"]);
    repo.write("untracked", "untracked\n");
    repo
}

/// A copy, whose worktrees are its own.
pub fn copy(template: &Repo) -> Repo {
    let repo = template.copy_as_it_is();
    let (from, to) = (template.scratch().display().to_string(), repo.scratch().display().to_string());
    for file in ["linked/.git", "repo/.git/worktrees/linked/gitdir", "repo/.git/config"] {
        let path = repo.scratch().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&from, &to)).unwrap();
    }
    let names = ["HEAD", "HEAD^{tree}", "HEAD:file", ":staged", "stash@{0}", "old:file"];
    let oids = repo.read([&["rev-parse"][..], &names].concat());
    let lines: String = names.iter().zip(oids.lines()).map(|(name, oid)| format!("{name} {oid}\n")).collect();
    fs::write(repo.scratch().join(OBJECTS), lines).unwrap();
    repo
}

/// The objects that damage is done to, with their names.
const OBJECTS: &str = "objects";

fn git_dir(repo: &Repo, name: &str) -> PathBuf {
    repo.git_dir().join(name)
}

/// Makes a file what it may be after a power cut: of the same size, or as it says. What another damage has put there goes.
pub fn write(repo: &Repo, name: &str, content: &[u8]) {
    let path = git_dir(repo, name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    remove(repo, name);
    fs::write(path, content).unwrap();
}

/// Empties it, if it is there.
pub fn empty(repo: &Repo, name: &str) {
    write(repo, name, b"");
}

/// NULs in the place of its content.
pub fn zero(repo: &Repo, name: &str) {
    let size = fs::read(git_dir(repo, name)).map_or(41, |content| content.len());
    write(repo, name, &vec![0; size]);
}

/// Removes a file or a directory.
pub fn remove(repo: &Repo, name: &str) {
    let path = git_dir(repo, name);
    fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).ok();
}

/// Only so much of it is left, in percent.
pub fn cut(repo: &Repo, name: &str, percent: usize) {
    let content = fs::read(git_dir(repo, name)).unwrap_or_default();
    write(repo, name, &content[..content.len() * percent / 100]);
}

/// One byte is another one.
pub fn flip(repo: &Repo, name: &str, percent: usize) {
    let mut content = fs::read(git_dir(repo, name)).unwrap_or_default();
    let at = content.len() * percent / 100;
    if let Some(byte) = content.get_mut(at) {
        *byte ^= 0xff;
    }
    write(repo, name, &content);
}

/// Something is written behind it.
pub fn append(repo: &Repo, name: &str, more: &[u8]) {
    let content = fs::read(git_dir(repo, name)).unwrap_or_default();
    write(repo, name, &[&content, more].concat());
}

/// The loose file of an object; its path below the git directory. In a copy it is the object that was there before any damage.
pub fn object(repo: &Repo, name: &str) -> String {
    let noted = fs::read_to_string(repo.scratch().join(OBJECTS)).unwrap_or_default();
    let noted = noted.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    let oid = noted.unwrap_or_else(|| repo.read(["rev-parse", name]));
    format!("objects/{}/{}", &oid[..2], &oid[2..])
}

/// Files below the git directory with such a name.
pub fn named(repo: &Repo, below: &str, end: &str) -> Vec<String> {
    let all = walk(&git_dir(repo, below), &|_| true);
    let inside = |path: &Path| path.strip_prefix(repo.git_dir()).unwrap().display().to_string();
    all.iter().filter(|path| path.to_string_lossy().ends_with(end)).map(|path| inside(path)).collect()
}

/// Rescues, and returns the exit code with what was said. Another test's git of which nobody can tell where it works keeps locks where they
/// are: it is waited for.
pub fn rescue(repo: &Repo, arguments: &[&str]) -> (i32, String) {
    let_the_clock_tick(&repo.git_dir());
    let arguments = [&["rescue", "--yes"], arguments].concat();
    for _ in 0..10 {
        let (code, said) = run_jin(repo, &arguments);
        let stranger =
            said.split_once(") is running and may hold it").and_then(|(before, _)| before.rsplit_once("(pid "));
        match stranger.filter(|_| code == 5) {
            None => return (code, said),
            Some((_, pid)) => wait_until("the stranger has ended", || !Path::new("/proc").join(pid).exists()),
        }
    }
    panic!("there are always others");
}
