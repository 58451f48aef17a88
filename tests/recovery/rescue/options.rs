//! What else a rescue can be asked for: objects from elsewhere, work on a copy, what was replaced.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use super::damage::{empty, named, object, remove, rescue, template};
use super::judge::everything;
use crate::support::crash::run_jin;
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};
use crate::support::terminal::Terminal;

fn fetch_head(repo: &Repo) -> Vec<u8> {
    std::fs::read(repo.git_dir().join("FETCH_HEAD")).unwrap_or_default()
}

#[test]
fn missing_objects_are_fetched_and_nothing_else_is() {
    let repo = template("sha1", true);
    let other = repo.copy_as_it_is();
    other.git(["update-ref", "refs/heads/theirs", "main"]);
    let tip = object(&repo, "HEAD");
    let (refs, fetched) = (repo.read(["for-each-ref"]), fetch_head(&repo));
    named(&repo, "objects/pack", "").iter().for_each(|file| remove(&repo, file));
    remove(&repo, &tip);
    let (code, said) = rescue(&repo, &["--fetch", "ext::sh -c touch% ran"]);
    assert!(code == 1 && !repo.path().join("ran").exists(), "no program that a URL names is run: {said}");
    let (code, said) = rescue(&repo, &["--fetch", other.path().to_str().unwrap()]);
    // An earlier stash is in no ref, and a fetch gets what refs reach.
    assert!(code == 4 && said.contains("earlier values of refs/stash"), "{said}");
    assert_eq!(repo.read(["for-each-ref"]), refs, "{said}");
    repo.git(["fsck"]);
    assert_eq!(fetch_head(&repo), fetched, "nothing else of the fetch comes in");
}

#[test]
fn what_was_replaced_is_listed_shown_put_back_and_let_go() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    empty(&repo, "HEAD");
    std::fs::write(repo.git_dir().join("refs/heads/main"), "damaged\n").unwrap();
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 0, "{said}");
    let listed = run_jin(&repo, &["quarantine", "list"]).1;
    let name = |end: &str| {
        let found = listed.split_whitespace().find(|word| word.ends_with(end));
        found.unwrap_or_else(|| panic!("{end} is not in {listed}")).to_owned()
    };
    let branch = name("-refs%heads%main");
    assert_eq!(run_jin(&repo, &["quarantine", "show", &branch]), (0, "damaged\n".to_owned()));
    let value = repo.read(["rev-parse", "main"]);
    assert_eq!(run_jin(&repo, &["quarantine", "restore", &branch]).0, 0);
    assert_eq!(std::fs::read_to_string(repo.git_dir().join("refs/heads/main")).unwrap(), "damaged\n");
    assert_eq!(rescue(&repo, &[]).0, 0);
    assert_eq!(
        repo.read(["rev-parse", "main"]),
        value,
        "what a restore replaced is in quarantine too, and a rescue goes on"
    );
    assert_eq!(run_jin(&repo, &["quarantine", "restore", "nothing"]).0, 1);
    let outside = repo.scratch().join("outside");
    std::fs::write(&outside, "secret\n").unwrap();
    std::os::unix::fs::symlink(&outside, repo.git_dir().join("jin-rescue/quarantine/1-refs%heads%link")).unwrap();
    let (code, said) = run_jin(&repo, &["quarantine", "show", "1-refs%heads%link"]);
    assert!(code == 1 && !said.contains("secret"), "a link leads nowhere: {said}");
    assert_eq!(run_jin(&repo, &["quarantine", "drop", "--all"]).0, 0);
    assert!(run_jin(&repo, &["quarantine", "list"]).1.contains("nothing is in quarantine"));
}

