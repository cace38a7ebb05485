//! Reading JSON that Keycloak made of what people typed.
//!
//! People may type what is no text: half of a surrogate pair is accepted in a name, kept by some databases, and sent back
//! as `"\ud83d"`, which no strict reader takes. Where only people read a text, such a place becomes U+FFFD; what rules
//! depend on (types, instants, ids) stays as strict as its representation says. Of a page of rows, one that cannot be
//! read is left out and named: it never costs the others.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

use super::AdminError;

/// What stands for half of a surrogate pair.
const REPLACEMENT: &[u8] = br"\ufffd";
/// Octets of one `\uXXXX`.
const ESCAPE: usize = 6;

/// Rows of a page.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    /// Those that could be read, in the order of the page.
    pub read: Vec<T>,
    /// Those that could not.
    pub strange: Vec<Strange>,
    /// How many were not asked for.
    beside: usize,
}

/// A row that could not be read.
#[derive(Debug, Clone)]
pub struct Strange {
    /// What was sent.
    pub row: Value,
    /// What is wrong with it.
    pub why: String,
}

impl<T> Rows<T> {
    /// How many rows the page had, readable or not.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.read.len() + self.strange.len() + self.beside
    }

    /// Whether the page had no rows at all: then it lies behind the last one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves out what was not asked for.
    pub fn keep(&mut self, asked: impl Fn(&T) -> bool) {
        let before = self.read.len();
        self.read.retain(asked);
        self.beside += before - self.read.len();
    }

    /// Every row.
    ///
    /// # Errors
    /// [`AdminError::Malformed`] when one could not be read; `what` is the call.
    pub fn all(self, what: &str) -> Result<Vec<T>, AdminError> {
        match self.strange.into_iter().next() {
            None => Ok(self.read),
            Some(strange) => Err(AdminError::Malformed {
                what: what.to_owned(),
                reason: strange.why,
            }),
        }
    }
}

/// Reads one value.
///
/// # Errors
/// What is wrong with it.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    // Nearly every answer is text throughout.
    serde_json::from_slice(json).or_else(|error| match mended(json) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(mended) => serde_json::from_slice(&mended),
    })
}

/// Reads a page, row by row where the whole cannot be read.
///
/// # Errors
/// What is wrong when it is no page at all.
pub fn rows<T: DeserializeOwned>(json: &[u8]) -> Result<Rows<T>, Error> {
    if let Ok(read) = read(json) {
        return Ok(Rows {
            read,
            strange: Vec::new(),
            beside: 0,
        });
    }
    let mut rows = Rows {
        read: Vec::new(),
        strange: Vec::new(),
        beside: 0,
    };
    for row in read::<Vec<Value>>(json)? {
        match T::deserialize(&row) {
            Ok(read) => rows.read.push(read),
            Err(error) => rows.strange.push(Strange {
                row,
                why: error.to_string(),
            }),
        }
    }
    Ok(rows)
}

/// The same JSON with U+FFFD for every octet and every escape that is no text.
fn mended(json: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(json);
    let octets = text.as_bytes();
    let mut mended = Vec::with_capacity(octets.len());
    let mut rest = octets;
    let mut changed = matches!(text, Cow::Owned(_));
    while let Some((&octet, behind)) = rest.split_first() {
        if octet != b'\\' {
            mended.push(octet);
            rest = behind;
            continue;
        }
        let taken = match (unit(rest), rest.get(ESCAPE..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 2 * ESCAPE,
            (Some(0xD800..=0xDFFF), _) => {
                changed = true;
                mended.extend_from_slice(REPLACEMENT);
                rest = rest.get(ESCAPE..).unwrap_or_default();
                continue;
            }
            // A backslash takes the next character with it, another backslash too.
            _ => 2.min(rest.len()),
        };
        let (kept, behind) = rest.split_at(taken);
        mended.extend_from_slice(kept);
        rest = behind;
    }
    if changed {
        Cow::Owned(mended)
    } else {
        Cow::Borrowed(json)
    }
}

/// The UTF-16 unit that an escape at the beginning stands for.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        read::<String>(json.as_bytes()).unwrap()
    }

    #[test]
    fn half_a_pair_becomes_a_replacement_and_everything_else_stays() {
        assert_eq!(text(r#""\ud83d""#), "\u{fffd}");
        assert_eq!(text(r#""a\ude00b""#), "a\u{fffd}b");
        assert_eq!(text(r#""\ud83d\ud83d\ude00\ud83d""#), "\u{fffd}😀\u{fffd}");
        assert_eq!(
            text(r#""\\ud83d \ud83d\n""#),
            "\\ud83d \u{fffd}\n",
            "no escape at all"
        );
        assert_eq!(text(r#""\ud83d\\ude00""#), "\u{fffd}\\ude00");
        assert_eq!(text(r#""\uD83D\uDE00 ü""#), "😀 ü");
        assert_eq!(
            read::<String>(b"\"\xed\xa0\xbd\"").unwrap(),
            "\u{fffd}\u{fffd}\u{fffd}"
        );
        assert!(read::<String>(br#""\ud83d"#).is_err(), "no end");
        assert!(read::<u64>(br#""\ud83d""#).is_err(), "no number");
    }

    #[test]
    fn a_row_that_cannot_be_read_costs_no_other() {
        let page = br#"[{"a":1},{"a":"\ud83d"},null,{"a":2}]"#;
        let rows = rows::<std::collections::BTreeMap<String, u8>>(page).unwrap();
        assert_eq!(rows.read.iter().map(|row| row["a"]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(rows.strange.len(), 2);
        assert_eq!((rows.len(), rows.is_empty()), (4, false));
        assert_eq!(rows.strange[0].row["a"], "\u{fffd}");
        assert!(super::rows::<u8>(b"{}").is_err(), "no page");
    }
}
