//! What a run takes back, byte for byte, and what it leaves alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::crash::{self, assert_fsck, assert_recovers, run_jin, value};
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};
use crate::support::scenes::Whole;
use crate::support::tracer::Action;

pub fn guarded() -> Repo {
    let repo = Repo::new(Options { guarded: true, ..Options::default() });
    repo.write("file", "one\n");
    repo.write("dir/inner", "one\n");
    repo.commit_all("one");
    repo.write("file", "two\n");
    repo.commit_all("two");
    repo
}

/// Runs a script under `jin-txn run`; returns the exit code with what was said.
pub fn run_script(repo: &Repo, script: &str) -> (i32, String) {
    run_jin(repo, &["run", "--", "sh", "-ec", script])
}

/// Runs a script that must fail, and asserts that it leaves no trace.
#[track_caller]
pub fn assert_no_trace(repo: &Repo, script: &str) {
    let before = Whole::of(repo);
    let (code, said) = run_script(repo, &format!("{script}\nexit 9"));
    assert_eq!(code, 9, "{said}");
    let after = Whole::of(repo);
    assert!(before == after, "it left a trace:\n  {}\n{said}", after.differences(&before));
    assert_fsck(repo);
    let (code, said) = run_jin(repo, &["check"]);
    assert_eq!(code, 0, "{said}");
}

/// Kills a script with its whole tree when it comes to `: now`.
pub fn kill_script(repo: &Repo, script: &str) {
    let marked = script.replace(": now", "echo >../now");
    let command = {
        let mut command = crash::jin(repo, &["run", "--", "sh", "-ec"]);
        command.arg(marked);
        command
    };
    crash::kill_at(command, "", Action::KillTree, |event| {
        event.path.as_deref().is_some_and(|path| path.ends_with("now"))
    });
}

pub fn quarantined(repo: &Repo) -> Vec<String> {
    let dir = repo.git_dir().join(".jin/quarantine");
    let files = crate::support::snapshot::walk(&dir, &|_| true);
    files.iter().map(|path| text(&fs::read(path).unwrap_or_default()).into_owned()).collect()
}

#[test]
fn a_script_that_succeeds_keeps_everything() {
    let repo = guarded();
    let (code, said) = run_script(&repo, "echo three >file; git commit -qam three; git tag v1; echo new >new");
    assert_eq!((code, said.as_str()), (0, ""), "a run that succeeds says nothing");
    assert_eq!(repo.read(["log", "-1", "--format=%s", "v1"]), "three");
    assert_eq!(repo.read(["status", "--porcelain"]), "?? new");
    assert_eq!(run_jin(&repo, &["check"]).0, 0);
}

#[test]
fn uncommitted_work_comes_back_byte_for_byte() {
    let repo = guarded();
    repo.write("file", "mine\r\n\0\u{1}");
    repo.write("staged", "staged\n");
    repo.git(["add", "staged"]);
    repo.write("staged", "and changed\n");
    repo.write("untracked", "mine\n");
    fs::set_permissions(repo.path().join("untracked"), fs::Permissions::from_mode(0o711)).expect("it is there");
    assert_no_trace(&repo, "git reset -q --hard; rm -f untracked; git clean -fdxq; git commit -q --allow-empty -m x");
    assert_no_trace(&repo, "git stash push -q -u; git switch -q -c other; echo x >untracked");
    assert_no_trace(&repo, "chmod 600 untracked; git add -A; git commit -qm all; git rm -rq .");
}

#[test]
fn files_and_directories_change_places_and_change_back() {
    let repo = guarded();
    symlink("dir", repo.path().join("link")).expect("a link can be made");
    assert_no_trace(&repo, "rm -r dir file; echo >dir; mkdir file; echo >file/x; rm link; mkdir link; echo >link/y");
    assert_no_trace(&repo, "rm -r dir; ln -s /tmp dir; rm link; echo no link >link");
    assert_no_trace(&repo, "git mv dir moved; git commit -qm moved; git branch -m main main2; git branch main/sub");
}

