//! The scripts in docs/recipes do what the pages say, with a git that is killed in the middle.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::observe::tree;
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};
use crate::support::wait::comes_true;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes").join(name)
}

/// A script of docs/recipes in a repository, with jin-txn in PATH.
fn recipe(repo: &Repo, name: &str) -> Command {
    with_jin_txn(repo, &script(name))
}

fn with_jin_txn(repo: &Repo, program: &Path) -> Command {
    let bin = repo.scratch().join("recipe-bin");
    if !bin.exists() {
        fs::create_dir(&bin).expect("it can be made");
        std::os::unix::fs::symlink(jin_txn(), bin.join("jin-txn")).expect("a link can be made");
    }
    let mut command = repo.command(program.as_os_str());
    let usual = Git::under_test().path_variable();
    let path = [bin.into_os_string(), usual, "/usr/sbin".into()].join(":".as_ref());
    command.env("PATH", path).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Output {
    run_in(&mut command)
}

/// From now on a hook of the user kills its git as soon as that holds all locks, once for each `arm`.
fn let_a_hook_kill(repo: &Repo) {
    let hook = repo.git_dir().join("hooks/reference-transaction");
    fs::remove_file(&hook).ok();
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\n[ \"$1\" != prepared ] || ! rm '{}' 2>/dev/null || kill -KILL $PPID\n",
        armed(repo).display()
    );
    write_file(&hook, &script, 0o755);
    repo.install_guard();
}

fn armed(repo: &Repo) -> PathBuf {
    repo.scratch().join("kill-the-next-git")
}

fn arm(repo: &Repo) {
    fs::write(armed(repo), "").expect("it can be written");
}

/// The locks of git.
fn locks(repo: &Repo) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.starts_with(".jin");
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|it| it == "lock");
    tree(&repo.git_dir()).into_keys().filter(|path| is_lock(path) && !ours(path)).collect()
}

fn killed_once() -> Repo {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let_a_hook_kill(&repo);
    repo.write("file", "two\n");
    repo.git(["add", "file"]);
    arm(&repo);
    repo
}

#[test]
fn behind_the_wrapper_with_a_timeout_a_killed_git_is_in_nobodys_way() {
    let repo = killed_once();
    let before = repo.read(["rev-parse", "HEAD"]);
    let wrapper = |arguments: &[&str]| {
        let mut command = recipe(&repo, "git-with-timeout.sh");
        command.args(arguments).env("GIT_EDITOR", "sleep 60; :").env("GIT_TIMEOUT_KILL_AFTER", "60");
        run(command)
    };
    let output = wrapper(&["60", "commit", "-q", "-a", "-m", "two"]);
    assert_eq!(output.status.code(), Some(137), "the code of a killed git: {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("jin-txn:"), "it says what was recovered: {}", text(&output.stderr));
    assert_eq!(repo.read(["rev-parse", "HEAD"]), before, "it has not happened");
    assert_eq!(locks(&repo), Vec::<PathBuf>::new());
    let output = wrapper(&["0.2", "commit", "-a"]);
    assert_eq!(output.status.code(), Some(124), "it took too long: {}", text(&output.stderr));
    assert_eq!(locks(&repo), Vec::<PathBuf>::new());
    repo.git(["commit", "-q", "-a", "-m", "two"]);
    assert_eq!(wrapper(&["60", "rev-parse", "--verify", "-q", "nowhere"]).status.code(), Some(1), "git's own code");
}

#[test]
fn a_job_goes_on_where_a_killed_job_stopped() {
    let repo = killed_once();
    assert!(repo.try_git(["commit", "-q", "-a", "-m", "two"]).status.code().is_none(), "git is killed");
    assert!(!locks(&repo).is_empty(), "it leaves locks");
    let shim = repo.scratch().join("ci-shim");
    let job = |arguments: &[&str]| {
        let mut command = recipe(&repo, "ci.sh");
        command.arg(repo.path()).args(arguments).env("JIN_SHIM_DIR", &shim).current_dir("/");
        run(command)
    };
    assert!(job(&["true"]).status.success());
    assert_eq!(locks(&repo), Vec::<PathBuf>::new(), "also where the next job calls no git");
    let output = job(&["git", "commit", "-q", "-a", "-m", "two"]);
    assert!(output.status.success(), "the next job works: {}", text(&output.stderr));
    assert_eq!(repo.read(["show", "HEAD:file"]), "two");
    assert_eq!(job(&["sh", "-c", "exit 7"]).status.code(), Some(7), "the code of the command");
    let output = job(&["sh", "-c", "command -v git"]);
    assert_eq!(text(&output.stdout).trim(), shim.join("git").display().to_string(), "the shim comes first");
}

/// A bare repository as the recipe makes it, and a clone with something to push.
fn served(name: &str) -> (Repo, Repo) {
    let client = Repo::new(Options::default());
    client.commit_all("one");
    let mut command = recipe(&client, "bare.sh");
    command.arg(client.scratch().join("served").join(name)).current_dir("/");
    let output = run(command);
    assert!(output.status.success(), "it can be made: {}", text(&output.stderr));
    let server = client.sibling(&format!("served/{name}"));
    let_a_hook_kill(&server);
    arm(&server);
    (client, server)
}

/// A push is killed on the server; whoever asks next finds it recovered, and pushes at once.
fn is_recovered_by_the_next_request(client: &Repo, server: &Repo, url: &str) {
    let push = client.try_git(["push", "-q", url, "main"]);
    assert!(!push.status.success(), "the receiver is killed");
    assert!(!armed(server).exists(), "by the hook: {}", text(&push.stderr));
    let recovered = || client.try_git(["ls-remote", url]).status.success() && locks(server).is_empty();
    assert!(comes_true(recovered), "left: {:?}", locks(server));
    let push = client.try_git(["push", "-q", url, "main"]);
    assert!(push.status.success(), "the next push works: {}", text(&push.stderr));
    assert_eq!(server.read(["rev-parse", "main"]), client.read(["rev-parse", "main"]));
}

#[test]
fn git_daemon_recovers_before_it_shows_refs() {
    if !program_exists(Git::under_test(), "git-daemon") {
        return eprintln!("SKIPPED: this git has no git daemon");
    }
    let (client, server) = served("r.git");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let url = format!("git://127.0.0.1:{}/r.git", listener.local_addr().expect("it is bound").port());
    let base = server.scratch().join("served");
    let daemon = client.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut command = recipe(&daemon, "git-daemon.sh");
            let second = OwnedFd::from(stream.try_clone().expect("it can be duplicated"));
            command.arg(&base).stdin(OwnedFd::from(stream)).stdout(second).stderr(Stdio::null());
            let mut child = command.spawn().expect("the script starts");
            drop(command);
            std::thread::spawn(move || child.wait());
        }
    });
    is_recovered_by_the_next_request(&client, &server, &url);
}

