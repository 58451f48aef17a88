//! Hermetic repositories: fixed identity, clock and configuration, nothing inherited.
//!
//! A [`Scratch`] is a directory that holds everything of one case: `home/`, the repository `repo/` and whatever lies beside
//! it (`upstream.git/`, linked worktrees). Copying the directory copies the case.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

/// The first `git` in `PATH`.
pub struct Git {
    pub program: PathBuf,
    /// As `git version` prints it, without the words before.
    pub version: String,
    number: (u32, u32),
}

impl Git {
    /// Returns the git under test.
    pub fn under_test() -> &'static Self {
        static GIT: OnceLock<Git> = OnceLock::new();
        GIT.get_or_init(|| {
            let path = env::var_os("PATH").expect("PATH is set");
            let program = env::split_paths(&path)
                .map(|directory| directory.join("git"))
                .find(|candidate| candidate.is_file())
                .expect("there is a git in PATH");
            let output = Command::new(&program).arg("version").output().expect("git runs");
            let text = String::from_utf8(output.stdout).expect("the version is text");
            let version = text.trim().trim_start_matches("git version ").to_owned();
            let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
            let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            Self { program, version, number }
        })
    }

    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.number >= (major, minor)
    }

    pub fn path_variable(&self) -> OsString {
        let mut path = self.program.parent().expect("a program lies in a directory").as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        path
    }
}

/// The binary under test: `JIN_TXN_BIN`, or else the one that cargo has built for this test.
pub fn jin_txn() -> PathBuf {
    env::var_os("JIN_TXN_BIN")
        .or_else(|| option_env!("CARGO_BIN_EXE_jin-txn").map(OsString::from))
        .map(PathBuf::from)
        .expect("JIN_TXN_BIN names the binary under test, or cargo has built it")
}

/// A directory with everything of one case; removed at the end unless `JIN_TEST_KEEP=1`.
pub struct Scratch {
    root: PathBuf,
    cleanup: Option<TempDir>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !unmount_below(&self.root) {
            let kept = self.cleanup.take().map(TempDir::keep);
            println!("kept, since something is mounted below it: {kept:?}");
        }
    }
}

/// Takes away what is mounted below a directory that is to be removed: the removal would go on in there. Is it all gone?
fn unmount_below(root: &Path) -> bool {
    let mounted = || -> Vec<PathBuf> {
        let table = fs::read("/proc/thread-self/mountinfo").expect("the kernel tells what is mounted");
        let places = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        places.map(|place| PathBuf::from(OsStr::from_bytes(place))).filter(|place| place.starts_with(root)).collect()
    };
    for place in mounted().iter().rev() {
        nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).ok();
    }
    mounted().is_empty()
}

impl Scratch {
    fn empty() -> Self {
        let base = env::var_os("JIN_TEST_TMP").map_or_else(env::temp_dir, PathBuf::from);
        let directory =
            tempfile::Builder::new().prefix("jin-kill-").tempdir_in(base).expect("the scratch directory can be made");
        let root = directory.path().canonicalize().expect("the scratch directory exists");
        let keep = env::var_os("JIN_TEST_KEEP").is_some_and(|value| value == "1");
        let cleanup = if keep {
            let _kept: PathBuf = directory.keep();
            None
        } else {
            Some(directory)
        };
        Self { root, cleanup }
    }

    fn new() -> Self {
        let scratch = Self::empty();
        let home = scratch.root.join("home");
        fs::create_dir(&home).expect("the home directory can be made");
        let config = "[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";
        fs::write(home.join("gitconfig"), config).expect("the configuration can be written");
        scratch
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Keeps nothing of a kept scratch directory after all: the case was good.
    pub fn discard(&self) {
        assert!(unmount_below(&self.root), "nothing is mounted below it");
        fs::remove_dir_all(&self.root).ok();
    }
}

/// A user who is not the one that runs the tests.
pub const NOBODY: u32 = 65534;

/// Gives a file, and all that lies below it, to a user; only root can.
pub fn give_to(user: u32, path: &Path) {
    let status = Command::new("chown").args(["-hR", &user.to_string()]).arg(path).status();
    assert!(status.is_ok_and(|status| status.success()), "root can give files away");
}

/// How a repository is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub bare: bool,
    pub object_format: Option<&'static str>,
    pub ref_format: Option<&'static str>,
    pub guarded: bool,
}

/// A repository in its scratch directory.
#[derive(Clone)]
pub struct Repo {
    scratch: Arc<Scratch>,
    directory: PathBuf,
}

