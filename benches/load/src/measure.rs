//! What the kernel and Redis say: CPU time, resident memory, commands.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use reentry_test_support::redis::Redis;

/// Which cores are whose.
pub struct Place {
    /// The server under test.
    server: Option<usize>,
}

impl Place {
    /// Core 0 is the server's when there are two and `taskset` is here; this process and its Redis go to core 1.
    pub fn find() -> anyhow::Result<Self> {
        for (program, package) in [("redis-server", "redis-server"), ("setpriv", "util-linux")] {
            if find(program).is_none() {
                bail!("`{program}` is missing: install the Debian package {package}, or run scripts/install");
            }
        }
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let several = online.trim() != "0" && !online.is_empty();
        if !several || find("taskset").is_none() {
            return Ok(Self { server: None });
        }
        let own = std::process::id().to_string();
        let moved = Command::new("taskset")
            .args(["-a", "-p", "-c", "1", &own])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let moved = moved.is_ok_and(|status| status.success());
        Ok(Self {
            server: moved.then_some(0),
        })
    }

    /// One line about it.
    pub fn say(&self) -> &'static str {
        match self.server {
            Some(_) => "server on core 0, Redis and load on core 1",
            None => "not pinned (one core, or no `taskset`): figures of requests per second mean little",
        }
    }

    /// Starts a server on its core, its standard error in a file; `taskset` becomes the program, so the process id is the
    /// server's.
    pub fn start(&self, mut command: Command, log: &Path) -> anyhow::Result<Server> {
        if let Some(core) = self.server {
            let mut pinned = Command::new("taskset");
            pinned.args(["-c", &core.to_string()]);
            pinned.arg(command.get_program()).args(command.get_args());
            if let Some(directory) = command.get_current_dir() {
                pinned.current_dir(directory);
            }
            for (name, value) in command.get_envs() {
                if let Some(value) = value {
                    pinned.env(name, value);
                }
            }
            command = pinned;
        }
        let log = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Server(child))
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = reentry_test_support::clock::env("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A server under test; killed when dropped.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// CPU time of all its threads so far in nanoseconds: `schedstat` where the kernel has it, `stat` (ticks of 10 ms)
    /// otherwise.
    pub fn cpu(&self) -> anyhow::Result<u64> {
        let process = format!("/proc/{}", self.0.id());
        let mut sum = 0;
        let mut exact = true;
        for task in std::fs::read_dir(format!("{process}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            match text.split(' ').next().and_then(|word| word.parse::<u64>().ok()) {
                Some(nanos) => sum += nanos,
                None => exact = false,
            }
        }
        if exact && sum > 0 {
            return Ok(sum);
        }
        let stat = std::fs::read_to_string(format!("{process}/stat"))?;
        let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks = after.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|word| word.parse::<u64>().ok()).sum();
        Ok(ticks * 10_000_000)
    }

    /// Resident memory in KiB, whole (`VmRSS`) or without the program's own text (`RssAnon`).
    pub fn resident(&self, of: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let words = status.lines().map(str::split_whitespace);
        let mut found =
            words.filter_map(|mut words| (words.next()? == format!("{of}:")).then(|| words.next()));
        let word = found.next().flatten();
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("no {of} in /proc"))
    }
}

/// Commands that Redis has run so far, those inside scripts too, but for those that only ask for this figure.
pub fn commands(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let count: u64 = rest.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), count))
    };
    stats
        .lines()
        .filter_map(calls)
        .filter(|(name, _)| name != "info")
        .map(|(_, count)| count)
        .sum()
}

/// How long, and how often.
#[derive(Clone, Copy)]
pub struct Windows {
    /// Before anything counts.
    pub warm: Duration,
    /// Each window.
    pub length: Duration,
    /// Windows; the median counts.
    pub count: usize,
}

impl Windows {
    /// The usual, or what is enough to see that everything runs.
    pub fn new(quick: bool) -> Self {
        if quick {
            return Self {
                warm: Duration::from_millis(200),
                length: Duration::from_millis(500),
                count: 1,
            };
        }
        Self {
            warm: Duration::from_millis(500),
            length: Duration::from_millis(1000),
            count: 5,
        }
    }
}
