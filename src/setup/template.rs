//! `install --template`: every repository that is made from now on is protected.
//!
//! git copies the template into each repository that `git init` and `git clone` make: our hooks, and the configuration
//! that `install` would set. The hooks create `.jin` when they are first called.
//!
//! Limit: `--template=`, `GIT_TEMPLATE_DIR` and a repository-less `init.templateDir` of another user go round it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use crate::fs::{absent_is_none, durable};
use crate::git::{ConfigQuery, Git, Plumbing};
use crate::setup::installed::HooksDirectory;
use crate::setup::names::{ALL_NAMES, CONFIG_HOOKS};
use crate::setup::settings::{File, Settings};
use crate::setup::{alias, chaining, fsync, places};
use crate::util::text::shown;

/// What was set up, so that it can be taken back.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    directory: PathBuf,
    /// The whole directory is ours.
    made: bool,
    hooks: HooksDirectory,
    /// The directories that this record is in, as far as we made them.
    around: Vec<PathBuf>,
    /// The template's own configuration.
    config: Settings,
    /// The user's.
    global: Settings,
}

/// Where the user's own files are: from the variables that git and the XDG base directories know.
pub(crate) struct UserFiles {
    global_config: Option<PathBuf>,
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl UserFiles {
    pub(crate) fn new(variable: impl Fn(&str) -> Option<OsString>) -> UserFiles {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let base = |name: &str| path(name).filter(|path| path.is_absolute());
        UserFiles {
            global_config: path("GIT_CONFIG_GLOBAL"),
            home: path("HOME"),
            config: base("XDG_CONFIG_HOME"),
            data: base("XDG_DATA_HOME"),
            state: base("XDG_STATE_HOME"),
        }
    }

    /// Where git writes what is set for the user.
    fn global_config(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.global_config {
            return Ok(path.clone());
        }
        let usual = self.home()?.join(".gitconfig");
        let other = self.base(&self.config, ".config")?.join("git/config");
        Ok(if !usual.exists() && other.exists() { other } else { usual })
    }

    fn home(&self) -> anyhow::Result<&Path> {
        self.home.as_deref().context("HOME is not set: git would not find the template")
    }

    fn base(&self, set: &Option<PathBuf>, below_home: &str) -> anyhow::Result<PathBuf> {
        set.clone().map_or_else(|| Ok(self.home()?.join(below_home)), Ok)
    }

    fn template(&self) -> anyhow::Result<PathBuf> {
        Ok(self.base(&self.data, ".local/share")?.join("jin-txn/template"))
    }

    fn record(&self) -> anyhow::Result<PathBuf> {
        Ok(durable::real(&self.base(&self.state, ".local/state")?.join("jin-txn/template.json")))
    }
}

/// What to set up, and with what.
pub(crate) struct Request<'r> {
    pub git: &'r Path,
    pub binary: &'r Utf8Path,
    pub files: &'r UserFiles,
    /// The template; `None`: the one that git uses, if it is the user's own.
    pub directory: Option<PathBuf>,
}

/// What was set up.
pub(crate) struct Template {
    pub directory: PathBuf,
    /// The template that git had used, whose files were copied.
    pub copied: Option<PathBuf>,
}

/// Sets the template up, or repairs it.
pub(crate) fn install(request: Request<'_>) -> anyhow::Result<Template> {
    let Request { git, binary, files, directory: wanted } = request;
    let known = load(files)?;
    let set = template_of_git(git)?;
    let directory = match (&known, wanted) {
        (Some(known), None) => known.directory.clone(),
        (_, Some(wanted)) => std::path::absolute(wanted)?,
        (None, None) => match &set {
            Some(set) if is_own(git, set)? => set.clone(),
            _ => files.template()?,
        },
    };
    let directory = durable::real_dir(&directory);
    anyhow::ensure!(
        known.as_ref().is_none_or(|known| known.directory == directory),
        "there is a template with our hooks already: {}\nhint: run `jin-txn uninstall --template` first",
        known.as_ref().map_or_else(String::new, |known| shown(&known.directory))
    );
    let hooks = directory.join("hooks");
    let is_new = fs::symlink_metadata(&directory).is_err();
    anyhow::ensure!(is_new || directory.is_dir(), "{} is not a directory", shown(&directory));
    places::require_writable(&hooks)?;
    let mut record = match known {
        Some(known) => known,
        None => Record::new(&directory, is_new, &files.record()?),
    };
    record.store(files)?;
    if is_new {
        make(git, &directory, set.clone())?;
    }
    durable::create_dirs(&hooks, 0o777)?;
    durable::make_read_only(binary.as_std_path()).with_context(|| format!("cannot protect {binary}"))?;
    for name in ALL_NAMES {
        chaining::put(&hooks, name, binary)?;
    }
    record.configure(git, binary, files)?;
    // git's configuration last: from here on new repositories are protected.
    record.announce(git, set.as_deref(), files)?;
    Ok(Template { copied: set.filter(|set| *set != directory), directory })
}

