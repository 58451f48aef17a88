//! The configuration that holds for a repository, read at once.

use crate::git::exec::Ran;
use crate::git::{ConfigQuery, Git, Plumbing};

/// Every setting that git knows for a repository, in the order in which it reads them: a later one wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    settings: Vec<Setting>,
    /// What the environment adds is part of it.
    with_environment: bool,
}

#[derive(Debug, Clone)]
struct Setting {
    scope: Scope,
    /// Section and name in lower case, as git prints them.
    key: String,
    value: Vec<u8>,
}

/// Where a setting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In the repository's own configuration, or in what it includes.
    Local,
    /// On the command line of the git that we asked, or in its environment: ours, or the user's.
    Command,
    Elsewhere,
}

impl Config {
    /// Asks git.
    pub(crate) fn read(git: &Git) -> anyhow::Result<Config> {
        Config::of(&git.run(Plumbing::Config(ConfigQuery::All))?)
    }

    /// Asks git, with what the environment adds for the user's own git.
    pub(crate) fn read_as_user(git: &Git) -> anyhow::Result<Config> {
        Ok(Config { with_environment: true, ..Config::of(&git.ask_as_user(ConfigQuery::All)?)? })
    }

    fn of(ran: &Ran) -> anyhow::Result<Config> {
        anyhow::ensure!(ran.success, "git cannot read its configuration: {}", ran.stderr.trim());
        Ok(Config::parse(&ran.stdout))
    }

    /// Is what the environment adds part of it?
    pub(crate) fn has_environment(&self) -> bool {
        self.with_environment
    }

    fn parse(listed: &[u8]) -> Config {
        let mut words = listed.split(|b| *b == 0);
        let mut settings = Vec::new();
        while let (Some(scope), Some(setting)) = (words.next(), words.next()) {
            let scope = match scope {
                b"local" | b"worktree" => Scope::Local,
                b"command" => Scope::Command,
                _ => Scope::Elsewhere,
            };
            // A name without `=` means true.
            let end = setting.iter().position(|b| *b == b'\n');
            let (key, value) = end.map_or((setting, b"true".as_slice()), |end| (&setting[..end], &setting[end + 1..]));
            settings.push(Setting { scope, key: String::from_utf8_lossy(key).into_owned(), value: value.to_vec() });
        }
        Config { settings, with_environment: false }
    }

    fn last(&self, key: &str, counts: impl Fn(Scope) -> bool) -> Option<String> {
        let found = self.settings.iter().rev().find(|s| s.key == key && counts(s.scope))?;
        Some(String::from_utf8_lossy(&found.value).into_owned())
    }

    /// The value of `key`, whose section and name are in lower case.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.last(key, |scope| self.with_environment || scope != Scope::Command)
    }

    /// Every setting of the repository's own configuration whose key is wanted, in order, as `key=value`.
    pub(crate) fn all_local(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let wanted = self.settings.iter().filter(|s| s.scope == Scope::Local && is_wanted(&s.key));
        wanted.map(|s| format!("{}={}", s.key, String::from_utf8_lossy(&s.value))).collect()
    }

    /// The value of `key` in the repository's own configuration.
    pub(crate) fn local(&self, key: &str) -> Option<String> {
        self.last(key, |scope| scope == Scope::Local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_wins_except_those_of_our_own_command_line() {
        let listed = b"global\0core.hookspath\n/a\0local\0core.hookspath\nb\nc\0local\0core.bare\0command\0core.hookspath\n/dev/null\0";
        let config = Config::parse(listed);
        assert_eq!(config.get("core.hookspath").as_deref(), Some("b\nc"));
        assert_eq!(config.get("core.bare").as_deref(), Some("true"));
        assert_eq!(config.local("core.worktree"), None);
        assert_eq!(Config::parse(b"").get("core.bare"), None);
        let elsewhere = Config::parse(b"global\0jin.rungrace\n3\0");
        assert_eq!((elsewhere.get("jin.rungrace").as_deref(), elsewhere.local("jin.rungrace")), (Some("3"), None));
    }
}
