//! Many crashes: which points are run, on how many threads, and the Markdown table of what came out.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `JIN_KILL=all` | every point |
//! | `JIN_KILL=<n>` | every n-th point |
//! | `JIN_KILL_SEED=<n>` | where a stride begins |
//! | `JIN_KILL_PLAIN=all` | every point of the tables without a guard |
//! | `JIN_KILL_POINT=<point>` | only this point, as a failure prints it |
//! | `JIN_KILL_WORKERS=<n>` | threads per test |
//! | `JIN_TEST_KEEP=1` | keep the directories of bad points |
//! | `JIN_TEST_TMP=<dir>` | where repositories are made |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use nix::sys::signal::Signal;

use super::invariants::Damage;
use super::point::{After, Bench, Point, Report, Victim};
use super::repo::Git;
use super::tracer::{Event, Role};

/// How many points of each kind a test runs by default.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub tree: usize,
    pub hook: usize,
    pub container: usize,
}

/// One line of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub operation: &'static str,
    /// Points run.
    pub points: usize,
    /// Points there are.
    pub all: usize,
    pub bad: usize,
    pub skipped: usize,
    pub damage: BTreeMap<Damage, usize>,
}

impl Row {
    fn of(operation: &'static str, all: usize, reports: &[Report]) -> Self {
        let mut row = Self { operation, points: reports.len(), all, ..Self::default() };
        for report in reports {
            row.bad += usize::from(report.is_bad());
            row.skipped += usize::from(report.skipped.is_some());
            let mut kinds: Vec<_> = report.violations.iter().map(|violation| violation.damage).collect();
            kinds.sort();
            kinds.dedup();
            for kind in kinds {
                *row.damage.entry(kind).or_default() += 1;
            }
        }
        row
    }

    fn markdown(&self) -> String {
        let kinds: Vec<_> = self.damage.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        format!(
            "| {} | {} of {} | {} | {} | {} |",
            self.operation,
            self.points,
            self.all,
            self.skipped,
            self.bad,
            kinds.join(", ")
        )
    }
}

const HEADER: &str = "| operation | points | skipped | bad | kinds of damage |\n| --- | --- | --- | --- | --- |\n";

/// Returns the only point that is wanted, if there is one.
pub fn wanted_point() -> Option<String> {
    env::var("JIN_KILL_POINT").ok()
}

/// Runs a sample of the points that the `events` of an undisturbed operation make, prints what is bad, adds a line to the table
/// file.
pub fn run(bench: &Bench, events: &[Event], after: After, budget: Budget) -> Row {
    let all = points(bench.operation.name, after, events);
    run_points(bench, &all, &sample(&all, budget))
}

/// As [`run`], for `chosen` points of `all`.
pub fn run_points(bench: &Bench, all: &[Point], chosen: &[Point]) -> Row {
    let wanted = wanted_point();
    let chosen = only_wanted(all).unwrap_or_else(|| chosen.to_vec());
    let reports = run_all(bench, &chosen, workers(1));
    reports.iter().for_each(explain);
    let row = Row::of(bench.operation.name, all.len(), &reports);
    if let Some(first) = chosen.first().filter(|_| wanted.is_none()) {
        record(&row, first.after);
    }
    if chosen.is_empty() {
        println!("{}: no such point here", bench.operation.name);
    } else {
        println!("{}\ntorture: kills={} violations={}", row.markdown(), row.points, row.bad);
    }
    row
}

/// A sample of `all`, or the point that the environment asks for.
pub fn chosen(all: &[Point], budget: Budget) -> Vec<Point> {
    only_wanted(all).unwrap_or_else(|| sample(all, budget))
}

fn only_wanted(all: &[Point]) -> Option<Vec<Point>> {
    let wanted = wanted_point()?;
    Some(all.iter().copied().filter(|point| point.to_string() == wanted).collect())
}

/// Runs given points on some threads; the order of the reports is that of the points.
pub fn run_all(bench: &Bench, points: &[Point], workers: usize) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reports = Vec::new();
        while let Some(&point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            reports.push(bench.run(point));
        }
        reports
    };
    let mut reports: Vec<Report> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    reports.sort_by_key(|report| points.iter().position(|point| *point == report.point));
    reports
}

