//! "This was not me" links: signed, single-purpose, bound to the case and the channel (P12).
//!
//! The token is `base64url(version ‖ subject key ‖ issued ‖ case length ‖ case ‖ channel ‖ MAC)`. Nothing is
//! stored for it, so a second change cannot kill the first one's link, and a flood of them costs nothing. One is made
//! only for a message to a channel that has a voice: its signature says that too, for as long as the link is valid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::subject::account::ChannelId;
use crate::domain::time::{Span, Timestamp};
use crate::flow::Flow;
use crate::ports::seal::{Purpose, SubjectKey};

const VERSION: u8 = 1;
const MAC: usize = 32;
const HEAD: usize = 1 + 16 + 8 + 1;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The account.
    pub key: SubjectKey,
    /// When it was made.
    pub issued: Timestamp,
    /// The case it is about.
    pub case: String,
    /// The channel that received it.
    pub channel: ChannelId,
}

/// Why a link is refused; the same page for all but the expired one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// Not ours, cut short, or changed.
    #[error("this link is not complete or not ours")]
    Invalid,
    /// Too old.
    #[error("this link is too old")]
    Expired,
}

/// Makes the token of a link.
#[must_use]
pub fn seal(flow: &Flow, link: &Link) -> String {
    let mut body = vec![VERSION];
    body.extend_from_slice(&link.key.0);
    body.extend_from_slice(&link.issued.millis().to_be_bytes());
    body.push(u8::try_from(link.case.len()).unwrap_or(u8::MAX));
    body.extend_from_slice(link.case.as_bytes());
    body.extend_from_slice(link.channel.0.as_bytes());
    let mac = flow.seal.mac(Purpose::Report, &body);
    body.extend_from_slice(&mac);
    URL_SAFE_NO_PAD.encode(body)
}

/// Reads a token back.
///
/// # Errors
/// [`LinkRefusal`].
pub fn open(flow: &Flow, token: &str, valid: Span) -> Result<Link, LinkRefusal> {
    let link = read(flow, token).ok_or(LinkRefusal::Invalid)?;
    let now = flow.clock.now();
    if now >= link.issued.plus(valid) {
        Err(LinkRefusal::Expired)
    } else {
        Ok(link)
    }
}

fn read(flow: &Flow, token: &str) -> Option<Link> {
    if token.len() > 512 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
    if !flow.seal.verify(Purpose::Report, body, mac) {
        return None;
    }
    let (head, rest) = body.split_at_checked(HEAD)?;
    let (&version, head) = head.split_first()?;
    let (key, head) = head.split_first_chunk::<16>()?;
    let (issued, head) = head.split_first_chunk::<8>()?;
    let (case, channel) = rest.split_at_checked(usize::from(*head.first()?))?;
    (version == VERSION).then_some(())?;
    Some(Link {
        key: SubjectKey(*key),
        issued: Timestamp::from_millis(i64::from_be_bytes(*issued)),
        case: String::from_utf8(case.to_vec()).ok()?,
        channel: ChannelId(String::from_utf8(channel.to_vec()).ok()?),
    })
}
