//! Accepting connections, with a bound on everything that a stranger can make us hold.
//!
//! The web framework's own accept loop has no limit on connections and none on the time in which a request's head has
//! to arrive, so somebody who opens many connections and sends a byte now and then would have them all. Here each
//! connection has a phase (its head is arriving, it is being answered, it rests between two requests) and a time limit
//! for each phase but the second, which has the request's own. A phase is one atomic word, looked at by a timer that
//! wakes seldom: a request pays two stores for it.
//!
//! When every place is taken, the connections that do nothing make room, the ones that have rested longest first: a
//! crowd of open connections keeps nobody out. Only when all of them are really being answered is a new one told 503.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

/// Open files that are not connections: the store, IdPs, mail, logs.
const RESERVED_FILES: u64 = 128;
/// What a connection is told for which there is no place.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Most headers of one request.
const HEADERS: usize = 64;
/// Largest head of one request in octets.
const HEAD: usize = 32 * 1024;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections at once.
    pub connections: usize,
    /// Longest time from the first octet of a request (or from the connection's begin) to the end of its head.
    pub head: Duration,
    /// Longest rest between two requests.
    pub rest: Duration,
    /// A connection that is older than this closes after its next answer.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 8192,
            head: Duration::from_secs(10),
            rest: Duration::from_secs(75),
            age: Duration::from_hours(1),
        }
    }
}

impl Bounds {
    /// For a listener that only probes and a collector of metrics reach.
    #[must_use]
    pub fn few() -> Self {
        Self {
            connections: 64,
            ..Self::default()
        }
    }

    /// The same with no more connections than this process may have files open; raises that limit as far as the
    /// system lets it.
    #[must_use]
    pub fn within_files(mut self) -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let wanted = u64::try_from(self.connections)
            .unwrap_or(u64::MAX)
            .saturating_add(RESERVED_FILES);
        let now = getrlimit(Resource::Nofile);
        let possible = now.maximum.map_or(wanted, |most| wanted.min(most));
        if now.current.is_some_and(|current| current < possible) {
            let raised = Rlimit {
                current: Some(possible),
                maximum: now.maximum,
            };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, "the limit of open files cannot be raised");
            }
        }
        if let Some(files) = getrlimit(Resource::Nofile).current {
            let most = usize::try_from(files.saturating_sub(RESERVED_FILES).max(16)).unwrap_or(usize::MAX);
            if most < self.connections {
                tracing::warn!(
                    most,
                    wanted = self.connections,
                    "fewer connections than configured: open files are limited (ulimit -n)"
                );
                self.connections = most;
            }
        }
        self
    }
}

/// What a connection does, and since when: milliseconds since the listener began, shifted by two bits.
#[derive(Debug)]
struct Phase(AtomicU64);

const HEAD_ARRIVES: u64 = 0;
const ANSWERED: u64 = 1;
const RESTS: u64 = 2;

impl Phase {
    fn enter(&self, phase: u64, at: u64) {
        self.0.store((at << 2) | phase, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        let word = self.0.load(Ordering::Relaxed);
        (word & 3, word >> 2)
    }
}

struct Connection {
    phase: Phase,
    began: u64,
    close: CancellationToken,
}

struct Open {
    bounds: Bounds,
    began: Instant,
    all: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

impl Open {
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX >> 2)
    }

    /// A place for one more connection: a free one, or that of connections that do nothing. `None` when all are busy.
    fn admit(&self, id: u64) -> Option<Arc<Connection>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= self.bounds.connections {
            make_room(&mut all, self.bounds.connections);
            if all.len() >= self.bounds.connections {
                return None;
            }
        }
        let now = self.millis();
        let connection = Arc::new(Connection {
            phase: Phase(AtomicU64::new(0)),
            began: now,
            close: CancellationToken::new(),
        });
        connection.phase.enter(HEAD_ARRIVES, now);
        all.insert(id, Arc::clone(&connection));
        Some(connection)
    }

    fn leave(&self, id: u64) {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// How long a connection may stay in its phase from now on.
    fn left(&self, connection: &Connection, leaving: bool) -> Duration {
        let (phase, since) = connection.phase.read();
        let most = match phase {
            // An answer under way has the request's own deadline; it is looked at again after a while.
            ANSWERED => return self.bounds.head,
            _ if leaving => Duration::ZERO,
            RESTS => self.bounds.rest,
            _ => self.bounds.head,
        };
        most.saturating_sub(Duration::from_millis(self.millis().saturating_sub(since)))
    }

    fn is_old(&self, connection: &Connection) -> bool {
        u128::from(self.millis().saturating_sub(connection.began)) >= self.bounds.age.as_millis()
    }
}