impl Repo {
    /// Makes a scratch directory with one repository, `repo`.
    pub fn new(options: Options) -> Self {
        let scratch = Arc::new(Scratch::new());
        let directory = scratch.root.join("repo");
        let repo = Self { scratch, directory };
        repo.init(options);
        repo
    }

    /// Makes another repository beside this one.
    pub fn new_sibling(&self, name: &str, options: Options) -> Self {
        let repo = self.sibling(name);
        repo.init(options);
        repo
    }

    /// Returns the repository called `name` in the same scratch directory.
    pub fn sibling(&self, name: &str) -> Self {
        Self { scratch: Arc::clone(&self.scratch), directory: self.scratch.root.join(name) }
    }

    /// Copies the whole scratch directory, times included, and returns the same repository in the copy: protected as the
    /// original is.
    pub fn copy(&self) -> Self {
        let copy = self.copy_as_it_is();
        copy.adopt_states(copy.scratch(), &self.scratch.root);
        copy
    }

    /// The same as `cp -a` would do it: to the program, what `.jin` says there is about other files.
    pub fn copy_as_it_is(&self) -> Self {
        let scratch = Scratch::empty();
        copy_tree(&self.scratch.root, &scratch.root).expect("a template can be copied");
        let relative =
            self.directory.strip_prefix(&self.scratch.root).expect("a repository lies in its scratch directory");
        let copy = Self { directory: scratch.root.join(relative), scratch: Arc::new(scratch) };
        if copy.worktree().is_some() {
            // Inodes have changed. Exits 1 when something is modified, which is no failure here.
            copy.try_git(["update-index", "-q", "--refresh"]);
        }
        copy
    }

    /// Lets the notes about each state directory below `dir`, a copy, name the directory that it is now.
    fn adopt_states(&self, dir: &Path, original: &Path) {
        for entry in fs::read_dir(dir).expect("it can be listed").flatten() {
            let path = entry.path();
            if entry.file_name() == ".jin" {
                self.adopt_state(&path, original);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "objects" {
                self.adopt_states(&path, original);
            }
        }
    }

    fn adopt_state(&self, state: &Path, original: &Path) {
        let git_dir = state.parent().expect("a state directory lies in a git directory");
        let Ok(repo) = jin_txn::Repository::open(git_dir) else { return };
        let identity = jin_txn::internals::StateDir::of(&repo);
        for entry in fs::read_dir(state).expect("it can be listed").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((boot, _)) = name.strip_prefix("verified.").and_then(|rest| rest.split_once('.')) {
                let new = identity.verified_name(boot).expect("it has a name");
                fs::rename(entry.path(), state.join(new)).expect("it can be renamed");
            }
        }
        let Ok(id) = fs::read_to_string(state.join("id")) else { return };
        let note = self.scratch().join("home/.local/state/jin-txn").join(id.trim());
        let Ok(text) = fs::read(&note) else { return };
        let mut content: serde_json::Value = serde_json::from_slice(&text).expect("a note is JSON");
        let inside = self.scratch().display().to_string();
        let path = content["path"].as_str().expect("it names a path").replace(&original.display().to_string(), &inside);
        content["path"] = path.into();
        let birth = identity.birth().expect("it can be looked at");
        (content["ino"], content["born"]) = (birth.ino.into(), birth.born.into());
        fs::write(&note, content.to_string()).expect("it can be written");
    }

    fn init(&self, options: Options) {
        let mut arguments = vec!["init".to_owned(), "--quiet".to_owned(), "--template=".to_owned()];
        arguments.extend(options.bare.then(|| "--bare".to_owned()));
        arguments.extend(options.object_format.map(|format| format!("--object-format={format}")));
        arguments.extend(options.ref_format.map(|format| format!("--ref-format={format}")));
        arguments.push(self.directory.display().to_string());
        let output = self.run(Git::under_test().program.as_os_str(), &self.scratch.root, arguments, b"");
        assert!(output.status.success(), "git init failed: {}", text(&output.stderr));
        if options.guarded {
            self.install_guard();
        }
    }

    /// Lets git give up at once where a lock is in the way, instead of waiting up to a second for a process that is dead.
    pub fn do_not_wait_for_locks(&self) {
        let config = self.scratch.root.join("home/gitconfig");
        for timeout in ["filesRefLockTimeout", "packedRefsTimeout"] {
            self.git([
                OsStr::new("config"),
                "--file".as_ref(),
                config.as_ref(),
                format!("core.{timeout}").as_ref(),
                "0".as_ref(),
            ]);
        }
    }

