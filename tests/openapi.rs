//! The API description and the route table are equal, both ways.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use reentry::http::routes::{Listener, ROUTES};
use serde_json::Value;

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];

fn description() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every operation of the document: listener, method, path, and what it says.
fn operations(document: &Value) -> Vec<(Listener, String, String, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(m, _)| METHODS.contains(&m.as_str()))
        {
            let operations = operation["x-listener"] == "operations";
            let listener = if operations {
                Listener::Operations
            } else {
                Listener::Public
            };
            found.push((listener, method.to_uppercase(), path.clone(), operation));
        }
    }
    found
}

#[test]
fn the_description_and_the_route_table_are_equal_both_ways() {
    let line = |listener: Listener, method: &str, path: &str| format!("{listener:?} {method} {path}");
    let routes = ROUTES.iter().copied().flatten();
    let served: BTreeSet<String> = routes.map(|r| line(r.listener, r.method, r.path)).collect();
    let document = description();
    let described: BTreeSet<String> = operations(&document)
        .into_iter()
        .map(|(l, m, p, _)| line(l, &m, &p))
        .collect();
    let missing: Vec<_> = served.difference(&described).collect();
    let invented: Vec<_> = described.difference(&served).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not described: {missing:#?}; not served: {invented:#?}"
    );
}

#[test]
fn no_route_is_in_the_table_twice() {
    let all: Vec<_> = ROUTES
        .iter()
        .copied()
        .flatten()
        .map(|r| (r.method, r.path))
        .collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), different.len());
}

#[test]
fn every_operation_says_what_it_is_and_names_its_path_parameters() {
    let document = description();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = BTreeSet::new();
    for (_, method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(operation["summary"].is_string(), "{place} has no summary");
        assert!(
            operation["responses"].as_object().is_some_and(|r| !r.is_empty()),
            "{place} has no responses"
        );
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{place} has a name of another"
        );
        let item = &document["paths"][&path];
        let named: BTreeSet<String> = [&item["parameters"], &operation["parameters"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|p| resolve(&document, p))
            .filter(|p| p["in"] == "path")
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect();
        let in_path: BTreeSet<String> = path
            .split('/')
            .filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'))
            .map(str::to_owned)
            .collect();
        assert_eq!(named, in_path, "{place}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = description();
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if value["$ref"].is_string() {
                    assert!(!resolve(&document, value).is_null(), "{value}");
                }
                open.extend(members.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or(&Value::Null),
        None => value,
    }
}
