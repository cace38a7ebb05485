//! A log line as JSON: one object, flat, in one pass.
//!
//! Every request writes a line, so what the usual formatter spends on intermediate values would be a good part of a
//! decision. Same members, same order: `timestamp`, `level`, the fields, `target`.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        stamp(&mut line)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(event.metadata().level().as_str())?;
        line.write_char('"')?;
        let mut members = Members {
            line: &mut line,
            outcome: Ok(()),
        };
        event.record(&mut members);
        members.outcome?;
        line.write_str(",\"target\":")?;
        quoted(&mut line, event.metadata().target())?;
        line.write_str("}\n")
    }
}

/// Now, as RFC 3339 with microseconds. The seconds are spelt once a second.
#[expect(
    clippy::disallowed_methods,
    reason = "a log line says when it was written, whatever clock decisions go by"
)]
fn stamp(line: &mut Writer<'_>) -> fmt::Result {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            let at = i64::try_from(*second).ok();
            let at = at
                .and_then(|s| jiff::Timestamp::from_second(s).ok())
                .unwrap_or_default();
            text.clear();
            let spelt = at.to_string();
            text.push_str(spelt.trim_end_matches('Z'));
        }
        line.write_str(text)
    })?;
    write!(line, ".{:06}Z", now.subsec_micros())
}

/// Writes fields as members.
struct Members<'a, 'w> {
    line: &'a mut Writer<'w>,
    outcome: fmt::Result,
}

impl Members<'_, '_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.outcome.is_ok() {
            self.outcome = (|| {
                self.line.write_char(',')?;
                quoted(self.line, field.name().trim_start_matches("r#"))?;
                self.line.write_char(':')?;
                value(self.line)
            })();
        }
    }
}

impl Visit for Members<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| quoted(line, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| {
            // JSON has no other numbers.
            if value.is_finite() {
                write!(line, "{value}")
            } else {
                line.write_str("null")
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| {
            line.write_char('"')?;
            write!(Escaping(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

fn quoted(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    line.write_char('"')?;
    Escaping(line).write_str(text)?;
    line.write_char('"')
}

/// Escapes what JSON does not take as it is (RFC 8259 §7), and the line ends of Unicode, which some readers take for
/// the end of a log line.
struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |octet: u8| (b' '..0x7f).contains(&octet) && octet != b'"' && octet != b'\\';
        if text.bytes().fold(true, |so_far, octet| so_far & plain(octet)) {
            return self.0.write_str(text);
        }
        let special = |c: char| c == '"' || c == '\\' || c.is_control() || c == '\u{2028}' || c == '\u{2029}';
        let mut rest = text;
        while let Some(at) = rest.find(special) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = from.chars();
            match chars.next() {
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_one_json_object_whatever_is_in_it() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Json)
            .with_writer(move || writer.clone());
        let nasty = "a \"quote\", a \\, a\nline, \u{7}, \u{2028}, \u{1f600}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(
                status = 200_u16,
                route = "/token",
                client = Option::<&str>::None,
                "request"
            );
            tracing::error!(why = nasty, at = -3, part = 0.5, nan = f64::NAN, yes = true, error = %nasty, "{nasty}");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "request");
        assert_eq!(lines[0]["status"], 200);
        assert_eq!(lines[0]["level"], "INFO");
        assert!(lines[0].get("client").is_none());
        assert!(lines[0]["target"].as_str().unwrap().ends_with("json::tests"));
        let stamp = lines[0]["timestamp"].as_str().unwrap();
        assert!(
            stamp.parse::<jiff::Timestamp>().is_ok() && stamp.len() == 27,
            "{stamp}"
        );
        for member in ["why", "error", "message"] {
            assert_eq!(lines[1][member], nasty);
        }
        assert_eq!(
            (&lines[1]["at"], &lines[1]["part"]),
            (&Value::from(-3), &Value::from(0.5))
        );
        assert_eq!(
            (&lines[1]["nan"], &lines[1]["yes"]),
            (&Value::Null, &Value::from(true))
        );
    }
}
