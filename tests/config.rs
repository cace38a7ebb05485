//! Configuration and policy files: every fault at once, each with key, line and what to do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

use reentry::config::{self, DEFAULT, DEFAULT_POLICY};
use reentry::domain::policy::Policy;
use tempfile::TempDir;

/// A directory with every file that the default names.
fn files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["keycloak-admin-secret", "keycloak-broker-secret", "bank-secret"] {
        fs::write(directory.path().join(name), "a-long-enough-secret-for-tests\n").unwrap();
    }
    directory
}

fn no_environment() -> Vec<(String, String)> {
    Vec::new()
}

fn load(text: &str) -> Result<config::Loaded, config::fault::Faults> {
    let directory = files();
    config::load(text, no_environment(), directory.path())
}

fn faults(text: &str) -> String {
    match load(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(faults) => faults.to_string(),
    }
}

/// The default configuration with one piece of it replaced.
fn with(from: &str, to: &str) -> String {
    assert!(DEFAULT.contains(from), "the default has no {from:?}");
    DEFAULT.replacen(from, to, 1)
}

fn policy_faults(text: &str) -> String {
    match config::load_policy(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(faults) => faults.to_string(),
    }
}

/// The default policy with one piece of it replaced.
fn policy_with(from: &str, to: &str) -> String {
    assert!(
        DEFAULT_POLICY.contains(from),
        "the default policy has no {from:?}"
    );
    DEFAULT_POLICY.replacen(from, to, 1)
}

#[test]
fn the_default_loads_once_its_secrets_are_there() {
    let loaded = load(DEFAULT).unwrap();
    assert_eq!(loaded.config.server.issuer.as_str(), "https://id.example.com");
    assert_eq!(loaded.config.clients.len(), 1);
    assert_eq!(loaded.config.policy.tiers.len(), 4);
}

#[test]
fn the_default_policy_is_the_table_of_the_domain() {
    let file = config::load_policy(DEFAULT_POLICY).unwrap().policy;
    let code = Policy::standard();
    let names = |p: &Policy| p.tiers.iter().map(|t| t.name.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&file), names(&code));
    for (a, b) in file.tiers.iter().zip(&code.tiers) {
        assert_eq!(a.holds, b.holds, "{}", a.name.0);
        assert_eq!(a.enforce, b.enforce);
        assert_eq!(a.at_end, b.at_end);
        assert_eq!(a.exits, b.exits);
        assert_eq!(a.contested_at_idp, b.contested_at_idp);
    }
    let choices = |p: &Policy| {
        p.choices
            .iter()
            .map(|c| (c.tier.0.clone(), c.when.source().to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(choices(&file), choices(&code));
    assert_eq!(choices(&file).len(), 3);
    assert_eq!(file.default_tier, code.default_tier);
    assert_eq!(
        (&file.scopes, &file.roles, &file.groups),
        (&code.scopes, &code.roles, &code.groups)
    );
    assert_eq!(
        (&file.claims, &file.admin_roles),
        (&code.claims, &code.admin_roles)
    );
    assert_eq!(file.lifetimes, code.lifetimes);
    assert_eq!(
        (
            file.probation,
            file.enrolment_window,
            file.told_min,
            file.veto_min,
            file.veto_after_hold
        ),
        (
            code.probation,
            code.enrolment_window,
            code.told_min,
            code.veto_min,
            code.veto_after_hold
        )
    );
    assert_eq!(
        (
            file.link_validity,
            file.report_window,
            file.thaw_wait,
            file.lapse_after,
            file.rolling
        ),
        (
            code.link_validity,
            code.report_window,
            code.thaw_wait,
            code.lapse_after,
            code.rolling
        )
    );
}

#[test]
fn the_digest_is_that_of_the_text() {
    let policy = config::load_policy(DEFAULT_POLICY).unwrap().policy;
    assert_eq!(policy.digest.len(), 16);
    let other = config::load_policy(&policy_with("thaw_wait: 24h", "thaw_wait: 25h"))
        .unwrap()
        .policy;
    assert_ne!(policy.digest, other.digest);
}

#[test]
fn wrong_config_shows_all_faults_at_once_with_key_and_line() {
    let text = DEFAULT
        .replace(
            "issuer: https://id.example.com",
            "issuer: http://id.example.com\n  lisen: 127.0.0.1:1",
        )
        .replace("url: redis://localhost:6379/0", "url: http://localhost")
        .replace("realm: customers", "real: customers")
        .replace("from: notices@example.com", "from: nobody");
    let shown = faults(&text);
    let line = |needle: &str| text.lines().position(|l| l.contains(needle)).unwrap() + 1;
    for expected in [
        format!(
            "line {}, column 11: `server.issuer` is `http://id.example.com`; plain http is allowed on loopback only",
            line("issuer: http://")
        ),
        format!(
            "line {}, column 3: `server.lisen` is unknown; did you mean `listen`?",
            line("lisen")
        ),
        format!(
            "line {}, column 8: `store.url` is `http://localhost`; write redis://",
            line("url: http://localhost")
        ),
        format!(
            "line {}, column 5: `upstreams[0].real` is unknown; did you mean `realm`?",
            line("real: ")
        ),
        "`upstreams[0].realm` is missing; write for example `realm: customers`".to_owned(),
        format!(
            "line {}, column 9: `mail.from` is `nobody`, not an e-mail address",
            line("from: nobody")
        ),
    ] {
        assert!(shown.contains(&expected), "missing {expected:?} in\n{shown}");
    }
    assert!(shown.starts_with("the configuration has 6 faults:"), "{shown}");
}

#[test]
fn a_missing_config_file_says_how_to_begin_one() {
    let error = config::load_file(Path::new("nowhere.yaml"), no_environment())
        .unwrap_err()
        .to_string();
    assert!(error.contains("it cannot be read (No such file"), "{error}");
    assert!(error.contains("reentry config default"), "{error}");
}

// Contract section 3: an upstream must not set what we set.
#[test]
fn reserved_claims_are_refused() {
    let shown = policy_faults(&policy_with(
        "claims: []",
        "claims: [name, sid, recovery_scope, \"https://x/recovery_scope\"]",
    ));
    for name in ["sid", "recovery_scope", "https://x/recovery_scope"] {
        assert!(
            shown.contains(&format!("is `{name}`, which no identity provider may set")),
            "{name}: {shown}"
        );
    }
    assert!(!shown.contains("claims[0]"), "{shown}");
}

#[test]
fn plain_http_issuers_are_for_loopback_only() {
    assert!(load(&with("https://id.example.com", "http://localhost:8080")).is_ok());
    assert!(load(&with("https://id.example.com", "https://example.com/id")).is_ok());
    assert!(
        faults(&with("https://id.example.com", "https://id.example.com/"))
            .contains("leave out the last slash")
    );
}
