//! OAuth parameters as they were sent: decoded strictly, duplicates kept so that they can be refused
//! (RFC 6749 §3.1: parameters must not be included more than once).

use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};

/// The most parameters one request may have.
pub const MAX: usize = 64;

/// Why parameters cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Over [`MAX`].
    #[error("more than {MAX} parameters")]
    TooMany,
    /// Not UTF-8, or a control character.
    #[error("a parameter is not plain text")]
    NotText,
    /// Sent more than once.
    #[error("the parameter {0} was sent more than once")]
    Duplicate(String),
}

/// Parameters in the order they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads `application/x-www-form-urlencoded` octets.
    ///
    /// # Errors
    /// [`Fault::TooMany`], [`Fault::NotText`].
    pub fn parse(raw: &[u8]) -> Result<Self, Fault> {
        let mut pairs = Vec::new();
        for pair in raw.split(|octet| *octet == b'&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX {
                return Err(Fault::TooMany);
            }
            pairs.push(as_it_is(pair).map_or_else(|| decoded(pair), Ok)?);
        }
        Ok(Self(pairs))
    }

    /// The same, if no name comes twice.
    ///
    /// # Errors
    /// [`Fault::Duplicate`].
    pub fn unique(self) -> Result<Self, Fault> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            if self.0.iter().skip(at + 1).any(|(other, _)| other == name) {
                return Err(Fault::Duplicate(name.chars().take(32).collect()));
            }
        }
        Ok(self)
    }

    /// The value of a parameter; an empty one counts as left out (RFC 6749 §3.1).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The words of a space-delimited parameter, without empty ones.
    #[must_use]
    pub fn words(&self, name: &str) -> Vec<&str> {
        self.get(name)
            .map(|v| v.split(' ').filter(|w| !w.is_empty()).collect())
            .unwrap_or_default()
    }

    /// The parameters as a query.
    #[must_use]
    pub fn query(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }

    /// Reads the parameters into a struct of strings, numbers, words of an enum, and options of those.
    ///
    /// # Errors
    /// A field that is missing, or does not read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        T::deserialize(MapDeserializer::new(
            self.0.iter().map(|(n, v)| (n.as_str(), Text(v))),
        ))
    }
}

/// A pair in which nothing is encoded, as most are: a token is long, and looking at its octets four times is dear.
fn as_it_is(pair: &[u8]) -> Option<(String, String)> {
    // Over all of them without a way out in the middle: the compiler makes vector instructions of it.
    let plain = |octet: u8| (b' '..0x7f).contains(&octet) && octet != b'%' && octet != b'+';
    let whole = pair.iter().fold(true, |so_far, octet| so_far & plain(*octet));
    let text = whole.then(|| std::str::from_utf8(pair).ok()).flatten()?;
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Some((name.to_owned(), value.to_owned()))
}

fn decoded(pair: &[u8]) -> Result<(String, String), Fault> {
    let (name, value) = url::form_urlencoded::parse(pair).next().unwrap_or_default();
    // What is not UTF-8 was decoded to the replacement character: nothing we take has a use for it.
    let plain = |s: &str| {
        !s.chars()
            .any(|c| c == char::REPLACEMENT_CHARACTER || c.is_control())
    };
    if plain(&name) && plain(&value) {
        Ok((name.into_owned(), value.into_owned()))
    } else {
        Err(Fault::NotText)
    }
}

/// A parameter's value: text that is read as whatever the field is.
struct Text<'a>(&'a str);

impl<'de> IntoDeserializer<'de, ValueError> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Whole numbers and booleans are parsed.
macro_rules! parsed {
    ($($method:ident $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            let value = self.0.parse().map_err(|_| ValueError::custom(format!("`{}` is not what belongs here", self.0)))?;
            visitor.$visit(value)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    parsed!(
        deserialize_bool visit_bool, deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32,
        deserialize_u64 visit_u64, deserialize_i64 visit_i64
    );

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_the_url_standard_says_whether_anything_is_encoded_or_not() {
        for form in [
            "",
            "&&",
            "a",
            "a=",
            "=a",
            "=",
            "a=b=c",
            "a=b&&c=d&",
            "token=eyJ.x_y-z&hint=access_token",
            "a+b=c+d",
            "a%20b=%C3%A4%26",
            "a=%zz&b=%",
            "a= b",
            "\u{e4}=\u{f6}",
            "a;b=c",
        ] {
            let expected: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes())
                .into_owned()
                .collect();
            assert_eq!(Params::parse(form.as_bytes()), Ok(Params(expected)), "{form}");
        }
        for form in ["a=\u{7}", "a=%07", "a=%FF", "%00=b", "a=\u{7f}", "a=b&c=\n"] {
            assert_eq!(Params::parse(form.as_bytes()), Err(Fault::NotText), "{form:?}");
        }
        assert_eq!(Params::parse(b"a=\xff"), Err(Fault::NotText));
        assert_eq!(
            Params::parse("a&".repeat(MAX + 1).as_bytes()),
            Err(Fault::TooMany)
        );
        assert!(Params::parse("a&".repeat(MAX).as_bytes()).is_ok());
    }

    #[test]
    fn fields_are_read_as_what_they_are() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            Held,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Asked {
            state: Option<Word>,
            limit: Option<u32>,
            name: String,
        }
        let read = |text: &str| Params::parse(text.as_bytes()).unwrap().read::<Asked>();
        let whole = Asked {
            state: Some(Word::Held),
            limit: Some(7),
            name: "x".to_owned(),
        };
        assert_eq!(read("state=held&limit=7&name=x").unwrap(), whole);
        assert_eq!(
            read("name=x").unwrap(),
            Asked {
                state: None,
                limit: None,
                name: "x".to_owned()
            }
        );
        for bad in [
            "name=x&limit=seven",
            "name=x&limit=-1",
            "name=x&state=open",
            "limit=7",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
