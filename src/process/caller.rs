//! Which process called a hook?
//!
//! Mostly it is called `git`. It need not be: programs link git's code, and wrappers and loaders run git under other names. A
//! hook refuses nothing for that.
//!
//! Limit: a program that is not called `git`, starts its hooks in another directory or process group than its own, or is the
//! first process of its pid namespace is not recognized, and what it does is not protected.

use std::io;

use crate::process::git_argv;
use crate::process::owner::{self, MAX_ANCESTORS, Stat, unless_hidden};

/// Programs that run others' code and commands: between a hook and its caller they run the hook, and none links git's code.
/// By the beginning of their names, behind which a version may stand.
#[rustfmt::skip]
const RUNNERS: [&str; 24] = [
    "ash", "bash", "bun", "busybox", "csh", "dash", "deno", "elvish", "env", "fish", "java", "ksh", "lua", "mksh", "node", "nu",
    "perl", "php", "python", "ruby", "sh", "tclsh", "tcsh", "zsh",
];

/// The hooks that we are called as. Whoever has such a name among its arguments runs the hook, or a chain of them.
const HOOKS: [&str; 3] = ["reference-transaction", "post-checkout", "pre-receive"];

/// The git process on whose behalf a hook runs: the nearest ancestor that is git, not merely the
/// parent (hook managers stand in between), and not a git that only runs an alias; with its arguments.
pub(crate) fn nearest_git() -> io::Result<Option<(Stat, Vec<String>)>> {
    Ok(look_up()?.git)
}

/// The process on whose behalf a hook runs: the nearest git, or else the nearest ancestor that is no
/// [runner](RUNNERS) and no hook. `None` when it died already and we are an orphan.
///
/// An orphan is handed to the first process, or to one that collects orphans: a service manager, a run of ours. Such a one is
/// not the caller. What tells them apart is that a caller shares its directory and its process group with the hook.
pub(crate) fn of_hook() -> io::Result<Option<(Stat, Vec<String>)>> {
    let Above { git, other } = look_up()?;
    Ok(git.or_else(|| other.filter(|(stat, _)| could_have_called(stat))))
}

/// The nearest of each kind among our ancestors.
#[derive(Default)]
struct Above {
    git: Option<(Stat, Vec<String>)>,
    other: Option<(Stat, Vec<String>)>,
}

fn look_up() -> io::Result<Above> {
    let mut above = Above::default();
    let mut pid = owner::parent();
    for _ in 0..MAX_ANCESTORS {
        // In a container git itself may be pid 1.
        if pid == 0 {
            break;
        }
        let Some(stat) = unless_hidden(Stat::look(pid))?.flatten() else { break };
        let Some(argv) = unless_hidden(owner::read_argv(pid))? else { break };
        pid = stat.parent;
        if owner::is_git(&stat, Some(&argv)) {
            if !git_argv::only_runs_us(&argv) {
                above.git = Some((stat, argv));
                break;
            }
        } else if above.other.is_none() && !runs_hooks(&stat, &argv) {
            above.other = Some((stat, argv));
        }
    }
    Ok(above)
}

/// Is this a program that stands between a hook and its caller?
fn runs_hooks(stat: &Stat, argv: &[String]) -> bool {
    argv.iter().any(|word| HOOKS.iter().any(|hook| word.contains(hook))) || is_runner(stat)
}

/// By the name of the program file, or what the kernel calls the process where the file is hidden.
pub(crate) fn is_runner(stat: &Stat) -> bool {
    let program = std::fs::read_link(format!("/proc/{}/exe", stat.pid)).ok();
    let name = program.as_ref().and_then(|program| program.file_name()).map(|name| name.to_string_lossy());
    let name = name.as_deref().unwrap_or(&stat.comm);
    let version = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
    RUNNERS.iter().any(|runner| name.strip_prefix(runner).is_some_and(|rest| rest.chars().all(version)))
}

fn could_have_called(stat: &Stat) -> bool {
    const FIRST: u32 = 1;
    let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
    let is_possible = stat.pid != FIRST && stat.group == group && !stat.is_gone();
    is_possible && owner::is_same_as_ours(stat.pid, "cwd") && !owner::is_same_as_ours(stat.pid, "exe")
}