#[test]
fn branches_whose_names_exclude_each_other_come_back() {
    let repo = guarded();
    repo.git(["branch", "topic", "HEAD~1"]);
    repo.git(["branch", "deep/er/branch"]);
    assert_no_trace(&repo, "git branch -m topic topic/sub; git branch -D deep/er/branch; git branch deep");
}

#[test]
fn stashes_come_back_with_their_whole_list() {
    let repo = guarded();
    for content in ["first", "second", "third"] {
        repo.write("file", content);
        repo.git(["stash", "push", "-q", "-m", content]);
    }
    assert_no_trace(&repo, "git stash drop -q stash@{1}");
    assert_no_trace(&repo, "git stash pop -q; git checkout -q .; git stash pop -q; git checkout -q .");
    assert_no_trace(&repo, "git stash clear");
    assert_eq!(repo.read(["stash", "list"]).lines().count(), 3);
}

#[test]
fn an_ignored_file_is_left_alone_unless_git_or_the_script_takes_it_away() {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "tracks"]);
    repo.write("config.env", "theirs\n");
    repo.commit_all("tracks it");
    repo.git(["switch", "-q", "main"]);
    repo.write(".gitignore", "*.env\ncache/\n");
    repo.commit_all("ignores it");
    repo.write("config.env", "my secret\n");
    repo.write("cache/big", "mine\n");
    repo.write("built.env", "old\n");
    // git overwrites an ignored file without asking when another branch tracks it.
    assert_no_trace(&repo, "git switch -q tracks");
    assert_no_trace(&repo, "git clean -fdxq");
    assert_no_trace(
        &repo,
        ": >.gitignore; git commit -qam empty; git clean -fdq; git add -A; git commit -q --allow-empty -m all",
    );
    // What the script itself makes of an ignored file stays.
    let (code, said) = run_script(&repo, "echo new >built.env; echo made >made.env; exit 9");
    assert_eq!(code, 9, "{said}");
    let content = |name: &str| fs::read_to_string(repo.path().join(name)).expect("it is there");
    assert_eq!((content("built.env"), content("made.env")), ("new\n".into(), "made\n".into()));
    // Another file in its place: the old one is kept aside.
    let (code, said) = run_script(&repo, "echo replaced >x; mv x built.env; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!(content("built.env"), "replaced\n");
    assert!(quarantined(&repo).contains(&"new\n".to_owned()), "the replaced file is in quarantine");
}

#[test]
fn what_makes_way_is_in_quarantine_and_show_says_where() {
    let repo = guarded();
    let (_, said) = run_script(&repo, "echo precious >made; echo changed >file; exit 9");
    let kept = quarantined(&repo);
    assert!(kept.contains(&"precious\n".to_owned()) && kept.contains(&"changed\n".to_owned()), "{said}\n{kept:?}");
    let (_, shown) = run_jin(&repo, &["show", "tx-3"]);
    assert!(shown.contains(".jin/quarantine/"), "{shown}");
}

#[test]
fn bytes_that_git_would_convert_come_back_as_they_were() {
    let repo = guarded();
    repo.write(".gitattributes", "*.rot filter=rot\n*.txt text eol=crlf\n*.auto text=auto\n*.id ident\n");
    repo.git(["config", "filter.rot.clean", "tr a-z n-za-m"]);
    repo.git(["config", "filter.rot.smudge", "tr a-z n-za-m"]);
    repo.write("secret.rot", "attack\n");
    // git would give each of these other bytes than the user had.
    repo.write("unix.txt", "a\nb\n");
    repo.write("dos.auto", "a\r\nb\r\n");
    repo.write("plain.id", "$Id$\n");
    repo.commit_all("converted");
    assert_eq!(repo.read(["status", "--porcelain"]), "");
    assert_no_trace(&repo, "rm -f *.rot *.txt *.auto *.id; git commit -qam gone");
}

