//! Reads typed values out of the tree and collects every fault on the way.
//!
//! A [`Section`] remembers which keys it was asked for. When it is dropped, keys of the file that nobody asked for are
//! faults (with the nearest known key), so no part of the configuration can forget to refuse what it does not know.
//! A value that could not be read is `None` with its fault noted; whoever builds a type reads every field first and
//! gives up only afterwards.

mod secrets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Place};
use super::node::{Node, Value};
use super::words::{choose, nearest};

/// What one reading has found so far.
#[derive(Debug, Default)]
pub struct Findings {
    secrets_later: bool,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
    known: RefCell<BTreeSet<String>>,
}

impl Findings {
    /// For the commands that make secrets: a file with a secret that is not there yet is no fault.
    #[must_use]
    pub fn before_secrets() -> Self {
        Self {
            secrets_later: true,
            ..Self::default()
        }
    }

    /// Notes a fault: the configuration will be refused.
    pub fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes a warning: the configuration is used, and the operator told.
    pub fn warn(&self, warning: Fault) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Takes the faults, the warnings, and the path of every key that was asked for (`clients[].client_id`).
    #[must_use]
    pub fn into_parts(self) -> (Vec<Fault>, Vec<Fault>, BTreeSet<String>) {
        (
            self.faults.into_inner(),
            self.warnings.into_inner(),
            self.known.into_inner(),
        )
    }
}

/// A map that is being read.
#[derive(Debug)]
pub struct Section<'a> {
    node: Option<&'a Node>,
    place: Place,
    path: String,
    pattern: String,
    asked: RefCell<Vec<String>>,
    open: Cell<bool>,
    findings: &'a Findings,
    base: &'a Path,
}

impl<'a> Section<'a> {
    /// The whole document; relative paths in it are relative to `base`.
    #[must_use]
    pub fn root(node: &'a Node, findings: &'a Findings, base: &'a Path) -> Self {
        Self::new(
            Some(node),
            node.place.clone(),
            String::new(),
            String::new(),
            findings,
            base,
        )
    }

    fn new(
        node: Option<&'a Node>,
        place: Place,
        path: String,
        pattern: String,
        findings: &'a Findings,
        base: &'a Path,
    ) -> Self {
        let node = match node {
            Some(Node {
                value: Value::Null, ..
            })
            | None => None,
            Some(Node {
                value: Value::Map(_), ..
            }) => node,
            Some(other) => {
                let problem = format!("is {}, not a section", other.value.sort());
                findings.fault(
                    Fault::new(&path, other.place.clone(), problem)
                        .advice("write its keys below it, indented by two spaces"),
                );
                None
            }
        };
        Self {
            node,
            place,
            path,
            pattern,
            asked: RefCell::default(),
            open: Cell::new(false),
            findings,
            base,
        }
    }

