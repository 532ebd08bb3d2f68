//! Real Redis processes, each in a directory and on a port of its own, gone when the test is.

use std::{
    collections::BTreeSet,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use deadpool_redis::redis::{self, Client, FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};

/// A `redis-server` or `redis-sentinel`. Killed when dropped.
pub struct RedisServer {
    child: Child,
    program: &'static str,
    arguments: Vec<String>,
    pub port: u16,
    pub directory: tempfile::TempDir,
}

/// A port that nobody listens on now, and that was not given to anybody before: of two servers that start at once
/// on one port, the one that ends would be taken for the other, and so would one that was killed.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

impl RedisServer {
    /// An empty server without persistence, with `more` settings (`["--name", "value", …]`).
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    /// As [`RedisServer::start`], with its files in a directory prepared by the test.
    pub fn start_in(directory: tempfile::TempDir, more: &[&str]) -> Self {
        // Another process may take the port before the server does.
        let mut directory = Some(directory);
        for _ in 0..10 {
            let port = free_port();
            let mut arguments: Vec<String> =
                ["--save", "", "--bind", "127.0.0.1", "--loglevel", "warning", "--repl-diskless-sync-delay", "0"]
                    .iter()
                    .chain(more)
                    .map(ToString::to_string)
                    .collect();
            if !more.contains(&"--port") {
                arguments.extend(["--port".into(), port.to_string()]);
            }
            let mut server = Self::spawn("redis-server", arguments, port, directory.take().unwrap());
            if server.is_up() {
                return server;
            }
            directory = Some(std::mem::replace(&mut server.directory, tempfile::tempdir().unwrap()));
        }
        panic!("redis-server does not start");
    }

    /// A Sentinel with this configuration.
    pub fn sentinel(configuration: &str) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let path = directory.path().join("sentinel.conf");
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(file, "port {port}\nbind 127.0.0.1\n{configuration}").unwrap();
        let path = path.to_str().unwrap().to_owned();
        let mut sentinel = Self::spawn("redis-sentinel", vec![path], port, directory);
        assert!(sentinel.is_up(), "redis-sentinel does not start");
        sentinel
    }

    fn spawn(program: &'static str, arguments: Vec<String>, port: u16, directory: tempfile::TempDir) -> Self {
        let child = run(program, &arguments, directory.path());
        Self { child, program, arguments, port, directory }
    }

    /// Waits until the process answers; false when it ended instead.
    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            match self.try_command::<redis::Value>(&["PING"]) {
                Ok(_) => return true,
                // A password or certificate is asked for: up, too.
                Err(error) if !error.is_io_error() && !self.try_is_loading() => return true,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("{} does not answer", self.program);
    }

    fn try_is_loading(&self) -> bool {
        self.try_command::<redis::Value>(&["PING"]).is_err_and(|error| error.code() == Some("LOADING"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same command in the same directory on the same port.
    pub fn start_again(&mut self) {
        self.child = run(self.program, &self.arguments, self.directory.path());
        assert!(self.is_up());
    }

    /// As [`RedisServer::start_again`], with another setting.
    pub fn start_again_with(&mut self, name: &str, value: &str) {
        self.arguments.extend([name.into(), value.into()]);
        self.start_again();
    }

    /// SIGSTOP: connections stay, answers do not come.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command as an operator would.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap()
    }

    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.query(&mut connection)
    }

    pub fn info(&self, section: &str, field: &str) -> String {
        let info: String = self.command(&["INFO", section]);
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO {section} has no {field}")).trim().to_owned()
    }

    /// Makes this server a replica of `master` and waits until it has all of its data.
    pub fn follow(&self, master: &RedisServer) {
        let port = master.port.to_string();
        self.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
        until("the replica has the master's data", || {
            self.info("replication", "master_link_status") == "up" && self.has_all_of(master)
        });
    }

    pub fn has_all_of(&self, master: &RedisServer) -> bool {
        let offset = |server: &RedisServer| server.info("replication", "master_repl_offset");
        offset(self) == offset(master)
    }

    pub fn promote(&self) {
        self.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, arguments: &[String], directory: &Path) -> Child {
    let log: PathBuf = directory.join("output.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {program} (Debian: {program}): {error}"))
}

/// Waits for something that must happen soon.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
