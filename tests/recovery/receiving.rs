//! Where it is pushed to: over every transport, beside a `pre-receive` hook, and with a receiver that is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::crash::{self, value};
use crate::support::http::{Backend, Server};
use crate::support::observe::{age, assert_same, times, tree};
use crate::support::point::let_the_clock_tick;
use crate::support::repo::{Git, Options, Repo, text, write_file};
use crate::support::tracer::Action;
use crate::support::wait::wait_until;

fn unprotected() -> Repo {
    let repo = Repo::new(Options::default());
    repo.write("file", "one\n");
    repo.commit_all("one");
    repo
}

/// A protected bare repository beside `repo`, which it is a remote of.
fn receiver(repo: &Repo) -> Repo {
    let bare = repo.new_sibling("bare.git", Options { bare: true, guarded: true, ..Options::default() });
    bare.git(["config", "core.logAllRefUpdates", "true"]);
    bare
}

/// A git that can push over HTTP: the one under test, or another one for it to receive from.
fn http_client() -> Option<PathBuf> {
    let usual = ["/usr/bin/git", "/usr/local/bin/git"].map(PathBuf::from);
    let speaks_http = |git: &PathBuf| {
        let output = Command::new(git).arg("--exec-path").output();
        output.is_ok_and(|output| Path::new(text(&output.stdout).trim()).join("git-remote-http").exists())
    };
    let client = std::iter::once(Git::under_test().program.clone()).chain(usual).find(speaks_http);
    if client.is_none() {
        println!("skipped: no git here speaks HTTP");
    }
    client
}

#[test]
fn what_is_pushed_is_logged_over_every_transport() {
    let repo = unprotected();
    let bare = receiver(&repo);
    let server = Server::start(&repo);
    let ssh = repo.scratch().join("ssh");
    // Runs the command where it is, as ssh would elsewhere: its last argument is the command line.
    fs::write(&ssh, "#!/bin/sh\nfor command; do :; done\ncd / && exec sh -c \"$command\"\n")
        .expect("it can be written");
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    let ssh = ssh.display().to_string();
    let path = bare.path().display().to_string();
    let usual = Some(Git::under_test().program.clone());
    let ways = [
        ("a path", usual.clone(), path.clone()),
        ("file", usual.clone(), format!("file://{path}")),
        ("ssh", usual, format!("ssh://host{path}")),
        ("http", http_client(), server.url("bare.git")),
    ];
    for (count, (name, client, url)) in ways.into_iter().enumerate() {
        let Some(client) = client else { continue };
        let refspec = format!("HEAD:refs/heads/{}", name.replace(' ', "-"));
        let mut git = repo.command(client.as_os_str());
        git.env("GIT_SSH_COMMAND", &ssh).env("GIT_SSH_VARIANT", "ssh").stdin(Stdio::null());
        let output = git.args(["push", "-q", &url, &refspec]).output().expect("git runs");
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "{name} is silent: {}", text(&output.stderr));
        let log = bare.logged();
        assert_eq!(log.len(), count + 1, "{name}: {log:?}");
        assert!(log[0].contains("committed") && log[0].contains("receive-pack"), "{name}: {}", log[0]);
    }
}

/// Two hundred refs in a protected bare repository behind HTTP, all at one commit, which are pushed to the next.
struct Push {
    repo: Repo,
    bare: Repo,
    client: PathBuf,
    names: Vec<String>,
    new: String,
}

impl Push {
    const REFS: usize = 200;

    fn new() -> Option<Push> {
        let client = http_client()?;
        let repo = unprotected();
        let bare = receiver(&repo);
        let old = repo.read(["rev-parse", "HEAD"]);
        let new = repo.commit_all("two");
        let names = (0..Self::REFS).map(|n| format!("refs/heads/many/{n:03}")).collect();
        let push = Push { repo, bare, client, names, new };
        let first = push.of(&old, &Server::start(&push.repo));
        assert!(first.status.success(), "the first push works: {}", text(&first.stderr));
        Some(push)
    }

    fn start(&self, id: &str, server: &Server) -> std::process::Child {
        let refspecs: Vec<String> = self.names.iter().map(|name| format!("{id}:{name}")).collect();
        let mut git = self.repo.command(self.client.as_os_str());
        git.args(["push", "-q", "--atomic", &server.url("bare.git")]).args(refspecs).stdin(Stdio::null());
        git.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("git starts")
    }

