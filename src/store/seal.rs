//! The keys of an installation, and everything that is made with them: message authentication, keyed names,
//! and sealing of values at rest.
//!
//! Two kinds of root secret of 32 octets each. The *names* key makes the names of subjects, channels and marks; it
//! lasts as long as the installation, since a new one would name everybody anew (its fingerprint is in every
//! marker, so a wrong one is noticed before anything is read). The *seal* keys authenticate tokens and encrypt
//! values: the last in the file is used, all of them are accepted, so they are rotated by adding a line. No root
//! secret is used itself; HKDF-SHA-256 (RFC 5869) derives one key for each purpose from it.
//!
//! Values are sealed by AES-256-GCM-SIV (RFC 8452) under random nonces. With plain GCM a key would be used up after
//! 2^32 values, two months of a busy installation, since two values under one nonce give the key away; here such a pair
//! only shows whether both are the same, and it takes some 2^48 values before one is to be expected at all.

mod carried;
mod file;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::config::private::PrivateFault;
use crate::domain::subject::account::{ChannelId, ContactKind};
use crate::domain::subject::{Subject, UpstreamId};
use crate::ports::seal::{Purpose, Seal, SubjectKey};
use crate::ports::store::StoreError;

/// Octets of a root secret.
pub const SECRET_LEN: usize = 32;
/// Version of the sealed form. Former ones are not read: values that decide had no number in them, and records were
/// not sealed at all.
const SEALED: u8 = 2;
/// Octets that say which key sealed a value.
const TAG_LEN: usize = 4;
/// Octets before the ciphertext: version, key, nonce. No two sealings have the same.
pub(crate) const HEADER_LEN: usize = 1 + TAG_LEN + NONCE_LEN;

const PURPOSES: [Purpose; 6] = [
    Purpose::Code,
    Purpose::Refresh,
    Purpose::Report,
    Purpose::Cookie,
    Purpose::Form,
    Purpose::Installation,
];

const fn label(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Code => "mac code",
        Purpose::Refresh => "mac refresh",
        Purpose::Report => "mac report",
        Purpose::Cookie => "mac cookie",
        Purpose::Form => "mac form",
        Purpose::Installation => "mac installation",
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// It cannot be read, or others can read it.
    #[error("the key file {0}")]
    Private(PrivateFault),
    /// It cannot be written.
    #[error("the key file {path} cannot be used: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line of it does not say what it should.
    #[error("line {line} of the key file {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Something is missing, or there twice.
    #[error("the key file {0}")]
    Whole(&'static str),
    /// The operating system gives no randomness, or a key was refused.
    #[error("the system's cryptography failed")]
    Crypto,
}

/// A root secret; wiped when dropped, never printed.
struct Secret {
    id: String,
    bytes: Zeroizing<[u8; SECRET_LEN]>,
}

impl Secret {
    fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; SECRET_LEN]>, KeyFault> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"reentry 1").extract(self.bytes.as_slice());
        let info = [purpose.as_bytes()];
        let mut out = Zeroizing::new([0; SECRET_LEN]);
        prk.expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(out.as_mut_slice()))
            .map_err(|_| KeyFault::Crypto)?;
        Ok(out)
    }

    fn mac_key(&self, purpose: &str) -> Result<hmac::Key, KeyFault> {
        let key = self.derive(purpose)?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
    }
}

/// The keys derived from the names secret.
struct Names {
    subject: hmac::Key,
    channel: hmac::Key,
    other: hmac::Key,
    audit: hmac::Key,
    fingerprint: [u8; 8],
}

/// The keys derived from one seal secret.
struct Sealing {
    id: String,
    tag: [u8; TAG_LEN],
    value: LessSafeKey,
    carried: hmac::Key,
    macs: [hmac::Key; PURPOSES.len()],
}

/// The keys of an installation.
pub struct Keys {
    names: Names,
    /// The newest.
    newest: Sealing,
    /// Those before it, oldest first.
    older: Vec<Sealing>,
    /// Ids of the IdPs that are configured, in order.
    upstreams: Vec<String>,
}

impl fmt::Debug for Keys {
    /// Ids only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older: Vec<&str> = self.older.iter().map(|s| s.id.as_str()).collect();
        f.debug_struct("Keys")
            .field("newest", &self.newest.id)
            .field("older", &older)
            .finish_non_exhaustive()
    }
}

/// What a sealed value is, part of what is authenticated: one kind never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Account,
    Grants,
    Outbox,
    State,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Account => "account",
            Self::Grants => "grants",
            Self::Outbox => "outbox",
            Self::State => "state",
        }
    }

    /// The key it is stored under and what it is; a NUL cannot be part of either.
    fn aad(self, place: &str) -> Vec<u8> {
        [self.as_str().as_bytes(), &[0], place.as_bytes()].concat()
    }
}

