//! What a git process is told to do, from its arguments.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Is this a git process, by name? `git`, `git-receive-pack`, ...
pub(crate) fn is_git_name(name: &str) -> bool {
    let base = base(name);
    base == "git" || base.starts_with("git-")
}

/// Does this git only run an alias that is us?
pub(crate) fn only_runs_us(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| matches!(c, "txn" | "tx" | "hook"))
}

/// Commands that change neither refs nor files, whatever their options say but for the ones that name a file to write.
#[rustfmt::skip]
const READING: [&str; 36] = [
    "annotate", "blame", "cat-file", "check-attr", "check-ignore", "check-mailmap", "check-ref-format", "cherry", "count-objects",
    "describe", "diff", "diff-files", "diff-index", "diff-tree", "for-each-ref", "grep", "help", "log", "ls-files", "ls-remote",
    "ls-tree", "merge-base", "name-rev", "range-diff", "rev-list", "rev-parse", "shortlog", "show", "show-branch", "show-ref",
    "status", "var", "verify-commit", "verify-pack", "verify-tag", "version",
];

/// Does this git only read? Its index it may refresh, and no alias can have the name of a command of git's.
pub(crate) fn only_reads(argv: &[String]) -> bool {
    // `--output=FILE` writes a file, `grep --open-files-in-pager` runs an editor, and git takes the beginning of an option for the
    // whole.
    let starts = ["-o", "-O", "--ou", "--op", "--ext-d"];
    let may_write = |word: &String| starts.iter().any(|start| word.starts_with(start));
    let options = global_options(argv);
    let is_reading = options.command.is_some_and(|command| READING.contains(&command));
    is_reading && !options.unknown && !argv.iter().any(may_write)
}

/// Does this git begin a cherry-pick or a revert, rather than go on with one?
pub(crate) fn begins_a_pick(argv: &[String]) -> bool {
    const ENDS: [&str; 4] = ["--abort", "--continue", "--quit", "--skip"];
    let ends = |word: &String| word.len() > 2 && ENDS.iter().any(|end| end.starts_with(word.as_str()));
    matches!(global_options(argv).command, Some("cherry-pick" | "revert")) && !argv.iter().any(ends)
}

/// Does this git only put refs into `packed-refs`, where others' new values are not visible yet?
pub(crate) fn packs_refs(argv: &[String]) -> bool {
    match global_options(argv).command {
        Some("pack-refs") => true,
        Some("refs") => argv.iter().skip_while(|word| *word != "refs").nth(1).is_some_and(|word| word == "optimize"),
        _ => false,
    }
}

/// Is this a gc, which removes objects?
pub(crate) fn is_gc(argv: &[String]) -> bool {
    matches!(global_options(argv).command, Some("gc" | "maintenance"))
}

#[derive(Default)]
/// What stands before the command.
pub(crate) struct GlobalOptions<'a> {
    pub(crate) git_dir: Option<&'a str>,
    pub(crate) command: Option<&'a str>,
    pub(crate) work_tree: bool,
    /// An option is there that may have an argument: then the command may be another one.
    pub(crate) unknown: bool,
}

/// git's options before the command that have no argument.
#[rustfmt::skip]
const FLAGS: [&str; 13] = [
    "-p", "--paginate", "-P", "--no-pager", "--bare", "--no-replace-objects", "--no-lazy-fetch", "--no-optional-locks", "--no-advice",
    "--literal-pathspecs", "--glob-pathspecs", "--noglob-pathspecs", "--icase-pathspecs",
];

/// Is this the dynamic loader of programs, as `ld-linux-x86-64.so.2`?
pub(crate) fn is_loader(name: &str) -> bool {
    let base = base(name);
    base.starts_with("ld-") || base.starts_with("ld.so")
}

/// The arguments without a loader that is told to run git, and without its options.
pub(crate) fn behind_loader(argv: &[String]) -> &[String] {
    let git = || argv.iter().position(|word| is_git_name(word));
    let start = argv.first().filter(|name| is_loader(name)).and_then(|_| git()).unwrap_or(0);
    &argv[start..]
}

/// Are these the arguments of a git? Of a program that links its code they are not.
pub(crate) fn is_of_git(argv: &[String]) -> bool {
    behind_loader(argv).first().is_some_and(|name| is_git_name(name))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// git's options before the command.
pub(crate) fn global_options(argv: &[String]) -> GlobalOptions<'_> {
    let argv = behind_loader(argv);
    let mut options = GlobalOptions::default();
    let program = argv.first().map_or("", |name| base(name));
    if let Some(command) = program.strip_prefix("git-") {
        options.command = Some(command);
        return options;
    }
    let mut words = argv.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--git-dir" => options.git_dir = words.next(),
            "--work-tree" => options.work_tree = words.next().is_some(),
            "-C" | "-c" | "--namespace" | "--config-env" | "--super-prefix" | "--attr-source" => {
                words.next();
            }
            _ if word.starts_with("--git-dir=") => options.git_dir = word.strip_prefix("--git-dir="),
            _ if word.starts_with("--work-tree=") => options.work_tree = true,
            _ if word.starts_with('-') => {
                let is_known = FLAGS.contains(&word)
                    || ["--namespace=", "--config-env=", "--attr-source="].iter().any(|o| word.starts_with(o));
                options.unknown |= !is_known;
            }
            _ => {
                options.command = Some(word);
                break;
            }
        }
    }
    options
}

