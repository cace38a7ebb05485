//! What the browser carries for us while somebody logs in: sealed, one log-in beside another, and never too much.
//!
//! A log-in that begins is nobody's yet: anybody may begin as many as they like. So nothing of it is stored here. The
//! browser takes it along in a cookie, encrypted and authenticated under the name of its `state`, so that it can neither
//! be read nor made, nor passed off as that of another log-in; that only this browser has it is what binds the log-in to
//! it. What is too long for one cookie travels in several. All of them together stay below what proxies take: the
//! log-ins that are oldest make room for the next, and a request that is longer than all of that is refused.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::domain::subject::UpstreamId;
use crate::domain::time::{Span, Timestamp};
use crate::http::broker::browser;
use crate::http::broker::login::{Goal, Pending};
use crate::http::context::Context;

/// What every such cookie's name begins with; the first characters of the `state` follow, and for the second and
/// further pieces a dot and their number.
const NAME: &str = "reentry_login_";
/// Characters of a `state` in a name.
const ID: usize = 16;
/// The longest piece. Browsers take cookies of 4,096 octets, names and attributes among them.
const PIECE: usize = 3_200;
/// Most pieces of one log-in.
const PIECES: usize = 2;
/// All log-ins of a browser together, and so the longest one: with the other cookies they are one header, and proxies
/// take 8 KiB. Beyond that a page that has a browser begin log-ins could keep it out of everything here.
const TOGETHER: usize = PIECE * PIECES;

/// How long a log-in may take.
pub const PATIENCE: Span = Span::from_mins(30);
/// How long whoever was logged in may come the same way again.
const AGAIN: Span = Span::from_mins(10);

/// A log-in as the browser carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// The browser is at the IdP.
    Underway(Pending),
    /// It has come back and was logged in. Whoever comes the same way again goes on to the same end.
    Over(Finished),
}

impl Carried {
    const fn at(&self) -> Timestamp {
        match self {
            Self::Underway(pending) => pending.at,
            Self::Over(finished) => finished.at,
        }
    }

    /// How long the browser keeps it.
    const fn keep(&self) -> Span {
        match self {
            Self::Underway(_) => PATIENCE,
            Self::Over(_) => AGAIN,
        }
    }
}

/// A log-in that has ended in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// What it was for.
    pub goal: Goal,
    /// The IdP.
    pub upstream: UpstreamId,
    /// The session that it opened.
    pub session: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub at: Timestamp,
}

/// What is sealed.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    state: String,
    carried: Carried,
}

/// It is longer than a browser can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is too long to be kept until the log-in is over")]
pub struct TooLong;

/// Gives a log-in to the browser in place of what it had of that `state`; the oldest of the others make room.
///
/// # Errors
/// [`TooLong`]; the response is as it was.
pub fn give(
    context: &Context,
    headers: &HeaderMap,
    response: &mut Response,
    state: &str,
    carried: &Carried,
) -> Result<(), TooLong> {
    let id = id(state).ok_or(TooLong)?;
    let value = seal(context, id, state, carried).filter(|value| value.len() <= TOGETHER);
    let value = value.ok_or(TooLong)?;
    let keep = u32::try_from(carried.keep().millis() / 1000).unwrap_or_default();
    let mut set = |name: &str, value: &str, age: u32| {
        browser::set_cookie(context, response, name, value, Some(age));
    };
    let mut all = pieces(context, headers);
    let former = all.remove(id).unwrap_or_default();
    let mut length = value.len();
    let count = length.div_ceil(PIECE);
    for (name, others) in newest_first(context, all) {
        length += others.values().map(|piece| piece.len()).sum::<usize>();
        if length > TOGETHER {
            for number in others.keys() {
                set(&piece_name(&name, *number), "", 0);
            }
        }
    }
    let mut rest = value.as_str();
    for number in 0..count {
        let (piece, after) = rest.split_at_checked(PIECE).unwrap_or((rest, ""));
        set(&piece_name(id, number), piece, keep);
        rest = after;
    }
    for number in former.into_keys().filter(|number| *number >= count) {
        set(&piece_name(id, number), "", 0);
    }
    Ok(())
}

/// The log-in of a `state`, if this browser carries it and it is not too old.
#[must_use]
pub fn find(context: &Context, headers: &HeaderMap, state: &str) -> Option<Carried> {
    let mine = pieces(context, headers).remove(id(state)?)?;
    let sealed = open(context, id(state)?, &mine)?;
    let carried = (sealed.state == state).then_some(sealed.carried)?;
    (context.flow.clock.now() < carried.at().plus(carried.keep())).then_some(carried)
}

/// Takes a log-in away from the browser.
pub fn take_away(context: &Context, headers: &HeaderMap, response: &mut Response, state: &str) {
    let Some(id) = id(state) else { return };
    let mine = pieces(context, headers).remove(id).unwrap_or_default();
    for number in mine.into_keys() {
        browser::set_cookie(context, response, &piece_name(id, number), "", Some(0));
    }
}

/// The part of a `state` of ours that names its cookies.
fn id(state: &str) -> Option<&str> {
    let ours = state.len() == 32 && state.bytes().all(is_plain);
    state.get(..ID).filter(|_| ours)
}

const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_'
}

fn piece_name(id: &str, number: usize) -> String {
    if number == 0 {
        format!("{NAME}{id}")
    } else {
        format!("{NAME}{id}.{number}")
    }
}

/// The pieces that this browser carries, by the log-in and their numbers.
type Pieces<'a> = BTreeMap<usize, &'a str>;

fn pieces<'a>(context: &Context, headers: &'a HeaderMap) -> BTreeMap<String, Pieces<'a>> {
    let begins = browser::full_name(context, NAME);
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut found: BTreeMap<String, Pieces<'a>> = BTreeMap::new();
    for (name, value) in pairs {
        let Some(rest) = name.strip_prefix(&begins) else {
            continue;
        };
        let (id, number) = rest.split_once('.').unwrap_or((rest, "0"));
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        if id.len() == ID && id.bytes().all(is_plain) && number < PIECES {
            found
                .entry(id.to_owned())
                .or_default()
                .entry(number)
                .or_insert(value);
        }
    }
    found
}

/// The log-ins that began last come first, and what does not open comes last.
fn newest_first<'a>(context: &Context, all: BTreeMap<String, Pieces<'a>>) -> Vec<(String, Pieces<'a>)> {
    let mut dated: Vec<_> = all
        .into_iter()
        .map(|(id, pieces)| (open(context, &id, &pieces).map(|s| s.carried.at()), id, pieces))
        .collect();
    dated.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    dated.into_iter().map(|(_, id, pieces)| (id, pieces)).collect()
}

fn seal(context: &Context, id: &str, state: &str, carried: &Carried) -> Option<String> {
    let sealed = Sealed {
        state: state.to_owned(),
        carried: carried.clone(),
    };
    let plain = serde_json::to_vec(&sealed).ok()?;
    Some(URL_SAFE_NO_PAD.encode(context.flow.seal.enclose(id, &plain)?))
}

fn open(context: &Context, id: &str, pieces: &Pieces<'_>) -> Option<Sealed> {
    let whole = pieces.keys().copied().eq(0..pieces.len());
    let text: String = pieces.values().copied().collect();
    let sealed = URL_SAFE_NO_PAD.decode(text).ok().filter(|_| whole)?;
    serde_json::from_slice(&context.flow.seal.disclose(id, &sealed)?).ok()
}
