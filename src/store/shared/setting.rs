//! Settings carry a MAC: where a poller goes on, when a log was last read to its end, who may end freezes. Whoever writes
//! to the store without our keys can take one away or put back one of before, and then more is read and asked than has to
//! be; but nobody makes us believe what we did not write.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ports::seal::{Purpose, Seal};

fn message(name: &str, text: &str) -> Vec<u8> {
    format!("setting\0{name}\0{text}").into_bytes()
}

/// The value as it is stored: `base64url(MAC) "." text`.
pub(super) fn sealed(seal: &impl Seal, name: &str, text: &str) -> String {
    let mac = seal.mac(Purpose::Installation, &message(name, text));
    format!("{}.{text}", URL_SAFE_NO_PAD.encode(mac))
}

/// The text again; `None` when we did not write it under this name.
pub(super) fn opened(seal: &impl Seal, name: &str, value: &str) -> Option<String> {
    let (mac, text) = value.split_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    let ours = seal.verify(Purpose::Installation, &message(name, text), &mac);
    ours.then(|| text.to_owned())
}

/// What is stored, when we wrote it; that somebody else did is said.
pub(super) fn read(seal: &impl Seal, name: &str, value: Option<String>) -> Option<String> {
    let text = opened(seal, name, &value?);
    if text.is_none() {
        metrics::counter!("reentry_settings_altered_total").increment(1);
        tracing::error!(
            name,
            "a setting in the store is not as we wrote it: it counts as missing. Find out who writes to the store, and change its password"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seal::Keys;

    #[test]
    fn a_value_is_ours_under_its_own_name_and_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::create(&folder.path().join("keys")).unwrap();
        let value = sealed(&keys, "cursor:a", "1.2");
        assert_eq!(opened(&keys, "cursor:a", &value).as_deref(), Some("1.2"));
        assert_eq!(opened(&keys, "cursor:b", &value), None);
        for forged in ["1.2", "", ".", &value.replace("1.2", "1.3"), &format!("A{value}")] {
            assert_eq!(opened(&keys, "cursor:a", forged), None, "{forged}");
        }
    }
}
