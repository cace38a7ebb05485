//! A reader of JSON objects that refuses what two readers could read in two ways.
//!
//! RFC 7519 §4 lets a parser keep the last of two members of the same name; another keeps the first. A token that
//! says `recovery_scope` twice is therefore rejected as a whole (contract section 2, rule 3), and so is one that
//! repeats any other member at any depth, `iss` and `scope` above all.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why an object was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object without repeated members: {0}")]
pub struct Malformed(String);

/// Reads one JSON object; no member may be repeated, at any depth, and nothing may follow it.
///
/// # Errors
/// [`Malformed`]: the token has to be rejected.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict
        .deserialize(&mut reader)
        .map_err(|e| Malformed(e.to_string()))?;
    reader.end().map_err(|e| Malformed(e.to_string()))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Malformed("it is not an object".to_owned())),
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
        f.write_str("a JSON value")
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

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
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
                return Err(A::Error::custom(format_args!("the member {name:?} is repeated")));
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
    fn a_repeated_member_rejects_the_token() {
        for text in [
            r#"{"recovery_scope":"none","recovery_scope":"full"}"#,
            r#"{"recovery_scope":"none","recovery\u005fscope":"full"}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        for text in ["", "[]", "null", "{} {}", "{}x", "\u{feff}{}", "{\"a\":1,}"] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
        assert!(object(deep.as_bytes()).is_err());
    }

    #[test]
    fn an_object_is_read_as_it_stands() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"a":{}}}"#;
        let read = object(text.as_bytes()).unwrap();
        assert_eq!(Value::Object(read), serde_json::from_str::<Value>(text).unwrap());
    }
}
