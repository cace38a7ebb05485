//! `keys`: signing keys and which algorithm signs what.

use std::path::PathBuf;

use super::reader::Section;

/// JWS algorithms that we sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jws {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Jws {
    pub(super) const CHOICES: [(&'static str, Self); 3] = [
        ("RS256", Self::Rs256),
        ("ES256", Self::Es256),
        ("EdDSA", Self::EdDsa),
    ];
}

/// The section `keys`.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The directory with one file for each key (`reentry keys`).
    pub directory: PathBuf,
    /// Signs access tokens unless a client says otherwise.
    pub access_token: Jws,
    /// Signs ID tokens unless a client says otherwise.
    pub id_token: Jws,
}

impl KeySettings {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let directory = s.file("directory").and_then(|f| {
            if f.is_none() {
                s.fault(
                    "directory",
                    "is missing",
                    "write for example `directory: keys` and run `reentry keys create`",
                );
            }
            f
        });
        let access_token = s.choice("access_token", Jws::Es256, &Jws::CHOICES);
        let id_token = s.choice("id_token", Jws::Rs256, &Jws::CHOICES);
        Some(Self {
            directory: directory?,
            access_token: access_token?,
            id_token: id_token?,
        })
    }
}
