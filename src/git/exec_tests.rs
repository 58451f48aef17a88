use super::*;
use std::time::Instant;

use crate::fs::durable;

#[test]
fn a_git_that_hangs_is_killed_with_what_it_has_started() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let (program, pids) = (scratch.path().join("git"), scratch.path().join("pids"));
    let script = format!("#!/bin/sh\nsleep 600 &\necho $$ $! >'{}'\nwait\n", pids.display());
    durable::create_new(&program, script.as_bytes()).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Git::new(&program).command(Plumbing::Version);
    command.limit = Duration::from_secs(2);
    let error = command.run().unwrap_err().root_cause().to_string();
    assert!(error.contains("git version did not end within 2 seconds in /"), "{error}");
    let pids = std::fs::read_to_string(pids).unwrap();
    for pid in pids.split_whitespace() {
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_gone = || stat().is_empty() || stat().contains(") Z ");
        // A signal is sent at once, and followed when the process is next run.
        let until = Instant::now() + Duration::from_secs(20);
        while !is_gone() && Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(is_gone(), "{pid} lives: {}", stat());
    }
}
