//! Hooks that are set in the repository's configuration (git 2.54 and newer).
//!
//! git runs the command in a shell with the hook's arguments added, before the hook of the hooks directory, whatever
//! core.hooksPath says; and a command that cannot be run vetoes.

use std::path::Path;

use camino::Utf8Path;

use crate::git::Config;
use crate::setup::names::{NAMES, command_lines};

/// The name below `hook.` for each of our hooks.
const SECTIONS: [&str; 2] = ["jin-txn", "jin-txn-checkout"];

/// Does the configuration call us?
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It does not.
    Absent,
    /// It does.
    Works,
    /// It would, if this program were there.
    Dangling(String),
}

/// What to set so that git calls `binary`.
pub(crate) fn wanted(binary: &Utf8Path) -> Vec<(String, String)> {
    let setting = |(section, name): (&str, &str)| {
        let command = command_lines(binary, name).join("; ");
        [(format!("hook.{section}.command"), command), (format!("hook.{section}.event"), name.to_owned())]
    };
    SECTIONS.into_iter().zip(NAMES).flat_map(setting).collect()
}

/// The settings of [`wanted`], a hook's command before its event.
pub(crate) fn keys() -> impl Iterator<Item = String> {
    SECTIONS.iter().flat_map(|section| ["command", "event"].map(|what| format!("hook.{section}.{what}")))
}

/// Is this one of the settings of [`wanted`]?
pub(crate) fn is_key(key: &str) -> bool {
    keys().any(|ours| ours == key)
}

/// Looks.
pub(crate) fn state(config: &Config) -> State {
    for (section, name) in SECTIONS.into_iter().zip(NAMES) {
        let ask = |what: &str| config.local(&format!("hook.{section}.{what}"));
        let (command, event) = (ask("command"), ask("event"));
        let Some(program) = command.as_deref().and_then(program).filter(|_| event.as_deref() == Some(name)) else {
            return State::Absent;
        };
        // Anybody may switch a hook off: the user, the environment.
        if config
            .get(&format!("hook.{section}.enabled"))
            .is_some_and(|value| matches!(value.as_str(), "false" | "no" | "off" | "0"))
        {
            return State::Absent;
        }
        if !Path::new(&program).is_file() {
            return State::Dangling(program);
        }
    }
    State::Works
}

/// The program that one of our commands runs.
fn program(command: &str) -> Option<String> {
    shlex::split(command.strip_prefix("test -x ")?)?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_again_in_the_command() {
        for path in ["/bin/jin-txn", "/it's a \"place\"/jin-txn"] {
            let command = wanted(Utf8Path::new(path)).swap_remove(0).1;
            assert_eq!(program(&command).as_deref(), Some(path), "{command}");
        }
        assert_eq!(program("true"), None);
    }
}
