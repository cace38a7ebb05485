//! The trace that a piece of work belongs to (W3C Trace Context, level 1), handed on with every call to the outside.
//!
//! It crosses every layer and decides nothing, so it is carried by the task and not by an argument of each function.
//! Whoever begins a piece of work (a request, a turn of a worker) opens a [`scope`]; whoever calls somebody asks for
//! [`headers`]. What is done later because of it is stored with the trace ([`current`]) and done as its
//! [next](Trace::next) step. What a caller sent and what does not follow the specification is as if it had not been sent: the trace
//! is a new one then, and the malformed text goes nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest `tracestate` that is handed on, in octets (§3.3.1.5: at least 512 must be).
const MAX_STATE: usize = 512;

tokio::task_local! {
    static CURRENT: Trace;
}

/// One step of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    id: [u8; 16],
    span: [u8; 8],
    sampled: bool,
    state: Option<String>,
}

impl Trace {
    /// A new trace. A name of zeros only would be invalid, so it is never one.
    #[must_use]
    pub fn new(id: [u8; 16], span: [u8; 8]) -> Self {
        let mut trace = Self {
            id,
            span: named(span),
            sampled: false,
            state: None,
        };
        if trace.id == [0; 16] {
            trace.id[15] = 1;
        }
        trace
    }

    /// Our step of the trace that `traceparent` names; `None` when it is malformed. `span` names the step, `tracestate`
    /// is handed on as it is.
    #[must_use]
    pub fn continuing(traceparent: &str, tracestate: Option<&str>, span: [u8; 8]) -> Option<Self> {
        let (version, rest) = traceparent.split_at_checked(2)?;
        let [version] = octets(version)?;
        // A later version may have more after the flags (§4.1), ours may not.
        let fits = match version {
            0xff => false,
            0 => traceparent.len() == 55,
            _ => traceparent.len() == 55 || traceparent.as_bytes().get(55) == Some(&b'-'),
        };
        let mut parts = rest.strip_prefix('-').filter(|_| fits)?.splitn(4, '-');
        let id: [u8; 16] = octets(parts.next()?)?;
        let parent: [u8; 8] = octets(parts.next()?)?;
        let [flags] = octets(parts.next()?)?;
        if id == [0; 16] || parent == [0; 8] {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|s| {
            !s.is_empty() && s.len() <= MAX_STATE && s.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        });
        Some(Self {
            id,
            span: named(span),
            sampled: flags & 1 == 1,
            state: state.map(str::to_owned),
        })
    }

    /// Another step of the same trace.
    #[must_use]
    pub fn next(&self, span: [u8; 8]) -> Self {
        Self {
            span: named(span),
            ..self.clone()
        }
    }

    /// This step's name, as octets.
    #[must_use]
    pub const fn step(&self) -> [u8; 8] {
        self.span
    }

    /// The trace's name: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// This step's name: 16 hexadecimal digits.
    #[must_use]
    pub fn span(&self) -> String {
        hex(&self.span)
    }
}

impl fmt::Display for Trace {
    /// As it stands in `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.id(), self.span(), u8::from(self.sampled))
    }
}

/// Does `work` as part of `trace`.
pub async fn scope<T>(trace: Trace, work: impl Future<Output = T>) -> T {
    CURRENT.scope(trace, work).await
}

/// The trace of the work under way; none outside of every scope.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The headers of a call to the outside: names in lower case, and values. Empty outside of every scope.
#[must_use]
pub fn headers() -> Vec<(&'static str, String)> {
    let Some(trace) = current() else {
        return Vec::new();
    };
    let state = trace.state.clone().map(|s| ("tracestate", s));
    std::iter::once(("traceparent", trace.to_string()))
        .chain(state)
        .collect()
}

fn named(mut span: [u8; 8]) -> [u8; 8] {
    if span == [0; 8] {
        span[7] = 1;
    }
    span
}

/// Lower-case hexadecimal digits only (§3.2.1), exactly `N` octets.
fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut found = [0; N];
    for (at, octet) in found.iter_mut().enumerate() {
        *octet = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(found)
}

fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    octets
        .iter()
        .flat_map(|o| [digit(o >> 4), digit(o & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<Trace> {
        Trace::continuing(text, None, [7; 8])
    }

    #[test]
    fn a_trace_goes_on_under_our_own_span() {
        let trace = Trace::continuing(GOOD, Some("a=1,b=2"), [7; 8]).unwrap();
        assert_eq!(
            trace.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-01"
        );
        assert_eq!(trace.state.as_deref(), Some("a=1,b=2"));
        assert!(read("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes").is_some());
    }

    #[test]
    fn what_is_malformed_is_none() {
        for bad in [
            "",
            "00",
            "00-",
            "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let long = "a".repeat(513);
        for state in ["", "  ", "a=\u{7f}", "a=é", long.as_str()] {
            assert_eq!(
                Trace::continuing(GOOD, Some(state), [7; 8]).unwrap().state,
                None,
                "{state}"
            );
        }
    }

    #[test]
    fn no_name_is_ever_zero() {
        let trace = Trace::new([0; 16], [0; 8]);
        assert!(read(&trace.to_string()).is_some(), "{trace}");
    }

    #[test]
    fn outside_of_a_scope_nothing_is_sent() {
        assert!(headers().is_empty() && current().is_none());
    }

    #[test]
    fn a_later_step_is_of_the_same_trace() {
        let trace = Trace::continuing(GOOD, Some("a=1"), [7; 8]).unwrap();
        let later = trace.next([8; 8]);
        assert_eq!((later.id(), later.state.as_deref()), (trace.id(), Some("a=1")));
        assert_eq!(later.span(), "0808080808080808");
    }
}
