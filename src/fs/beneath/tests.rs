#![allow(clippy::disallowed_methods, reason = "a test may write directly")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use crate::fs::beneath::*;

/// `outside/secret` and the root `root/` beside it.
struct Scene {
    scratch: TempDir,
    root: Root,
}

impl Scene {
    fn new() -> Scene {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("root/a/b")).unwrap();
        fs::create_dir(scratch.path().join("outside")).unwrap();
        fs::write(scratch.path().join("outside/secret"), "secret").unwrap();
        let root = Root::open(&scratch.path().join("root")).unwrap();
        Scene { scratch, root }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.scratch.path().join("root").join(path)
    }

    fn parent(&self, path: &str) -> Parent {
        self.root.parent(&rel(path)).unwrap().expect("the directory is there")
    }
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// As without openat2.
fn step_by_step(root: &Root, path: &Path) -> rustix::io::Result<OwnedFd> {
    crate::fs::door::walk(root.dir.as_fd(), path, DIRECTORY, Mode::empty())
}

#[test]
fn a_link_on_the_way_is_refused_with_and_without_openat2() {
    let scene = Scene::new();
    symlink("../outside", scene.at("out")).unwrap();
    symlink("a", scene.at("inside")).unwrap();
    fs::write(scene.at("file"), "").unwrap();
    for (path, why) in
        [("out/secret", Obstacle::Symlink), ("inside/b/x", Obstacle::Symlink), ("file/x", Obstacle::NotADirectory)]
    {
        let error = scene.root.parent(&rel(path)).unwrap_err();
        assert_eq!(refusal(&error).map(|r| r.why), Some(why), "{path}");
        let mut made = Vec::new();
        let error = scene.root.make_parent(&rel(path), 0o777, &mut made).unwrap_err();
        assert_eq!(refusal(&error).map(|r| r.why), Some(why), "{path}, to be made");
        let dir = rel(path).parent().unwrap();
        let walked =
            step_by_step(&scene.root, dir.as_path()).map_err(|errno| refused(Path::new(""), &rel(path), errno));
        assert_eq!(refusal(&walked.unwrap_err()).map(|r| r.why), Some(why), "{path}, step by step");
    }
    assert!(step_by_step(&scene.root, Path::new("a/b")).is_ok());
    assert!(scene.root.parent(&rel("none/x")).unwrap().is_none(), "a directory that is not there is no refusal");
}

#[test]
fn a_link_that_is_swapped_in_for_an_open_directory_gets_nothing() {
    let scene = Scene::new();
    let parent = scene.parent("a/b/new");
    fs::rename(scene.at("a/b"), scene.at("a/moved")).unwrap();
    symlink("../../outside", scene.at("a/b")).unwrap();
    parent.create_new(0o644).unwrap().write_all(b"x").unwrap();
    assert!(scene.at("a/moved/new").exists(), "the directory that was opened is written to");
    assert!(!scene.scratch.path().join("outside/new").exists());
    let error = scene.root.parent(&rel("a/b/secret")).unwrap_err();
    assert_eq!(refusal(&error).map(|r| r.why), Some(Obstacle::Symlink), "resolved again, the link is seen");
}

#[test]
fn a_fifo_a_directory_and_a_link_are_no_files_to_read_and_hang_nobody() {
    let scene = Scene::new();
    assert!(Command::new("mkfifo").arg(scene.at("fifo")).status().unwrap().success());
    symlink("a", scene.at("link")).unwrap();
    fs::write(scene.at("file"), "text").unwrap();
    for (name, kind) in [("fifo", Kind::Other), ("a", Kind::Directory), ("link", Kind::Symlink), ("file", Kind::File)] {
        let parent = scene.parent(name);
        assert_eq!(parent.stat().unwrap().map(|s| s.kind), Some(kind), "{name}");
        assert_eq!(parent.open().unwrap().is_some(), kind == Kind::File, "{name}");
        assert_eq!(parent.read_link().unwrap().is_some(), kind == Kind::Symlink, "{name}");
    }
    assert_eq!(scene.parent("link").read_link().unwrap().unwrap(), b"a");
    assert_eq!(scene.parent("none").stat().unwrap(), None);
    let mut text = String::new();
    scene.parent("file").open().unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
}

#[test]
fn a_rename_into_place_replaces_only_what_it_is_told_to() {
    let scene = Scene::new();
    let stage = scene.parent("stage");
    let from = stage.as_fd();
    let put = |name: &str, to: &str, how| {
        fs::write(scene.at(name), name).unwrap();
        scene.parent(to).put(from, OsStr::new(name), how).map_err(|e| e.kind())
    };
    let read = |path: &str| fs::read_to_string(scene.at(path)).unwrap();

    put("one", "a/x", RenameMode::NoReplace).unwrap();
    assert_eq!(put("two", "a/x", RenameMode::NoReplace), Err(io::ErrorKind::AlreadyExists));
    put("two", "a/x", RenameMode::Exchange).unwrap();
    assert_eq!((read("a/x"), read("two")), ("two".into(), "one".into()));
    assert_eq!(put("three", "a/none", RenameMode::Exchange), Err(io::ErrorKind::NotFound));
    put("three", "a/x", RenameMode::Replace).unwrap();
    assert_eq!(read("a/x"), "three");

    scene.parent("a/x").take_out(from, OsStr::new("kept")).unwrap();
    assert_eq!(read("kept"), "three");
    fs::write(scene.at("a/x"), "new").unwrap();
    let taken = scene.parent("a/x").take_out(from, OsStr::new("kept")).map_err(|e| e.kind());
    assert_eq!(taken, Err(io::ErrorKind::AlreadyExists), "what was kept is not overwritten");
    scene.parent("a/x").link_to(from, OsStr::new("second")).unwrap();
    assert_eq!(read("second"), "new");
}

#[test]
fn directories_that_were_made_are_told_and_empty_ones_are_removed_again() {
    let scene = Scene::new();
    let mut made = Vec::new();
    let parent = scene.root.make_parent(&rel("a/n/m/file"), 0o777, &mut made).unwrap();
    assert_eq!(made, [rel("a/n"), rel("a/n/m")]);
    parent.symlink(b"anywhere/../at all").unwrap();
    assert_eq!(scene.parent("a/n/m/file").read_link().unwrap().unwrap(), b"anywhere/../at all");
    parent.fsync().unwrap();
    assert!(scene.root.remove_empty_parents(&rel("a/n/m/file")).unwrap().is_empty(), "it is not empty");
    parent.unlink().unwrap();
    parent.unlink().expect("gone already is fine");
    fs::write(scene.at("a/keep"), "").unwrap();
    assert_eq!(scene.root.remove_empty_parents(&rel("a/n/m/file")).unwrap(), [rel("a/n/m"), rel("a/n")]);
    assert!(scene.root.remove_empty_parents(&rel("a/n/m/file")).unwrap().is_empty());
    assert!(scene.at("a").exists());
}

#[test]
fn a_directory_where_a_file_is_expected_is_not_removed() {
    let scene = Scene::new();
    assert!(scene.parent("a").unlink().is_err());
    assert!(scene.at("a/b").is_dir());
    assert_eq!(scene.root.device().unwrap(), scene.parent("a").stat().unwrap().unwrap().device);
}