#[test]
fn a_rescue_of_a_copy_leaves_the_original_as_it_is() {
    let repo = template("sha1", false);
    empty(&repo, "HEAD");
    empty(&repo, "refs/heads/main");
    let before = everything(&repo);
    let copy = repo.scratch().join("copy");
    let (code, said) = rescue(&repo, &["--to", copy.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert!(everything(&repo) == before, "the original is as it was");
    let copy = repo.sibling("copy");
    copy.git(["fsck"]);
    assert_eq!(copy.read(["rev-parse", "HEAD:file"]), copy.read(["hash-object", "file"]));
    assert_eq!(rescue(&repo, &["--to", repo.scratch().join("copy").to_str().unwrap()]).0, 1);
    let (code, said) = rescue(&repo, &["--to", repo.path().join("inside").to_str().unwrap()]);
    assert!(code == 1 && !repo.path().join("inside").exists(), "a copy does not go into itself: {said}");
}

#[test]
fn a_copy_borrows_from_the_same_directories_also_by_a_relative_path_in_quotes() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let (objects, lent) = (repo.git_dir().join("objects"), repo.scratch().join("le\"nt"));
    std::fs::rename(&objects, &lent).unwrap();
    std::fs::create_dir_all(objects.join("info")).unwrap();
    std::fs::write(objects.join("info/alternates"), "# a comment\n\"../../../le\\\"nt\"\n").unwrap();
    repo.git(["fsck"]);
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 0 && said.contains("nothing is wrong"), "{code}: {said}");
    empty(&repo, "HEAD");
    let copy = repo.scratch().join("deep/down/copy");
    let (code, said) = rescue(&repo, &["--to", copy.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    repo.sibling("deep/down/copy").git(["fsck"]);
}

#[test]
fn the_url_in_the_configuration_is_shown_and_asked_for_and_only_at_a_terminal() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    // It speaks to the terminal.
    let other = repo.scratch().join("other\u{1b}[2J");
    std::fs::rename(repo.copy_as_it_is().path(), &other).unwrap();
    repo.git(["remote", "add", "origin", other.to_str().unwrap()]);
    let tip = object(&repo, "HEAD");
    remove(&repo, &tip);
    let damaged = everything(&repo);
    let start = || {
        let mut command = repo.command(jin_txn().as_os_str());
        command.arg("rescue").env("TERM", "xterm");
        let mut terminal = Terminal::start(command);
        terminal.wait_for("is damaged:");
        terminal.wait_for("missing or damaged: 1 object; the configuration names");
        terminal.wait_for("other\\u{1b}[2J");
        terminal.wait_for("fetch missing objects from it? [y/N]");
        terminal
    };
    let mut terminal = start();
    terminal.type_line("");
    terminal.wait_for("Do it? Something is lost, see above. [y/N]");
    terminal.type_line("n");
    assert_eq!(terminal.ended().code(), Some(4));
    assert!(everything(&repo) == damaged, "nothing was said yes to");
    let (code, said) = rescue(&repo.copy_as_it_is(), &[]);
    assert!(code == 4 && !said.contains("fetch missing objects from it"), "`--yes` alone says nothing of it: {said}");
    let mut terminal = start();
    terminal.type_line("y");
    terminal.wait_for("Do it? [y/N]");
    terminal.type_line("y");
    terminal.wait_for("is whole again");
    assert!(terminal.ended().success());
    repo.git(["fsck"]);
}

#[test]
fn a_fetch_that_fails_leaves_the_rest_and_no_password_is_shown() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    // Nobody listens there.
    repo.git(["remote", "add", "origin", "https://me:secret@127.0.0.1:1/x"]);
    let tip = object(&repo, "HEAD");
    remove(&repo, &tip);
    let mut command = repo.command(jin_txn().as_os_str());
    command.arg("rescue").env("TERM", "xterm");
    let mut terminal = Terminal::start(command);
    let mut shown = terminal.wait_for("fetch missing objects from it? [y/N]");
    terminal.type_line("y");
    shown += &terminal.wait_for("nothing was fetched");
    terminal.wait_for("Do it? Something is lost, see above. [y/N]");
    terminal.type_line("n");
    assert_eq!(terminal.ended().code(), Some(4));
    assert!(!shown.contains("secret"), "{shown}");
}

/// A rescue whose gits that check packs each wait for a line in a FIFO.
fn held(repo: &Repo, arguments: &[&str], term: &str) -> (Command, File) {
    let (bin, git) = (repo.scratch().join("bin"), Git::under_test());
    let fifo = repo.scratch().join(format!("{term}{}", arguments.concat()));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *verify-pack*) read -r _ <\"$HELD\";; esac\n";
    write_file(&bin.join("git"), &format!("{script}exec '{}' \"$@\"\n", git.program.display()), 0o755);
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(git.path_variable());
    let mut command = repo.command(jin_txn().as_os_str());
    command.arg("rescue").args(arguments).env("TERM", term).env("PATH", path).env("HELD", &fifo);
    (command, File::options().read(true).write(true).open(fifo).unwrap())
}

#[test]
fn a_rescue_that_takes_long_says_at_a_terminal_what_it_is_doing_and_leaves_nothing_of_that() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    repo.git(["repack", "-a", "-d", "-q"]);
    empty(&repo, "HEAD");
    let damaged = repo.copy_as_it_is();
    // Whoever shows nothing has been at work for longer than the one that shows something.
    let (mut piped, pipe_waits) = held(&repo, &["--dry-run"], "xterm");
    let piped = piped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let unmoved = [(&["--dry-run"][..], "dumb"), (&["--dry-run", "-q"], "xterm")].map(|(arguments, term)| {
        let (command, waits) = held(&repo, arguments, term);
        (Terminal::start(command), waits)
    });
    let (command, mut waits) = held(&damaged, &["--yes"], "xterm");
    let mut terminal = Terminal::start(command);
    const STAGE: &str = "jin-txn: checking pack 1 of 1 ... ";
    terminal.wait_for(&format!("{STAGE}|"));
    terminal.wait_for(&format!("{STAGE}/"));
    let names = |text: &str, repo: &Repo| text.replace(&repo.scratch().display().to_string(), "[DIR]");
    const FOUND: &str = "jin-txn: [DIR]/repo/.git is damaged:\n  HEAD is missing, empty or damaged: by its reflog it means refs/heads/main\n";
    (&pipe_waits).write_all(b"go\n").unwrap();
    let piped = piped.wait_with_output().unwrap();
    let mut quiet = vec![(piped.status.code(), text(&piped.stderr).into_owned(), String::new())];
    for (terminal, mut waits) in unmoved {
        waits.write_all(b"go\n").unwrap();
        quiet.push(terminal.left());
    }
    let quiet = quiet.into_iter().map(|(code, left, shown)| {
        assert!(!shown.contains("checking pack"), "{shown}");
        (code, names(&left, &repo))
    });
    assert_eq!(quiet.collect::<Vec<_>>(), [FOUND, FOUND, ""].map(|said| (Some(3), said.to_owned())));
    // What is looked at again in the end takes as long.
    waits.write_all(b"go\n").unwrap();
    terminal.wait_for("HEAD");
    terminal.wait_for(STAGE);
    waits.write_all(b"go\n").unwrap();
    let (code, left, _) = terminal.left();
    assert_eq!(code, Some(0), "{left}");
    insta::assert_snapshot!(names(&left, &damaged), @r"
    jin-txn: [DIR]/repo/.git is damaged:
      HEAD is missing, empty or damaged: by its reflog it means refs/heads/main
    jin-txn: what was replaced is in [DIR]/repo/.git/jin-rescue/quarantine
    jin-txn: [DIR]/repo/.git is whole again
    ");
}

