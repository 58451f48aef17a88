//! Crash states, enumerated.

mod support;

use std::process::Command;

use support::reboot;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[test]
fn a_program_after_a_reboot_sees_the_other_boot_id_and_nobody_else_does() {
    if !reboot::is_possible() {
        return println!("skipped: no right to make a mount namespace");
    }
    let ours = std::fs::read_to_string(BOOT_ID).expect("the kernel has a boot id");
    let boot_id = reboot::new_boot_id();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("cat {BOOT_ID}; sh -c 'cat {BOOT_ID}'")]);
    let mut shell = reboot::after(shell, &boot_id);
    for _ in 0..2 {
        let output = shell.output().expect("the shell starts");
        let seen = String::from_utf8(output.stdout).expect("a boot id is text");
        assert_eq!(seen, format!("{boot_id}\n{boot_id}\n"), "the program and its children see it");
    }
    assert_eq!(std::fs::read_to_string(BOOT_ID).expect("the kernel has a boot id"), ours, "we do not");
}
