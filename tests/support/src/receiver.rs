//! An HTTP receiver on the loopback that keeps what it is given and misbehaves when told to.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::background;

/// How the receiver answers from the next request on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Manner {
    /// 204.
    #[default]
    Take,
    /// This status, without a body.
    Status(u16),
    /// 302 to this address.
    Redirect(String),
    /// The request is read, and nothing is ever said.
    Hang,
    /// 200, and a body that never ends, as fast as it is read.
    Endless,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Method and target.
    pub line: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    manner: Manner,
    received: Vec<Received>,
    written: usize,
}

/// A receiver; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free loopback port, without TLS.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = background().spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move {
                            let _ = serve(stream, &shared).await;
                        });
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes how it answers.
    pub fn behave(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// What came so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    /// Octets of bodies written so far.
    pub fn written(&self) -> usize {
        lock(&self.state).written
    }

    /// Waits until at least `count` requests came, and gives them all.
    pub async fn wait_count(&self, count: usize, timeout: Duration) -> Vec<Received> {
        let start = Instant::now();
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(
                start.elapsed() < timeout,
                "{count} requests expected, {} came",
                received.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut wire = BufReader::new(stream);
    let Some(received) = hear(&mut wire).await? else {
        return Ok(());
    };
    let manner = {
        let mut state = lock(state);
        state.received.push(received);
        state.manner.clone()
    };
    let head = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\n\r\n");
    let answer = match manner {
        Manner::Take => head("204 No Content", ""),
        Manner::Status(code) => head(&format!("{code} Said"), "Content-Length: 0\r\n"),
        Manner::Redirect(to) => head("302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n")),
        Manner::Hang => {
            let mut byte = [0];
            while wire.read(&mut byte).await? > 0 {}
            return Ok(());
        }
        Manner::Endless => {
            wire.write_all(head("200 OK", "Content-Type: text/plain\r\n").as_bytes())
                .await?;
            loop {
                wire.write_all(&[b'x'; 8192]).await?;
                lock(state).written += 8192;
            }
        }
    };
    wire.write_all(answer.as_bytes()).await?;
    wire.shutdown().await
}

async fn hear(wire: &mut BufReader<TcpStream>) -> std::io::Result<Option<Received>> {
    let mut line = String::new();
    if wire.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        wire.read_line(&mut header).await?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    wire.read_exact(&mut body).await?;
    Ok(Some(Received {
        line: line.trim_end().to_owned(),
        headers,
        body,
    }))
}
