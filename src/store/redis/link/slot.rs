//! Which of a cluster's 16384 slots a key belongs to.

/// How many slots there are.
pub(crate) const SLOTS: u16 = 16384;

/// A slot. On a server that is no cluster it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u16);

/// The slot of a key: CRC16 (XMODEM) of what stands between the first braces, or of the whole key.
pub(crate) fn of(key: &str) -> Slot {
    let inner = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    let mut crc = 0_u16;
    for octet in inner.unwrap_or(key).bytes() {
        crc ^= u16::from(octet) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    Slot(crc % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::{Slot, of};

    /// Values from the cluster specification, and `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(of("123456789"), Slot(12739));
        assert_eq!(of("{user1000}.following"), of("{user1000}.followers"));
        assert_eq!(of("foo{}{bar}"), Slot(8363));
        assert_eq!(of("foo{bar}{zap}"), of("bar"));
        assert_eq!(of("re:{007}:due"), of("007"));
    }
}
