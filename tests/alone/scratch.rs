//! The scratch directory of a test goes, and nothing but it.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::repo::{Options, Repo};

#[test]
fn what_is_mounted_below_a_scratch_directory_outlives_it() {
    let _alone = crate::alone();
    let elsewhere = tempfile::tempdir().expect("a directory can be made");
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, "").expect("it can be written");
    let bind = |from: &Path, to: &Path| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    let scratch = std::thread::scope(|scope| {
        let work = || {
            let repo = Repo::new(Options::default());
            let place = repo.scratch().join("mounted");
            fs::create_dir(&place).expect("it can be made");
            bind(elsewhere.path(), &place).ok()?;
            assert!(place.join("precious").exists(), "it is mounted");
            Some(repo.scratch().to_owned())
        };
        scope.spawn(work).join().expect("it does not panic")
    });
    let Some(scratch) = scratch else {
        println!("skipped: no right to mount");
        return;
    };
    assert!(precious.exists(), "what was mounted is whole");
    assert!(!scratch.exists(), "the scratch directory is gone");
}
