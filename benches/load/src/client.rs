//! The load: keep-alive connections, each with one request under way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections at once.
pub const CONNECTIONS: usize = 64;

/// What one connection sends.
pub trait Work: Send + 'static {
    /// Writes the next request; `false` when there is none.
    fn next(&mut self, request: &mut Vec<u8>) -> bool;

    /// Looks at the answer.
    ///
    /// # Errors
    /// When it is not what it must be: a bench that measures refusals measures nothing.
    fn seen(&mut self, status: u16, body: &[u8]) -> anyhow::Result<()>;
}

/// What came of it.
#[derive(Default)]
pub struct Load {
    /// Microseconds, each request.
    pub latencies: Vec<u32>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Load {
    /// A quantile in milliseconds.
    pub fn quantile(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into some thousands of requests"
        )]
        let at = (self.latencies.len().saturating_sub(1) as f64 * share) as usize;
        self.latencies.get(at).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }

    /// Requests per second.
    #[expect(clippy::cast_precision_loss, reason = "some thousands of requests")]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Drives every work over a connection of its own until `length` is over or it has nothing more to send. Gives the
/// works back, for the next window.
pub async fn drive<W: Work>(
    address: SocketAddr,
    works: Vec<W>,
    length: Duration,
) -> anyhow::Result<(Load, Vec<W>)> {
    let mut tasks = JoinSet::new();
    let mut streams = Vec::new();
    for work in works {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("nobody listens on {address}"))?;
        stream.set_nodelay(true)?;
        streams.push((stream, work));
    }
    let awake = Awake(tokio::spawn(stay_awake()));
    let started = Instant::now();
    for (stream, work) in streams {
        tasks.spawn(one(stream, work, started + length));
    }
    let mut load = Load::default();
    let mut works = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (latencies, work) = done??;
        load.latencies.extend(latencies);
        works.push(work);
    }
    load.elapsed = started.elapsed();
    drop(awake);
    Ok((load, works))
}

/// The kernel charges the waking of whoever waits for an answer to the one who sends it, some microseconds on a virtual
/// machine, and nothing when nobody sleeps: a server that is quick enough to keep this program busy would look better
/// than it is beside one that is not. So this program never sleeps while it measures.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

struct Awake(tokio::task::JoinHandle<()>);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn one<W: Work>(mut stream: TcpStream, mut work: W, until: Instant) -> anyhow::Result<(Vec<u32>, W)> {
    let mut latencies = Vec::with_capacity(4096);
    let mut request = Vec::with_capacity(4096);
    let mut answer = Vec::with_capacity(16 * 1024);
    let mut sent = Instant::now();
    while sent < until {
        request.clear();
        if !work.next(&mut request) {
            break;
        }
        stream.write_all(&request).await?;
        let (status, head, length) = receive(&mut stream, &mut answer).await?;
        let now = Instant::now();
        latencies.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
        sent = now;
        work.seen(status, &answer[head..head + length])?;
        answer.drain(..head + length);
    }
    Ok((latencies, work))
}

/// Reads one answer with `Content-Length`; gives status, octets of the head, octets of the body.
async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<(u16, usize, usize)> {
    loop {
        if let Some(head) = end_of_head(buffer) {
            let text = std::str::from_utf8(&buffer[..head]).context("a head that is not text")?;
            let status = text.get(9..12).and_then(|s| s.parse().ok());
            let status: u16 = status.context("an answer without status")?;
            let length = content_length(text).unwrap_or(0);
            if buffer.len() >= head + length {
                return Ok((status, head, length));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
    }
}

fn end_of_head(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn content_length(head: &str) -> Option<usize> {
    let line = head.split("\r\n").find(|line| {
        line.get(..15)
            .is_some_and(|name| name.eq_ignore_ascii_case("content-length:"))
    })?;
    line.get(15..)?.trim().parse().ok()
}
