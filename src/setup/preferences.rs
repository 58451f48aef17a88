//! `jin.*` in git's configuration: what is set, what it means, and what means nothing.

use std::path::Path;

use crate::git::{ConfigQuery, Git, Plumbing, Repository};
use crate::state::settings::{Settings, WatchMode};

/// What the user has set.
#[derive(Debug, Default)]
pub(crate) struct Preferences {
    /// What goes to `.jin/settings`.
    pub settings: Settings,
    /// Values that mean nothing, a line each.
    pub invalid: Vec<String>,
    /// Keys that mean nothing.
    pub unknown: Vec<String>,
}

impl Preferences {
    /// Reads them; of several values the last one counts, as everywhere in git.
    pub(crate) fn read(git: &Path, repo: &Repository) -> anyhow::Result<Preferences> {
        let ran = Git::new(git).at(&repo.git_dir).run(Plumbing::Config(ConfigQuery::Matching(r"^jin\.")))?;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let mut found = Preferences::default();
        for entry in text.split('\0').filter(|e| !e.is_empty()) {
            let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
            found.take(key, value);
        }
        Ok(found)
    }

    fn take(&mut self, key: &str, value: &str) {
        let set = match key {
            "jin.locktimeout" => self.settings.set_lock_timeout(value).map_err(|e| e.expected),
            "jin.retention" => self.settings.set_retention(value).map_err(|e| e.expected),
            "jin.watch" => WatchMode::parse(value).map(|mode| self.settings.watch = mode).map_err(|e| e.expected),
            // Read by the hook itself, when something has failed already.
            "jin.onerror" if matches!(value, "veto" | "warn") => Ok(()),
            "jin.onerror" => Err("veto or warn"),
            "jin.rungrace" if value.parse::<u64>().is_ok() => Ok(()),
            "jin.rungrace" => Err("a number of seconds"),
            _ => {
                self.unknown.push(key.to_owned());
                Ok(())
            }
        };
        if let Err(expected) = set {
            self.invalid.push(format!("{key} is `{}`: it should be {expected}", crate::util::text::one_line(value)));
        }
    }
}
