//! What was applied is taken back and done again, files included, unless something has moved on since.

use crate::support::apply::{Scene, State, apply, run};
use crate::support::crash::transactions;
use crate::support::repo::Repo;

fn files(repo: &Repo) -> (crate::support::snapshot::Refs, String) {
    let state = State::of(repo);
    (state.refs, format!("{:?}", state.files))
}

#[test]
fn undo_puts_refs_and_files_back_and_redo_does_both_again() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    let before = files(repo);
    assert_eq!(apply(repo, &scene.input).0, 0);
    let after = files(repo);
    for _ in 0..2 {
        let (code, _, said) = run(repo, &["undo"], "");
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("etc/app.conf"), "{said}");
        assert_eq!(files(repo), before);
        let (code, _, said) = run(repo, &["redo"], "");
        assert_eq!(code, 0, "{said}");
        assert_eq!(files(repo), after);
    }
    let states: Vec<String> = transactions(repo).iter().map(|t| t["state"].as_str().unwrap().to_owned()).collect();
    assert!(states.iter().all(|s| s == "committed" || s == "undone"), "{states:?}");
}

#[test]
fn undo_is_refused_with_everything_that_moved_on_since() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    assert_eq!(apply(repo, &scene.input).0, 0);
    repo.write("etc/app.conf", "edited\n");
    repo.git(["update-ref", "refs/heads/layer", "main~1"]);
    let before = State::of(repo);
    for arguments in [["undo", "tx-1", "--dry-run"].as_slice(), &["undo", "tx-1"]] {
        let (code, _, said) = run(repo, arguments, "");
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("etc/app.conf: expected"), "{said}");
        assert!(said.contains("refs/heads/layer: expected"), "{said}");
        assert_eq!(State::of(repo), before);
    }
}

#[test]
fn undo_is_refused_when_the_earlier_content_is_not_kept_any_more() {
    let scene = Scene::guarded();
    let repo = &scene.repo;
    assert_eq!(apply(repo, &scene.input).0, 0);
    let before = State::of(repo);
    std::fs::remove_dir_all(repo.git_dir().join(".jin/quarantine")).unwrap();
    std::fs::create_dir(repo.git_dir().join(".jin/quarantine")).unwrap();
    let (code, _, said) = run(repo, &["undo"], "");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is not kept any more"), "{said}");
    assert_eq!(State::of(repo), before);
}
