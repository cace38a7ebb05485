//! Where a request comes from.
//!
//! What stands in a header is somebody's word. It is believed as far as it was written by proxies that the configuration
//! names, read from the right: the first address that is not one of them is the client, and what stands left of it
//! anybody may have written. Only the one header that the proxies set is read; a client could send the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};

use crate::config::server::{ForwardedBy, Network};

/// Who stands before us.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Networks of our own proxies.
    pub trusted: Vec<Network>,
    /// The header they write.
    pub header: ForwardedBy,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Whether it says who somebody is. On loopback stands a proxy that nobody named, or a test: then it is everybody.
    #[must_use]
    pub const fn is_known(self) -> bool {
        !self.0.is_loopback() && !self.0.is_unspecified()
    }
}

impl Proxies {
    /// The client's address.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap, extensions: &Extensions) -> Peer {
        let peer = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |c| c.0.ip().to_canonical());
        let mut client = peer;
        if !self.trusts(client) {
            warn_of_unnamed(headers);
            return Peer(client);
        }
        for hop in self.hops(headers).into_iter().rev() {
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        Peer(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|n| n.contains(address))
    }

    /// The addresses of the header from left to right; `None` for what is none.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let name = match self.header {
            ForwardedBy::XForwardedFor => "x-forwarded-for",
            ForwardedBy::Forwarded => "forwarded",
        };
        let lines = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or("?"));
        let entries = lines.flat_map(|line| line.split(','));
        match self.header {
            ForwardedBy::XForwardedFor => entries.map(address).collect(),
            ForwardedBy::Forwarded => entries.map(|e| address(forwarded_for(e)?)).collect(),
        }
    }
}

/// Says once that somebody who is named nowhere speaks for others: if it is a proxy, all of them are one address here.
fn warn_of_unnamed(headers: &HeaderMap) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.load(Ordering::Relaxed) {
        return;
    }
    let names = ["x-forwarded-for", "forwarded"];
    if let Some(header) = names.into_iter().find(|name| headers.contains_key(*name))
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            header,
            "requests come with this header from an address that `server.trusted_proxies` does not name, so it is not \
             believed: everybody behind a proxy there counts as one address in `limits`; name the networks of your proxies"
        );
    }
}

/// `for=` of one element (RFC 7239 §4).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    Some(value.trim_matches('"'))
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let found = bare
        .parse::<IpAddr>()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    found.map(|a| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, header: ForwardedBy, lines: &[&str]) -> String {
        let proxies = Proxies {
            trusted: ["10.0.0.0/8", "fd00::/8"]
                .map(|n| Network::parse(n).unwrap())
                .into(),
            header,
        };
        let mut headers = HeaderMap::new();
        let name = match header {
            ForwardedBy::XForwardedFor => "x-forwarded-for",
            ForwardedBy::Forwarded => "forwarded",
        };
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
        proxies.client(&headers, &extensions).0.to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_of_ours_is_the_client() {
        let x = |peer, lines: &[&str]| client(peer, ForwardedBy::XForwardedFor, lines);
        assert_eq!(x("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.9, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.9", "192.0.2.1"]), "192.0.2.1");
        assert_eq!(x("10.0.0.1", &["192.0.2.1:5000"]), "192.0.2.1");
        assert_eq!(x("10.0.0.1", &["[2001:db8::1]:5000, fd00::2"]), "2001:db8::1");
        assert_eq!(x("fd00::1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(x("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
        // Nobody else is believed, and rubbish ends the reading.
        assert_eq!(x("192.0.2.7", &["198.51.100.9"]), "192.0.2.7");
        assert_eq!(x("10.0.0.1", &["198.51.100.9, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(x("10.0.0.1", &["198.51.100.9, "]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn forwarded_is_read_only_when_the_proxies_write_it() {
        let f = |lines: &[&str]| client("10.0.0.1", ForwardedBy::Forwarded, lines);
        assert_eq!(
            f(&["for=192.0.2.1;proto=https, For=\"[2001:db8::1]:99\";by=x"]),
            "2001:db8::1"
        );
        assert_eq!(f(&["for=192.0.2.1, for=_hidden"]), "10.0.0.1");
        assert_eq!(f(&["proto=https"]), "10.0.0.1");
        let mut headers = HeaderMap::new();
        headers.insert("forwarded", "for=198.51.100.9".parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 1))));
        let proxies = Proxies {
            trusted: vec![Network::parse("10.0.0.0/8").unwrap()],
            header: ForwardedBy::XForwardedFor,
        };
        assert_eq!(proxies.client(&headers, &extensions).0.to_string(), "10.0.0.1");
    }
}