    /// Installs jin-txn in this repository.
    pub fn install_guard(&self) {
        let output = self.jin_txn(["install"]);
        assert!(output.status.success(), "`jin-txn install` failed: {}", text(&output.stderr));
    }

    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub fn discard(&self) {
        self.scratch.discard();
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Returns the worktree's root, or `None` for a bare repository.
    pub fn worktree(&self) -> Option<&Path> {
        self.directory.join(".git").exists().then_some(self.directory.as_path())
    }

    /// Returns the (common) git directory.
    pub fn git_dir(&self) -> PathBuf {
        match self.worktree() {
            Some(worktree) => worktree.join(".git"),
            None => self.directory.clone(),
        }
    }

    pub fn uses_reftable(&self) -> bool {
        self.git_dir().join("reftable").exists()
    }

    /// Runs git here.
    ///
    /// # Panics
    /// When it fails.
    pub fn git<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.git_with_input(arguments, "")
    }

    /// A program run by [`NOBODY`]; only root can.
    pub fn as_nobody(&self, program: &OsStr) -> Command {
        let mut command = self.command("setpriv".as_ref());
        let identity = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
        command.args(identity).arg(program);
        command
    }

    /// Runs git here with something on its standard input.
    ///
    /// # Panics
    /// When it fails.
    pub fn git_with_input<I, S>(&self, arguments: I, input: &str) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let arguments: Vec<_> = arguments.into_iter().map(|it| it.as_ref().to_owned()).collect();
        let output = self.run(Git::under_test().program.as_os_str(), &self.directory, &arguments, input.as_bytes());
        assert!(output.status.success(), "git {arguments:?} failed: {}", text(&output.stderr));
        output
    }

    /// Runs git here, whatever comes of it.
    pub fn try_git<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.run(Git::under_test().program.as_os_str(), &self.directory, arguments, b"")
    }

    /// Returns the trimmed output of a git command that must succeed.
    pub fn read<I, S>(&self, arguments: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        text(&self.git(arguments).stdout).trim().to_owned()
    }

    /// Runs the binary under test here, whatever comes of it.
    pub fn jin_txn<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.run(jin_txn().as_os_str(), &self.directory, arguments, b"")
    }

    /// Runs a program in `directory` with this case's environment.
    pub fn run<I, S>(&self, program: &OsStr, directory: &Path, arguments: I, input: &[u8]) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(program);
        command.current_dir(directory).args(arguments);
        let has_input = !input.is_empty();
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        if let Some(mut pipe) = child.stdin.take() {
            // A program may end without reading all of it; its exit code tells.
            pipe.write_all(input).ok();
        }
        child.wait_with_output().expect("the program can be waited for")
    }

    /// Returns a command in this repository with nothing inherited.
    pub fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        let home = self.scratch.root.join("home");
        command
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", Git::under_test().path_variable())
            .env("HOME", &home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", home.join("gitconfig"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_EDITOR", "true")
            // A watch would be started in the background, and recover before a test looks.
            .env("JIN_WATCH", "off")
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Jin")
                .env(format!("GIT_{who}_EMAIL"), "jin@example.com")
                .env(format!("GIT_{who}_DATE"), "1700000000 +0000");
        }
        command
    }

    /// Writes a file in the worktree.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("the directory can be made");
        fs::write(path, content).expect("the file can be written");
    }

    /// Runs the binary under test here; it must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn jin(&self, arguments: &[&str]) -> String {
        let output = self.jin_txn(arguments);
        let shown = super::observe::shown(self, &output);
        assert!(output.status.success(), "{arguments:?}: {shown}");
        shown
    }

    /// Every transaction that is logged, newest first, as `jin-txn log` shows it.
    pub fn logged(&self) -> Vec<String> {
        text(&self.jin_txn(["log", "-n", "1000"]).stdout).lines().map(str::to_owned).collect()
    }

    pub fn is_protected(&self) -> bool {
        text(&self.jin_txn(["status"]).stdout).starts_with("protected")
    }

    /// Commits everything and returns the commit.
    pub fn commit_all(&self, message: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "-m", message]);
        self.read(["rev-parse", "HEAD"])
    }
}

pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Writes a file with a mode, and the directories that it lies in.
pub fn write_file(path: &Path, content: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("the directory can be made");
    fs::write(path, content).expect("the file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

/// Copies the entries of a directory with their modes and modification times.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = fs::metadata(source)?;
    let mut file = File::create(target)?;
    io::copy(&mut File::open(source)?, &mut file)?;
    file.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
    fs::set_permissions(target, fs::Permissions::from_mode(metadata.permissions().mode()))
}
