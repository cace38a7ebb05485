//! The API description and the route table are equal, both ways.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

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

/// Operations that count what fails, whatever is sent (RFC 6749 answers).
const COUNT_FAILURES: [&str; 3] = ["POST /introspect", "POST /revoke", "POST /token"];

// row "rate limits": whoever may be answered 429 is told so, and when to come back
#[test]
fn every_operation_that_is_limited_says_429_with_retry_after_and_no_other_does() {
    let document = description();
    let mut described = BTreeSet::new();
    for (_, method, path, operation) in operations(&document) {
        let place = format!("{method} {path}");
        let answer = &operation["responses"]["429"];
        if answer.is_null() {
            continue;
        }
        let answer = resolve(&document, answer);
        let retry = &answer["headers"]["Retry-After"];
        assert_eq!(retry["required"], true, "{place}: {answer}");
        described.insert(place);
    }
    let routes = ROUTES.iter().copied().flatten();
    let limited = routes.filter(|r| r.limit.is_some());
    let mut limited: BTreeSet<String> = limited.map(|r| format!("{} {}", r.method, r.path)).collect();
    limited.extend(COUNT_FAILURES.map(str::to_owned));
    assert_eq!(described, limited);
}

/// What handlers read one by one, by their own source: `params.get("...")` and the like, outside of tests.
fn read_by(files: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let dense: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        for call in ["params.get(\"", "params.words(\"", "params.all(\"", "one(\""] {
            let found = dense.split(call).skip(1).filter_map(|rest| rest.split_once('"'));
            names.extend(found.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// The members of a struct that a handler reads a query or a form into.
fn members(file: &str, name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let file = syn::parse_file(&text).unwrap();
    let found = file.items.into_iter().find_map(|item| match item {
        syn::Item::Struct(of) if of.ident == name => Some(of.fields),
        _ => None,
    });
    let fields = found.unwrap().into_iter();
    fields.map(|field| field.ident.unwrap().to_string()).collect()
}

/// Query parameters of an operation, or members of its form.
fn described(document: &Value, method: &str, path: &str) -> BTreeSet<String> {
    let operation = &document["paths"][path][method];
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let query = parameters
        .map(|p| resolve(document, p))
        .filter(|p| p["in"] == "query")
        .map(|p| p["name"].as_str().unwrap().to_owned());
    let form =
        &operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]["properties"];
    let form = form.as_object().into_iter().flat_map(|f| f.keys().cloned());
    query.chain(form).collect()
}

// What is asked for and refused by name (OIDC Core 3.1.2.6), not taken.
const REFUSED: [&str; 3] = ["registration", "request", "request_uri"];

#[test]
fn parameters_that_are_read_are_described_and_the_other_way_round() {
    let document = description();
    let client = ["http/broker/oauth.rs", "oidc/client_auth.rs"];
    let authenticated = |file: &'static str| read_by(&[file, client[0], client[1]]);
    let without = |mut names: BTreeSet<String>, gone: &[&str]| {
        names.retain(|name| !gone.contains(&name.as_str()));
        names
    };
    // May be sent and need not be read (RFC 7662 section 2.1, RFC 7009 section 2.1).
    let hint = |file| {
        let mut names = without(authenticated(file), &["grant_type"]);
        names.insert("token_type_hint".to_owned());
        names
    };
    let table = [
        (
            "get",
            "/authorize",
            without(read_by(&["oidc/authorize.rs"]), &REFUSED),
        ),
        (
            "get",
            "/callback/{upstream}",
            read_by(&["http/broker/callback.rs"]),
        ),
        ("get", "/logout", read_by(&["oidc/logout.rs"])),
        ("post", "/token", authenticated("http/broker/token.rs")),
        ("post", "/introspect", hint("http/broker/introspect.rs")),
        ("post", "/revoke", hint("http/broker/revoke.rs")),
        ("get", "/account", members("http/account.rs", "Asked")),
        (
            "post",
            "/account/sessions/end",
            members("http/account.rs", "Ending"),
        ),
        (
            "post",
            "/account/factors/remove",
            members("http/account.rs", "Removing"),
        ),
        ("get", "/api/v1/subjects", members("http/admin.rs", "Listing")),
        ("get", "/api/v1/audit", members("http/admin.rs", "Lines")),
        ("get", "/api/v1/outbox", members("http/admin.rs", "Waiting")),
        (
            "get",
            "/api/v1/dead-letters",
            members("http/admin/letters.rs", "Listing"),
        ),
    ];
    for (method, path, read) in table {
        assert_eq!(described(&document, method, path), read, "{method} {path}");
    }
}

#[test]
fn whoever_reads_a_body_says_what_becomes_of_one_that_is_slow_large_or_of_another_kind() {
    let document = description();
    for (_, method, path, operation) in operations(&document) {
        // Hooks have the whole request's time, and a report has no body.
        let hook = path.starts_with("/hooks/");
        if operation["requestBody"].is_null() {
            continue;
        }
        let wanted = ["408", "413", "415"]
            .into_iter()
            .filter(|code| !(hook && *code == "408"));
        for code in wanted {
            assert!(
                operation["responses"][code].is_object(),
                "{method} {path} lacks {code}"
            );
        }
    }
}
