//! What stands in front of two replicas in a cluster: every connection goes to one of them, to the other when the
//! first does not take it. It knows nothing of HTTP and asks nobody whether they are well.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The balancer; it ends with this value.
#[derive(Debug)]
pub struct Balancer(JoinHandle<()>);

impl Balancer {
    /// Listens on `port` of the loopback.
    pub async fn start(port: u16, replicas: [u16; 2]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("the issuer's port");
        Self(tokio::spawn(async move {
            let turn = AtomicUsize::new(0);
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                let first = turn.fetch_add(1, Ordering::Relaxed) % 2;
                tokio::spawn(serve(client, [replicas[first], replicas[1 - first]]));
            }
        }))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(mut client: TcpStream, replicas: [u16; 2]) {
    for port in replicas {
        if let Ok(mut server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
