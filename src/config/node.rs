//! A YAML document as a tree in which every key and value knows its line and column.
//!
//! Deserialisation into types stops at the first fault; an operator who mends ten of them one restart at a time is on the
//! way to switching checks off. So the text becomes this tree first, and [`super::reader`] reads types out of it while it
//! collects everything that is wrong. Anchors, aliases, tags and merge keys are refused: one value, one place.

use std::fmt;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::fault::{Fault, Place};

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 24;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A value without a type: types come from who reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `quoted` when it was written with quotes or as a block, so that it is no number and no truth value.
    Scalar {
        /// The text after escapes.
        text: String,
        /// Whether it can only be text.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file; no key is there twice.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What sort of value this is, for messages.
    #[must_use]
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

impl Node {
    /// An empty section at the head of a file.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            place: Place::File { line: 1, column: 1 },
            value: Value::Map(Vec::new()),
        }
    }

    /// The value under `key`, when this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }
}

impl fmt::Display for Node {
    /// A canonical one-line form: the same for every way of writing the same values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("~"),
            Value::Scalar { text, .. } => write!(f, "{text:?}"),
            Value::List(nodes) => {
                f.write_str("[")?;
                for node in nodes {
                    write!(f, "{node},")?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => {
                f.write_str("{")?;
                for entry in entries {
                    write!(f, "{:?}:{},", entry.key, entry.node)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Reads one document. An empty text is an empty section.
///
/// # Errors
/// Every fault of form that can be told: a syntax error ends the reading, repeated keys and refused constructs do not.
pub fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        faults: Vec::new(),
    };
    let node = builder.document();
    match node {
        Ok(node) if builder.faults.is_empty() => Ok(node),
        Ok(_) => Err(builder.faults),
        Err(fault) => {
            builder.faults.push(fault);
            Err(builder.faults)
        }
    }
}

fn place(span: Span) -> Place {
    Place::File {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

struct Builder<I> {
    events: I,
    faults: Vec<Fault>,
}

type Step<'a> = (Event<'a>, Place);

impl<'a, I> Builder<I>
where
    I: Iterator<Item = Result<(Event<'a>, Span), serde_saphyr::granit_parser::ScanError>>,
{
    fn next(&mut self) -> Result<Step<'a>, Fault> {
        loop {
            match self.events.next() {
                None => return Ok((Event::StreamEnd, Place::File { line: 1, column: 1 })),
                Some(Err(error)) => {
                    let mark = error.marker();
                    let place = Place::File {
                        line: mark.line(),
                        column: mark.col() + 1,
                    };
                    return Err(Fault::new("", place, format!("is not YAML: {}", error.info()))
                        .advice("mend the text there; indentation is by spaces, never tabs"));
                }
                Some(Ok((Event::Comment(..) | Event::StreamStart | Event::DocumentStart(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, place(span))),
            }
        }
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let (event, place) = self.next()?;
        if matches!(event, Event::StreamEnd | Event::DocumentEnd) {
            return Ok(Node::empty());
        }
        let node = self.node(event, place, 0)?;
        loop {
            match self.next()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(node),
                (_, place) => {
                    return Err(Fault::new("", place, "begins a second document")
                        .advice("keep one document in the file"));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new("", place, "nests too deep").advice("flatten it"));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &place);
                scalar(text.into_owned(), style)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &place);
                self.list(depth)?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &place);
                self.map(depth)?
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.faults.push(
                    Fault::new("", place.clone(), "is an alias (`*name`)").advice("write the value out"),
                );
                Value::Null
            }
            _ => return Err(Fault::new("", place, "is not YAML that can be read here")),
        };
        Ok(Node { place, value })
    }

    fn refuse(&mut self, anchor: usize, tag: bool, place: &Place) {
        if anchor != 0 {
            let fault = Fault::new("", place.clone(), "has an anchor (`&name`)");
            self.faults
                .push(fault.advice("write the value out where it is needed"));
        }
        if tag {
            let fault = Fault::new("", place.clone(), "has a tag (`!name`)");
            self.faults.push(fault.advice("leave the tag out"));
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(nodes)),
                (event, place) => nodes.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, place.clone(), depth + 1)?;
            let (event, at) = self.next()?;
            let node = self.node(event, at, depth + 1)?;
            let Value::Scalar { text: key, .. } = key.value else {
                self.faults
                    .push(Fault::new("", place, "is a key that is not a word").advice("write a plain word"));
                continue;
            };
            if let Some(first) = entries.iter().find(|e| e.key == key) {
                let problem = format!("is there twice (first at {})", first.place);
                self.faults
                    .push(Fault::new(&key, place, problem).advice("keep one of them"));
                continue;
            }
            entries.push(Entry { key, place, node });
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(text.as_str(), "" | "~" | "null") {
        return Value::Null;
    }
    Value::Scalar { text, quoted }
}
