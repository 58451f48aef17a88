//! What a git process is told to do, from its arguments.

/// Is this a git process, by name? `git`, `git-receive-pack`, ...
pub(crate) fn is_git_name(name: &str) -> bool {
    let base = base(name);
    base == "git" || base.starts_with("git-")
}

/// Does this git only run an alias that is us?
pub(crate) fn only_runs_us(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| matches!(c, "txn" | "tx" | "hook"))
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
}

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
            _ if word.starts_with('-') => {}
            _ => {
                options.command = Some(word);
                break;
            }
        }
    }
    options
}

/// Commands that never take a lock in a repository that exists already, or that are us.
#[rustfmt::skip]
const LOCKLESS: [&str; 23] = [
    "archive", "blame", "cat-file", "clone", "credential", "daemon", "for-each-ref", "fsmonitor--daemon", "grep",
    "help", "log", "ls-remote", "ls-tree", "merge-base", "rev-list", "rev-parse", "shortlog", "show", "tx", "txn",
    "upload-pack", "var", "version",
];

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
    let is_other = |c: &str| INDEX_WRITTEN_BEFORE.contains(&c) || INDEXLESS.contains(&c) || LOCKLESS.contains(&c);
    global_options(argv).command.is_some_and(|command| !is_other(command))
}

/// Does this git never take a lock?
pub(crate) fn is_lockless(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| LOCKLESS.contains(&c) || c.starts_with("credential"))
}

/// Does this git change refs and never the index?
pub(crate) fn changes_no_index(argv: &[String]) -> bool {
    global_options(argv).command.is_some_and(|c| INDEXLESS.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

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