#[test]
fn what_git_does_not_look_at_comes_back_too() {
    for (format, version) in [("sha1", "2"), ("sha1", "4"), ("sha256", "2"), ("sha256", "4")] {
        let repo = Repo::new(Options { guarded: true, object_format: Some(format), ..Options::default() });
        repo.write("file", "one\n");
        repo.write("other", "one\n");
        repo.commit_all("one");
        repo.git(["update-index", "--index-version", version, "--assume-unchanged", "file"]);
        repo.write("file", "unseen by git\n");
        let script = "echo changed >file; git update-index --no-assume-unchanged file; git commit -qam seen";
        assert_no_trace(&repo, script);
        let found = fs::read_to_string(repo.path().join("file")).expect("it is there");
        assert_eq!(found, "unseen by git\n", "{format}, index version {version}");
    }
}

#[test]
fn a_sparse_checkout_stays_sparse() {
    let repo = guarded();
    repo.write("other/file", "one\n");
    repo.commit_all("three");
    repo.git(["sparse-checkout", "set", "dir"]);
    assert!(!repo.path().join("other").exists());
    assert_no_trace(&repo, "git sparse-checkout disable; echo x >>other/file; git commit -qam x");
    assert_no_trace(&repo, "git sparse-checkout set other; rm -rf other");
    assert!(!repo.path().join("other").exists(), "what was kept out is out again");
}

#[test]
fn a_gc_inside_of_a_run_takes_nothing_that_is_needed() {
    for packed in [false, true] {
        let repo = guarded();
        repo.git(["branch", "lost", "HEAD"]);
        repo.write("staged", "only in the index\n");
        repo.git(["add", "staged"]);
        if packed {
            repo.git(["repack", "-adq"]);
        }
        assert_no_trace(
            &repo,
            "git reset -q --hard HEAD~1; git branch -qD lost; git reflog expire --expire=now --all;
             git gc -q --prune=now; git repack -adq; git prune --expire=now",
        );
        assert_eq!(repo.read(["cat-file", "-p", ":staged"]), "only in the index", "packed: {packed}");
    }
}

/// It has made its list of packs that the new one replaces when the run begins.
#[test]
fn a_run_that_begins_in_the_middle_of_a_repack_costs_no_object() {
    let repo = guarded();
    repo.git(["repack", "-adq"]);
    repo.commit_all("loose");
    let git = repo.command(Git::under_test().program.as_os_str()).get_program().to_owned();
    let programs = repo.scratch().join("programs");
    let script = format!(
        "#!/bin/sh\nunset GIT_EXEC_PATH\n[ \"$1\" = pack-objects ] || exec '{git}' \"$@\"\n\
         exec '{jin}' run -- '{git}' \"$@\"\n",
        git = git.display(),
        jin = jin_txn().display(),
    );
    write_file(&programs.join("git"), &script, 0o755);
    let repack = crash::git(&repo, &["repack", "-adq"]).env("GIT_EXEC_PATH", &programs).output().expect("git starts");
    assert!(repack.status.success(), "{}", text(&repack.stderr));
    assert!(repo.logged().iter().any(|line| line.contains("pack-objects")), "the run was made: {:?}", repo.logged());
    assert_fsck(&repo);
    assert_recovers(&repo);
}

#[test]
fn a_merge_in_progress_is_in_progress_again() {
    let repo = guarded();
    repo.git(["switch", "-q", "-c", "side", "HEAD~1"]);
    repo.write("file", "side\n");
    repo.commit_all("side");
    repo.try_git(["merge", "main"]);
    assert!(repo.git_dir().join("MERGE_HEAD").exists(), "the merge stops at a conflict");
    assert_no_trace(&repo, "git merge --abort");
    assert_no_trace(&repo, "git checkout -q --ours file; git add file; git commit -qm merged");
}

