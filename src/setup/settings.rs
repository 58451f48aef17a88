//! What we change in a configuration file, and how it is taken back.
//!
//! Byte for byte while nobody else has changed the file since; else setting by setting, where ours is still there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::fs::{absent_is_none, access, durable};
use crate::git::{Git, Plumbing};

/// The changes of one file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The file before and after, where it can be put back as it was.
    before: Option<String>,
    after: Option<String>,
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
        anyhow::ensure!(ran.success, "cannot change `{key}` in {}: {}", self.path.display(), ran.stderr);
        Ok(())
    }

    fn absolute(&self) -> anyhow::Result<String> {
        let path = std::path::absolute(&self.path)?;
        Ok(path.to_str().with_context(|| format!("{} is no UTF-8", self.path.display()))?.to_owned())
    }

    fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        absent_is_none(fs::read(&self.path)).with_context(|| format!("cannot read {}", self.path.display()))
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
    /// the file changes and after: what will be put back has to be durable first.
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
        let first = self.after.is_none();
        let untouched = file.read()?;
        self.changed = kept;
        if changes.is_empty() {
            return store(self);
        }
        let text = untouched.clone().map_or(Some(String::new()), |bytes| String::from_utf8(bytes).ok());
        if self.after != text {
            self.before = text.filter(|_| first);
            self.made = untouched.is_none();
        }
        store(self)?;
        for (key, value) in &changes {
            file.set(key, value.as_deref())?;
        }
        self.after = file.read()?.and_then(|bytes| String::from_utf8(bytes).ok());
        store(self)
    }

    /// Takes everything back.
    pub(crate) fn take_back(&self, file: &File<'_>) -> anyhow::Result<()> {
        let now = file.read()?;
        if let (Some(before), Some(after), Some(now)) = (&self.before, &self.after, &now)
            && now == after.as_bytes()
        {
            return if self.made {
                Ok(durable::remove_file(&durable::real(&file.path))?)
            } else {
                replace(&file.path, before)
            };
        }
        for changed in self.changed.iter().rev() {
            // The last one first: a hook without its command would stop git.
            if file.get(&changed.key)?.as_deref() == Some(&changed.ours) {
                file.set(&changed.key, changed.before.as_deref())?;
            }
        }
        Ok(())
    }
}

/// git's own protocol: whoever changes a configuration holds its lock.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    durable::create_new(&lock, text.as_bytes())
        .and_then(|file| access::copy(&old, &file).and_then(|()| file.sync_all()))
        .with_context(|| format!("cannot write {}", lock.display()))?;
    Ok(durable::rename(&lock, &path)?)
}

/// A setting in the configuration of the repository with the common directory `common_dir`.
pub(crate) fn local(git: &Path, common_dir: &Path, key: &str) -> anyhow::Result<Option<String>> {
    File { git, path: common_dir.join("config") }.get(key)
}
