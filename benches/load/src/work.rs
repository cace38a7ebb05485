//! What connections send, and windows of it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reentry_test_support::redis::Redis;

use crate::client::{CONNECTIONS, Load, Work, drive};
use crate::measure::{Server, Windows, commands};
use crate::report::{Row, median};

/// The same requests in turn, each answered 200.
pub struct Same {
    requests: std::sync::Arc<Vec<Vec<u8>>>,
    at: usize,
    /// What each body must hold.
    holds: &'static str,
}

impl Same {
    /// One work for each connection, each starting elsewhere.
    pub fn all(requests: Vec<Vec<u8>>, holds: &'static str) -> Vec<Self> {
        let requests = std::sync::Arc::new(requests);
        let step = requests.len() / CONNECTIONS + 1;
        (0..CONNECTIONS)
            .map(|n| Self {
                requests: requests.clone(),
                at: n * step,
                holds,
            })
            .collect()
    }
}

impl Work for Same {
    fn next(&mut self, request: &mut Vec<u8>) -> bool {
        let next = &self.requests[self.at % self.requests.len()];
        request.extend_from_slice(next);
        self.at += 1;
        true
    }

    fn seen(&mut self, status: u16, body: &[u8]) -> anyhow::Result<()> {
        check(status, body, self.holds)
    }
}

/// Requests of which each is sent once.
pub struct Once {
    requests: Vec<Vec<u8>>,
    holds: &'static str,
}

impl Once {
    /// One work for each connection.
    pub fn all(requests: Vec<Vec<u8>>, holds: &'static str) -> Vec<Self> {
        let mut works: Vec<Self> = (0..CONNECTIONS)
            .map(|_| Self {
                requests: Vec::new(),
                holds,
            })
            .collect();
        for (n, request) in requests.into_iter().enumerate() {
            works[n % CONNECTIONS].requests.push(request);
        }
        works
    }
}

impl Work for Once {
    fn next(&mut self, request: &mut Vec<u8>) -> bool {
        self.requests.pop().is_some_and(|next| {
            request.extend_from_slice(&next);
            true
        })
    }

    fn seen(&mut self, status: u16, body: &[u8]) -> anyhow::Result<()> {
        check(status, body, self.holds)
    }
}

fn check(status: u16, body: &[u8], holds: &str) -> anyhow::Result<()> {
    let found = holds.is_empty() || body.windows(holds.len()).any(|w| w == holds.as_bytes());
    if status == 200 && found {
        return Ok(());
    }
    bail!(
        "200 with `{holds}` expected, came {status}: {}",
        String::from_utf8_lossy(body)
    )
}

/// A server under test with what it needs.
pub struct Target {
    /// The process.
    pub server: Server,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its store.
    pub redis: Redis,
    /// Redis commands per second that its workers send without any request.
    pub idle: f64,
}

/// One window.
pub struct Window {
    /// Server CPU per request in microseconds.
    cpu_us: f64,
    load: Load,
    /// Redis commands per request.
    commands: f64,
}

/// Drives one window and measures it.
#[expect(clippy::cast_precision_loss, reason = "counts of one window")]
pub async fn window<W: Work>(
    target: &Target,
    works: Vec<W>,
    length: Duration,
) -> anyhow::Result<(Window, Vec<W>)> {
    let commands_before = commands(&target.redis);
    let cpu_before = target.server.cpu()?;
    let (load, works) = drive(target.address, works, length).await?;
    let cpu = target.server.cpu()? - cpu_before;
    let asked = (commands(&target.redis) - commands_before) as f64;
    let asked = (asked - target.idle * load.elapsed.as_secs_f64()).max(0.0);
    let requests = load.latencies.len();
    if requests == 0 {
        bail!("no request was answered");
    }
    let requests = requests as f64;
    let window = Window {
        cpu_us: cpu as f64 / 1000.0 / requests,
        load,
        commands: asked / requests,
    };
    Ok((window, works))
}

/// Warms up and drives all windows.
pub async fn windows<W: Work>(
    target: &Target,
    mut works: Vec<W>,
    windows: Windows,
) -> anyhow::Result<(Vec<Window>, Vec<W>)> {
    (_, works) = drive(target.address, works, windows.warm).await?;
    let mut all = Vec::new();
    for _ in 0..windows.count {
        let (one, back) = window(target, works, windows.length).await?;
        works = back;
        all.push(one);
    }
    Ok((all, works))
}

/// A path's medians; the best p99, since a neighbour's stall says nothing about us.
pub fn row(path: &str, mut windows: Vec<Window>, against: Option<(&str, Option<f64>)>) -> Row {
    let of = |f: &dyn Fn(&Window) -> f64| median(windows.iter().map(f).collect());
    let (cpu_us, rps, redis_commands) = (of(&|w| w.cpu_us), of(&|w| w.load.rate()), of(&|w| w.commands));
    let p50 = windows.iter_mut().map(|w| w.load.quantile(0.5)).collect();
    let p99 = windows.iter_mut().map(|w| w.load.quantile(0.99));
    let p99_ms = p99.fold(f64::INFINITY, f64::min);
    let row = Row {
        path: path.to_owned(),
        cpu_us,
        against: against.map(|(bare, _)| bare.to_owned()),
        limit: against.and_then(|(_, limit)| limit),
        rps,
        p50_ms: median(p50),
        p99_ms,
        redis_commands,
    };
    eprintln!("{path}: {cpu_us:.1} us, {rps:.0}/s");
    row
}

/// Waits until somebody listens; gives how long it took.
pub async fn listening(server: &mut Server, address: SocketAddr) -> anyhow::Result<Duration> {
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(started.elapsed());
        }
        if !server.is_running() {
            bail!("the server ended before it listened on {address}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    None.with_context(|| format!("nobody listens on {address} after 30 s"))
}
