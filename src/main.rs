//! Called by git as a hook, in the place of git, or by a user.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    jin_txn::main(called_as, args.collect())
}