    fn of(&self, id: &str, server: &Server) -> Output {
        self.start(id, server).wait_with_output().expect("git can be waited for")
    }

    fn value(&self, name: &str) -> String {
        fs::read_to_string(self.bare.path().join(name)).unwrap_or_default().trim().to_owned()
    }

    /// How many have the new value.
    fn count(&self) -> usize {
        self.names.iter().filter(|name| self.value(name) == self.new).count()
    }

    /// Pushes, and kills the receiver when it has renamed `applied` refs into place: the next one's reflog is a FIFO
    /// that nobody reads.
    fn kill_after(&self, applied: usize, server: &Server) {
        let log = self.bare.path().join("logs").join(&self.names[applied]);
        let aside = self.repo.scratch().join("reflog");
        fs::rename(&log, &aside).expect("the reflog can be moved aside");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO can be made");
        let push = self.start(&self.new, server);
        let lock = self.bare.path().join(format!("{}.lock", self.names[applied]));
        let arrived = || match applied {
            // By then the hook has let it go on.
            0 => lock.exists() && self.is_logged(),
            _ => self.value(&self.names[applied - 1]) == self.new,
        };
        wait_until(&format!("git comes to number {applied}"), arrived);
        assert_eq!(server.kill_backends(), 1, "the receiver is killed with all of its children");
        let push = push.wait_with_output().expect("git can be waited for");
        assert!(!push.status.success(), "the pusher hears of it");
        fs::rename(&aside, &log).expect("the reflog can be put back");
        assert_eq!(self.count(), applied, "the transaction is cut there");
    }

    fn is_logged(&self) -> bool {
        let log = self.bare.jin_txn(["log"]);
        text(&log.stdout).lines().next().is_some_and(|newest| newest.contains(" begun "))
    }

    fn assert_done(&self, last: &Output) {
        assert!(last.status.success(), "the next push works: {}", text(&last.stderr));
        assert_eq!(self.count(), Self::REFS, "it is all there");
        assert_eq!(self.bare.jin_txn(["check"]).status.code(), Some(0), "nothing is left");
        self.bare.git(["fsck", "--full"]);
    }
}

#[test]
fn after_a_push_that_was_killed_the_next_one_finds_all_or_nothing_behind_the_shim_and_works() {
    let backends: [(&str, Backend); 2] = [("git", &["git", "http-backend"]), ("a CGI program", &["git-http-backend"])];
    for (name, backend) in backends {
        for applied in [0, 1, Push::REFS / 2, Push::REFS - 1] {
            let Some(push) = Push::new() else { return };
            let shim = push.repo.scratch().join("shim");
            push.repo.jin(&["install", "--shim", &shim.display().to_string()]);
            let real = Git::under_test().program.parent().expect("it lies in a directory").to_owned();
            let server = Server::with(&push.repo, backend, vec![shim, real]);
            push.kill_after(applied, &server);
            let shown =
                push.repo.command(push.client.as_os_str()).args(["ls-remote", &server.url("bare.git")]).output();
            let shown = shown.expect("git runs");
            let whole = text(&shown.stdout).matches(&push.new).count();
            assert_eq!(whole, 0, "{name}, {applied}: what is read next is all or nothing: {}", text(&shown.stderr));
            push.assert_done(&push.of(&push.new, &server));
        }
    }
}

#[test]
fn after_a_push_that_was_killed_the_hooks_alone_refuse_the_next_one_at_most_once() {
    for applied in [0, 1, Push::REFS / 2, Push::REFS - 1] {
        let Some(push) = Push::new() else { return };
        let server = Server::start(&push.repo);
        push.kill_after(applied, &server);
        if applied > 0 {
            // The pusher is shown torn refs: what it leaves out because it looks done would be missing.
            let third = push.of(&push.new, &server);
            let said = text(&third.stderr);
            assert!(!third.status.success(), "{applied}: a push that is built on torn refs is refused");
            assert!(said.contains("this push was built on what has been recovered just now: push again"), "{said}");
            assert_eq!(push.count(), 0, "{applied}: it is all or nothing");
        }
        push.assert_done(&push.of(&push.new, &server));
    }
}

