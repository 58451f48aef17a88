//! Which operations `log` lists, and how it writes their times.

use crate::cli::utc;
use crate::git::RefName;
use crate::util::clock::unix_time;

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DateStyle {
    /// How long ago.
    Relative,
    /// In UTC.
    Iso,
    /// Seconds since 1970.
    Unix,
}

impl DateStyle {
    pub(super) fn write(self, time: u64) -> String {
        match self {
            DateStyle::Relative => ago(unix_time().saturating_sub(time)),
            DateStyle::Iso => utc(time),
            DateStyle::Unix => time.to_string(),
        }
    }
}

/// A time that is written as `2 hours ago`, `3.days`, `2026-11-27` or `2026-11-27 20:15`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since(pub(super) u64);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Units, from the largest down.
const UNITS: [(&str, u64); 7] = [
    ("year", 365 * DAY),
    ("month", 30 * DAY),
    ("week", 7 * DAY),
    ("day", DAY),
    ("hour", HOUR),
    ("minute", MINUTE),
    ("second", 1),
];

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{}` is not a time (write `2 hours ago`, `3.days` or `2026-11-27`)", text.escape_debug());
        if text == "yesterday" {
            return Ok(Since(unix_time().saturating_sub(DAY)));
        }
        let spaced = text.replace('.', " ");
        let words: Vec<&str> = spaced.split_whitespace().filter(|word| *word != "ago").collect();
        if let [number, unit] = words.as_slice()
            && let Ok(number) = number.parse::<u64>()
        {
            let unit =
                UNITS.iter().find(|(name, _)| unit.strip_suffix('s').unwrap_or(unit) == *name).ok_or_else(wrong)?;
            return Ok(Since(unix_time().saturating_sub(number.saturating_mul(unit.1))));
        }
        let (date, clock) = text.split_once([' ', 'T']).unwrap_or((text, "0:0"));
        let numbers =
            |text: &str, by: char| -> Option<Vec<u64>> { text.split(by).map(|word| word.parse().ok()).collect() };
        let (date, clock) = numbers(date, '-').zip(numbers(clock.trim_end_matches('Z'), ':')).ok_or_else(wrong)?;
        match (date.as_slice(), clock.as_slice()) {
            ([year, month @ 1..=12, day @ 1..=31], [hour @ 0..=23, minute @ 0..=59, rest @ ..]) if *year >= 1970 => {
                let seconds = rest.first().copied().unwrap_or(0);
                Ok(Since(days_until(*year, *month, *day) * DAY + hour * HOUR + minute * MINUTE + seconds))
            }
            _ => Err(wrong()),
        }
    }
}

/// The days from 1970-01-01 to a date.
fn days_until(year: u64, month: u64, day: u64) -> u64 {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let years: u64 = (1970..year.min(9999)).map(|year| 365 + u64::from(is_leap(year))).sum();
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = lengths.iter().zip(1..month).map(|(days, _)| days).sum();
    years + months + day - 1
}

/// `3 hours ago`.
fn ago(seconds: u64) -> String {
    let (name, unit) = UNITS.iter().find(|(_, unit)| seconds >= 2 * unit).unwrap_or(&("second", 1));
    let count = seconds / unit;
    format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
}

/// What an operation has to be in order to be listed.
#[derive(Debug, Default)]
pub(super) struct Wanted<'w> {
    /// It moved this ref: a full name, or the last part of one.
    pub reference: Option<&'w str>,
    /// Its command line has this in it.
    pub command: Option<&'w str>,
    /// It was begun at this time or later.
    pub since: Option<u64>,
}

impl Wanted<'_> {
    pub(super) fn is_everything(&self) -> bool {
        self.reference.is_none() && self.command.is_none() && self.since.is_none()
    }

    /// Is an operation with this command line wanted, that began at `time` and moved these refs?
    pub(super) fn has<'r>(&self, operation: &str, time: u64, mut moved: impl Iterator<Item = &'r RefName>) -> bool {
        let is_named = |wanted: &str| {
            moved.any(|name| {
                let name = name.to_string();
                name == wanted || name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('/'))
            })
        };
        self.reference.is_none_or(is_named)
            && self.command.is_none_or(|command| operation.contains(command))
            && self.since.is_none_or(|since| time >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, time) in
            [("1970-01-02", DAY), ("2024-03-01 00:00", 1_709_251_200), ("2026-11-22T20:18:05Z", 1_795_378_685)]
        {
            assert_eq!(text.parse::<Since>().unwrap().0, time, "{text}");
        }
        let now = unix_time();
        for (text, before) in
            [("2 hours ago", 2 * HOUR), ("3.days", 3 * DAY), ("1 minute ago", MINUTE), ("yesterday", DAY)]
        {
            let found = text.parse::<Since>().unwrap().0;
            assert!(found >= now - before && found <= unix_time() - before, "{text}");
        }
        for text in ["", "soon", "3 fortnights", "2026-13-01", "2026-1-1 25:00"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }

    #[test]
    fn how_long_ago_it_was_is_said_in_a_unit_of_which_there_are_two() {
        for (seconds, text) in [
            (0, "0 seconds ago"),
            (1, "1 second ago"),
            (119, "119 seconds ago"),
            (120, "2 minutes ago"),
            (3 * DAY, "3 days ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }
}
