//! The watch as a systemd user service: a unit, and the link that starts it with the user's session.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

use crate::fs::durable;
use crate::util::text::shown;

const NAME: &str = "jin-txn-watch.service";

/// The unit of one user.
pub(crate) struct Unit {
    directory: PathBuf,
}

impl Unit {
    /// Where it lies for a user with these variables.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<Unit> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
        Some(Unit { directory: config.join("systemd/user") })
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn link(&self) -> PathBuf {
        self.directory.join("default.target.wants").join(NAME)
    }

    /// Writes the unit, and lets it start with the user's next session.
    pub(crate) fn install(&self, binary: &Path) -> anyhow::Result<()> {
        let path = self.path();
        let cannot = || format!("cannot write {}", shown(&path));
        let link = self.link();
        durable::create_dirs(&durable::real(link.parent().unwrap_or(&link)), 0o755).with_context(cannot)?;
        durable::replace_public(&durable::real(&path), text(binary).as_bytes()).with_context(cannot)?;
        durable::symlink(&path, &durable::real(&link)).with_context(cannot)
    }

    /// Takes both away. False when there is none.
    pub(crate) fn uninstall(&self) -> io::Result<bool> {
        let found = [self.link(), self.path()];
        let was_there = found.iter().any(|path| fs::symlink_metadata(path).is_ok());
        found.iter().try_for_each(|path| durable::remove_file(path))?;
        Ok(was_there)
    }
}

fn text(binary: &Path) -> String {
    format!(
        "[Unit]\n\
         Description=Recovers Git repositories when a git dies (jin-txn)\n\
         \n\
         [Service]\n\
         ExecStart={} watch --quiet\n\
         Restart=on-failure\n\
         RestartSec=60\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        quoted(&binary.display().to_string())
    )
}

/// One word for systemd.
fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' => out.push_str("$$"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_systemd() {
        assert_eq!(quoted("/opt/a b/100%/$x/\"y\"\\z"), "\"/opt/a b/100%%/$$x/\\\"y\\\"\\\\z\"");
    }
}
