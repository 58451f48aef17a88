//! What the user may set: read from git's configuration by `install`, kept in `.jin/settings`.
//!
//! A hook must not start git to ask for configuration, so `install` writes down what a hook may need. The file is read only
//! when its answer matters: when a lock is not free at once, and when a log segment is full. Without the file, or with one
//! that cannot be read, the defaults hold.
//!
//! ```text
//! lock-timeout-ms 10000
//! retained-seconds 2592000
//! retained-bytes 67108864
//! watch auto
//! ```

use std::fmt;
use std::time::Duration;

/// Whether hooks tell the watch of their git, and start one (`jin.watch`, `JIN_WATCH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchMode {
    /// Nobody has said anything: hooks neither tell nor start it; one that runs all the same looks after the repository.
    #[default]
    Unset,
    /// The first hook starts it, but where nobody would want that.
    Auto,
    /// The first hook starts it.
    On,
    /// Nothing is announced, nothing started.
    Off,
}

impl WatchMode {
    /// Reads what a user writes.
    ///
    /// # Errors
    /// It is none of the three.
    pub fn parse(text: &str) -> Result<WatchMode, Invalid> {
        match text.trim() {
            "auto" => Ok(WatchMode::Auto),
            "on" | "true" | "yes" => Ok(WatchMode::On),
            "off" | "false" | "no" => Ok(WatchMode::Off),
            _ => Err(Invalid { expected: "auto, on or off" }),
        }
    }

    /// Do hooks speak to the watch?
    #[must_use]
    pub fn is_wanted(self) -> bool {
        matches!(self, WatchMode::Auto | WatchMode::On)
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            WatchMode::Unset => "unset",
            WatchMode::Auto => "auto",
            WatchMode::On => "on",
            WatchMode::Off => "off",
        }
    }
}

/// What may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a hook waits for the log's lock before it vetoes (`jin.lockTimeout`).
    pub lock_timeout: Duration,
    /// Records, and what recovery moved aside, are kept this many seconds, unless they grow too large
    /// (`jin.retention`).
    pub retained_seconds: u64,
    /// The log is kept below this many bytes, plus the segment in use, and so is the quarantine, plus what came last
    /// (`jin.retention`).
    pub retained_bytes: u64,
    /// Does a hook start the watch (`jin.watch`)?
    pub watch: WatchMode,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lock_timeout: Duration::from_secs(10),
            retained_seconds: 30 * DAY,
            retained_bytes: 64 << 20,
            watch: WatchMode::default(),
        }
    }
}

const DAY: u64 = 24 * 3600;

/// The longest that a hook may be told to wait: it hangs git all that time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// A value that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// What may be written there.
    pub expected: &'static str,
}

impl Settings {
    /// The content of `.jin/settings`; what is missing or unreadable there has its default.
    #[must_use]
    pub fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        for line in text.lines() {
            if let Some(Ok(mode)) = line.strip_prefix("watch ").map(WatchMode::parse) {
                settings.watch = mode;
            }
            let Some((key, Ok(value))) = line.split_once(' ').map(|(k, v)| (k, v.parse::<u64>())) else { continue };
            match key {
                "lock-timeout-ms" => settings.lock_timeout = Duration::from_millis(value).min(LONGEST_TIMEOUT),
                "retained-seconds" => settings.retained_seconds = value,
                "retained-bytes" => settings.retained_bytes = value,
                _ => {}
            }
        }
        settings
    }

    /// Sets `jin.lockTimeout` as the user writes it: `10s`, `500ms`, `2m`; without a unit milliseconds, as git's own
    /// lock timeouts.
    ///
    /// # Errors
    /// It is no such time, or longer than an hour.
    pub fn set_lock_timeout(&mut self, text: &str) -> Result<(), Invalid> {
        let invalid = Invalid { expected: "a time up to an hour, e.g. 10s, 500ms or 2m" };
        let (number, unit) = number_and_unit(text).ok_or_else(|| invalid.clone())?;
        let scale = match unit {
            "" | "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => return Err(invalid),
        };
        let timeout = number.checked_mul(scale).map(Duration::from_millis).filter(|t| *t <= LONGEST_TIMEOUT);
        self.lock_timeout = timeout.ok_or(invalid)?;
        Ok(())
    }

    /// Sets `jin.retention` as the user writes it: days, a size, or both (`30d`, `64m`, `30d 1g`).
    ///
    /// # Errors
    /// A word is neither.
    pub fn set_retention(&mut self, text: &str) -> Result<(), Invalid> {
        let invalid = || Invalid { expected: "days, a size or both, e.g. 30d, 64m or 30d 1g" };
        let words: Vec<&str> = text.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        if words.is_empty() {
            return Err(invalid());
        }
        for word in words {
            let (number, unit) = number_and_unit(word).ok_or_else(invalid)?;
            let scaled = |scale: u64| number.checked_mul(scale).ok_or_else(invalid);
            match unit {
                "d" => self.retained_seconds = scaled(DAY)?,
                "k" => self.retained_bytes = scaled(1 << 10)?,
                "m" => self.retained_bytes = scaled(1 << 20)?,
                "g" => self.retained_bytes = scaled(1 << 30)?,
                _ => return Err(invalid()),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lock-timeout-ms {}", self.lock_timeout.as_millis())?;
        writeln!(f, "retained-seconds {}", self.retained_seconds)?;
        writeln!(f, "retained-bytes {}", self.retained_bytes)?;
        if self.watch != WatchMode::default() {
            writeln!(f, "watch {}", self.watch.word())?;
        }
        Ok(())
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_what_is_not_has_its_default() {
        let chosen = Settings {
            lock_timeout: Duration::from_millis(7),
            retained_seconds: 8,
            retained_bytes: 9,
            watch: WatchMode::Off,
        };
        assert_eq!(Settings::parse(&chosen.to_string()), chosen);
        for text in ["", "\0\0", "lock-timeout-ms ten\nretained-seconds\n", "else 3\n"] {
            assert_eq!(Settings::parse(text), Settings::default(), "{text:?}");
        }
        assert_eq!(Settings::parse("lock-timeout-ms 99999999999\n").lock_timeout, LONGEST_TIMEOUT, "never for ever");
    }

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("500", Some(500)),
            (" 2m ", Some(120_000)),
            ("0", Some(0)),
            ("60m", Some(3_600_000)),
            ("61m", None),
            ("-1", None),
            ("10 s", None),
            ("1h", None),
            ("", None),
            ("99999999999999999999s", None),
        ] {
            let mut settings = Settings::default();
            let set = settings.set_lock_timeout(text).ok().map(|()| settings.lock_timeout.as_millis());
            assert_eq!(set, expected, "{text:?}");
        }
        let default = Settings::default();
        for (text, expected) in [
            ("7d", Some((7 * DAY, default.retained_bytes))),
            ("1g", Some((default.retained_seconds, 1 << 30))),
            ("1d 512k", Some((DAY, 512 << 10))),
            ("64m,90d", Some((90 * DAY, 64 << 20))),
            ("0d", Some((0, default.retained_bytes))),
            ("30", None),
            ("7d forever", None),
            ("", None),
            (" , ", None),
            ("99999999999999999999d", None),
            ("18446744073709551615g", None),
        ] {
            let mut settings = default;
            let set = settings.set_retention(text).ok().map(|()| (settings.retained_seconds, settings.retained_bytes));
            assert_eq!(set, expected, "{text:?}");
        }
    }
}