/// Why a sealed value does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shut {
    /// It was not made by us for this place.
    #[error("sealed {}: {why}", kind.as_str())]
    Altered {
        /// What it should be.
        kind: Kind,
        /// What is wrong.
        why: &'static str,
    },
    /// It is a newer program's.
    #[error("sealed {}: has version {version}, this program reads {SEALED}", kind.as_str())]
    Newer {
        /// What it should be.
        kind: Kind,
        /// Its version.
        version: u8,
    },
    /// It was sealed by a key that is not known.
    #[error("sealed {}: was sealed by a key that is not in the key file; put that key back", kind.as_str())]
    OtherKey {
        /// What it should be.
        kind: Kind,
    },
}

impl From<Shut> for StoreError {
    fn from(shut: Shut) -> Self {
        Self::Unreadable(shut.to_string())
    }
}

impl Keys {
    /// Keys that exist only in this process: for tests, and for a `demo` whose store is thrown away.
    ///
    /// # Errors
    /// [`KeyFault::Crypto`] when the system gives no randomness.
    pub fn ephemeral() -> Result<Self, KeyFault> {
        Self::parse(&file::new_text()?)
    }

    fn derive(names: &Secret, seals: &[Secret]) -> Result<Self, KeyFault> {
        let fingerprint = hmac::sign(&names.mac_key("fingerprint")?, b"reentry");
        let names = Names {
            subject: names.mac_key("names subject")?,
            channel: names.mac_key("names channel")?,
            other: names.mac_key("names other")?,
            audit: names.mac_key("audit")?,
            fingerprint: first(fingerprint.as_ref()),
        };
        let mut older = seals.iter().map(Sealing::derive).collect::<Result<Vec<_>, _>>()?;
        let newest = older.pop().ok_or(KeyFault::Whole("has no `seal` key"))?;
        Ok(Self {
            names,
            newest,
            older,
            upstreams: Vec::new(),
        })
    }

    /// The same keys for a store of these IdPs: the markers remember them, because accounts are found by the ids of
    /// their IdPs, and an account under another id looks like one to which nothing happened (P5).
    #[must_use]
    pub fn of<'a>(mut self, upstreams: impl IntoIterator<Item = &'a UpstreamId>) -> Self {
        self.upstreams = upstreams.into_iter().map(ToString::to_string).collect();
        self.upstreams.sort();
        self.upstreams.dedup();
        self
    }

    /// The same, and which IdP each of them is (its kind, its address and its realm, in whatever words): the id alone
    /// is the same in a copy of an installation that serves another realm, and of two such installations on one store
    /// each would take the other's log for its own.
    #[must_use]
    pub fn identified<'a>(mut self, identities: impl IntoIterator<Item = (&'a UpstreamId, String)>) -> Self {
        let identities: Vec<_> = identities.into_iter().collect();
        self = self.of(identities.iter().map(|(id, _)| *id));
        for known in &mut self.upstreams {
            let own = identities.iter().find(|(id, _)| id.as_str() == known);
            if let Some((_, identity)) = own {
                let mac = keyed(&self.names.other, &[b"upstream", identity.as_bytes()]);
                known.push('=');
                known.push_str(&hex(&first::<8>(&mac)));
            }
        }
        self
    }

    /// What the markers remember: of the names key, in hexadecimal, and a colon and the ids of the IdPs if there are
    /// any, separated by commas, each with an equals sign and which one it is, if that is known.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let keys = hex(&self.names.fingerprint);
        if self.upstreams.is_empty() {
            keys
        } else {
            format!("{keys}:{}", self.upstreams.join(","))
        }
    }

    /// The ids of the keys that seal, oldest first; the last one is used.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        let all = self.older.iter().chain([&self.newest]);
        all.map(|s| s.id.as_str()).collect()
    }

    /// A keyed name, in hexadecimal, for what would otherwise show in a key (a mark, a state's secret name).
    pub(crate) fn name(&self, kind: &str, what: &str) -> String {
        let mac = keyed(&self.names.other, &[kind.as_bytes(), what.as_bytes()]);
        hex(&first::<16>(&mac))
    }

    /// The MAC of an audit line's hash. Of a key that lasts as long as the installation.
    pub(crate) fn audit_mac(&self, hash: &[u8]) -> [u8; 32] {
        first(hmac::sign(&self.names.audit, hash).as_ref())
    }

    /// Whether it is.
    pub(crate) fn is_audit_mac(&self, hash: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.names.audit, hash, mac).is_ok()
    }

    /// Seals a value of `kind` for its place in the store.
    pub(crate) fn seal(&self, kind: Kind, place: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = |_| StoreError::Unavailable("the system's cryptography failed".to_owned());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + AES_256_GCM_SIV.tag_len());
        sealed.push(SEALED);
        sealed.extend_from_slice(&self.newest.tag);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .newest
            .value
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(kind.aad(place)),
                sealed.get_mut(HEADER_LEN..).unwrap_or_default(),
            )
            .map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what [`Keys::seal`] sealed for the same place, where it lies.
    pub(crate) fn open(&self, kind: Kind, place: &str, sealed: Vec<u8>) -> Result<Opened, Shut> {
        let altered = |why: &'static str| Shut::Altered { kind, why };
        let mut opened = Opened {
            octets: sealed,
            end: HEADER_LEN,
        };
        let (version, rest) = opened.octets.split_first_mut().ok_or(altered("is empty"))?;
        if *version > SEALED {
            return Err(Shut::Newer {
                kind,
                version: *version,
            });
        }
        if *version < SEALED {
            return Err(altered("is of a form that counts no more"));
        }
        let (tag, rest) = rest
            .split_first_chunk_mut::<TAG_LEN>()
            .ok_or(altered("is cut off"))?;
        let (nonce, body) = rest
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or(altered("is cut off"))?;
        let known = self.sealings().find(|s| s.tag == *tag);
        let key = known.ok_or(Shut::OtherKey { kind })?;
        let length = key
            .value
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(kind.aad(place)),
                body,
            )
            .map_err(|_| altered("was altered, or belongs elsewhere"))?
            .len();
        opened.end = HEADER_LEN + length;
        Ok(opened)
    }

    /// Newest first.
    fn sealings(&self) -> impl Iterator<Item = &Sealing> {
        [&self.newest].into_iter().chain(self.older.iter().rev())
    }
}

