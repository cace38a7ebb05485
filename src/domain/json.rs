//! JSON from outside, read so that no two readers can read it differently.
//!
//! RFC 7519 §4 lets a parser keep the last of two members of the same name; another keeps the first. A token that
//! says `recovery_scope` twice is therefore rejected as a whole (contract section 2, rule 3), and so is one that
//! repeats any other member at any depth, `iss` and `scope` above all; the same for what a hook is sent.
//!
//! It stands here because everybody below the use cases reads such text, and adapters never see each other.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why an object was refused, with line and column where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Reads one JSON object: UTF-8, no member repeated at any depth, nothing after it.
///
/// # Errors
/// [`Malformed`]: all of it has to be rejected.
pub fn object(octets: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let text = std::str::from_utf8(octets).map_err(|_| Malformed("it is not UTF-8".to_owned()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict
        .deserialize(&mut reader)
        .map_err(|e| Malformed(e.to_string()))?;
    reader.end().map_err(|e| Malformed(e.to_string()))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Malformed("it is no JSON object".to_owned())),
    }
}

/// Any JSON value, strictly. The parser itself bounds the depth.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if object.contains_key(&name) {
                let shown: String = name.chars().take(32).collect();
                return Err(A::Error::custom(format_args!(
                    "the member `{shown}` is there twice"
                )));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // contract section 2, rule 3: two readers must not see two tokens.
    #[test]
    fn a_repeated_member_rejects_all_of_it() {
        for text in [
            r#"{"recovery_scope":"none","recovery_scope":"full"}"#,
            r#"{"recovery_scope":"none","recovery\u005fscope":"full"}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
        ] {
            let said = object(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains("is there twice"), "{text}: {said}");
        }
    }

    #[test]
    fn only_one_object_that_everybody_reads_alike() {
        let wrong: [(&[u8], &str); 11] = [
            (br#"{"a":1,"a":1}"#, "`a` is there twice"),
            (br#"{"a":[{"b":1,"\u0062":2}]}"#, "`b` is there twice"),
            (b"\xff{}", "UTF-8"),
            (b"[]", "no JSON object"),
            (b"null", "no JSON object"),
            (b"{} {}", "trailing"),
            (b"{}x", "trailing"),
            (b"{\"a\":1,}", "trailing comma"),
            ("\u{feff}{}".as_bytes(), "expected value"),
            (b"", "EOF"),
            (br#"{"a":1e999}"#, "number"),
        ];
        for (octets, why) in wrong {
            let said = object(octets).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
        assert!(
            object(deep.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("recursion")
        );
    }

    #[test]
    fn an_object_is_read_as_it_stands() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"a":{}}}"#;
        let read = object(text.as_bytes()).unwrap();
        assert_eq!(Value::Object(read), serde_json::from_str::<Value>(text).unwrap());
    }
}
