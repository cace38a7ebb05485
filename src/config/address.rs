//! Which addresses are public. Whatever is not known to be somebody's on the Internet is refused, so that a new
//! special-purpose range is refused before anybody has heard of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `IPv4` ranges that are nobody's on the Internet (IANA special-purpose registry): first address and prefix length.
const SPECIAL_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Shared by carriers (RFC 6598).
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Link-local; also where clouds serve their instances' credentials.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    // Relays of 6to4 (RFC 7526).
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast.
    ([224, 0, 0, 0], 4),
    // Reserved, and the broadcast address.
    ([240, 0, 0, 0], 4),
    // Azure's platform service answers here from any network.
    ([168, 63, 129, 16], 32),
];

/// `IPv6` ranges inside global unicast (`2000::/3`) that are not for everybody: first 32 bits and prefix length.
const SPECIAL_V6: [(u32, u32); 4] = [
    // IETF assignments, with Teredo and benchmarking (2001::/23).
    (0x2001_0000, 23),
    // Documentation.
    (0x2001_0db8, 32),
    // 6to4 carries an `IPv4` address inside (2002::/16).
    (0x2002_0000, 16),
    // Documentation (3fff::/20).
    (0x3fff_0000, 20),
];

/// Whether an address is somebody's on the Internet. Outside `2000::/3` there is no such `IPv6` address: neither mapped
/// (`::ffff:0:0/96`) nor translated ones (`64:ff9b::/96`), neither private, link-local nor multicast.
#[must_use]
pub fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => public_v4(v4),
        IpAddr::V6(v6) => public_v6(v6),
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !SPECIAL_V4
        .iter()
        .any(|(first, length)| same_prefix(bits, Ipv4Addr::from(*first).to_bits(), *length))
}

fn public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let bits = u32::from(a) << 16 | u32::from(b);
    same_prefix(bits, 0x2000_0000, 3)
        && !SPECIAL_V6
            .iter()
            .any(|(first, length)| same_prefix(bits, *first, *length))
}

const fn same_prefix(a: u32, b: u32, length: u32) -> bool {
    // A shift by 32 would be none at all: no range here is empty.
    (a ^ b) >> (32 - length) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nobodys_on_the_internet_is_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_somebodys_is_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::8a",
            "2001:4860:4860::8888",
        ] {
            assert!(public(text.parse().unwrap()), "{text}");
        }
    }
}
