//! Codes, refresh tokens and session cookies: opaque outside, and nothing secret of them is stored.
//!
//! The text is `base64url(version ‖ subject key ‖ id ‖ generation ‖ MAC)`. It names the partition, so that one look
//! in one place is enough; the MAC makes it unguessable; and because it can be made again from what is stored, a
//! client that lost a reply gets exactly the same successor (RFC 9700 §4.14).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::flow::Flow;
use crate::ports::seal::{Purpose, SubjectKey};

const VERSION: u8 = 1;
const MAC: usize = 32;
const BODY: usize = 1 + 16 + 16 + 4;

/// What an opaque token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// Where its subject lives.
    pub key: SubjectKey,
    /// The id of the code, family or session: 16 octets in base64url.
    pub id: String,
    /// The generation of a refresh token, or the number of a cookie; 0 for codes.
    pub generation: u32,
}

/// Makes the text. `None` when the id is not one of ours.
#[must_use]
pub fn seal(flow: &Flow, purpose: Purpose, token: &Opaque) -> Option<String> {
    let id: [u8; 16] = URL_SAFE_NO_PAD.decode(&token.id).ok()?.try_into().ok()?;
    let mut body = Vec::with_capacity(BODY + MAC);
    body.push(VERSION);
    body.extend_from_slice(&token.key.0);
    body.extend_from_slice(&id);
    body.extend_from_slice(&token.generation.to_be_bytes());
    let mac = flow.seal.mac(purpose, &body);
    body.extend_from_slice(&mac);
    Some(URL_SAFE_NO_PAD.encode(body))
}

/// Reads it back; `None` for what is not ours, or for another purpose.
#[must_use]
pub fn open(flow: &Flow, purpose: Purpose, text: &str) -> Option<Opaque> {
    if text.len() > 256 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (body, mac) = bytes.split_at_checked(BODY)?;
    if !flow.seal.verify(purpose, body, mac) {
        return None;
    }
    let (&version, rest) = body.split_first()?;
    let (key, rest) = rest.split_first_chunk::<16>()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let generation = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    (version == VERSION).then(|| Opaque {
        key: SubjectKey(*key),
        id: URL_SAFE_NO_PAD.encode(id),
        generation,
    })
}