/// Commands that never take a lock, or that are us. (Measured on 2.39, 2.47 and 2.55, with what textconv and the index may cache.)
#[rustfmt::skip]
const LOCKLESS: [&str; 17] = [
    "archive", "credential", "daemon", "for-each-ref", "fsmonitor--daemon", "help", "ls-remote", "ls-tree", "merge-base",
    "rev-list", "rev-parse", "shortlog", "tx", "txn", "upload-pack", "var", "version",
];

/// Commands that take no lock but those of the refs in which textconv keeps what it has converted (`diff.*.cachetextconv`). A
/// pager keeps them alive for hours.
const CACHING: [&str; 5] = ["blame", "cat-file", "grep", "log", "show"];

/// Below which these refs lie.
const TEXTCONV: &[u8] = b"/refs/notes/textconv/";

/// Commands that change refs and never touch the index.
const INDEXLESS: [&str; 12] = [
    "branch",
    "fetch",
    "gc",
    "maintenance",
    "notes",
    "pack-refs",
    "push",
    "receive-pack",
    "remote",
    "symbolic-ref",
    "tag",
    "update-ref",
];

/// Commands that use an index and have written it, or not yet locked it, when they move refs.
#[rustfmt::skip]
const INDEX_WRITTEN_BEFORE: [&str; 19] = [
    "add", "am", "bisect", "checkout", "cherry-pick", "clean", "merge", "mv", "pull", "read-tree", "rebase", "reset",
    "restore", "revert", "rm", "stash", "submodule", "switch", "worktree",
];

/// May this git hold `index.lock` while it moves refs? Only `commit` does; what is not known may be an alias of it.
pub(crate) fn may_commit(argv: &[String]) -> bool {
    let others = [&INDEX_WRITTEN_BEFORE[..], &INDEXLESS, &LOCKLESS, &CACHING, &["clone"]];
    global_options(argv).command.is_some_and(|command| !others.iter().any(|list| list.contains(&command)))
}

/// Does this git never take a lock?
pub(crate) fn is_lockless(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| LOCKLESS.contains(&c) || c.starts_with("credential"))
}

/// May this git, if it works in the repository, take the lock at `path`?
pub(crate) fn may_take(argv: &[String], path: &Path) -> bool {
    let only_caches = global_options(argv).command.is_some_and(|c| CACHING.contains(&c));
    let is_cache = || path.as_os_str().as_bytes().windows(TEXTCONV.len()).any(|part| part == TEXTCONV);
    // There all refs are one file.
    let is_table = || path.parent().is_some_and(|directory| directory.ends_with("reftable"));
    !only_caches || is_cache() || is_table()
}

/// Does this git take locks only in a repository that it makes itself?
pub(crate) fn is_clone(argv: &[String]) -> bool {
    global_options(argv).command == Some("clone")
}

/// Does this git change refs and never the index?
pub(crate) fn changes_no_index(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| INDEXLESS.contains(&c))
}

/// May this git write the configuration of a branch, behind its last transaction?
pub(crate) fn may_configure_branches(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| ["branch", "checkout", "switch"].contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads_takes_no_locks_but_those_of_its_cache() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let rows = [
            ("git log -p", ".git/refs/notes/textconv/pdf.lock", true),
            ("git log -p", ".git/reftable/tables.list.lock", true),
            ("git log -p", ".git/index.lock", false),
            ("git -c a=b blame x", ".git/refs/notes/commits.lock", false),
            ("git status", ".git/index.lock", true),
            ("git lg", ".git/index.lock", true),
        ];
        for (line, path, may) in rows {
            assert_eq!(may_take(&argv(line), Path::new(path)), may, "{line}: {path}");
        }
    }

    #[test]
    fn what_only_reads_is_told_from_what_writes_a_file() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, only) in [
            ("git log --oneline", true),
            ("git -C a -c x=y status", true),
            ("git diff --output=x", false),
            ("git diff --outp x", false),
            ("git grep -Ovim x", false),
            ("git grep --open-files-in-pager=vim x", false),
            ("git --no-pager diff", true),
            ("git --shallow-file log commit", false),
            ("git commit -m log", false),
            ("git lg", false),
            ("git stash show", false),
            ("git", false),
        ] {
            assert_eq!(only_reads(&argv(line)), only, "{line}");
        }
    }

    #[test]
    fn the_command_is_found_behind_global_options() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, command, git_dir) in [
            ("git commit -m log", Some("commit"), None),
            ("/usr/bin/git -C a -c x=y --git-dir=g log", Some("log"), Some("g")),
            ("git --git-dir g --no-pager txn recover", Some("txn"), Some("g")),
            ("git-upload-pack /srv/x", Some("upload-pack"), None),
            ("/lib64/ld-linux-x86-64.so.2 --library-path /x /opt/git/bin/git -C a commit -a", Some("commit"), None),
            ("git", None, None),
        ] {
            let argv = argv(line);
            let options = global_options(&argv);
            assert_eq!((options.command, options.git_dir), (command, git_dir), "{line}");
        }
    }
}
