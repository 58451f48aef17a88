//! Who are we called as? A hook, git, or the command line.
//!
//! git calls hooks several times in every command: for them neither clap nor a child process is started.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{git, git_of_hook, is_off, notes, objects_elsewhere, run};
use crate::hook::announce::Caller;
use crate::hook::{Environment, Reply, chain, dispatch};
use crate::process::operation;
use crate::util::env;
use crate::util::text::{one_line, shown};

/// Runs what the name `called_as` and the arguments say.
#[must_use]
pub fn main(called_as: OsString, args: Vec<OsString>) -> ExitCode {
    let name = Path::new(&called_as).file_name().map(OsString::from).unwrap_or_default();
    if let Some(hook_name) = hook_of(&name) {
        return hook(hook_name.as_ref(), &args, &mut Stdin).into();
    }
    if git::is_shim_name(&name) {
        return git::shim(&name, &args);
    }
    let Some((command, words)) = args.split_first() else { return run(called_as, args) };
    match words {
        [from, end_of_options, git_args @ ..]
            if command == "git" && from == "--from-shell" && end_of_options == "--" =>
        {
            git::from_shell(git_args)
        }
        [then, other, hook_name, hook_args @ ..] if command == "hook" && then == "--then" => {
            hook_and_then(hook_name, hook_args, Path::new(other), &chain::Which::Other)
        }
        [rest, own, hook_name, hook_args @ ..] if command == "hook" && rest == "--rest" => {
            hook_and_then(hook_name, hook_args, Path::new(own), &chain::Which::Rest)
        }
        [hook_name, hook_args @ ..] if command == "hook" => hook(hook_name, hook_args, &mut Stdin).into(),
        _ => run(called_as, args),
    }
}

/// What git sends. The standard library's handle has a buffer of its own, for which there is no use and which has to be made.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?)
    }
}

/// Hook managers rename the hook that they find (`post-checkout.legacy`) and go on to call it.
fn hook_of(name: &OsStr) -> Option<&'static str> {
    let name = name.to_str()?;
    let rest = |hook: &str| name.strip_prefix(hook).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    ["reference-transaction", "post-checkout", "pre-receive"].into_iter().find(|hook| rest(hook))
}

/// Ours first, then the hook that was there before, or what else the script has that called us.
fn hook_and_then(name: &OsStr, args: &[OsString], other: &Path, which: &chain::Which) -> ExitCode {
    let mut input = None;
    if name == "reference-transaction" || name == "pre-receive" {
        let mut bytes = Vec::new();
        if let Err(error) = Stdin.read_to_end(&mut bytes) {
            eprintln!("jin-txn: error: cannot read what git sends to the hook: {error}");
            return ExitCode::FAILURE;
        }
        input = Some(bytes);
    }
    let code = hook(name, args, &mut input.as_deref().unwrap_or_default());
    if code != 0 {
        return code.into();
    }
    match chain::become_hook(other, which, args, input.as_deref()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jin-txn: error: cannot run {}: {error}", shown(other));
            ExitCode::FAILURE
        }
    }
}

fn hook(name: &OsStr, args: &[OsString], input: &mut dyn Read) -> u8 {
    let is_off = is_off();
    if is_off && std::env::var_os(env::RUN).is_none() {
        return 0;
    }
    let Ok(cwd) = std::env::current_dir() else { return 0 };
    let environment = Environment {
        git_dir: std::env::var_os("GIT_DIR").map(PathBuf::from),
        cwd,
        git_program: git_of_hook(),
        notes: notes(),
        watch: Caller::of(|name| std::env::var_os(name)),
        quarantined: std::env::var_os("GIT_QUARANTINE_PATH").is_some(),
        objects_elsewhere: objects_elsewhere(),
        within: std::env::var(env::WITHIN).ok().and_then(|text| text.parse().ok()),
        nested: is_nested(),
        reverses: std::env::var(env::REVERSES).ok().and_then(|text| text.parse().ok()),
        runs: std::env::var(env::RUN).ok(),
    };
    if is_off {
        dispatch::look_away(&environment);
        return 0;
    }
    let args: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let reply = dispatch::run(name, &args, input, &environment);
    answer(&reply)
}

fn is_nested() -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    operation::is_nested(&variable("PATH"), &variable("GIT_EXEC_PATH"))
}

fn answer(reply: &Reply) -> u8 {
    let mut stderr = std::io::stderr().lock();
    for line in &reply.messages {
        // Nobody is left to tell when stderr is gone.
        if writeln!(stderr, "{}", one_line(line)).is_err() {
            break;
        }
    }
    reply.exit_code()
}