/// Threads per test: libtest runs the tests themselves in parallel.
pub fn workers(default: usize) -> usize {
    env::var("JIN_KILL_WORKERS").ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Prints everything that is needed to see a bad point again.
pub fn explain(report: &Report) {
    if let Some(reason) = report.skipped {
        println!("{} skipped: {reason}", report.point);
    }
    if !report.is_bad() {
        return;
    }
    let test = thread::current().name().unwrap_or("").to_owned();
    let mut message = format!("\nBAD {} with git {}\n", report.point, Git::under_test().version);
    match &report.killed {
        Some(event) => writeln!(message, "  killed before {event}"),
        None => writeln!(message, "  the run ended before this event"),
    }
    .expect("writing to a string works");
    for violation in &report.violations {
        writeln!(message, "  {}: {}", violation.damage.name(), violation.detail).expect("writing to a string works");
    }
    println!(
        "{message}  again: JIN_KILL_POINT={} JIN_TEST_KEEP=1 cargo test --test crash {test} -- --nocapture",
        report.point
    );
    if report.directory.exists() {
        println!("  kept: {}", report.directory.display());
    }
}

/// All points of an operation: the whole tree at every event, git alone and the hook alone where a hook is at work.
pub fn points(operation: &'static str, after: After, events: &[Event]) -> Vec<Point> {
    let victims: &[Victim] = match after {
        After::Recover => &[Victim::Tree, Victim::Git, Victim::Hook, Victim::Container],
        After::Watch => &[Victim::Tree, Victim::Git, Victim::Hook],
        _ => &[Victim::Tree],
    };
    let mut points = Vec::new();
    for &victim in victims {
        let concerned = events.iter().filter(|event| match victim {
            Victim::Tree | Victim::Container => true,
            Victim::Git | Victim::Hook => event.role == Role::Hook,
            Victim::Told(_) | Victim::AllTold(_) => false,
        });
        points.extend(concerned.map(|event| Point { operation, victim, after, n: event.n }));
    }
    points
}

/// Every point at which git alone, or all of the foreground group, can be told to end.
pub fn signals(operation: &'static str, after: After, events: &[Event]) -> Vec<Vec<Point>> {
    let victims = [
        Victim::Told(Signal::SIGINT),
        Victim::AllTold(Signal::SIGINT),
        Victim::Told(Signal::SIGTERM),
        Victim::AllTold(Signal::SIGTERM),
    ];
    let of = |victim| events.iter().map(move |event| Point { operation, victim, after, n: event.n }).collect();
    victims.into_iter().map(of).collect()
}

fn sample(all: &[Point], budget: Budget) -> Vec<Point> {
    let budgets = [
        (Victim::Tree, budget.tree),
        (Victim::Git, budget.hook),
        (Victim::Hook, budget.hook),
        (Victim::Container, budget.container),
    ];
    let of = |victim| all.iter().copied().filter(|point| point.victim == victim).collect::<Vec<_>>();
    budgets.into_iter().flat_map(|(victim, budget)| every(&of(victim), budget)).collect()
}

/// Returns about `budget` of the points at equal distances, or as many as the environment asks for.
pub fn every(points: &[Point], budget: usize) -> Vec<Point> {
    let Some(first) = points.first() else {
        return Vec::new();
    };
    let variable = if first.after == After::Nothing { "JIN_KILL_PLAIN" } else { "JIN_KILL" };
    let stride = stride(variable, points.len().div_ceil(budget.max(1)));
    let name = format!("{}{:?}{:?}", first.operation, first.victim, first.after);
    points.iter().copied().skip(start(&name, stride, "JIN_KILL_SEED")).step_by(stride).collect()
}

/// Returns the distance between two points that the environment asks for.
pub fn stride(variable: &str, default: usize) -> usize {
    match env::var(variable).ok().as_deref() {
        Some("all") => 1,
        Some(stride) => stride.parse().expect("the stride is `all` or a number from 1"),
        None => default.max(1),
    }
}

/// Returns where a stride is to start.
pub fn seed(variable: &str) -> usize {
    env::var(variable).ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

/// Returns where a stride starts: elsewhere for each name, so that together they cover different places, and moved by a seed.
pub fn start(name: &str, stride: usize, seed_variable: &str) -> usize {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let start = usize::try_from(hash % u64::try_from(stride).expect("a stride is small"));
    (start.expect("less than the stride") + seed(seed_variable)) % stride
}

/// Replaces or adds the operation's line in the table file.
fn record(row: &Row, after: After) {
    static FILE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FILE.lock().expect("nobody panics with this lock");
    let path = table_file(after);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let mut lines: BTreeMap<String, String> = old
        .lines()
        .skip(HEADER.lines().count())
        .filter_map(|line| Some((line.split(" | ").next()?.trim_start_matches("| ").to_owned(), line.to_owned())))
        .collect();
    lines.insert(row.operation.to_owned(), row.markdown());
    let body: String = lines.values().map(|line| format!("{line}\n")).collect();
    fs::write(path, format!("{HEADER}{body}")).expect("the table can be written");
}

/// Prints a table with a line of sums.
pub fn print(rows: &[Row]) {
    let lines: String = rows.iter().map(|row| row.markdown() + "\n").collect();
    let sum = |field: fn(&Row) -> usize| rows.iter().map(field).sum::<usize>();
    let mut total =
        Row { operation: "**all**", points: sum(|row| row.points), all: sum(|row| row.all), ..Row::default() };
    total.bad = sum(|row| row.bad);
    total.skipped = sum(|row| row.skipped);
    for (kind, count) in rows.iter().flat_map(|row| &row.damage) {
        *total.damage.entry(*kind).or_default() += count;
    }
    println!("\ngit {}\n\n{HEADER}{lines}{}", Git::under_test().version, total.markdown());
}

fn table_file(after: After) -> PathBuf {
    let mode = match after {
        After::Nothing => "plain",
        After::Recover => "recover",
        After::KilledRecovery(_) => "killed-recovery",
        After::Shim => "shim",
        After::PlainGit => "plain-git",
        After::Watch => "watch",
        After::WatchAtSpeed => "watch-at-speed",
        After::WatchKilled => "watch-killed",
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory has a tmp in it");
    target.join(format!("kill-table-{}-{mode}.md", Git::under_test().version))
}
