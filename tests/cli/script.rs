//! install.sh: what it puts anywhere it takes away again.
//!
//! cargo is replaced by a script that hands over the program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::observe::{Tree, assert_same, tree};
use crate::support::repo::{Git, Options, Repo, jin_txn, text, write_file};
use crate::support::terminal::Terminal;

struct Machine {
    repo: Repo,
    home: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let repo = Repo::new(Options::default());
        repo.commit_all("one");
        let home = repo.scratch().join("someone");
        fs::create_dir(&home).expect("it can be made");
        let cargo = format!(
            "#!/bin/sh\nwhile [ \"$1\" != --target-dir ]; do shift; done\nmkdir -p \"$2/release\"\nln -sf '{}' \"$2/release/jin-txn\"\n",
            jin_txn().display()
        );
        let bin = repo.scratch().join("tools");
        fs::create_dir(&bin).expect("it can be made");
        write_file(&bin.join("cargo"), &cargo, 0o755);
        write_file(&bin.join("rustc"), "#!/bin/sh\n", 0o755);
        Self { repo, home }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install.sh");
        let mut command: Command = self.repo.command(script.as_os_str());
        let path = [self.repo.scratch().join("tools").into_os_string(), Git::under_test().path_variable()];
        command.env("PATH", path.join(":".as_ref())).env("HOME", &self.home).args(arguments);
        command.env("CARGO_TARGET_DIR", self.repo.scratch().join("built")).env("SHELL", "/bin/bash");
        command
    }

    fn script(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the script starts")
    }

    fn works(&self, arguments: &[&str]) -> String {
        let output = self.script(arguments);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Everything that could have been changed: the home directory and the repository.
    fn all(&self) -> (Tree, Tree) {
        (tree(&self.home), tree(&self.repo.git_dir()))
    }
}

#[test]
fn uninstalling_by_the_script_leaves_nothing_behind() {
    let machine = Machine::new();
    // A directory and a completion that were there are there afterwards.
    let fish = machine.home.join(".local/share/fish/vendor_completions.d");
    fs::create_dir_all(&fish).expect("it can be made");
    fs::write(fish.join("other.fish"), "").expect("it can be written");
    let (home, git_dir) = machine.all();
    machine.works(&[]);
    assert!(machine.home.join(".local/bin/jin-txn").is_file(), "the program is installed");
    assert!(machine.home.join(".local/share/man/man1/jin-txn-undo.1").is_file(), "so are manual pages");
    assert!(machine.repo.is_protected());
    // At a terminal it asks, once.
    let mut terminal = Terminal::start(machine.command(&[]));
    terminal.wait_for("add the shell function to ");
    terminal.type_line("y");
    terminal.wait_for("added");
    assert!(terminal.ended().success());
    let added = fs::read_to_string(machine.home.join(".bashrc")).expect("it is there");
    assert!(added.starts_with("eval \"$(") && added.lines().count() == 1, "{added}");
    let zshrc = machine.home.join(".zshrc");
    fs::write(&zshrc, format!("mine\n{}mine as well\n", added.replace(" bash)", " zsh)"))).expect("it can be written");
    let said = machine.works(&["--uninstall", "--purge"]);
    assert!(said.contains("no longer protected") && said.contains("no longer in"), "{said}");
    assert_eq!(fs::read_to_string(&zshrc).expect("it stays"), "mine\nmine as well\n");
    fs::remove_file(zshrc).expect("it is there");
    assert_same(&home, &tree(&machine.home), "the home directory");
    assert_same(&git_dir, &tree(&machine.repo.git_dir()), "the repository");
}

#[test]
fn the_program_stays_as_long_as_a_repository_cannot_be_left_and_other_programs_repositories_are_left_alone() {
    let machine = Machine::new();
    let prefix = machine.home.join("opt").display().to_string();
    machine.works(&["--prefix", &prefix]);
    let elsewhere = machine.repo.new_sibling("elsewhere", Options::default());
    let mut install = elsewhere.command(jin_txn().as_os_str());
    let output = install.arg("install").env("HOME", &machine.home).output().expect("it runs");
    assert!(output.status.success(), "another program protects it: {}", text(&output.stderr));

    // What `install` wrote down is damaged.
    let note = machine.repo.git_dir().join(".jin/install.json");
    let written = fs::read(&note).expect("it is there");
    fs::write(&note, "{").expect("it can be written");
    let output = machine.script(&["--uninstall", "--prefix", &prefix]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("the program stays"), "{}", text(&output.stderr));
    assert!(Path::new(&prefix).join("bin/jin-txn").is_file());

    fs::write(&note, written).expect("it can be written");
    let said = machine.works(&["--uninstall", "--prefix", &prefix]);
    assert!(said.contains("left alone: ") && said.contains("/elsewhere"), "{said}");
    assert!(!Path::new(&prefix).exists(), "nothing is left of it");
    assert!(machine.repo.git_dir().join(".jin/wal").is_dir(), "the log stays");
    assert!(elsewhere.is_protected());
}

#[test]
fn the_script_refuses_what_does_not_go_together() {
    let machine = Machine::new();
    let before = tree(&machine.home);
    for arguments in [&["--purge"][..], &["--uninstall", "x"], &["--build-only", "--uninstall"], &["--unknown"]] {
        let output = machine.script(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(machine.script(&["--uninstall"]).status.code(), Some(1), "nothing is installed");
    assert_same(&before, &tree(&machine.home), "nothing was changed");
}
