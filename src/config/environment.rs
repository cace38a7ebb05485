//! Overrides from the environment: `REENTRY__SECTION__KEY=value` sets `section.key`.

use super::fault::{Fault, Place};
use super::node::{self, Entry, Node, Value};

/// What our variables begin with.
const PREFIX: &str = "REENTRY__";

/// Puts every variable of ours into the tree. Values in `[...]` or `{...}` are YAML, unless the key is a secret.
pub(super) fn apply(root: &mut Node, environment: impl IntoIterator<Item = (String, String)>) -> Vec<Fault> {
    let mut ours: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    ours.sort();
    let mut faults = Vec::new();
    for (name, value) in ours {
        if let Err(fault) = set(root, &name, value) {
            faults.push(fault);
        }
    }
    faults
}

fn set(root: &mut Node, name: &str, value: String) -> Result<(), Fault> {
    let place = Place::Environment(name.to_owned());
    let path: Vec<String> = name
        .get(PREFIX.len()..)
        .unwrap_or_default()
        .split("__")
        .map(str::to_ascii_lowercase)
        .collect();
    if path.iter().any(String::is_empty) {
        let fault = Fault::new("", place, "names no key");
        return Err(fault.advice("write REENTRY__SECTION__KEY"));
    }
    let secret = path
        .last()
        .is_some_and(|k| k.ends_with("secret") || k.ends_with("password") || k.ends_with("key"));
    let value = if !secret && (value.starts_with('[') || value.starts_with('{')) {
        relocated(
            node::parse(&value).map_err(|faults| {
                let why = faults.first().map(|f| f.problem.clone()).unwrap_or_default();
                Fault::new(&path.join("."), place.clone(), format!("has a value that {why}"))
            })?,
            &place,
        )
    } else {
        Node {
            place: place.clone(),
            value: Value::Scalar {
                text: value,
                quoted: false,
            },
        }
    };
    insert(root, &path, value, &place, &path.join("."))
}

fn relocated(node: Node, place: &Place) -> Node {
    let value = match node.value {
        Value::List(nodes) => Value::List(nodes.into_iter().map(|n| relocated(n, place)).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|e| Entry {
                    key: e.key,
                    place: place.clone(),
                    node: relocated(e.node, place),
                })
                .collect(),
        ),
        other => other,
    };
    Node {
        place: place.clone(),
        value,
    }
}

fn insert(node: &mut Node, path: &[String], value: Node, place: &Place, whole: &str) -> Result<(), Fault> {
    let Some((head, rest)) = path.split_first() else {
        *node = value;
        return Ok(());
    };
    if node.value == Value::Null {
        node.value = Value::Map(Vec::new());
    }
    match &mut node.value {
        Value::Map(entries) => {
            if !entries.iter().any(|e| e.key == *head) {
                let node = Node {
                    place: place.clone(),
                    value: Value::Null,
                };
                entries.push(Entry {
                    key: head.clone(),
                    place: place.clone(),
                    node,
                });
            }
            let Some(entry) = entries.iter_mut().find(|e| e.key == *head) else {
                return Ok(());
            };
            insert(&mut entry.node, rest, value, place, whole)
        }
        Value::List(nodes) => {
            let found = head
                .parse::<usize>()
                .ok()
                .or_else(|| nodes.iter().position(|n| goes_by(n, head)));
            match found.and_then(|i| nodes.get_mut(i)) {
                Some(item) => insert(item, rest, value, place, whole),
                None => Err(Fault::new(
                    whole,
                    place.clone(),
                    format!("names no item `{head}` of the list"),
                )
                .advice("name an item by its number from 0, or by its id")),
            }
        }
        Value::Scalar { .. } | Value::Null => {
            Err(Fault::new(whole, place.clone(), "goes below a single value").advice("check the name"))
        }
    }
}

/// Whether a list's item has this id, written as an environment variable writes it.
fn goes_by(node: &Node, name: &str) -> bool {
    ["id", "client_id", "name"]
        .iter()
        .filter_map(|key| node.get(key))
        .any(|entry| {
            let Value::Scalar { text, .. } = &entry.node.value else {
                return false;
            };
            let plain: String = text
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_lowercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            plain == name
        })
}
