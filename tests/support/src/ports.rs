//! Ports for servers that must be told their port beforehand.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback TCP port that nobody listens on now and that this process has not handed out before.
///
/// Another process may still take it before its user binds it: whoever starts a server on it tries again
/// with another port when the bind fails.
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let mut guard = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.get_or_insert_default().insert(port) {
            return port;
        }
    }
    panic!("no free loopback port after 100 tries");
}

#[cfg(test)]
mod tests {
    use super::free_port;

    #[test]
    fn no_port_is_handed_out_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            assert!(seen.insert(free_port()));
        }
    }
}
