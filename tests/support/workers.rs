//! Commands that somebody kills at random, and what their logs may say of them afterwards.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `JIN_SOAK_SECONDS=<n>` | how long |
//! | `JIN_SOAK_SEED=<n>` | another order of the kills |

use std::collections::{HashMap, HashSet};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::crash::wal;
use super::repo::{Repo, text};

const BETWEEN_KILLS: Duration = Duration::from_millis(100);

/// A process as the log knows it: pid and start time.
pub type Process = (u64, u64);

/// The command that a worker is running, if any. Whoever kills it holds the lock, so that it cannot be reaped meanwhile.
pub type Running = Mutex<Option<Pid>>;

/// Runs a command where the killer can reach it.
pub fn run(mut command: Command, running: &Running) -> (Process, Output) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("the command starts");
    let pid = Pid::from_raw(child.id().cast_signed());
    let process = (u64::from(child.id()), start_of(child.id()));
    *running.lock().expect("nobody panics with this lock") = Some(pid);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it is our child");
    *running.lock().expect("nobody panics with this lock") = None;
    let output = child.wait_with_output().expect("the command can be waited for");
    let complaint = text(&output.stderr);
    assert!(!complaint.contains("panicked"), "{complaint}");
    (process, output)
}

/// The start time of a child that has not been reaped, in ticks.
fn start_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it has not been reaped");
    let rest = stat.rsplit(") ").next().expect("the name ends with a parenthesis");
    rest.split(' ').nth(19).and_then(|word| word.parse().ok()).expect("field 22 is the start time")
}

/// Kills one command after another, by turns it alone and with all that it started; returns how many.
pub fn kill_at_random(running: &[Running], seconds: u64) -> usize {
    let number = |name, default| env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default);
    let end = Instant::now() + Duration::from_secs(number("JIN_SOAK_SECONDS", seconds));
    let mut random = Random(number("JIN_SOAK_SEED", 1));
    let mut kills = 0;
    while Instant::now() < end {
        thread::sleep(BETWEEN_KILLS);
        let first = random.below(running.len());
        for slot in (0..running.len()).map(|step| &running[(first + step) % running.len()]) {
            let slot = slot.lock().expect("nobody panics with this lock");
            let Some(pid) = *slot else { continue };
            let send = if kills % 2 == 0 { kill } else { killpg };
            // It may have ended by itself: then it is a zombie, which takes any signal.
            if send(pid, Signal::SIGKILL).is_ok() {
                kills += 1;
                break;
            }
        }
    }
    kills
}

/// Whoever reported success was alive until then: recovery may have recorded it as committed, and nothing else.
///
/// # Panics
/// When it has been taken back.
pub fn assert_no_success_was_taken_back(repo: &Repo, succeeded: &HashSet<Process>) {
    let log = wal(repo);
    let of = |kind: &'static str| log.iter().filter(move |record| record["type"] == kind);
    let owner = |record: &serde_json::Value| {
        let data = &record["data"];
        Some((data["pid"].as_u64()?, data["start"].as_u64()?))
    };
    let owners: HashMap<String, Process> =
        of("begin").filter_map(|record| Some((record["tx"].to_string(), owner(record)?))).collect();
    assert!(!owners.is_empty(), "the log has transactions with their owners");
    for record in of("recovered").filter(|record| record["data"]["outcome"] != "committed") {
        let owner = owners.get(&record["tx"].to_string());
        assert!(
            owner.is_none_or(|owner| !succeeded.contains(owner)),
            "a transaction was taken back although its git succeeded: {record:#}"
        );
    }
}

/// xorshift64: the same kills for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit).expect("a limit is small");
        usize::try_from(self.0 % limit).expect("less than the limit")
    }
}
