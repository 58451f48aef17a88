//! The closed list of git commands that we start.
//!
//! None of them runs a program that a repository can name, but for one: [`Plumbing::Filtered`] runs the filters of a checkout.
//! Only `undo` and `redo` start it, which check files out because their user says so. [`Plumbing::Fetch`] runs what the user's own
//! configuration names; only `rescue` starts it, in a repository of ours, when its user names the URL. Filters, textconv, signatures, pagers and editors run in
//! `status`, `diff`, `log`, `show`, `stash`, `reset`, `checkout-index`, `update-index --refresh`, `read-tree -m` and
//! `hash-object` with a path: those cannot be written here, because a [`Plumbing`] is the only thing that a
//! [`Command`](crate::git::exec::Command) is made of.
//!
//! Not on the list of the manuals for scripts, but measured on 2.39, 2.47 and 2.55 with a trap in every setting (filters,
//! fsmonitor, hooks, textconv, transports; `plumbing_tests.rs`):
//!
//! - `ls-files` without `-m` and `-d`, also `-o`: it compares names, and reads `.gitignore` and attributes.
//! - `ls-tree` reads trees.
//! - `update-index --index-info` and `--skip-worktree`, `write-tree` and `read-tree`, in an index of ours alone. When git
//!   writes an index, it runs the filters of files that may have changed since that index was written ("racily clean");
//!   entries that were made without looking at files are never among them.
//! - `sparse-checkout check-rules` (2.41 and newer) matches names.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// A question takes a git milliseconds. On a busy machine with a cold disk it takes seconds.
const QUESTION: Duration = Duration::from_secs(60);

/// Files are listed, and refs and objects looked up, by the million in seconds; a cold disk takes ten times as long.
const LIST: Duration = Duration::from_secs(180);

/// Commands that write as many refs or entries as there are, and may have to wait for the disk.
const WORK: Duration = Duration::from_secs(600);

/// A walk over the whole history of the largest repositories takes many minutes.
const WALK: Duration = Duration::from_secs(3600);

