//! Who am I called as? Hook, git shim or command line; run; exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jin_txn::cli;
use jin_txn::hook::{Environment, Reply, post_checkout, reference_transaction};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    let name = Path::new(&called_as).file_name().map(OsString::from).unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    if name == "reference-transaction" || name == "post-checkout" {
        return hook(&name, &rest);
    }
    if cli::git::is_shim_name(&name) {
        return cli::git::shim(&name, &rest);
    }
    if let [command, from, end_of_options, git_args @ ..] = rest.as_slice()
        && (command == "git" && from == "--from-shell" && end_of_options == "--")
    {
        return cli::git::from_shell(git_args);
    }
    match rest.split_first() {
        Some((command, [hook_name, hook_args @ ..])) if command == "hook" => hook(hook_name, hook_args),
        _ => cli::run(called_as, rest),
    }
}

/// No clap, no allocator tricks, no child process: this runs several times in every git command.
fn hook(name: &OsString, args: &[OsString]) -> ExitCode {
    if std::env::var_os("JIN_TXN").is_some_and(|v| v == "off") {
        return ExitCode::SUCCESS;
    }
    let Ok(cwd) = std::env::current_dir() else { return ExitCode::SUCCESS };
    let environment = Environment {
        git_dir: std::env::var_os("GIT_DIR").map(PathBuf::from),
        cwd,
        git_program: cli::git_of_hook(),
        quarantined: std::env::var_os("GIT_QUARANTINE_PATH").is_some(),
        objects_elsewhere: cli::objects_elsewhere(),
        reverses: std::env::var(jin_txn::undo::VARIABLE).ok().and_then(|text| text.parse().ok()),
    };
    let args: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let reply = if name == "reference-transaction" {
        let state = args.first().map_or("", String::as_str);
        reference_transaction::run(state, &mut std::io::stdin().lock(), &environment)
    } else if name == "post-checkout" {
        post_checkout::run(&args, &environment)
    } else {
        // A hook that we are not: git goes on.
        return ExitCode::SUCCESS;
    };
    answer(&reply)
}

fn answer(reply: &Reply) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in &reply.messages {
        // Nobody is left to tell when stderr is gone.
        if writeln!(stderr, "{}", cli::printable(line)).is_err() {
            break;
        }
    }
    ExitCode::from(reference_transaction::exit_code(reply.answer))
}