#[test]
fn a_linked_worktree_made_by_a_run_is_none_afterwards_and_its_files_stay() {
    let repo = guarded();
    let before = repo.read(["worktree", "list"]);
    assert_no_trace(&repo, "git worktree add -q -b linked ../linked; echo mine >../linked/new");
    assert_eq!(repo.read(["worktree", "list"]), before);
    assert!(repo.scratch().join("linked/new").exists(), "outside of the worktree nothing is removed");
}

#[test]
fn a_run_in_a_linked_worktree_takes_that_one_back() {
    let repo = guarded();
    repo.git(["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = repo.sibling("linked");
    repo.write("file", "mine\n");
    linked.write("file", "theirs\n");
    let look = || {
        let files = [&repo, &linked].map(|r| crate::support::observe::tree(r.path()));
        let files = files.map(|f| f.into_iter().filter(|(p, _)| !p.starts_with(".git")).collect::<Vec<_>>());
        (files, repo.read(["for-each-ref"]), linked.read(["status", "--porcelain", "-b"]))
    };
    let before = look();
    let (code, said) = run_script(&linked, "git commit -qam linked; git switch -q -c other; rm file; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!(look(), before);
    assert_fsck(&repo);
}

#[test]
fn a_run_in_a_bare_repository_takes_its_refs_back() {
    let repo = guarded();
    let bare = repo.sibling("bare.git");
    repo.git(["clone", "-q", "--bare", ".", "../bare.git"]);
    bare.install_guard();
    let before = bare.read(["for-each-ref"]);
    let (code, said) =
        run_script(&bare, "git tag v1; git branch -m main trunk; git update-ref -d refs/tags/v1; exit 9");
    assert_eq!(code, 9, "{said}");
    assert_eq!((bare.read(["for-each-ref"]), bare.read(["symbolic-ref", "HEAD"])), (before, "refs/heads/main".into()));
}

#[test]
fn refs_that_somebody_else_moved_meanwhile_stay_theirs() {
    let repo = guarded();
    let [first, second] = ["HEAD~1", "HEAD"].map(|name| value(&repo, name));
    for name in ["mine", "theirs", "built-upon"] {
        repo.git(["branch", name, &first]);
    }
    // `env -u` makes them somebody else: not of the run.
    let script = format!(
        "git branch -f mine {second}; git branch -f theirs {second}; git branch -f built-upon {second}
         env -u JIN_TXN_RUN git branch -f theirs main^{{commit}}~0
         env -u JIN_TXN_RUN git update-ref refs/heads/built-upon $(git commit-tree -p {second} -m theirs {second}^{{tree}})
         exit 9"
    );
    let (code, said) = run_script(&repo, &script);
    assert_eq!(code, 4, "a human is told: {said}");
    assert!(said.contains("refs/heads/built-upon was moved by another process"), "{said}");
    assert_eq!(value(&repo, "mine"), first);
    assert_eq!(repo.read(["log", "-1", "--format=%s", "built-upon"]), "theirs");
    assert_eq!(run_jin(&repo, &["check"]).0, 0, "it has been told, and is over");
}

#[test]
fn an_apply_inside_of_a_run_is_a_part_of_it() {
    let repo = guarded();
    repo.git(["branch", "topic", "HEAD~1"]);
    let bin = jin_txn().display().to_string();
    let oid = value(&repo, "HEAD");
    let apply = format!(
        "printf 'update refs/heads/topic {oid}\\ncreate refs/tags/t {oid}\\nwrite made 100644 file\\n' | {bin} apply"
    );
    assert_no_trace(&repo, &format!("{apply}; echo more >>made; {bin} undo || {bin} undo --dry-run || true"));
    let (code, said) = run_script(&repo, &apply);
    assert_eq!(code, 0, "{said}");
    assert_eq!((value(&repo, "topic"), value(&repo, "t")), (oid.clone(), oid));
    assert_eq!(run_jin(&repo, &["undo"]).0, 0, "its refs go back with the run");
    assert_eq!(value(&repo, "t"), "");
}
