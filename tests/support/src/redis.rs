//! A real `redis-server` with a directory and a port of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{children, clock, free_port};

pub mod cluster;
pub mod sentinel;

/// How to start the server. The default keeps nothing on disk.
#[derive(Debug, Clone, Default)]
pub struct Options {
    appendfsync: Option<String>,
    extra: Vec<String>,
    /// A configuration file that the server may rewrite, and its `--sentinel`.
    sentinel: Option<String>,
    /// A soft limit on the size of a file, in octets: what a full disk is to the append-only file.
    file_limit: Option<u64>,
    /// The port for TLS of a guarded server.
    guarded: Option<u16>,
}

/// Password of `default`, the user who may do everything, on guarded servers.
pub const KEEPER: &str = "the keepers password";

/// The folder with the certificates of guarded servers: `ca.pem`, `server.pem` and its key, for `localhost` and
/// 127.0.0.1. Nobody has the key of the authority any more.
pub const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../store/tls");

impl Options {
    /// Turns the append-only file on; `fsync` is `always`, `everysec` or `no`.
    #[must_use]
    pub fn append_only(mut self, fsync: &str) -> Self {
        self.appendfsync = Some(fsync.to_owned());
        self
    }

    /// One more argument of `redis-server`, as `arg("--maxmemory-policy").arg("noeviction")`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.extra.push(argument.to_owned());
        self
    }

    /// No file may grow beyond so many octets, until [`Redis::free_disk`]: a full disk, as far as Redis can tell.
    #[must_use]
    pub fn disk_of(mut self, octets: u64) -> Self {
        self.file_limit = Some(octets);
        self
    }

    /// Asks everybody for a password, [`KEEPER`] of the user `default`, and speaks TLS on a port of its own, with which
    /// servers also find each other.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = Some(free_port());
        self
    }

    /// What makes it guarded, as lines of a configuration.
    fn guard(&self) -> Vec<String> {
        let Some(port) = self.guarded else {
            return Vec::new();
        };
        let file = |name: &str| format!("{CERTIFICATES}/{name}");
        vec![
            format!("tls-port {port}"),
            format!("tls-cert-file {}", file("server.pem")),
            format!("tls-key-file {}", file("server.key")),
            format!("tls-ca-cert-file {}", file("ca.pem")),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
            format!("requirepass \"{KEEPER}\""),
        ]
    }

    /// A Sentinel with these lines in its configuration.
    pub(crate) fn sentinel(mut self, lines: &str) -> Self {
        self.sentinel = Some(lines.to_owned());
        self
    }

    /// Starts the server and waits until it answers `PING`.
    pub fn start(self) -> Redis {
        let directory = tempfile::Builder::new()
            .prefix("reentry-redis-")
            .tempdir()
            .expect("a directory");
        let mut redis = Redis {
            port: 0,
            directory,
            options: self,
            child: None,
        };
        for _ in 0..5 {
            redis.port = free_port();
            if redis.launch() {
                return redis;
            }
        }
        panic!("redis-server does not start; its log:\n{}", redis.log());
    }
}

/// A running (or killed) Redis; it ends with this value.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    directory: TempDir,
    options: Options,
    child: Option<Child>,
}

impl Redis {
    /// A server without persistence.
    pub fn start() -> Self {
        Options::default().start()
    }

    /// A server whose every acknowledged write survives [`Redis::kill9`].
    pub fn durable() -> Self {
        Options::default().append_only("always").start()
    }

    /// Options to choose from, then `start()`.
    pub fn options() -> Options {
        Options::default()
    }

    /// The port, the same over all restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Whether it asks for a password and speaks TLS.
    pub fn is_guarded(&self) -> bool {
        self.options.guarded.is_some()
    }