    /// Where faults and warnings go.
    #[must_use]
    pub const fn findings(&self) -> &'a Findings {
        self.findings
    }

    /// Whether secrets may be made later, so that what stands in for one is not looked at.
    #[must_use]
    pub const fn secrets_later(&self) -> bool {
        self.findings.secrets_later
    }

    /// Where the section stands.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The path of a key below this section.
    #[must_use]
    pub fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The path of this section itself.
    #[must_use]
    pub fn own_path(&self) -> &str {
        &self.path
    }

    /// The section's values in a canonical one-line form.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.node.map(ToString::to_string).unwrap_or_default()
    }

    /// Whether the file has this section.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.node.is_some()
    }

    fn ask(&self, key: &str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|k| k == key) {
            asked.push(key.to_owned());
            self.findings.known.borrow_mut().insert(join(&self.pattern, key));
        }
    }

    /// The raw value under `key`, unless it is not there or empty.
    #[must_use]
    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.ask(key);
        self.node
            .and_then(|n| n.get(key))
            .map(|e| &e.node)
            .filter(|n| n.value != Value::Null)
    }

    /// Where the value under `key` stands, or the section when it is not there.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        self.node
            .and_then(|n| n.get(key))
            .map_or_else(|| self.place.clone(), |e| e.node.place.clone())
    }

    /// Notes a fault of `key`.
    pub fn fault(&self, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.findings
            .fault(Fault::new(&self.path(key), self.place_of(key), problem).advice(advice));
    }

    /// Notes a warning about `key`.
    pub fn warn(&self, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.findings
            .warn(Fault::new(&self.path(key), self.place_of(key), problem).advice(advice));
    }

    /// The section under `key`; an empty one when it is not there.
    #[must_use]
    pub fn section(&self, key: &str) -> Section<'a> {
        self.ask(key);
        let entry = self.node.and_then(|n| n.get(key));
        Section::new(
            entry.map(|e| &e.node),
            entry.map_or_else(|| self.place.clone(), |e| e.place.clone()),
            self.path(key),
            join(&self.pattern, key),
            self.findings,
            self.base,
        )
    }

    /// Names and values of a section whose keys are free (`scopes`, `holds`), with each key's place.
    /// None of them is unknown.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'a str, &'a Place, &'a Node)> {
        self.open.set(true);
        match self.node.map(|n| &n.value) {
            Some(Value::Map(entries)) => entries
                .iter()
                .map(|e| (e.key.as_str(), &e.place, &e.node))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// One of the free sections named by [`Section::entries`].
    #[must_use]
    pub fn free_section(&self, key: &str, place: &Place, node: &'a Node) -> Section<'a> {
        Section::new(
            Some(node),
            place.clone(),
            self.path(key),
            join(&self.pattern, "*"),
            self.findings,
            self.base,
        )
    }

    /// Each section of the list under `key`.
    #[must_use]
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let pattern = format!("{}[]", join(&self.pattern, key));
        let items = self.items(key);
        let sections = items.into_iter().map(|(path, node)| {
            Section::new(
                Some(node),
                node.place.clone(),
                path,
                pattern.clone(),
                self.findings,
                self.base,
            )
        });
        sections.collect()
    }

    /// The values of the list under `key`, each with its path.
    fn items(&self, key: &str) -> Vec<(String, &'a Node)> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        match &node.value {
            Value::List(nodes) => {
                let path = self.path(key);
                nodes
                    .iter()
                    .enumerate()
                    .map(|(i, n)| (format!("{path}[{i}]"), n))
                    .collect()
            }
            other => {
                let problem = format!("is {}, not a list", other.sort());
                self.fault(key, problem, "write one item a line, each after `- `");
                Vec::new()
            }
        }
    }

    /// The value under `key`, read by `read`; a fault when it is not there.
    pub fn required<T>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.node(key).is_none() {
            self.fault(key, "is missing", format!("write for example `{key}: {example}`"));
            return None;
        }
        self.optional(key, read).flatten()
    }

    /// The value under `key`, read by `read`, or `default` when it is not there. `None` after a fault.
    pub fn or<T>(&self, key: &str, default: T, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.optional(key, read).map(|found| found.unwrap_or(default))
    }

    /// The value under `key`, if it is there. `None` after a fault, `Some(None)` when it is not there.
    #[expect(clippy::option_option, reason = "not there and not readable are two things")]
    pub fn optional<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        let Some(node) = self.node(key) else {
            return Some(None);
        };
        self.value(&self.path(key), node, &read).map(Some)
    }

    fn value<T>(&self, path: &str, node: &Node, read: &impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let fault = |problem: String| self.findings.fault(Fault::new(path, node.place.clone(), problem));
        match &node.value {
            Value::Scalar { text, .. } => read(text).map_err(fault).ok(),
            other => {
                fault(format!("is {}, not a single value", other.sort()));
                None
            }
        }
    }

    /// Every value of the list under `key`, read by `read`. `None` after a fault in any of them.
    pub fn list<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let before = self.findings.faults.borrow().len();
        let items = self.items(key);
        let values: Vec<Option<T>> = items
            .iter()
            .map(|(path, node)| self.value(path, node, &read))
            .collect();
        if self.findings.faults.borrow().len() > before {
            return None;
        }
        values.into_iter().collect()
    }

    /// `true` or `false` under `key`.
    pub fn flag(&self, key: &str, default: bool) -> Option<bool> {
        self.or(key, default, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("is `{other}`; write true or false")),
        })
    }

    /// One of `choices` under `key`.
    pub fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Option<T> {
        self.or(key, default, |text| choose(text, choices))
    }

    /// A path under `key`, relative to the configuration file.
    #[expect(clippy::option_option, reason = "not there and not readable are two things")]
    pub fn file(&self, key: &str) -> Option<Option<PathBuf>> {
        self.optional(key, |text| Ok(self.base.join(text)))
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(Node {
            value: Value::Map(entries),
            ..
        }) = self.node
        else {
            return;
        };
        if self.open.get() {
            return;
        }
        let names = self.asked.borrow();
        for entry in entries.iter().filter(|e| !names.contains(&e.key)) {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let advice = nearest(&entry.key, &known).map_or_else(
                || format!("known here: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.findings
                .fault(Fault::new(&self.path(&entry.key), entry.place.clone(), "is unknown").advice(advice));
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
