//! OAuth parameters as they were sent: decoded strictly, duplicates kept so that they can be refused
//! (RFC 6749 §3.1: parameters must not be included more than once).

use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

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
        for (name, value) in url::form_urlencoded::parse(raw) {
            if pairs.len() == MAX {
                return Err(Fault::TooMany);
            }
            // What is not UTF-8 was decoded to the replacement character: nothing we take has a use for it.
            let plain = |s: &str| {
                !s.chars()
                    .any(|c| c == char::REPLACEMENT_CHARACTER || c.is_control())
            };
            if !plain(&name) || !plain(&value) {
                return Err(Fault::NotText);
            }
            pairs.push((name.into_owned(), value.into_owned()));
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

    /// Reads the parameters into a struct of strings.
    ///
    /// # Errors
    /// A field that is missing, or does not read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde::de::value::Error> {
        T::deserialize(MapDeserializer::new(
            self.0.iter().map(|(n, v)| (n.as_str(), v.as_str())),
        ))
    }
}
