//! Ports for servers that must be told their port beforehand.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// Where to look from on.
const LOWEST: u16 = 12_000;
/// What Linux gives to outgoing connections from on, unless it is told otherwise.
const OUTGOING: u16 = 32_768;

/// A loopback TCP port that nobody listens on now and that this process has not handed out before.
///
/// It is none that an outgoing connection, or a listener on any port, is given: those come and go all the time, also
/// between this call and the bind of whoever uses the port.
pub fn free_port() -> u16 {
    let highest = first_outgoing().max(LOWEST + 1_000);
    let many = highest - LOWEST;
    // Another start in each process, so that those that run side by side do not meet.
    let start = RandomState::new().hash_one(std::process::id()) % u64::from(many);
    let start = u16::try_from(start).expect("less than all");
    for step in 0..many {
        let port = LOWEST + (start + step) % many;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let mut guard = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        if free && guard.get_or_insert_default().insert(port) {
            return port;
        }
    }
    panic!("no free loopback port from {LOWEST} to {highest}");
}

fn first_outgoing() -> u16 {
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = told.split_whitespace().next().and_then(|n| n.parse().ok());
    first.unwrap_or(OUTGOING)
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