impl Sealing {
    fn derive(secret: &Secret) -> Result<Self, KeyFault> {
        let value = secret.derive("value 2")?;
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, value.as_slice()).map_err(|_| KeyFault::Crypto)?;
        let tag = hmac::sign(&secret.mac_key("tag")?, b"reentry");
        let [code, refresh, report, cookie, form, installation] = PURPOSES.map(label);
        Ok(Self {
            id: secret.id.clone(),
            tag: first(tag.as_ref()),
            value: LessSafeKey::new(unbound),
            carried: secret.mac_key("carried")?,
            macs: [
                secret.mac_key(code)?,
                secret.mac_key(refresh)?,
                secret.mac_key(report)?,
                secret.mac_key(cookie)?,
                secret.mac_key(form)?,
                secret.mac_key(installation)?,
            ],
        })
    }

    fn mac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        let [code, refresh, report, cookie, form, installation] = &self.macs;
        let key = match purpose {
            Purpose::Code => code,
            Purpose::Refresh => refresh,
            Purpose::Report => report,
            Purpose::Cookie => cookie,
            Purpose::Form => form,
            Purpose::Installation => installation,
        };
        first(hmac::sign(key, message).as_ref())
    }
}

impl Seal for Keys {
    fn mac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        self.newest.mac(purpose, message)
    }

    fn verify(&self, purpose: Purpose, message: &[u8], mac: &[u8]) -> bool {
        let right =
            |s: &Sealing| constant_time::verify_slices_are_equal(&s.mac(purpose, message), mac).is_ok();
        self.sealings().any(right)
    }

    fn enclose(&self, name: &str, plain: &[u8]) -> Option<Vec<u8>> {
        carried::enclose(&self.newest, name, plain)
    }

    fn disclose(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.sealings()
            .find_map(|key| carried::disclose(key, name, sealed))
    }

    fn subject(&self, subject: &Subject) -> SubjectKey {
        let parts = [subject.upstream.as_str().as_bytes(), subject.sub.as_bytes()];
        SubjectKey(first(&keyed(&self.names.subject, &parts)))
    }

    fn case(&self, subject: &Subject, change: &str) -> String {
        let parts = [
            b"case".as_slice(),
            subject.upstream.as_str().as_bytes(),
            subject.sub.as_bytes(),
            change.as_bytes(),
        ];
        URL_SAFE_NO_PAD.encode(first::<16>(&keyed(&self.names.other, &parts)))
    }

    fn channel(&self, kind: ContactKind, address: &str) -> ChannelId {
        let (kind, address) = match kind {
            ContactKind::Email => ("email", address.trim().to_lowercase()),
            ContactKind::Phone => {
                let kept = address.chars().filter(|c| c.is_ascii_digit() || *c == '+');
                ("phone", kept.collect())
            }
        };
        let mac = keyed(&self.names.channel, &[kind.as_bytes(), address.as_bytes()]);
        ChannelId(URL_SAFE_NO_PAD.encode(first::<16>(&mac)))
    }
}

/// The MAC of parts that are told apart by a NUL.
fn keyed(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    first(hmac::sign(key, &parts.join(&0_u8)).as_ref())
}

/// The first `N` octets of a MAC of 32.
fn first<const N: usize>(mac: &[u8]) -> [u8; N] {
    mac.first_chunk().copied().unwrap_or([0; N])
}

/// In hexadecimal, lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    hex_into(&mut out, bytes);
    out
}

/// The same behind a text. Every key in the store has such a name: spelt without the formatter's detours.
pub(crate) fn hex_into(out: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| char::from(nibble + if nibble < 10 { b'0' } else { b'a' - 10 });
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 15));
    }
}

/// A value that was sealed, still behind its header. The octets are overwritten when they are dropped, all at once: one
/// by one it would take as long as opening them.
pub(crate) struct Opened {
    octets: Vec<u8>,
    end: usize,
}

impl std::ops::Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(HEADER_LEN..self.end).unwrap_or_default()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.octets.fill(0);
        // Whoever could see the octets from here on must find them overwritten.
        std::hint::black_box(self.octets.as_slice());
    }
}

#[cfg(test)]
mod tests;
