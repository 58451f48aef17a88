//! `git http-backend` behind a server of its own, on this machine alone: one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::repo::{Git, Repo};

/// What a server starts: a program that is found in PATH, and its arguments.
pub type Backend = &'static [&'static str];

/// A server for every repository in a scratch directory; it ends with the test's process.
pub struct Server {
    port: u16,
    running: Arc<Mutex<Vec<Pid>>>,
}

impl Server {
    pub fn start(repo: &Repo) -> Self {
        let directory = Git::under_test().program.parent().expect("it lies in a directory").to_owned();
        Self::with(repo, &["git", "http-backend"], vec![directory])
    }

    /// One that starts something else, with these directories ahead in PATH.
    pub fn with(repo: &Repo, backend: Backend, ahead: Vec<PathBuf>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let running = Arc::new(Mutex::new(Vec::new()));
        let (repo, processes, ahead) = (repo.clone(), Arc::clone(&running), Arc::new(ahead));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (repo, processes, ahead) = (repo.clone(), Arc::clone(&processes), Arc::clone(&ahead));
                // A client that hangs up, or a backend that is killed, ends its own request alone.
                std::thread::spawn(move || serve(stream, &repo, &processes, backend, &ahead).ok());
            }
        });
        Self { port, running }
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// Kills every backend that is at work, with all of its children.
    pub fn kill_backends(&self) -> usize {
        let running = self.running.lock().expect("no thread has panicked");
        running.iter().filter(|group| killpg(**group, Signal::SIGKILL).is_ok()).count()
    }
}

fn serve(
    stream: TcpStream,
    repo: &Repo,
    running: &Mutex<Vec<Pid>>,
    backend: Backend,
    ahead: &[PathBuf],
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let program = ahead.iter().map(|dir| dir.join(backend[0])).find(|program| program.is_file());
    let mut command: Command = repo.command(program.expect("it is in PATH").as_os_str());
    let usual = Git::under_test().path_variable();
    let search = std::env::join_paths(ahead.iter().cloned().chain(std::env::split_paths(&usual))).expect("no colons");
    command.env("PATH", search).args(&backend[1..]).current_dir(repo.scratch()).process_group(0);
    command.env("GIT_PROJECT_ROOT", repo.scratch()).env("GIT_HTTP_EXPORT_ALL", "1").env("REMOTE_USER", "jin");
    command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    command.env("CONTENT_TYPE", header("content-type")).env("CONTENT_LENGTH", body.len().to_string());
    command.env("HTTP_CONTENT_ENCODING", header("content-encoding")).env("GIT_PROTOCOL", header("git-protocol"));
    let mut backend = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let group = Pid::from_raw(i32::try_from(backend.id()).expect("a pid fits"));
    running.lock().expect("no thread has panicked").push(group);
    backend.stdin.take().expect("it has a stdin").write_all(&body)?;
    let mut answer = Vec::new();
    backend.stdout.take().expect("it has a stdout").read_to_end(&mut answer)?;
    running.lock().expect("no thread has panicked").retain(|other| *other != group);
    let status = backend.wait()?;
    let mut stream = stream;
    if status.code().is_none() || answer.is_empty() {
        return stream.write_all(b"HTTP/1.1 500 Killed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let code = if answer.starts_with(b"Status: ") { &answer[8..11] } else { b"200" };
    stream.write_all(&[b"HTTP/1.1 ", code, b" CGI\r\nConnection: close\r\n", &answer].concat())
}