    /// The port that other servers are told: that for TLS when it is guarded.
    pub fn served_port(&self) -> u16 {
        self.options.guarded.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT/0`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// SIGKILL, as a power cut for this process.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill redis-server");
            child.wait().expect("redis-server ends");
        }
    }

    /// Starts it again on the same port, with the files it left.
    pub fn restart(&mut self) {
        self.kill9();
        for _ in 0..20 {
            if self.launch() {
                return;
            }
            clock::pause(Duration::from_millis(100));
        }
        panic!("redis-server does not come back; its log:\n{}", self.log());
    }

    /// The same, and does not wait until it has read its files and answers.
    pub fn restart_without_waiting(&mut self) {
        self.kill9();
        self.child = Some(self.spawn());
    }

    /// Lets files grow again, after [`Options::disk_of`].
    pub fn free_disk(&self) {
        let pid = self
            .child
            .as_ref()
            .expect("a running redis-server")
            .id()
            .to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &pid, "--fsize=unlimited"])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "prlimit {pid}");
    }

    /// Asks the server to start again with another option, as after [`Redis::kill9`] and before [`Redis::restart`].
    pub fn set_option(&mut self, argument: &str) {
        self.options.extra.push(argument.to_owned());
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn hang(&self) {
        children::signal(self.child.as_ref().expect("a running redis-server"), "STOP");
    }

    /// SIGCONT, after [`Redis::hang`].
    pub fn resume(&self) {
        children::signal(self.child.as_ref().expect("a running redis-server"), "CONT");
    }

    /// What `redis-cli` prints for this command; panics on an error reply.
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command)
            .unwrap_or_else(|why| panic!("redis-cli {command:?}: {why}"))
    }

    /// The same, with an error reply as `Err`.
    ///
    /// # Errors
    /// What the server refused, or that it is away.
    pub fn try_cli(&self, command: &[&str]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        if self.options.guarded.is_some() {
            cli.env("REDISCLI_AUTH", KEEPER);
        }
        let output = cli
            .args(["-e", "-h", "127.0.0.1", "-p"])
            .arg(self.port.to_string())
            .args(command)
            .output()
            .expect("redis-cli, which comes with redis-server");
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// The process, while it runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default()
    }

    fn launch(&mut self) -> bool {
        let mut child = self.spawn();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if child.try_wait().expect("the state of redis-server").is_some() {
                return false;
            }
            // Our own child must be the one that answers: a stranger on the port would make ours exit.
            if self.pings() && child.try_wait().expect("the state of redis-server").is_none() {
                self.child = Some(child);
                return true;
            }
            clock::pause(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn spawn(&self) -> Child {
        let mut command = self.command();
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        children::spawn(command).expect("redis-server (Debian package redis-server)")
    }

    fn command(&self) -> Command {
        let port = self.port.to_string();
        let mut command = match self.options.file_limit {
            // A server that was not told so would be ended by the signal instead of seeing the error.
            Some(octets) => {
                let mut command = children::tied("sh");
                let script = "trap '' XFSZ; ulimit -S -f \"$0\"; exec redis-server \"$@\"";
                command.args(["-c", script, &(octets / 512).to_string()]);
                command
            }
            None => children::tied("redis-server"),
        };
        if let Some(lines) = &self.options.sentinel {
            let file = self.directory.path().join("sentinel.conf");
            // What it learned itself stays over a restart.
            if !file.exists() {
                let guard = self.options.guard().join("\n");
                let text = format!("port {port}\nbind 127.0.0.1\nlogfile redis.log\ndir .\n{guard}\n{lines}");
                std::fs::write(&file, text).expect("the configuration of a Sentinel");
            }
            command.args(["sentinel.conf", "--sentinel"]);
            return command;
        }
        command.args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.args(["--logfile", "redis.log", "--dir", "."]);
        match &self.options.appendfsync {
            Some(fsync) => command.args(["--save", "", "--appendonly", "yes", "--appendfsync", fsync]),
            None => command.args(["--save", "", "--appendonly", "no"]),
        };
        for line in self.options.guard() {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            command.args([format!("--{name}"), value.trim_matches('"').to_owned()]);
        }
        if self.options.guarded.is_some() {
            command.args(["--masterauth", KEEPER]);
        }
        command.args(&self.options.extra);
        command
    }

    fn pings(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&self.address(), Duration::from_millis(500))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0_u8; 5];
            stream.read_exact(&mut answer)?;
            // With a password set it answers -NOAUTH, and a replica without its master -MASTERDOWN: ready as well.
            Ok(answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAU") || answer.starts_with(b"-MAST"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill9();
    }
}

#[cfg(test)]
mod tests {
    use super::Redis;

    #[test]
    fn a_durable_server_keeps_its_data_over_kill_and_restart() {
        let mut redis = Redis::durable();
        assert_eq!(redis.cli(&["SET", "k", "v"]), "OK");
        redis.kill9();
        redis.restart();
        assert_eq!(redis.cli(&["GET", "k"]), "v");
    }

    #[test]
    fn a_server_without_persistence_forgets() {
        let mut redis = Redis::start();
        assert_eq!(redis.cli(&["SET", "k", "v"]), "OK");
        redis.restart();
        assert_eq!(redis.cli(&["EXISTS", "k"]), "0");
    }
}
