//! Sealing of what somebody else keeps for us: `version ‖ key ‖ nonce ‖ ciphertext ‖ tag`.
//!
//! Anybody can have as much sealed as they like, so each name has a key of its own, derived from it: however many are
//! made, no nonce is in danger of coming twice under one key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};

use super::{SEALED, Sealing, TAG_LEN};

fn key(sealing: &Sealing, name: &str) -> Option<LessSafeKey> {
    let derived = hmac::sign(&sealing.carried, name.as_bytes());
    UnboundKey::new(&AES_256_GCM, derived.as_ref())
        .ok()
        .map(LessSafeKey::new)
}

pub(super) fn enclose(sealing: &Sealing, name: &str, plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).ok()?;
    let mut body = plain.to_vec();
    let aad = Aad::from(name.as_bytes());
    key(sealing, name)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
        .ok()?;
    Some([&[SEALED], sealing.tag.as_slice(), &nonce, &body].concat())
}

pub(super) fn disclose(sealing: &Sealing, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (version, rest) = sealed.split_first()?;
    let (tag, rest) = rest.split_first_chunk::<TAG_LEN>()?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
    if *version != SEALED || *tag != sealing.tag {
        return None;
    }
    let mut body = body.to_vec();
    let aad = Aad::from(name.as_bytes());
    let opened = key(sealing, name)?.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body);
    let length = opened.ok()?.len();
    body.truncate(length);
    Some(body)
}

#[cfg(test)]
mod tests {
    use crate::ports::seal::Seal as _;
    use crate::store::seal::Keys;

    #[test]
    fn what_is_carried_opens_under_its_name_with_its_key_unaltered() {
        let (keys, others) = (Keys::ephemeral().unwrap(), Keys::ephemeral().unwrap());
        let sealed = keys.enclose("a", b"nonce and verifier").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"nonce"));
        assert_eq!(keys.disclose("a", &sealed).unwrap(), b"nonce and verifier");
        assert_eq!(keys.disclose("b", &sealed), None);
        assert_eq!(others.disclose("a", &sealed), None);
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert_eq!(keys.disclose("a", &bent), None, "octet {at}");
            assert_eq!(keys.disclose("a", &sealed[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn what_is_carried_outlives_a_rotation_of_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let before = Keys::create(&path).unwrap();
        let sealed = before.enclose("a", b"x").unwrap();
        let after = Keys::rotate(&path).unwrap();
        assert_eq!(after.disclose("a", &sealed).unwrap(), b"x");
        assert_eq!(before.disclose("a", &after.enclose("a", b"x").unwrap()), None);
    }
}