/// The pusher was shown a repository without the branch: what it left out because of that would be missing.
#[test]
fn a_push_that_was_shown_a_cut_rename_is_refused_once() {
    let repo = unprotected();
    let bare = receiver(&repo);
    let url = bare.path().display().to_string();
    repo.git(["push", "-q", &url, "HEAD:refs/heads/a"]);
    crash::kill_at(crash::git(&bare, &["branch", "-m", "a", "b"]), "", Action::KillTree, |event| {
        crash::is_rename_to(event, "logs/refs/heads/b")
    });
    assert_eq!([value(&bare, "refs/heads/a"), value(&bare, "refs/heads/b")], ["", ""], "the rename was cut");
    let_the_clock_tick(&bare.git_dir());
    let refused = repo.try_git(["push", "-q", &url, "HEAD:refs/heads/c"]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success(), "the push is refused: {said}");
    assert!(said.contains("this push was built on what has been recovered just now: push again"), "{said}");
    assert_eq!(value(&bare, "refs/heads/a"), repo.read(["rev-parse", "HEAD"]), "the branch is back");
    repo.git(["push", "-q", &url, "HEAD:refs/heads/c"]);
    assert_eq!(value(&bare, "refs/heads/c"), repo.read(["rev-parse", "HEAD"]));
}

#[test]
fn locks_that_a_killed_receiver_left_before_any_record_are_out_of_the_next_pushs_way() {
    let Some(push) = Push::new() else { return };
    for name in &push.names {
        fs::write(push.bare.path().join(format!("{name}.lock")), "").expect("a lock can be left");
    }
    let_the_clock_tick(push.bare.path());
    push.assert_done(&push.of(&push.new, &Server::start(&push.repo)));
}

#[test]
fn a_pre_receive_hook_that_was_there_gets_its_input_and_its_veto_counts() {
    const HOOK: &str =
        "#!/bin/sh\ncat >>../received\necho \"in $GIT_QUARANTINE_PATH\" >>../received\n[ ! -e ../veto ]\n";
    let repo = unprotected();
    let bare = repo.new_sibling("bare.git", Options { bare: true, ..Options::default() });
    write_file(&bare.path().join("hooks/pre-receive"), HOOK, 0o750);
    age(&bare.path().join("hooks"));
    let before = (tree(bare.path()), times(&bare.path().join("hooks")));
    bare.jin(&["install"]);
    bare.jin(&["install"]);
    let received = repo.scratch().join("received");
    let push = |branch: &str| repo.try_git(["push", "-q", "../bare.git", &format!("HEAD:refs/heads/{branch}")]);
    assert!(push("one").status.success(), "it can be pushed to");
    let head = repo.read(["rev-parse", "HEAD"]);
    let notes = fs::read_to_string(&received).expect("it has run");
    let zeros = "0".repeat(40);
    assert!(notes.starts_with(&format!("{zeros} {head} refs/heads/one\nin {}", bare.path().display())), "{notes}");
    assert_eq!(notes.lines().count(), 2, "once: {notes}");
    fs::write(repo.scratch().join("veto"), "").expect("it can be written");
    assert!(!push("two").status.success(), "its veto counts");
    assert_eq!(bare.try_git(["rev-parse", "-q", "--verify", "refs/heads/two"]).status.code(), Some(1));
    fs::remove_file(repo.scratch().join("veto")).expect("it is there");
    bare.git(["update-ref", "-d", "refs/heads/one"]);
    bare.jin(&["uninstall", "--purge"]);
    let hooks = |tree: crate::support::observe::Tree| -> crate::support::observe::Tree {
        tree.into_iter().filter(|(name, _)| name.starts_with("hooks") || name.ends_with("config")).collect()
    };
    assert_same(&hooks(before.0), &hooks(tree(bare.path())), "everything is back");
    assert_eq!(before.1, times(&bare.path().join("hooks")), "with its times");
}

#[test]
fn a_pre_receive_hook_is_only_where_it_is_pushed_to_and_a_missing_one_is_told() {
    let repo = unprotected();
    repo.jin(&["install"]);
    assert!(!repo.git_dir().join("hooks/pre-receive").exists(), "nobody pushes here");
    let bare = receiver(&repo);
    fs::remove_file(bare.path().join("hooks/pre-receive")).expect("it is there");
    let status = bare.jin(&["status"]);
    assert!(status.starts_with("protected: "), "it is logged all the same: {status}");
    let told = status.contains("  hooks: the pre-receive hook is missing: run `jin-txn install`");
    assert_eq!(told, !Git::under_test().is_at_least(2, 54), "only an older git needs it: {status}");
    let doctor = bare.jin_txn(["doctor", "--fix"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor.stdout));
    assert_eq!(bare.path().join("hooks/pre-receive").exists(), told, "and is put there");
}