#[test]
fn a_reftable_is_refused_with_what_can_be_done() {
    if !Git::under_test().is_at_least(2, 45) {
        return;
    }
    let repo = Repo::new(Options { ref_format: Some("reftable"), ..Options::default() });
    repo.commit_all("one");
    let before = everything(&repo);
    let (code, said) = rescue(&repo, &[]);
    let said = said.replace(repo.path().to_str().unwrap(), "<repo>");
    assert_eq!(code, 1, "{said}");
    insta::assert_snapshot!(said);
    assert!(everything(&repo) == before);
}

#[test]
fn a_protected_repository_is_recovered_by_its_log_and_keeps_what_was_replaced_there() {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.commit_all("one");
    let blob = object(&repo, "HEAD:file");
    empty(&repo, &blob);
    empty(&repo, "index.lock");
    let damaged = everything(&repo);
    repo.jin_txn(["rescue"]);
    assert!(everything(&repo) == damaged, "nothing is done before it is told to");
    let (code, said) = rescue(&repo, &[]);
    assert_eq!(code, 0, "{said}");
    repo.git(["fsck"]);
    repo.commit_all("two");
    assert!(!repo.git_dir().join("jin-rescue").exists() && repo.is_protected());
    assert!(run_jin(&repo, &["quarantine", "list"]).1.contains("-objects%"), "what was replaced is in its quarantine");
}

#[test]
fn what_goes_back_goes_to_its_own_place() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let names = ["release/1", "release/1.1", "50%off"];
    let path = |name: &str| repo.git_dir().join("refs/heads").join(name);
    for name in names {
        repo.git(["branch", name]);
        std::fs::write(path(name), format!("damaged {name}\n")).unwrap();
    }
    assert_eq!(rescue(&repo, &[]).0, 0);
    let whole = repo.read(["for-each-ref", "--format=%(refname)"]);
    let listed = run_jin(&repo, &["quarantine", "list"]).1;
    for (name, end) in names.iter().zip(["-refs%heads%release%1", "-refs%heads%release%1.1", "-refs%heads%50%:off"]) {
        let item = listed.split_whitespace().find(|word| word.ends_with(end)).unwrap_or_else(|| panic!("{listed}"));
        assert_eq!(run_jin(&repo, &["quarantine", "restore", item]).0, 0);
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), format!("damaged {name}\n"));
    }
    assert_eq!(rescue(&repo, &[]).0, 0);
    assert_eq!(repo.read(["for-each-ref", "--format=%(refname)"]), whole, "and nowhere else");
}

#[test]
fn a_link_in_quarantine_is_not_followed() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let (secret, dir) = (repo.scratch().join("secret"), repo.git_dir().join("jin-rescue/quarantine"));
    std::fs::write(&secret, "secret\n").unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink(&secret, dir.join("1-config")).unwrap();
    let (code, said) = run_jin(&repo, &["quarantine", "show", "1-config"]);
    assert!(code == 1 && !said.contains("secret\n"), "{said}");
}

#[test]
fn loose_objects_that_are_too_large_to_be_kept_do_not_keep_the_rest_from_being_repaired() {
    let repo = Repo::new(Options::default());
    repo.commit_all("one");
    let large = repo.git_dir().join("objects/12");
    std::fs::create_dir_all(&large).unwrap();
    std::fs::File::create(large.join("3".repeat(38))).unwrap().set_len(1 << 31).unwrap();
    empty(&repo, "HEAD");
    std::fs::write(repo.git_dir().join("refs/heads/lost"), format!("{}\n", "12".repeat(20))).unwrap();
    let (code, said) = rescue(&repo, &[]);
    assert!(code == 4 && said.contains("too many loose objects"), "{code}: {said}");
    repo.git(["status"]);
}
