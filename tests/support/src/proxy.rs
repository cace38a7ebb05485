//! A TCP proxy that stands before a server and can be told to fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::background;

/// What the proxy does with connections, those open now included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes flow both ways.
    Pass,
    /// Every connection, old and new, is reset.
    Cut,
    /// Connections are accepted and stay open, but not a byte is forwarded.
    Hang,
    /// Bytes flow both ways, each portion so much later.
    Slow(Duration),
}

/// The proxy; it ends, and its connections with it, when this value is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `target`, at first passing everything.
    pub fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("a bound address");
        let (mode, watcher) = watch::channel(Mode::Pass);
        let accepting = background().spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            // Dropping the set with this task ends every connection.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((client, _)) = accepted {
                        connections.spawn(serve(client, target, watcher.clone()));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self {
            address,
            mode,
            accepting,
        }
    }

    /// In front of `http://127.0.0.1:PORT`, `redis://127.0.0.1:PORT/0` and the like.
    pub fn before(url: &str) -> Self {
        let url = url::Url::parse(url).expect("a URL");
        let port = url.port_or_known_default().expect("a port");
        Self::start((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port clients connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The same URL through the proxy.
    pub fn through(&self, url: &str) -> String {
        let mut through = url::Url::parse(url).expect("a URL");
        through.set_host(Some("127.0.0.1")).expect("a URL with a host");
        through.set_port(Some(self.port())).expect("a URL with a port");
        through.as_str().trim_end_matches('/').to_owned()
    }

    /// Lets bytes flow; a connection that hung goes on where it stopped.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Resets every connection, those to come included.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Lets every question reach the server so much later.
    pub fn slow(&self, by: Duration) {
        self.mode.send_replace(Mode::Slow(by));
    }

    /// Keeps every connection open and forwards nothing.
    pub fn hang(&self) {
        self.mode.send_replace(Mode::Hang);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let mut server = None;
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Cut => break,
            Mode::Hang => {
                if mode.changed().await.is_err() {
                    break;
                }
            }
            Mode::Pass | Mode::Slow(_) => {
                if server.is_none() {
                    let connecting = TcpStream::connect(target);
                    match tokio::time::timeout(Duration::from_secs(5), connecting).await {
                        Ok(Ok(stream)) => server = Some(stream),
                        _ => break,
                    }
                }
                let Some(upstream) = server.as_mut() else { break };
                if let Mode::Slow(by) = now {
                    tokio::select! {
                        _ = copy_slowly(&mut client, upstream, by) => return,
                        changed = mode.changed() => if changed.is_err() { break },
                    }
                    continue;
                }
                tokio::select! {
                    _ = copy_bidirectional(&mut client, upstream) => return,
                    changed = mode.changed() => if changed.is_err() { break },
                }
            }
        }
    }
    // No lingering: closing sends RST instead of FIN, as a cut cable that comes back does.
    reset(&client);
    if let Some(upstream) = &server {
        reset(upstream);
    }
}

/// Forwards questions after a while, and answers at once.
async fn copy_slowly(client: &mut TcpStream, server: &mut TcpStream, by: Duration) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let questions = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<_, std::io::Error>(());
            }
            tokio::time::sleep(by).await;
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        ended = questions => ended,
        ended = answers => ended.map(|_| ()),
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::Proxy;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn echo() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn says(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<bool> {
        stream.write_all(word).await?;
        let mut answer = vec![0; word.len()];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut answer)).await;
        match read {
            Ok(done) => done.map(|_| answer == word),
            Err(_) => Ok(false),
        }
    }

    #[tokio::test]
    async fn it_passes_cuts_and_passes_again() {
        let proxy = Proxy::start(echo().await);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says(&mut stream, b"one").await.unwrap());
        proxy.cut();
        let mut byte = [0; 1];
        let after = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte))
            .await
            .unwrap();
        assert!(after.is_err(), "the open connection is reset: {after:?}");
        // The reset may come before the connecting is done or after.
        if let Ok(mut refused) = TcpStream::connect(proxy.address()).await {
            assert!(says(&mut refused, b"two").await.is_err());
        }
        proxy.pass();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says(&mut stream, b"three").await.unwrap());
    }

    #[tokio::test]
    async fn it_hangs_and_goes_on() {
        let proxy = Proxy::start(echo().await);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says(&mut stream, b"one").await.unwrap());
        proxy.hang();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!says(&mut stream, b"two").await.unwrap());
        proxy.pass();
        let mut late = [0; 3];
        tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut late))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&late, b"two");
    }

    #[test]
    fn a_url_goes_through() {
        let proxy = Proxy::before("redis://127.0.0.1:6379/0");
        assert_eq!(
            proxy.through("redis://127.0.0.1:6379/0"),
            format!("redis://127.0.0.1:{}/0", proxy.port())
        );
        assert_eq!(
            proxy.through("http://127.0.0.1:6379"),
            format!("http://127.0.0.1:{}", proxy.port())
        );
    }
}
