//! A program at a terminal of its own: type, and wait for what it shows.

#![allow(unsafe_code, reason = "the terminal is made the program's own between fork and exec")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Terminal {
    program: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown, without what moves the cursor.
    shown: String,
    seen: usize,
    /// The same as it came.
    raw: String,
}

impl Terminal {
    /// Starts `command` as the leader of a session at a wide terminal.
    pub fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 50, ws_col: 400, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal can be made");
        let copy = |end: &OwnedFd| end.try_clone().expect("a descriptor can be copied");
        command.stdin(copy(&pty.slave)).stdout(copy(&pty.slave)).stderr(pty.slave);
        let become_leader = || {
            // SAFETY: two system calls, no memory of this process is touched.
            let done = unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1 };
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: the closure only makes system calls; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(become_leader) };
        let program = command.spawn().expect("the program starts");
        // The terminal's other end is the program's alone, so that its end is seen.
        drop(command);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a descriptor can be copied");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO: nobody has the terminal open any more.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { program, keyboard, screen, shown: String::new(), seen: 0, raw: String::new() }
    }

    /// Types a line and the return key.
    pub fn type_line(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until `text` is shown after what was waited for before; returns everything from there to its end.
    ///
    /// # Panics
    /// When it is not shown in time.
    pub fn wait_for(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.shown[self.seen..].find(text) {
                let end = self.seen + at + text.len();
                let found = self.shown[self.seen..end].to_owned();
                self.seen = end;
                return found;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("`{text}` is not shown: {}", &self.shown[self.seen..]),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without `{text}`: {}", &self.shown[self.seen..])
                }
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        self.shown.push_str(&plain(bytes));
        self.raw.push_str(&String::from_utf8_lossy(bytes));
    }

    /// Waits for the program's end; returns its exit code, what is left on the screen, and everything that was on it at any time.
    pub fn left(mut self) -> (Option<i32>, String, String) {
        let status = self.program.wait().expect("the program can be waited for");
        while let Ok(bytes) = self.screen.recv_timeout(PATIENCE) {
            self.show(&bytes);
        }
        (status.code(), screen(&self.raw), std::mem::take(&mut self.shown))
    }

    /// Waits for the program's end.
    pub fn ended(mut self) -> ExitStatus {
        self.program.wait().expect("the program can be waited for")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves it running; one that passed has seen its end.
        self.program.kill().ok();
        self.program.wait().ok();
    }
}

/// The lines that are left when a wide terminal has shown `raw`, which moves the cursor to the first column and clears lines.
fn screen(raw: &str) -> String {
    let (mut lines, mut column) = (vec![Vec::new()], 0);
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let line = lines.last_mut().expect("there is one at least");
        match c {
            '\u{1b}' => {
                chars.next();
                if chars.by_ref().find(|c| ('@'..='~').contains(c)) == Some('K') {
                    line.truncate(column);
                }
            }
            '\r' => column = 0,
            '\n' => {
                lines.push(Vec::new());
                column = 0;
            }
            c => {
                line.truncate(column);
                line.push(c);
                column += 1;
            }
        }
    }
    lines.into_iter().map(String::from_iter).collect::<Vec<_>>().join("\n")
}

/// Without the sequences that move the cursor and colour, and without carriage returns.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => drop(chars.by_ref().find(|c| ('@'..='~').contains(c))),
                Some(']') => drop(chars.by_ref().find(|c| *c == '\u{7}')),
                Some('(' | ')') => drop(chars.next()),
                _ => {}
            },
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}
