//! How values are written: one octet of version, then `MessagePack` with structs as arrays (names would double the
//! size of a record).
//!
//! A field may be added at the end of a struct with `#[serde(default)]`; anything else needs a new version and a
//! reader for the old one. A reader of version n refuses n+1: what it cannot read it must not overwrite, and an
//! account whose record cannot be read is restricted.

use rmp_serde::decode::ReadRefReader;
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};

use crate::ports::store::StoreError;

/// The version written, and the newest that is read.
pub const VERSION: u8 = 1;

/// Writes a value compactly.
///
/// # Errors
/// [`StoreError::Unreadable`] when the value has a shape that could not be read back.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    encode_after(&[], value)
}

/// The same behind other octets.
///
/// # Errors
/// As [`encode`].
pub fn encode_after<T: Serialize>(before: &[u8], value: &T) -> Result<Vec<u8>, StoreError> {
    // As much as the grants of one session take, so that they are not copied again and again as they grow.
    let mut bytes = Vec::with_capacity(2048);
    bytes.extend_from_slice(before);
    bytes.push(VERSION);
    rmp_serde::encode::write(&mut bytes, value)
        .map_err(|e| StoreError::Unreadable(format!("a value that cannot be written: {e}")))?;
    Ok(bytes)
}

/// Writes a value with the names of its fields, for what is read by people and other programs (audit lines).
///
/// # Errors
/// As [`encode`].
pub fn encode_named<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write_named(&mut bytes, value)
        .map_err(|e| StoreError::Unreadable(format!("a value that cannot be written: {e}")))?;
    Ok(bytes)
}

/// Reads a value of either form; `what` names it in the error.
///
/// # Errors
/// [`StoreError::Unreadable`] for a newer version, for what does not decode, and for anything left over.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((&version, _)) if version > VERSION => {
            return Err(StoreError::Unreadable(format!(
                "{what} has version {version}, newer than the version {VERSION} that this program reads"
            )));
        }
        _ => return Err(StoreError::Unreadable(format!("{what} has no version"))),
    };
    // Strings are taken from where they lie, not by way of a buffer.
    let mut reader = rmp_serde::Deserializer::from_read_ref(rest);
    let value = T::deserialize(&mut reader)
        .map_err(|e| StoreError::Unreadable(format!("{what} does not decode: {e}")))?;
    if is_at_end(&mut reader) {
        Ok(value)
    } else {
        Err(StoreError::Unreadable(format!(
            "{what} is followed by octets that do not belong to it"
        )))
    }
}

/// Whether nothing is left: the next value, which has no parts, has not even a first octet.
fn is_at_end(reader: &mut rmp_serde::Deserializer<ReadRefReader<'_, [u8]>>) -> bool {
    use rmp_serde::decode::Error;
    matches!(
        <()>::deserialize(reader),
        Err(Error::InvalidMarkerRead(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Actor, Entry};
    use crate::domain::ceiling::Ceiling;
    use crate::domain::change::{ChangeKind, Row, Source};
    use crate::domain::hold::{Cause, Cut, Record, Told};
    use crate::domain::policy::{AtEnd, Rollout};
    use crate::domain::subject::account::ChannelId;
    use crate::domain::subject::{Subject, UpstreamId};
    use crate::domain::tier::TierName;
    use crate::domain::time::{Span, Timestamp};

    /// A hold as a real reset gives it: identifiers are UUIDs.
    fn held() -> Record {
        let subject = Subject::new(
            UpstreamId::parse("keycloak").unwrap(),
            "0d9e0b5c-6f1e-4f6e-9a51-1b7c1f6d8a11",
        )
        .unwrap();
        let at = Timestamp::from_millis(1_795_251_600_123);
        Record {
            epoch: 1_795_251_600,
            updated: at,
            causes: vec![Cause {
                reference: "h-4kq2vwr7n3tz5m8xc6bd".to_owned(),
                change: "7b0f3b1e-54b3-4f57-8d9a-6f4a5d1c2e3f".to_owned(),
                kind: ChangeKind::PasswordReset,
                row: Row::PasswordReset,
                at,
                length: Span::from_hours(24),
                allowed: Ceiling::of(&["read", "write"]),
                sources: vec![Source::UserEvents],
                told: Told::At(at.plus(Span::from_secs(2))),
                told_min: Span::from_hours(6),
                tier: TierName("consumer".to_owned()),
                at_end: AtEnd::Auto,
                digest: "0123456789abcdef".to_owned(),
                channel: Some(ChannelId("q83vEjRWeJCrze8SNFZ4kA".to_owned())),
                bounded: false,
                rollout: Rollout::On,
                enforced: true,
                episode: 1,
                swept: false,
                contest_length: Span::from_hours(24),
                cap: None,
                origin: Some("203.0.113.0/24".to_owned()),
            }],
            cuts: vec![Cut {
                at,
                except: Some("5f0c5a1b-8c7d-4e6f-a1b2-c3d4e5f60718".to_owned()),
            }],
            ..Record::new(subject)
        }
    }

    #[test]
    fn a_held_record_of_one_cause_is_at_most_400_octets() {
        let bytes = encode(&held()).unwrap();
        println!("a held record of one cause: {} octets", bytes.len());
        assert!(bytes.len() <= 400, "{} octets", bytes.len());
        assert_eq!(decode::<Record>("record", &bytes).unwrap(), held());
    }

    #[test]
    fn a_newer_version_is_refused_and_named() {
        let mut bytes = encode(&held()).unwrap();
        bytes[0] = VERSION + 1;
        let error = decode::<Record>("the record", &bytes).unwrap_err();
        assert!(matches!(&error, StoreError::Unreadable(why) if why.contains("newer")));
    }

    #[test]
    fn garbage_and_cut_off_and_lengthened_values_are_refused() {
        let good = encode(&held()).unwrap();
        let mut long = good.clone();
        long.push(0xc0);
        let cut = good[..good.len() - 1].to_vec();
        for bytes in [Vec::new(), vec![0], vec![VERSION], b"{}".to_vec(), cut, long] {
            let answer = decode::<Record>("the record", &bytes);
            assert!(matches!(answer, Err(StoreError::Unreadable(_))));
        }
    }

    #[test]
    fn any_octet_after_a_value_is_noticed() {
        let good = encode(&held()).unwrap();
        for octet in 0..=u8::MAX {
            let mut long = good.clone();
            long.push(octet);
            let answer = decode::<Record>("the record", &long);
            assert!(
                matches!(&answer, Err(StoreError::Unreadable(why)) if why.contains("followed")),
                "{octet:#x}: {answer:?}"
            );
        }
    }

    #[test]
    fn audit_lines_of_every_actor_come_back() {
        for actor in [
            Actor::System,
            Actor::Channel("c".to_owned()),
            Actor::Owner,
            Actor::Administrator("a".to_owned()),
        ] {
            let entry = Entry::system("id".to_owned(), Timestamp::default(), "x", None).by(actor);
            let bytes = encode_named(&entry).unwrap();
            assert_eq!(decode::<Entry>("an audit line", &bytes).unwrap(), entry);
        }
    }
}