/// Closes connections that do nothing, the ones that have done so longest first: several at once, so that the crowd is
/// not looked through for each newcomer.
fn make_room(all: &mut BTreeMap<u64, Arc<Connection>>, most: usize) {
    let mut idle: Vec<(u64, u64)> = all
        .iter()
        .filter_map(|(id, c)| {
            let (phase, since) = c.phase.read();
            (phase != ANSWERED).then_some((since, *id))
        })
        .collect();
    idle.sort_unstable();
    idle.truncate((most / 16).max(1));
    for (_, id) in &idle {
        if let Some(old) = all.remove(id) {
            old.close.cancel();
        }
    }
    metrics::counter!("reentry_connections_evicted_total").increment(idle.len() as u64);
}

/// Serves until `stop` is cancelled: then accepts nothing new, closes what rests, and returns when every request under
/// way has been answered.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let open = Arc::new(Open {
        bounds,
        began: Instant::now(),
        all: Mutex::default(),
    });
    let tasks = TaskTracker::new();
    let mut id: u64 = 0;
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    troubled(&error).await;
                    continue;
                }
            },
        };
        id += 1;
        if let Some(connection) = open.admit(id) {
            let place = Place {
                open: Arc::clone(&open),
                id,
                connection,
                peer,
            };
            tasks.spawn(one(place, stream, router.clone(), stop.clone()));
        } else {
            metrics::counter!("reentry_connections_shed_total").increment(1);
            tokio::spawn(tokio::time::timeout(Duration::from_millis(200), refuse(stream)));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// A connection that was gone before it was accepted is nothing; no more files is a reason to wait.
async fn troubled(error: &std::io::Error) {
    use std::io::ErrorKind;
    let gone = [
        ErrorKind::ConnectionAborted,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionRefused,
    ];
    if !gone.contains(&error.kind()) {
        tracing::error!(%error, "connections cannot be accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn refuse(mut stream: TcpStream) {
    if stream.write_all(FULL).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// A connection's place among the open ones; given back when it is dropped, whatever happens to the connection.
struct Place {
    open: Arc<Open>,
    id: u64,
    connection: Arc<Connection>,
    peer: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.leave(self.id);
    }
}

async fn one(place: Place, stream: TcpStream, router: Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let (open, connection, peer) = (&place.open, &place.connection, place.peer);
    let io = Watched {
        inner: TokioIo::new(stream),
        open: Arc::clone(open),
        connection: Arc::clone(connection),
    };
    let service = service_fn(|request: Request<Incoming>| {
        connection.phase.enter(ANSWERED, open.millis());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().call(request);
        async move {
            let response: Result<_, Infallible> = answer.await;
            connection.phase.enter(RESTS, open.millis());
            response
        }
    });
    let mut http = http1::Builder::new();
    http.max_headers(HEADERS).max_buf_size(HEAD);
    let mut served = pin!(http.serve_connection(io, service));
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = connection.close.cancelled() => return,
            () = stop.cancelled(), if !leaving => leaving = true,
            () = tokio::time::sleep(open.left(connection, leaving)) => {
                if open.left(connection, leaving).is_zero() {
                    return;
                }
                leaving |= open.is_old(connection);
            }
        }
        if leaving {
            served.as_mut().graceful_shutdown();
        }
    }
}

/// A stream that notices the first octet of the next request.
struct Watched {
    inner: TokioIo<TcpStream>,
    open: Arc<Open>,
    connection: Arc<Connection>,
}

impl hyper::rt::Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_ready() && self.connection.phase.read().0 == RESTS {
            self.connection.phase.enter(HEAD_ARRIVES, self.open.millis());
        }
        read
    }
}

impl hyper::rt::Write for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}
