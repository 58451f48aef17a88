//! What we change in a configuration file, and how it is taken back: setting by setting, where ours is still there.
//!
//! git's own edits do it, so that a file that git wrote is the same afterwards, byte for byte. Nothing of its text is kept:
//! it may hold secrets, and who can write our note must not be able to write a configuration.
//!
//! Limit: of a line whose value was replaced a comment and unusual blanks do not come back, nor does an empty section.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::fs::{access, durable};
use crate::git::{Git, Plumbing};
use crate::util::text::shown;

/// The changes of one file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// There was no file.
    #[serde(default)]
    made: bool,
    changed: Vec<Changed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    key: String,
    ours: String,
    before: Option<String>,
}

/// A configuration file, by its path.
#[derive(Debug, Clone)]
pub(crate) struct File<'f> {
    /// The git program.
    pub git: &'f Path,
    /// Where it lies.
    pub path: PathBuf,
}

impl File<'_> {
    /// The value of `key` in this file alone.
    pub(crate) fn get(&self, key: &str) -> anyhow::Result<Option<String>> {
        let ran = Git::new(self.git).run(Plumbing::ConfigOfFile { file: &self.absolute()?, key })?;
        Ok(ran.success.then(|| String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()))
    }

    fn set(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        let ran = Git::new(self.git).run(Plumbing::SetInFile { file: &self.absolute()?, key, value })?;
        // git's own replacement belongs to whoever runs it.
        let name = self.path.file_name().unwrap_or_default();
        access::give_back(access::parent(&self.path), Path::new(name))?;
        anyhow::ensure!(ran.success, "cannot change `{key}` in {}: {}", shown(&self.path), ran.stderr);
        Ok(())
    }

    fn absolute(&self) -> anyhow::Result<String> {
        let path = std::path::absolute(&self.path)?;
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", shown(&self.path)))?.to_owned())
    }
}

impl Settings {
    /// Settings that we made where nothing was.
    pub(crate) fn made(settings: Vec<(String, String)>) -> Settings {
        let changed = settings.into_iter().map(|(key, ours)| Changed { key, ours, before: None }).collect();
        Settings { changed, ..Settings::default() }
    }

    /// Did we make this setting, and has it that value still?
    pub(crate) fn is_still_ours(&self, key: &str, now: Option<&str>) -> bool {
        self.changed.iter().any(|c| c.key == key && Some(c.ours.as_str()) == now)
    }

    /// Makes the settings `wanted`, and takes those back that we made and are not wanted any more. `store` is called before
    /// the file changes: what will be put back has to be durable first.
    pub(crate) fn apply(
        &mut self,
        file: &File<'_>,
        wanted: &[(String, String)],
        mut store: impl FnMut(&Settings) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let is_wanted = |key: &str| wanted.iter().any(|(k, _)| k == key);
        let mut changes = Vec::new();
        let mut kept = Vec::new();
        for changed in std::mem::take(&mut self.changed) {
            let now = file.get(&changed.key)?;
            if is_wanted(&changed.key) {
                kept.push(changed);
            } else if now.as_deref() == Some(&changed.ours) {
                changes.push((changed.key, changed.before));
            }
        }
        // The last one first: a hook without its command would stop git.
        changes.reverse();
        for (key, value) in wanted {
            let now = file.get(key)?;
            let known = kept.iter().position(|c| c.key == *key);
            if now.as_deref() == Some(value) {
                continue;
            }
            match known {
                Some(index) if now.as_deref() == Some(&kept[index].ours) => kept[index].ours.clone_from(value),
                Some(index) => kept[index] = Changed { key: key.clone(), ours: value.clone(), before: now },
                None => kept.push(Changed { key: key.clone(), ours: value.clone(), before: now }),
            }
            changes.push((key.clone(), Some(value.clone())));
        }
        self.made |= !changes.is_empty() && fs::symlink_metadata(&file.path).is_err();
        self.changed = kept;
        store(self)?;
        changes.iter().try_for_each(|(key, value)| file.set(key, value.as_deref()))
    }

    /// Takes everything back.
    pub(crate) fn take_back(&self, file: &File<'_>) -> anyhow::Result<()> {
        for changed in self.changed.iter().rev() {
            // The last one first: a hook without its command would stop git.
            if file.get(&changed.key)?.as_deref() == Some(&changed.ours) {
                file.set(&changed.key, changed.before.as_deref())?;
            }
        }
        if self.made && fs::symlink_metadata(&file.path).is_ok_and(|found| found.is_file() && found.len() == 0) {
            durable::remove_file(&durable::real(&file.path))?;
        }
        Ok(())
    }

    /// Keeps of what a note says what we could have written. `before`: by key and noted value, the value that may have been
    /// there before; `None` for a key that is none of ours.
    pub(crate) fn believe(&mut self, before: impl Fn(&str, Option<String>) -> Option<Option<String>>) {
        let noted = std::mem::take(&mut self.changed).into_iter();
        let credible = |Changed { key, ours, before: found }| Some(Changed { before: before(&key, found)?, key, ours });
        self.changed = noted.filter_map(credible).collect();
    }
}

/// A setting in the configuration of the repository with the common directory `common_dir`.
pub(crate) fn local(git: &Path, common_dir: &Path, key: &str) -> anyhow::Result<Option<String>> {
    File { git, path: common_dir.join("config") }.get(key)
}
