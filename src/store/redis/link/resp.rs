//! Answers as they come over the wire (RESP, version 2).
//!
//! The client's parser is built of combinators for every type of both versions of the protocol, and takes longer over
//! the answer to one reading than everything else the store does for it. There are five types here, and a reading has
//! some twenty values. Errors are so rare that the client reads them: what their words mean is known in one place only.

use redis::{ErrorKind, RedisError, RedisResult, Value};

/// How deep arrays may lie in each other; no answer of ours has more than five.
const DEPTH: u8 = 16;
/// Elements that an array is given room for before they are there: its length is only what the other side says.
const ROOM: usize = 64;

/// What stands at the beginning of some octets.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A value, and how many octets it takes.
    Value(Value, usize),
    /// Less than a value. It takes at least this many octets in all.
    Less(usize),
}

/// Reads the value at the beginning of `octets`.
///
/// # Errors
/// When there is none: the other side is no Redis, or the connection is out of step.
pub(super) fn read(octets: &[u8]) -> RedisResult<Found> {
    let mut reader = Reader { octets, at: 0 };
    match reader.value(DEPTH) {
        Ok(value) => Ok(Found::Value(value, reader.at)),
        Err(Stop::Less(least)) => Ok(Found::Less(least)),
        Err(Stop::Fault(error)) => Err(error),
    }
}

enum Stop {
    Less(usize),
    Fault(RedisError),
}

fn fault(why: &'static str) -> Stop {
    Stop::Fault(RedisError::from((ErrorKind::Parse, why)))
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: u8) -> Result<Value, Stop> {
        let line = self.line()?;
        let Some((kind, rest)) = line.split_first() else {
            return Err(fault("an empty line"));
        };
        match kind {
            b'$' => {
                let Some(length) = length(rest)? else {
                    return Ok(Value::Nil);
                };
                self.bulk(length)
            }
            b'*' => match length(rest)? {
                Some(length) => self.array(length, depth),
                None => Ok(Value::Nil),
            },
            b':' => number(rest).map(Value::Int),
            b'+' if rest == b"OK" => Ok(Value::Okay),
            b'+' => match std::str::from_utf8(rest) {
                Ok(text) => Ok(Value::SimpleString(text.to_owned())),
                Err(_) => Err(fault("a status that is not text")),
            },
            b'-' => {
                let whole = [line, b"\r\n"].concat();
                redis::parse_redis_value(&whole).map_err(Stop::Fault)
            }
            _ => Err(fault("an answer of an unknown type")),
        }
    }

    /// Up to the next line end, which is left out.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|octet| *octet == b'\r') else {
            return Err(Stop::Less(self.octets.len() + 1));
        };
        match rest.get(end + 1) {
            None => Err(Stop::Less(self.octets.len() + 1)),
            Some(b'\n') => {
                self.at += end + 2;
                Ok(rest.get(..end).unwrap_or_default())
            }
            Some(_) => Err(fault("a line that does not end")),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<Value, Stop> {
        let end = self.at.saturating_add(length);
        let least = end.saturating_add(2);
        let (Some(octets), Some(after)) = (self.octets.get(self.at..end), self.octets.get(end..least)) else {
            return Err(Stop::Less(least));
        };
        if after != b"\r\n" {
            return Err(fault("a string that is longer than it says"));
        }
        self.at = least;
        Ok(Value::BulkString(octets.to_vec()))
    }

    /// An error in an array is the whole array's: nothing is read beside it.
    fn array(&mut self, length: usize, depth: u8) -> Result<Value, Stop> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(fault("arrays that lie too deep in each other"));
        };
        let mut values = Vec::with_capacity(length.min(ROOM));
        let mut refused = None;
        for _ in 0..length {
            match self.value(depth)? {
                error @ Value::ServerError(_) => refused = refused.or(Some(error)),
                value => values.push(value),
            }
        }
        Ok(refused.unwrap_or(Value::Array(values)))
    }
}

/// A length; `None` for -1, which means that there is nothing.
fn length(digits: &[u8]) -> Result<Option<usize>, Stop> {
    match digits {
        b"-1" => Ok(None),
        _ => match usize::try_from(number(digits)?) {
            Ok(length) => Ok(Some(length)),
            Err(_) => Err(fault("a negative length")),
        },
    }
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(digits).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| fault("a number that is none"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let line = "[ -~]{0,12}";
        let leaf = prop_oneof![
            any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|octets| {
                let mut all = format!("${}\r\n", octets.len()).into_bytes();
                all.extend(octets);
                all.extend(b"\r\n");
                all
            }),
            line.prop_map(|text| format!("+{text}\r\n").into_bytes()),
            Just(b"+OK\r\n".to_vec()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            Just(b"*0\r\n".to_vec()),
        ];
        leaf.prop_recursive(3, 40, 6, |inner| {
            proptest::collection::vec(inner, 0..6).prop_map(|parts| {
                let mut all = format!("*{}\r\n", parts.len()).into_bytes();
                all.extend(parts.concat());
                all
            })
        })
    }

    proptest! {
        #[test]
        fn an_answer_is_read_as_the_client_reads_it_and_any_part_of_it_is_too_little(octets in answers(), more in any::<bool>()) {
            let expected = redis::parse_redis_value(&octets).unwrap();
            let mut stream = octets.clone();
            if more {
                stream.extend(b":1\r\n$-1\r\n");
            }
            prop_assert_eq!(read(&stream).unwrap(), Found::Value(expected, octets.len()));
            for cut in 0..octets.len() {
                match read(&octets[..cut]).unwrap() {
                    Found::Less(least) => prop_assert!(cut < least && least <= octets.len()),
                    Found::Value(..) => prop_assert!(false, "a value after {} octets of {:?}", cut, octets),
                }
            }
        }

        #[test]
        fn no_octets_at_all_bring_it_down(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&octets);
        }
    }

    fn error(text: &str) -> RedisError {
        let line = format!("-{text}\r\n");
        match read(line.as_bytes()).unwrap() {
            Found::Value(Value::ServerError(error), used) if used == line.len() => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_mean_what_the_client_says_they_mean() {
        use redis::ServerErrorKind;
        let moved = error("MOVED 3999 127.0.0.1:6381");
        assert_eq!(moved.redirect_node(), Some(("127.0.0.1:6381", 3999)));
        assert_eq!(
            error("READONLY You can't write").kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly)
        );
        assert_eq!(error("WRONGTYPE Operation").code(), Some("WRONGTYPE"));
        let within = read(b"*2\r\n:1\r\n-ERR no\r\n").unwrap();
        assert!(
            matches!(within, Found::Value(Value::ServerError(_), 17)),
            "{within:?}"
        );
    }

    #[test]
    fn what_is_no_answer_is_a_fault() {
        for bad in [
            &b"hello\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b":\r\n",
            b"$-2\r\n",
            b"$x\r\n",
            b"$1\r\nab\r\n",
            b"+a\rb\r\n",
            b"%1\r\n",
            b"+\xff\r\n",
        ] {
            let found = read(bad);
            assert!(found.is_err(), "{bad:?}: {found:?}");
        }
        let deep = b"*1\r\n".repeat(40);
        assert!(read(&deep).is_err());
        // A length that nobody can mean takes no memory before its octets are there.
        assert!(matches!(read(b"$9223372036854775807\r\na"), Ok(Found::Less(_))));
        assert!(matches!(read(b"*9223372036854775807\r\n"), Ok(Found::Less(_))));
    }
}