/// Makes the directory. What repositories got so far they go on to get.
fn make(git: &Path, directory: &Path, set: Option<PathBuf>) -> anyhow::Result<()> {
    let base = set.or(default_template(git)?).filter(|base| base.is_dir());
    durable::create_dirs(directory, 0o777)?;
    if let Some(base) = &base {
        durable::copy_tree(base, directory).with_context(|| format!("cannot copy {}", shown(base)))?;
    }
    Ok(())
}

/// Takes the template back. Says which hooks of others had to stay aside.
pub(crate) fn uninstall(git: &Path, files: &UserFiles) -> anyhow::Result<Vec<PathBuf>> {
    let record =
        load(files)?.context("there is no template with our hooks\nhint: `jin-txn uninstall` is for repositories")?;
    record.global.take_back(&File { git, path: files.global_config()? })?;
    let left = record.hooks.leave()?;
    record.config.take_back(&File { git, path: record.directory.join("config") })?;
    if record.made {
        durable::remove_tree(&record.directory)?;
    }
    durable::remove_file(&files.record()?)?;
    for made in record.hooks.made.iter().chain(&record.around) {
        durable::remove_dir_if_empty(made)?;
    }
    Ok(left)
}

impl Record {
    fn new(directory: &Path, made: bool, path: &Path) -> Record {
        Record {
            version: 1,
            directory: directory.to_owned(),
            made,
            hooks: HooksDirectory::at(&directory.join("hooks")),
            around: path.parent().map_or_else(Vec::new, |parent| HooksDirectory::at(parent).made),
            config: Settings::default(),
            global: Settings::default(),
        }
    }

    /// What every repository gets that is made from the template.
    fn configure(&mut self, git: &Path, binary: &Utf8Path, files: &UserFiles) -> anyhow::Result<()> {
        let setting = |key: &str, value: String| (key.to_owned(), value);
        let mut settings =
            vec![setting(alias::KEY, alias::command(binary)), setting("core.fsync", fsync::SETTING.to_owned())];
        if Git::new(git).version()? >= CONFIG_HOOKS {
            settings.push(setting("core.lockfilePid", "true".to_owned()));
        }
        let file = File { git, path: self.directory.join("config") };
        let mut config = std::mem::take(&mut self.config);
        config.apply(&file, &settings, |now| {
            self.config = now.clone();
            self.store(files)
        })
    }

    /// Lets git use the template, which is `set` now.
    fn announce(&mut self, git: &Path, set: Option<&Path>, files: &UserFiles) -> anyhow::Result<()> {
        let path = self.directory.to_str().with_context(|| format!("{} is not UTF-8", shown(&self.directory)))?;
        let points_here = set == Some(&self.directory) && !self.global.is_still_ours(KEY, Some(path));
        let wanted = if points_here { Vec::new() } else { vec![(KEY.to_owned(), path.to_owned())] };
        let file = File { git, path: files.global_config()? };
        if let Some(parent) = file.path.parent() {
            durable::create_dirs(&durable::real_dir(parent), 0o777)?;
        }
        let mut own = std::mem::take(&mut self.global);
        own.apply(&file, &wanted, |now| {
            self.global = now.clone();
            self.store(files)
        })
    }

    fn store(&self, files: &UserFiles) -> anyhow::Result<()> {
        let path = files.record()?;
        if let Some(parent) = path.parent() {
            durable::create_dirs(parent, 0o700)?;
        }
        Ok(durable::replace_public(&path, &serde_json::to_vec_pretty(self)?)?)
    }
}

const KEY: &str = "init.templateDir";

/// The directory that `init.templateDir` names now.
fn template_of_git(git: &Path) -> anyhow::Result<Option<PathBuf>> {
    let ran = Git::new(git).run(Plumbing::Config(ConfigQuery::PathValue(KEY)))?;
    let path = String::from_utf8(ran.stdout).context("init.templateDir is not UTF-8")?;
    Ok(ran.success.then(|| PathBuf::from(path.trim_end())))
}

fn default_template(git: &Path) -> anyhow::Result<Option<PathBuf>> {
    let ran = Git::new(git).run(Plumbing::ExecPath)?;
    let path = PathBuf::from(String::from_utf8_lossy(&ran.stdout).trim_end());
    // `<prefix>/libexec/git-core`, and `<prefix>/share/git-core/templates`.
    Ok(path.ancestors().nth(2).map(|prefix| prefix.join("share/git-core/templates")))
}

/// The user's own directory, and nobody versions it: not the system's, not one that is generated from elsewhere.
fn is_own(git: &Path, directory: &Path) -> anyhow::Result<bool> {
    let Ok(metadata) = fs::metadata(directory) else { return Ok(false) };
    let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    let system = ["/usr", "/etc", "/opt", "/nix"].iter().any(|system| directory.starts_with(system));
    Ok(own && !system && places::require_writable(directory).is_ok() && !places::has_tracked_files(git, directory)?)
}

fn load(files: &UserFiles) -> anyhow::Result<Option<Record>> {
    let path = files.record()?;
    let Some(bytes) = absent_is_none(fs::read(&path))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", shown(&path)))
}
