//! Secrets are written down nowhere, and what we write is for the owner alone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::support::crash::git;
use crate::support::hostile::{killed_run, protected, state, tx_of_run};
use crate::support::observe::{shown, tree};
use crate::support::repo::{Options, Repo, text, write_file};

/// What no file of ours may hold.
const SECRET: &str = "S3CRETvalue";

#[test]
fn the_note_of_the_installation_holds_no_configuration_and_is_for_the_owner_alone() {
    let repo = Repo::new(Options::default());
    let config = repo.git_dir().join("config");
    repo.git(["config", "http.extraHeader", SECRET]);
    repo.git(["config", "core.fsync", "committed"]);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("the mode can be set");
    let pristine = fs::read(&config).expect("it is there");
    repo.install_guard();
    let note = state(&repo).join("install.json");
    let found = fs::read_to_string(&note).expect("it is there");
    assert!(!found.contains(SECRET), "{found}");
    assert_eq!(fs::metadata(&note).expect("it is there").mode() & 0o7777, 0o600);
    repo.jin(&["uninstall"]);
    assert_eq!(fs::read(&config).expect("it is there"), pristine, "the configuration is as before");
    assert_eq!(fs::metadata(&config).expect("it is there").mode() & 0o7777, 0o600);
}

#[test]
fn the_copies_of_a_run_are_for_the_owner_alone() {
    let repo = killed_run();
    let tx = tx_of_run(&repo);
    let copies = fs::read_dir(tx.join("copies")).expect("it has copies").flatten().map(|entry| entry.path());
    let files = copies.chain([tx.join("snapshot.json"), tx.join("copies"), tx.join("reflogs")]);
    let open: Vec<_> = files.filter(|path| fs::metadata(path).expect("it is there").mode() & 0o077 != 0).collect();
    assert!(open.is_empty(), "others may read {open:?}");
}

#[test]
fn a_secret_on_a_command_line_is_recorded_nowhere() {
    let repo = protected();
    let keeps_it = |what: &str| {
        let found = tree(&repo.git_dir()).into_iter().filter(|(path, _)| !path.ends_with("config"));
        let found: Vec<_> =
            found.filter(|(_, (_, content))| text(content).contains(SECRET)).map(|(path, _)| path).collect();
        assert!(found.is_empty(), "{what}: {found:?}");
    };
    let commit = ["commit", "-q", "--allow-empty", "-m", "three"];
    for options in [
        &["-c", &format!("http.extraHeader=Authorization: Basic {SECRET}")][..],
        &["-c", &format!("url.https://bob:{SECRET}@example.com/.insteadOf=x")],
        &[&format!("--config-env=http.extraHeader={SECRET}")],
    ] {
        let arguments = [options, &commit].concat();
        let output = git(&repo, &arguments).env(SECRET, "x").output().expect("git runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        keeps_it(&format!("{options:?}"));
    }
    // While it is at work its marker is there, too.
    let script = format!("! grep -rq {SECRET} .git/.jin && git tag by-the-run-$1");
    for (n, words) in [
        &[&format!("https://bob:{SECRET}@example.com/x.git")[..]][..],
        &["--password", SECRET],
        &[&format!("--password={SECRET}")],
        &["--token", SECRET],
        &[&format!("GITHUB_TOKEN={SECRET}")],
        &["-H", &format!("Authorization: Bearer {SECRET}")],
    ]
    .into_iter()
    .enumerate()
    {
        // `grep` itself has the secret among its words, but not in the repository.
        let n = n.to_string();
        let path = repo.scratch().join("script");
        write_file(&path, &format!("#!/bin/sh\n{script}\n"), 0o755);
        let path = path.display().to_string();
        let arguments = [&["run", "--", path.as_str(), n.as_str()][..], words].concat();
        let output = repo.jin_txn(&arguments);
        assert!(output.status.success(), "{words:?}: {}", shown(&repo, &output));
        keeps_it(&format!("{words:?}"));
    }
    repo.jin(&["undo"]);
    keeps_it("undo");
}