/// Which settings `git config` is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConfigQuery<'a> {
    /// The value of a key.
    Value(&'a str),
    /// The value of a key, a path, with `~` resolved.
    PathValue(&'a str),
    /// Every value of a key, a path, each with its scope; ends with NUL.
    ScopedPaths(&'a str),
    /// The same of a setting that is no path.
    Scoped(&'a str),
    /// Every value of a key, a path, in one file of the user's or the system's (`--global`, `--system`); ends with NUL.
    PathsIn { scope: &'a str, key: &'a str },
    /// Keys that match a pattern with their values; ends with NUL.
    Matching(&'a str),
    /// The names of keys that match a pattern; ends with NUL.
    NamesMatching(&'a str),
    /// Everything, each setting with its scope; ends with NUL.
    All,
    /// The names of the repository's own settings, one a line.
    LocalNames,
}

/// A git command, in a shape that runs no program of the repository's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plumbing<'a> {
    /// Its version.
    Version,
    /// Where its own programs lie.
    ExecPath,
    /// The configuration.
    Config(ConfigQuery<'a>),
    /// One value in a configuration file.
    ConfigOfFile { file: &'a str, key: &'a str },
    /// Everything in the configuration on stdin, without what it includes; ends with NUL.
    ConfigText,
    /// Sets the only value of a key in a configuration file, or removes it.
    SetInFile { file: &'a str, key: &'a str, value: Option<&'a str> },
    /// Renames a section of the repository's own configuration.
    RenameSection { old: &'a str, new: &'a str },
    /// The git directory that git finds.
    GitDir,
    /// The root of the worktree that git finds.
    TopLevel,
    /// Is the repository bare?
    IsBare,
    /// `sha1` or `sha256`.
    ObjectFormat,
    /// The object that a name stands for.
    Resolve(&'a str),
    /// What a symbolic ref points to; `HEAD` through all links, others one step.
    Symref(&'a str),
    /// Points a symbolic ref somewhere, with a message for its reflog.
    SetSymref { name: &'a str, target: &'a str, message: &'a str },
    /// A session that updates refs, NUL-terminated on stdin, with a message for their reflogs.
    UpdateRefs { message: &'a str },
    /// Refs in this format; only those below a prefix, or that point at an object.
    Refs { format: &'a str, below: Option<&'a str>, points_at: Option<&'a str> },
    /// A line in this format for each object that is named on stdin.
    ObjectInfo { format: &'a str },
    /// The content of each object that is named on stdin.
    ObjectContents,
    /// What a checkout would write of each object that is named on stdin, with its path behind it. Runs filters.
    Filtered,
    /// The entries of a tree with all below it, with modes and objects; ends with NUL.
    Tree(&'a str),
    /// The names and subjects of at most so many commits that `of` reaches and `without` does not.
    Subjects { of: &'a str, without: &'a str, most: &'a str },
    /// Walks over everything that the objects on stdin reach.
    Walk,
    /// Stores what is on stdin as a blob, as it is.
    StoreBlob,
    /// The name of the empty tree.
    EmptyTree,
    /// The paths in the index that match a pathspec (all: none); ends with NUL.
    Tracked(Option<&'a str>),
    /// The entries of the index with modes, objects and stages; ends with NUL.
    Staged,
    /// The same, each with a tag for its flags.
    Flagged,
    /// Files that are neither tracked nor ignored; ends with NUL.
    Untracked,
    /// Ignored files, and directories of which everything is ignored; ends with NUL.
    Ignored,
    /// Writes the trees that an index of ours stands for.
    WriteTree,
    /// Writes a commit of this tree.
    CommitTree { tree: &'a str, parent: Option<&'a str> },
    /// Makes an index of ours of this tree (none: an empty one).
    ReadTree(Option<&'a str>),
    /// Adds the entries on stdin to an index of ours.
    FillIndex,
    /// Flags the paths on stdin in an index of ours as not to be in the worktree.
    SkipWorktree,
    /// Those of the paths on stdin that a sparse checkout has in the worktree.
    SparsePaths,
    /// What is missing of what the refs reach, and what no ref reaches. Contents are not read.
    Connectivity,
    /// Reads a pack by its index, and compares it with its checksums.
    VerifyPack(&'a str),
    /// Makes the index of a pack at another path.
    IndexPack { pack: &'a str, index: &'a str },
    /// Stores the objects of the pack on stdin that can be read.
    Unpack,
    /// Makes a pack of the objects on stdin, whose path begins so.
    Pack(&'a str),
    /// Everything that the objects on stdin reach.
    Reachable,
    /// All refs of another repository, with what they reach.
    Fetch(&'a str),
}

impl ConfigQuery<'_> {
    fn arguments(self) -> Vec<String> {
        let (options, key): (&[&str], &str) = match self {
            ConfigQuery::Value(key) => (&["--get"], key),
            ConfigQuery::PathValue(key) => (&["--type=path", "--get"], key),
            ConfigQuery::ScopedPaths(key) => (&["--show-scope", "--type=path", "-z", "--get-all"], key),
            ConfigQuery::Scoped(key) => (&["--show-scope", "-z", "--get-all"], key),
            ConfigQuery::PathsIn { scope, key } => {
                return words(&["config", scope, "--includes", "-z", "--type=path", "--get-all", key]);
            }
            ConfigQuery::Matching(pattern) => (&["-z", "--get-regexp"], pattern),
            ConfigQuery::NamesMatching(pattern) => (&["-z", "--name-only", "--get-regexp"], pattern),
            ConfigQuery::All => (&["--list", "-z", "--show-scope"], ""),
            ConfigQuery::LocalNames => (&["--local", "--list", "--name-only"], ""),
        };
        let words = ["config"].iter().chain(options).copied().chain(Some(key).filter(|key| !key.is_empty()));
        words.map(str::to_owned).collect()
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Plumbing<'_> {
    /// The command line, without the program.
    pub(super) fn arguments(self) -> Vec<OsString> {
        self.words().into_iter().map(OsString::from).collect()
    }

    fn words(self) -> Vec<String> {
        match self {
            Plumbing::Version => words(&["version"]),
            Plumbing::ExecPath => words(&["--exec-path"]),
            Plumbing::Config(settings) => settings.arguments(),
            Plumbing::ConfigOfFile { file, key } => words(&["config", "--file", file, "--get", key]),
            Plumbing::ConfigText => words(&["config", "--file", "-", "--no-includes", "--list", "-z"]),
            Plumbing::SetInFile { file, key, value: Some(value) } => {
                words(&["config", "--file", file, "--replace-all", key, value])
            }
            Plumbing::SetInFile { file, key, value: None } => words(&["config", "--file", file, "--unset-all", key]),
            Plumbing::RenameSection { old, new } => words(&["config", "--local", "--rename-section", old, new]),
            Plumbing::GitDir => words(&["rev-parse", "--absolute-git-dir"]),
            Plumbing::TopLevel => words(&["rev-parse", "--show-toplevel"]),
            Plumbing::IsBare => words(&["rev-parse", "--is-bare-repository"]),
            Plumbing::ObjectFormat => words(&["rev-parse", "--show-object-format"]),
            Plumbing::Resolve(name) => words(&["rev-parse", "-q", "--verify", name]),
            Plumbing::Symref("HEAD") => words(&["symbolic-ref", "-q", "HEAD"]),
            // `--no-recurse` came with 2.39.
            Plumbing::Symref(name) => words(&["symbolic-ref", "-q", "--no-recurse", name]),
            Plumbing::SetSymref { name, target, message } => words(&["symbolic-ref", "-m", message, name, target]),
            Plumbing::UpdateRefs { message } => words(&["update-ref", "--no-deref", "-m", message, "-z", "--stdin"]),
            Plumbing::Refs { format, below, points_at } => {
                let points_at = points_at.map(|oid| format!("--points-at={oid}"));
                let options = ["for-each-ref".to_owned(), format!("--format={format}")];
                options.into_iter().chain(points_at).chain(below.map(str::to_owned)).collect()
            }
            Plumbing::ObjectInfo { format } => vec!["cat-file".to_owned(), format!("--batch-check={format}")],
            Plumbing::ObjectContents => words(&["cat-file", "--batch"]),
            Plumbing::Filtered => words(&["cat-file", "--filters", "--batch=%(objecttype)"]),
            Plumbing::Tree(tree) => words(&["ls-tree", "-r", "-z", "--full-tree", tree]),
            Plumbing::Subjects { of, without, most } => {
                let most = format!("--max-count={most}");
                let without = format!("^{without}");
                words(&["rev-list", "--no-commit-header", "--format=%h %s", &most, of, &without, "--"])
            }
            Plumbing::Walk => words(&["rev-list", "--objects", "--quiet", "--stdin"]),
            Plumbing::StoreBlob => words(&["hash-object", "-w", "--no-filters", "--stdin"]),
            Plumbing::EmptyTree => words(&["hash-object", "--no-filters", "-t", "tree", "--stdin"]),
            Plumbing::Tracked(pathspec) => {
                let pathspec = pathspec.iter().flat_map(|spec| ["--", *spec]);
                words(&["ls-files", "-z"].into_iter().chain(pathspec).collect::<Vec<_>>())
            }
            Plumbing::Staged => words(&["ls-files", "-z", "--stage"]),
            Plumbing::Flagged => words(&["ls-files", "-v", "-s", "-z"]),
            Plumbing::Untracked => words(&["ls-files", "-z", "-o", "--exclude-standard"]),
            Plumbing::Ignored => words(&["ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory"]),
            Plumbing::WriteTree => words(&["write-tree"]),
            Plumbing::CommitTree { tree, parent } => {
                let parent = parent.iter().flat_map(|parent| ["-p", *parent]);
                words(&["commit-tree", "-m", "x", tree].into_iter().chain(parent).collect::<Vec<_>>())
            }
            Plumbing::ReadTree(Some(tree)) => words(&["read-tree", tree]),
            Plumbing::ReadTree(None) => words(&["read-tree", "--empty"]),
            Plumbing::FillIndex => words(&["update-index", "-z", "--index-info"]),
            Plumbing::SkipWorktree => words(&["update-index", "--skip-worktree", "-z", "--stdin"]),
            Plumbing::SparsePaths => words(&["sparse-checkout", "check-rules", "-z"]),
            Plumbing::Connectivity => words(&["fsck", "--connectivity-only", "--no-reflogs", "--no-progress"]),
            Plumbing::VerifyPack(index) => words(&["verify-pack", index]),
            Plumbing::IndexPack { pack, index } => words(&["index-pack", "-o", index, pack]),
            Plumbing::Unpack => words(&["unpack-objects", "-q", "-r"]),
            Plumbing::Reachable => words(&["rev-list", "--objects", "--stdin"]),
            Plumbing::Fetch(url) => {
                words(&["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--", url, "+refs/*:refs/fetched/*"])
            }
            Plumbing::Pack(base) => words(&["pack-objects", "-q", "--no-reuse-delta", base]),
        }
    }

    /// Does it write refs or an index, so that git would call hooks?
    pub(super) fn calls_hooks(self) -> bool {
        matches!(self, Plumbing::UpdateRefs { .. } | Plumbing::SetSymref { .. }) || self.writes_index()
    }

    /// Does it write an index? That has to be one of ours.
    pub(super) fn writes_index(self) -> bool {
        use Plumbing::{FillIndex, ReadTree, SkipWorktree, WriteTree};
        matches!(self, WriteTree | ReadTree(_) | FillIndex | SkipWorktree)
    }

    /// After that long it hangs: on a FIFO in the place of a file, or on a file system that does not answer.
    pub(super) fn limit(self) -> Duration {
        use Plumbing::{Config, Connectivity, GitDir, IsBare, ObjectFormat, Resolve, Symref, TopLevel, Version};
        use Plumbing::{Flagged, Ignored, Reachable, Refs, SparsePaths, Staged, Tracked, Tree, Untracked, Walk};
        match self {
            Version | Config(_) | GitDir | TopLevel | IsBare | ObjectFormat | Resolve(_) | Symref(_) => QUESTION,
            Flagged | Ignored | Refs { .. } | SparsePaths | Staged | Tracked(_) | Tree(_) | Untracked => LIST,
            Connectivity | Reachable | Walk => WALK,
            _ => WORK,
        }
    }
}

/// The arguments before the command that say where git works.
pub(super) fn place(git_dir: Option<&Path>, worktree: Option<&Path>) -> Vec<OsString> {
    let options = [("--git-dir", git_dir), ("--work-tree", worktree)];
    let given = options.into_iter().filter_map(|(option, path)| Some((option, path?)));
    given.flat_map(|(option, path)| [option.into(), path.as_os_str().to_owned()]).collect()
}

#[cfg(test)]
#[path = "plumbing_tests.rs"]
mod tests;