fn program_exists(git: &Git, name: &str) -> bool {
    let output = Command::new(&git.program).arg("--exec-path").output().expect("git runs");
    Path::new(text(&output.stdout).trim()).join(name).exists()
}

/// Ends with its processes.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits")), Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

#[test]
fn nginx_recovers_before_it_shows_refs() {
    let is_there = |name: &&str| ["/usr/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    let missing = ["nginx", "fcgiwrap"].into_iter().find(|name| !is_there(name));
    let has_http = program_exists(Git::under_test(), "git-remote-http");
    if let Some(missing) = missing.or((!has_http).then_some("git-remote-http")) {
        return eprintln!("SKIPPED: there is no {missing}");
    }
    let (client, server) = served("r.git");
    let work = client.scratch().join("nginx");
    // Somebody else may take the port before nginx does.
    let started = (0..5).find_map(|_| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let mut command = recipe(&client, "nginx.sh");
        command.arg(client.scratch().join("served")).arg(port.to_string()).arg(&work);
        let mut nginx = Nginx(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the script starts"));
        let answers = || nginx.0.try_wait().is_ok_and(|ended| ended.is_some()) || work.join("nginx.pid").exists();
        (comes_true(answers) && work.join("nginx.pid").exists()).then_some((nginx, port))
    });
    let (_nginx, port) = started.unwrap_or_else(|| panic!("{:?}", fs::read_to_string(work.join("error.log"))));
    let url = format!("http://127.0.0.1:{port}/r.git");
    is_recovered_by_the_next_request(&client, &server, &url);
}

const GITOLITE: &str = "/usr/share/gitolite3/gitolite-shell";

/// The home of gitolite's user: the settings that the recipe names, its trigger, and repositories.
fn gitolite(client: &Repo) -> PathBuf {
    let home = client.scratch().join("gitolite");
    let triggers = home.join("local/triggers");
    fs::create_dir_all(&triggers).expect("it can be made");
    fs::copy(script("gitolite-trigger.sh"), triggers.join("jin-txn")).expect("it can be copied");
    let run_gitolite = |arguments: &[&str]| {
        let mut command = with_jin_txn(client, Path::new("/usr/bin/gitolite"));
        let output = run_in(command.args(arguments).env("HOME", &home).current_dir(&home));
        assert!(output.status.success(), "gitolite {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).into_owned()
    };
    let recipe = fs::read_to_string(script("gitolite-trigger.sh")).expect("it is text");
    let settings: Vec<&str> = recipe.lines().filter_map(|line| line.strip_prefix("#     ")).collect();
    run_gitolite(&["setup", "-a", "someone"]);
    let usual = run_gitolite(&["print-default-rc"]);
    let rc = usual.replacen("%RC = (", &format!("%RC = ({}", settings.concat()), 1);
    fs::write(home.join(".gitolite.rc"), rc).expect("it can be written");
    // It is made once more, with the settings.
    fs::remove_dir_all(home.join("repositories/testing.git")).expect("gitolite has made it");
    run_gitolite(&["setup"]);
    home
}

fn run_in(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

#[test]
fn gitolite_protects_new_repositories_and_recovers_before_it_shows_refs() {
    if !Path::new(GITOLITE).exists() {
        return eprintln!("SKIPPED: there is no gitolite3");
    }
    let client = Repo::new(Options::default());
    client.commit_all("one");
    let home = gitolite(&client);
    let server = client.sibling("gitolite/repositories/testing.git");
    assert!(server.is_protected(), "gitolite has created it, and the trigger protects it");
    let_a_hook_kill(&server);
    arm(&server);
    // What sshd does for a key of `someone`.
    let path = with_jin_txn(&client, Path::new("true"));
    let path = path.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).expect("it is set");
    let ssh = client.scratch().join("ssh");
    let content = format!(
        "#!/bin/sh\nshift\nexport HOME='{}' PATH='{}' SSH_ORIGINAL_COMMAND=\"$*\"\n\
         export SSH_CONNECTION='127.0.0.1 1 127.0.0.1 22'\nexec {GITOLITE} someone\n",
        home.display(),
        path.display()
    );
    write_file(&ssh, &content, 0o755);
    client.git(["config", "core.sshCommand", &ssh.display().to_string()]);
    client.git(["config", "ssh.variant", "simple"]);
    is_recovered_by_the_next_request(&client, &server, "git@server:testing");
}
