//! Configuration and policy files: every fault at once, each with key, line and what to do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reentry::config::{self, DEFAULT, DEFAULT_POLICY};
use reentry::domain::policy::Policy;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with every file that the default names.
fn files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["keycloak-admin-secret", "keycloak-broker-secret", "bank-secret"] {
        private(directory.path(), name, "a-long-enough-secret-for-tests\n");
    }
    directory
}

/// A file for its owner alone.
fn private(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
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
            file.loosening_wait,
            file.rolling
        ),
        (
            code.link_validity,
            code.report_window,
            code.thaw_wait,
            code.lapse_after,
            code.loosening_wait,
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
        "#claims: [name, email, email_verified, department]",
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

// ISS-13: what somebody may do is never passed on whole, however it is spelt.
#[test]
fn iss13_rights_are_no_claims_about_a_person() {
    for name in [
        "roles",
        "groups",
        "realm_access",
        "resource_access",
        "permissions",
        "entitlements",
        "scp",
        "Roles",
        "GROUPS",
        "https://shop.example/roles",
        "https://shop.example/claims/Groups",
        "realm_access.roles",
        "resource_access.shop.roles",
        "cognito:groups",
        "app_roles",
        "realm-access",
        "urn:shop:permissions",
    ] {
        let shown = policy_faults(&policy_with(
            "#claims: [name, email, email_verified, department]",
            &format!("claims: [name, \"{name}\"]"),
        ));
        let wanted = format!("is `{name}`, which says what somebody may do");
        assert!(shown.contains(&wanted), "{name}: {shown}");
        assert!(shown.contains("maps `roles:` and `groups:`"), "{name}: {shown}");
    }
    let harmless = "claims: [name, department, \"https://shop.example/plan\", role_description]";
    assert!(
        config::load_policy(&policy_with(
            "#claims: [name, email, email_verified, department]",
            harmless
        ))
        .is_ok()
    );
}

// A name in a tier's expression that is no fact is a typing mistake, and is named.
#[test]
fn a_word_that_is_none_in_an_expression_is_named() {
    let shown = policy_faults(&policy_with(
        "\"'reentry-b2b-user' in roles\"",
        "\"role.exists(r, r == 'x')\"",
    ));
    assert!(
        shown.contains("`role` is none of the words that there are"),
        "{shown}"
    );
}

// OIDC Core §5.4: what a scope is for goes out with it where nobody says otherwise.
#[test]
fn iss13_without_an_allow_list_the_standard_claims_pass() {
    let without = config::load_policy(&policy_with(
        "#claims: [name, email, email_verified, department]\n",
        "\n",
    ))
    .unwrap()
    .policy;
    for name in [
        "name",
        "preferred_username",
        "email",
        "email_verified",
        "address",
        "phone_number",
    ] {
        assert!(without.claims.contains(name), "{name}");
    }
    assert!(!without.claims.contains("roles") && !without.claims.contains("department"));
    let none = policy_with("#claims: [name, email, email_verified, department]", "claims: []");
    assert!(config::load_policy(&none).unwrap().policy.claims.is_empty());
}

#[test]
fn iss13_our_own_roles_and_groups_never_go_out() {
    for (key, word) in [("roles", "reentry-admin"), ("groups", "/reentry/hold.read")] {
        let shown = policy_faults(&policy_with(
            &format!("{key}: {{}}"),
            &format!("{key}: {{read: [{word}]}}"),
        ));
        assert!(shown.contains("which is ours and never goes out"), "{shown}");
    }
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

/// What is written for what, and what is said.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "https://id.example.com",
        "ftp://id.example.com",
        "`server.issuer` is `ftp://id.example.com` with scheme ftp",
    ),
    (
        "https://id.example.com",
        "https://user:pw@id.example.com",
        "`server.issuer` has a user or password",
    ),
    (
        "https://id.example.com",
        "https://id.example.com?x=1",
        "leave out what follows `?` or `#`",
    ),
    (
        "https://id.example.com",
        "https://ID.example.com",
        "write it in its normal form, `https://id.example.com`",
    ),
    (
        "#listen: 127.0.0.1:8080",
        "listen: 8080",
        "`server.listen` is `8080`, not an address and port",
    ),
    (
        "#operations: 127.0.0.1:9090",
        "operations: 127.0.0.1:8080",
        "`server.operations` is the public address too",
    ),
    (
        "#body_limit: 64KiB",
        "body_limit: 1GiB",
        "`server.body_limit` is `1GiB`, not a size",
    ),
    (
        "#request_timeout: 10s",
        "request_timeout: 10",
        "`server.request_timeout` is `10`, not a length of time; write for example 300s, 24h or 7d",
    ),
    (
        "#request_timeout: 10s",
        "request_timeout: 1h",
        "`server.request_timeout` is 1h; the most is 5m",
    ),
    (
        "#claim_alias: https://example.com/recovery_scope",
        "claim_alias: recovery",
        "`server.claim_alias` is `recovery`, not a URL",
    ),
    (
        "#upstream: keycloak",
        "upstream: staff",
        "`clients[0].upstream` is `staff`, and there is no upstream of that id",
    ),
    (
        "#unknown_prompt: refuse",
        "unknown_prompt: refused",
        "not one of refuse, ignore; did you mean `refuse`?",
    ),
    (
        "redis://localhost:6379/0",
        "redis://:secret@localhost/0",
        "`store.url` has a password in it",
    ),
    (
        "redis://localhost:6379/0",
        "redis+sentinel://one,two:26380",
        "`store.url` does not say what the Sentinels call the master; write redis://",
    ),
    (
        "redis://localhost:6379/0",
        "redis+cluster://one,two/3",
        "`store.url` has something after the slash, but a cluster has no databases",
    ),
    (
        "redis://localhost:6379/0",
        "redis://one,two",
        "it must say whether they are Sentinels or a cluster",
    ),
    (
        "#ca_file: redis-ca.pem",
        "ca_file: absent.pem",
        "absent.pem, which cannot be read",
    ),
    (
        "#sentinel:",
        "sentinel: {user: sidecar}",
        "`store.sentinel.password_file` is missing, but there is a user",
    ),
    (
        "#durability:",
        "durability: {replicas: 17}",
        "`store.durability.replicas` is `17`, not `all` or a number from 0 to 16",
    ),
    (
        "#kind: redis",
        "kind: embedded",
        "`store.path` is missing; write for example `path: reentry.redb`",
    ),
    (
        "id: keycloak",
        "id: Key Cloak",
        "`upstreams[0].id` is `Key Cloak`; write 1 to 32 of a-z, 0-9 and -",
    ),
    (
        "url: https://login.example.com",
        "url: https://login.example.com/realms/customers",
        "the realm stands in `realm`",
    ),
    (
        "#poll_interval: 2s",
        "poll_interval: 1h",
        "`upstreams[0].poll_interval` is 1h; the most is 5m",
    ),
    (
        "#auth: client_secret_basic",
        "auth: none",
        "`clients[0].auth` is none, but there is a secret",
    ),
    (
        "https://bank.example.com/callback",
        "http://bank.example.com/callback",
        "`clients[0].redirect_uris[0]` is `http://bank.example.com/callback`; plain http is allowed on loopback only",
    ),
    (
        "https://bank.example.com/callback",
        "https://*.example.com/callback",
        "wildcards are not accepted",
    ),
    (
        "https://bank.example.com/callback",
        "\"https://bank.example.com/callback#x\"",
        "a redirect URI has no fragment",
    ),
    (
        "https://bank.example.com/callback",
        "/callback",
        "not an absolute URI",
    ),
    (
        "https://bank.example.com/callback",
        "javascript:alert(1)",
        "with scheme `javascript`",
    ),
    (
        "[openid, profile, email, offline_access]",
        "[openid, reentry-hold.read]",
        "`clients[0].scopes[1]` is `reentry-hold.read`; scopes that start with `reentry-`",
    ),
    (
        "[openid, profile, email, offline_access]",
        "[openid, \"reentry:write\"]",
        "only `reentry:admin` may be used",
    ),
    (
        "[openid, profile, email, offline_access]",
        "[openid, a b]",
        "not an OAuth scope",
    ),
    (
        "#tls: starttls",
        "tls: tls",
        "`mail.tls` is `tls`, not one of none, starttls, implicit",
    ),
    (
        "#user: reentry",
        "user: reentry",
        "`mail.password_file` is missing, but there is a user",
    ),
    ("#branding:", "branding: {name: \"\"}", "`branding.name` is empty"),
    (
        "#branding:",
        "branding: {accent_light: \"#ffff00\", accent_dark: \"#ffff00\"}",
        "`branding.accent_light` is #ffff00, whose contrast on #ffffff is 1.1:1; it must be at least 4.5:1",
    ),
    (
        "#branding:",
        "branding: {accent_light: \"#0b57d0\", accent_dark: \"#0b57d0\"}",
        "`branding.accent_dark` is #0b57d0, whose contrast",
    ),
    ("#branding:", "branding: {accent_light: blue}", "not a colour"),
    (
        "#branding:",
        "branding: {logo: logo.gif}",
        "neither .svg nor .png",
    ),
    (
        "#branding:",
        "branding: {time_zone: Mars/Base}",
        "not a time zone",
    ),
    (
        "#branding:",
        "branding: {words: {paying: x}}",
        "`branding.words.paying` is `paying`, not an action class",
    ),
    (
        "#policy_file: policy.yaml",
        "policy_file: nowhere.yaml",
        "`policy_file` names ",
    ),
    (
        "#telemetry:",
        "telemetry: {level: loud}",
        "`telemetry.level` is `loud`",
    ),
    (
        "#admin:",
        "admin: {read_key: abc}",
        "`admin.read_key` is a secret in the configuration file; put it into a file and name that with `read_key_file`",
    ),
    (
        "secret_file: bank-secret",
        "secret: hunter2",
        "`clients[0].secret` is a secret in the configuration file",
    ),
    (
        "secret_file: bank-secret",
        "secret_file: nowhere",
        "`clients[0].secret_file` names ",
    ),
];

// Bad input: wrong config. Each refused value, what is said, and where.
#[test]
fn every_refused_value_is_named_with_its_key() {
    for (from, to, expected) in REFUSED {
        let text = with(from, to);
        let shown = faults(&text);
        assert!(
            shown.contains(expected),
            "for {to:?} expected {expected:?} in\n{shown}"
        );
        let line = text.lines().position(|l| l.contains(*to)).unwrap() + 1;
        let named_elsewhere = expected.contains("missing");
        assert!(
            named_elsewhere || shown.contains(&format!("line {line}, column ")),
            "for {to:?} line {line} in\n{shown}"
        );
    }
}

#[test]
fn text_that_is_not_yaml_is_told_with_its_line() {
    let shown = faults("server:\n  issuer: \"https://id.example.com\n");
    assert!(shown.contains("it is not YAML"), "{shown}");
    let shown = faults("server:\n  issuer: a\n  issuer: b\n");
    assert!(
        shown.contains("line 3, column 3: `issuer` is there twice (first at line 2, column 3)"),
        "{shown}"
    );
    let shown = faults("a: &x 1\nb: *x\n");
    assert!(shown.contains("line 1") && shown.contains("anchor"), "{shown}");
    assert!(shown.contains("line 2, column 4: it is an alias"), "{shown}");
    let shown = faults("a: 1\n---\nb: 2\n");
    assert!(shown.contains("second document"), "{shown}");
    let shown = faults("- a\n");
    assert!(shown.contains("is a list, not a section"), "{shown}");
    let shown = faults(&format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    assert!(shown.contains("nests too deep"), "{shown}");
}

#[test]
fn an_empty_config_lists_everything_that_is_missing() {
    let shown = faults("");
    for key in ["server.issuer", "store.url", "store.keys_file", "keys.directory"] {
        assert!(
            shown.contains(&format!("`{key}` is missing; write for example")),
            "{key}: {shown}"
        );
    }
    assert!(
        shown.contains("`upstreams` names no identity provider"),
        "{shown}"
    );
}

// Contract section 3: two accounts must never share a `sub`.
#[test]
fn two_upstreams_without_a_prefix_are_refused() {
    let second = "  - id: staff\n    url: https://staff.example.com\n    realm: staff\n    admin: {client_id: reentry, secret_file: keycloak-admin-secret}\n";
    let two = |more: &str| {
        DEFAULT.replacen(
            "# Relying parties of the broker.",
            &format!("{second}{more}\n"),
            1,
        )
    };
    let shown = faults(&two(""));
    assert!(
        shown.contains("`upstreams[1].prefix` is missing, and another upstream has none either"),
        "{shown}"
    );
    assert!(load(&two("    prefix: \"staff:\"\n")).is_ok());
    let same_id = two("    prefix: \"staff:\"\n").replace("id: staff", "id: keycloak");
    assert!(faults(&same_id).contains("`upstreams[1].id` is `keycloak`, as another's"));
}

#[test]
fn the_environment_overrides_and_holds_secrets() {
    let directory = files();
    let set = |pairs: &[(&str, &str)], text: &str| {
        let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        config::load(text, pairs, directory.path())
    };
    let loaded = set(
        &[
            ("REENTRY__SERVER__LISTEN", "0.0.0.0:80"),
            ("REENTRY__UPSTREAMS__KEYCLOAK__POLL_INTERVAL", "500ms"),
            ("REENTRY__CLIENTS__0__SCOPES", "[openid, payments:write]"),
            ("REENTRY__MAIL__USER", "reentry"),
            ("REENTRY__MAIL__PASSWORD", "[not yaml"),
            ("REENTRY_CONFIG", "ignored"),
            ("PATH", "ignored"),
        ],
        DEFAULT,
    )
    .unwrap();
    assert_eq!(loaded.config.server.listen.to_string(), "0.0.0.0:80");
    assert_eq!(loaded.config.upstreams[0].poll_interval.as_millis(), 500);
    assert!(loaded.config.clients[0].scopes.contains("payments:write"));
    assert!(loaded.config.mail.unwrap().login.is_some());

    let from_environment = DEFAULT.replace("secret_file: bank-secret", "name: Bank");
    let secret = [("REENTRY__CLIENTS__BANK__SECRET", "a-long-enough-secret-for-tests")];
    let loaded = set(&secret, &from_environment).unwrap();
    let config::client::auth::ClientAuth::Basic(hash) = &loaded.config.clients[0].auth else {
        panic!("not basic")
    };
    assert!(hash.matches(b"a-long-enough-secret-for-tests"));
    assert!(!hash.matches(b"a-long-enough-secret-for-test"));

    let wrong = set(
        &[
            ("REENTRY__SERVER__LISEN", "x"),
            ("REENTRY__CLIENTS__SHOP__SECRET", "x"),
            ("REENTRY__", "x"),
        ],
        DEFAULT,
    );
    let shown = wrong.unwrap_err().to_string();
    assert!(
        shown.contains(
            "environment variable REENTRY__SERVER__LISEN: `server.lisen` is unknown; did you mean `listen`?"
        ),
        "{shown}"
    );
    assert!(
        shown.contains(
            "environment variable REENTRY__CLIENTS__SHOP__SECRET: `clients.shop.secret` names no item `shop`"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("environment variable REENTRY__: it names no key"),
        "{shown}"
    );
}

#[test]
fn short_client_secrets_are_refused() {
    let directory = files();
    fs::write(directory.path().join("bank-secret"), "short").unwrap();
    let shown = config::load(DEFAULT, no_environment(), directory.path())
        .unwrap_err()
        .to_string();
    assert!(
        shown.contains("`clients[0].secret_file` is shorter than 20 characters"),
        "{shown}"
    );
    fs::write(directory.path().join("bank-secret"), "\n").unwrap();
    let shown = config::load(DEFAULT, no_environment(), directory.path())
        .unwrap_err()
        .to_string();
    assert!(shown.contains("which is empty"), "{shown}");
}

#[test]
fn secrets_that_are_made_later_are_no_fault_of_a_set_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reentry.yaml");
    fs::write(&path, DEFAULT).unwrap();
    assert!(config::load_file(&path, no_environment()).is_err());
    assert!(config::load_file_for_setup(&path, no_environment()).is_ok());
}

#[test]
fn warnings_are_told_and_the_configuration_is_used() {
    let loaded = load(DEFAULT).unwrap();
    let shown: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        shown.iter().any(|w| w.contains("holds nobody who could thaw")),
        "{shown:?}"
    );
    let start = DEFAULT.find("mail:").unwrap();
    let end = DEFAULT.find("#branding:").unwrap();
    let without = format!("{}{}", &DEFAULT[..start], &DEFAULT[end..]);
    let shown = faults(&without);
    assert!(
        shown.contains("`branding.support` is missing") && shown.contains("nobody to turn to"),
        "{shown}"
    );
    let without = without.replace("#branding:", "branding: {support: help@example.com}\n#branding:");
    let loaded = load(&without).unwrap();
    let shown: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        shown
            .iter()
            .any(|w| w.contains("`mail` is missing: nobody is told anything")),
        "{shown:?}"
    );
}

// Bad input: unknown policy key.
#[test]
fn an_unknown_policy_key_is_refused() {
    let shown = policy_faults(&policy_with("thaw_wait: 24h", "thaw_weit: 24h"));
    assert!(
        shown.contains("`thaw_weit` is unknown; did you mean `thaw_wait`?"),
        "{shown}"
    );
    assert!(shown.contains("policy, line "), "{shown}");
    let shown = policy_faults(&policy_with("factor_lost:", "factor_losst:"));
    assert!(
        shown.contains("`tiers[0].holds.factor_losst` is unknown; did you mean `factor_lost`?"),
        "{shown}"
    );
    assert!(
        shown.contains("`tiers[0].holds` leaves out factor_lost"),
        "{shown}"
    );
}

const USER: &str = "'reentry-b2b-user' in roles";

// Bad input: a tier expression that does not parse.
#[test]
fn a_tier_expression_that_does_not_parse_is_refused() {
    let text = policy_with(USER, "roles.exists(");
    let shown = policy_faults(&text);
    let line = text.lines().position(|l| l.contains("roles.exists(\"")).unwrap() + 1;
    assert!(
        shown.contains(&format!(
            "policy, line {line}, column 11: `tiers[1].when` does not parse"
        )),
        "{shown}"
    );
}

// Bad input: a tier expression that nests too deep.
#[test]
fn a_tier_expression_that_nests_too_deep_is_refused() {
    let deep = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    let shown = policy_faults(&policy_with(USER, &deep));
    assert!(
        shown.contains("`tiers[1].when` nests deeper than 8 brackets"),
        "{shown}"
    );
    let long = format!("'{}' in roles", "a".repeat(2000));
    assert!(policy_faults(&policy_with(USER, &long)).contains("is longer than 1024 octets"));
}

// Bad input: a tier expression that never matches.
#[test]
fn a_tier_expression_that_never_matches_is_refused() {
    for never in ["false", "1 == 2", "'a' == 'b'"] {
        let shown = policy_faults(&policy_with(USER, never));
        assert!(
            shown.contains("`tiers[1].when` never matches: it is false for everybody"),
            "{never}: {shown}"
        );
    }
    let shown = policy_faults(&policy_with("'reentry-high-assurance' in roles", "true"));
    assert!(
        shown.contains("`tiers[1].when` is never asked: everybody is in `high_assurance` already"),
        "{shown}"
    );
    assert!(
        shown.contains("`tiers[0].name` has nobody: everybody is in `high_assurance` already"),
        "{shown}"
    );
    let seldom = config::load_policy(&policy_with(USER, "'a' in roles && !('a' in roles)")).unwrap();
    let shown: Vec<String> = seldom.warnings.iter().map(ToString::to_string).collect();
    assert!(
        shown.iter().any(|w| w.contains("true for none of the accounts")),
        "{shown:?}"
    );
}

// Bad input: a tier expression that fails.
#[test]
fn a_tier_expression_that_fails_is_refused_or_told() {
    let shown = policy_faults(&policy_with(USER, "'x' in rolls"));
    assert!(
        shown.contains("`tiers[1].when` fails for every account that was tried"),
        "{shown}"
    );
    let sometimes = config::load_policy(&policy_with(USER, "attributes['level'][0] == 'high'")).unwrap();
    let shown: Vec<String> = sometimes.warnings.iter().map(ToString::to_string).collect();
    assert!(
        shown
            .iter()
            .any(|w| w.contains("`tiers[1].when` fails for an account without facts")),
        "{shown:?}"
    );
}

// Bad input: a tier expression that gives a number.
#[test]
fn a_tier_expression_that_gives_a_number_is_refused() {
    for number in ["1 + 1", "size(roles)"] {
        let shown = policy_faults(&policy_with(USER, number));
        assert!(shown.contains("`tiers[1].when` gives"), "{number}: {shown}");
        assert!(shown.contains("compare it with something"), "{number}: {shown}");
    }
}

#[test]
fn all_faults_of_a_policy_come_at_once() {
    let text = DEFAULT_POLICY
        .replace(USER, "1 + 1")
        .replace("thaw_wait: 24h", "thaw_wait: soon")
        .replace(
            "#claims: [name, email, email_verified, department]",
            "claims: [iss]",
        )
        .replacen("allow: [read, write]", "allow: [read, wirte]", 1);
    let shown = policy_faults(&text);
    assert!(shown.starts_with("the configuration has 4 faults:"), "{shown}");
    assert!(
        shown.contains("`tiers[0].holds.password_reset.allow[1]` is `wirte`, not an action class"),
        "{shown}"
    );
    assert!(shown.contains("did you mean `write`?"), "{shown}");
}

/// What is written for what, and what is said.
const REFUSED_POLICIES: &[(&str, &str, &str)] = &[
    (
        "exits: [thaw, lapse]",
        "exits: [lapse]",
        "would freeze an account for good",
    ),
    (
        "exits: [thaw, lapse]",
        "exits: []",
        "would freeze an account for good",
    ),
    (
        "admin_roles: [reentry-admin]",
        "admin_roles: []",
        "could never be thawed",
    ),
    (
        "  restricted: 5m",
        "  restricted: 6m",
        "`lifetimes.restricted` is 6m; the most is 5m",
    ),
    (
        "  access: 15m",
        "  access: 1h",
        "set `allow_long_access: true` if you accept that",
    ),
    (
        "told_min: 6h",
        "told_min: 0s",
        "`told_min` is 0s; the least is 1s",
    ),
    (
        "veto_min: 30d",
        "veto_min: 7d",
        "`veto_min` is 7d, not longer than the probation (7d)",
    ),
    (
        "{for: 24h, allow: [read, write]}",
        "{for: 24h, allow: [full]}",
        "is `full`, not an action class",
    ),
    (
        "{for: 24h, allow: [read, write]}",
        "{for: 24h, allow: [reading]}",
        "is `reading`, not an action class",
    ),
    (
        "{for: 24h, allow: [read, write]}",
        "{for: 24h}",
        "`tiers[0].holds.password_reset.allow` is missing",
    ),
    (
        "{for: 24h, allow: [read, write]}",
        "{allow: [read]}",
        "`tiers[0].holds.password_reset.for` is missing",
    ),
    (
        "{for: 24h, allow: [read, write]}",
        "nothing",
        "`tiers[0].holds.password_reset` is `nothing`, not one of notice",
    ),
    (
        "      password_reset_proven: notice\n",
        "",
        "`tiers[0].holds` leaves out password_reset_proven",
    ),
    (
        "scopes: {}",
        "scopes: {pay: [openid]}",
        "only says who somebody is",
    ),
    (
        "scopes: {}",
        "scopes: {pay: [reentry-hold.read]}",
        "are never asked for",
    ),
    (
        "scopes: {}",
        "scopes: {paying: [x]}",
        "`scopes.paying` is `paying`, not an action class",
    ),
    (
        "roles: {}",
        "roles: {read: [reentry-full]}",
        "which is ours and never goes out",
    ),
    ("enforce: on", "enforce: {cohort: 110%}", "more than everybody"),
    ("enforce: on", "enforce: {cohort: ten}", "not a share"),
    (
        "name: b2b_user",
        "name: consumer",
        "`tiers[1].name` is `consumer`, as another's",
    ),
    (
        "    when: \"'reentry-b2b-user' in roles\"\n",
        "",
        "`tiers[1].when` is missing, and another tier has none either",
    ),
];

#[test]
fn policies_that_could_hold_nobody_or_somebody_for_good_are_refused() {
    for (from, to, expected) in REFUSED_POLICIES {
        let shown = policy_faults(&policy_with(from, to));
        assert!(
            shown.contains(expected),
            "for {to:?} expected {expected:?} in\n{shown}"
        );
        assert!(shown.contains("policy, line "), "{shown}");
    }
    assert!(policy_faults("tiers: []").contains("no account has rules"));
    let everybody = policy_with(
        "  - name: consumer\n",
        "  - name: consumer\n    when: \"'x' in roles\"\n",
    );
    assert!(policy_faults(&everybody).contains("other accounts have none"));
}

#[test]
fn roll_out_and_own_classes_are_read() {
    use reentry::domain::policy::Rollout;
    let text =
        policy_with("enforce: on", "enforce: {cohort: 2.5%}").replacen("enforce: on", "enforce: shadow", 1);
    let text = text.replace(
        "scopes: {}",
        "scopes: {x_trade: [trade], pay: [payments:write, trade]}",
    );
    let policy = config::load_policy(&text).unwrap().policy;
    let modes: Vec<Rollout> = policy.tiers.iter().map(|t| t.enforce).collect();
    assert_eq!(
        modes,
        [Rollout::Cohort(250), Rollout::Shadow, Rollout::On, Rollout::On]
    );
    assert_eq!(policy.scopes.len(), 2);
}

#[test]
fn a_policy_may_stand_in_the_configuration_or_in_a_file() {
    let directory = files();
    fs::write(
        directory.path().join("policy.yaml"),
        policy_with("thaw_wait: 24h", "thaw_wait: 25h"),
    )
    .unwrap();
    let text = with("#policy_file: policy.yaml", "policy_file: policy.yaml");
    let from_file = config::load(&text, no_environment(), directory.path())
        .unwrap()
        .config
        .policy;
    assert_eq!(from_file.thaw_wait.to_string(), "25h");
    let indented: String = DEFAULT_POLICY.lines().map(|l| ["  ", l, "\n"].concat()).collect();
    let inline = with("#policy: {}", &format!("policy:\n{indented}"));
    let loaded = config::load(&inline, no_environment(), directory.path()).unwrap();
    assert_eq!(loaded.config.policy.tiers.len(), 4);
    let both = inline.replace("#policy_file: policy.yaml", "policy_file: policy.yaml");
    let shown = config::load(&both, no_environment(), directory.path())
        .unwrap_err()
        .to_string();
    assert!(
        shown.contains("`policy_file` is given beside `policy`"),
        "{shown}"
    );
    let changed = [("REENTRY__POLICY__THAW_WAIT".to_owned(), "26h".to_owned())];
    let loaded = config::load(&inline, changed, directory.path()).unwrap();
    assert_eq!(loaded.config.policy.thaw_wait.to_string(), "26h");
}

/// Lines that show a default are commented `#key: value`; explanations are `# text`.
fn uncommented(text: &str) -> String {
    text.lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            match rest
                .strip_prefix('#')
                .filter(|r| r.starts_with(|c: char| c.is_ascii_lowercase() || c == ' '))
            {
                Some(key) if key.starts_with("  ") && !key.starts_with("   ") => format!("{indent}{key}\n"),
                Some(key) if !key.starts_with(' ') && key.contains(':') => format!("{indent}{key}\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect()
}

/// Every key of a document, lists as `[]`.
fn keys_of(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let here = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                found.insert(here.clone());
                keys_of(value, &here, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                if item.is_object() {
                    keys_of(item, &format!("{path}[]"), found);
                }
            }
        }
        _ => {}
    }
}

/// Keys that are secrets: they come from the environment, and stand neither in the default nor in the schema.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit_once('.').map_or("", |(_, last)| last);
    ["secret", "password", "read_key"].contains(&last)
}

#[test]
fn the_default_shows_every_key() {
    let full = yaml(&uncommented(DEFAULT));
    let mut shown = BTreeSet::new();
    keys_of(&full, "", &mut shown);
    shown.retain(|k| !k.starts_with("branding.words."));
    let known: BTreeSet<String> = config::known_keys()
        .into_iter()
        .filter(|k| !is_secret(k) && !k.starts_with("policy."))
        .collect();
    assert_eq!(shown, known);
}

/// YAML 1.2, in which `on` is a word.
fn yaml(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(config::SCHEMA).unwrap()
}

fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

fn schema_keys(schema: &Value, root: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = resolved(schema, root);
    for one in schema
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        schema_keys(one, root, path, found);
    }
    if let Some(items) = schema.get("items") {
        schema_keys(items, root, &format!("{path}[]"), found);
    }
    for (key, value) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let rows = path.rsplit('.').next() == Some("holds");
        let name = if rows { "*" } else { key };
        let here = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        if !rows {
            found.insert(here.clone());
        }
        schema_keys(value, root, &here, found);
    }
}

#[test]
fn the_schema_has_exactly_the_known_keys() {
    let schema = schema();
    let mut described = BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut described);
    let known: BTreeSet<String> = config::known_keys()
        .into_iter()
        .filter(|k| !is_secret(k))
        .collect();
    assert_eq!(described, known);
}

/// As much of JSON Schema as ours uses. Gives what does not fit.
fn unfit(value: &Value, schema: &Value, root: &Value, path: &str, found: &mut Vec<String>) {
    let schema = resolved(schema, root);
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let fits = choices.iter().filter(|one| {
            let mut inner = Vec::new();
            unfit(value, one, root, path, &mut inner);
            inner.is_empty()
        });
        if fits.count() != 1 {
            found.push(format!("{path}: not one of the forms"));
        }
        return;
    }
    if schema.get("const").is_some_and(|c| c != value)
        || schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|e| !e.contains(value))
    {
        found.push(format!("{path}: not one of the values"));
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let fits = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("the schema has an unexpected type {other}"),
    };
    if !kinds.is_empty() && !kinds.iter().any(fits) {
        found.push(format!("{path}: not a {}", kinds.join(" or ")));
    }
    if let Some(object) = value.as_object() {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in object {
            let here = format!("{path}.{key}");
            match (
                properties.and_then(|p| p.get(key)),
                schema.get("additionalProperties"),
            ) {
                (None, Some(Value::Bool(false))) => found.push(format!("{here}: unknown")),
                (Some(inner), _) | (None, Some(inner)) => unfit(value, inner, root, &here, found),
                (None, None) => {}
            }
        }
        for key in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if !object.contains_key(key.as_str().unwrap()) {
                found.push(format!("{path}: no {key}"));
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            unfit(item, items, root, &format!("{path}[]"), found);
        }
    }
}

#[test]
fn the_schema_accepts_the_default_and_refuses_what_we_refuse() {
    let schema = schema();
    let check = |text: &str, schema: &Value| {
        let value = yaml(text);
        let mut found = Vec::new();
        unfit(&value, schema, &self::schema(), "", &mut found);
        found
    };
    assert_eq!(check(DEFAULT, &schema), Vec::<String>::new());
    assert_eq!(
        check(&uncommented(DEFAULT).replace("policy: {}", ""), &schema),
        Vec::<String>::new()
    );
    let policy = schema.pointer("/properties/policy").unwrap();
    assert_eq!(check(DEFAULT_POLICY, policy), Vec::<String>::new());
    assert!(!check(&with("realm: customers", "real: customers"), &schema).is_empty());
    assert!(!check(&with("#kind: redis", "kind: memory"), &schema).is_empty());
    assert!(!check(&policy_with("enforce: on", "enforce: off"), policy).is_empty());
}

/// `whsec_` and the base64 of so many octets.
fn signing_secret(octets: usize) -> String {
    format!("whsec_{}", STANDARD.encode(vec![7; octets]))
}

/// The default with this section of webhooks, whose secret is in `crm-webhook-secret`, and this `outbound`.
fn load_webhooks(
    webhooks: &str,
    outbound: &str,
    secret: &str,
) -> Result<config::Loaded, config::fault::Faults> {
    let directory = files();
    private(directory.path(), "crm-webhook-secret", secret);
    let text = with("#webhooks:", &format!("webhooks: [{webhooks}]"));
    let text = text.replacen("#outbound:", &format!("outbound: {{{outbound}}}"), 1);
    config::load(&text, no_environment(), directory.path())
}

fn webhook_faults(webhooks: &str, outbound: &str, secret: &str) -> String {
    match load_webhooks(webhooks, outbound, secret) {
        Ok(_) => panic!("accepted: {webhooks} {outbound} {secret}"),
        Err(faults) => faults.to_string(),
    }
}

fn crm(url: &str) -> String {
    format!("{{id: crm, url: {url:?}, secret_file: crm-webhook-secret}}")
}

#[test]
fn a_webhook_is_read_with_everything_that_may_be_left_out() {
    let two = format!("{}\n{}\n", signing_secret(24), signing_secret(64));
    let url = "https://hooks.example.com/in?team=7";
    let loaded = load_webhooks(&crm(url), "", &two).unwrap();
    let [webhook] = loaded.config.webhooks.as_slice() else {
        panic!("one");
    };
    assert_eq!((webhook.id.as_str(), webhook.url.as_str()), ("crm", url));
    assert_eq!(webhook.secrets.len(), 2, "both sign while one is rotated");
    assert_eq!(
        webhook.events.len(),
        reentry::domain::event::EventKind::ALL.len(),
        "all of them unless named"
    );
    let some =
        "{id: crm, url: https://hooks.example.com, secret_file: crm-webhook-secret, events: [hold.ended]}";
    let loaded = load_webhooks(some, "", &two).unwrap();
    assert_eq!(loaded.config.webhooks[0].events.len(), 1);
}

#[test]
fn a_webhook_goes_by_https_to_a_public_address_unless_the_host_is_allowed() {
    let secret = signing_secret(32);
    for (url, expected) in [
        (
            "ftp://hooks.example.com/in",
            "`webhooks[0].url` is `ftp://hooks.example.com/in` with scheme ftp",
        ),
        (
            "http://hooks.example.com/in",
            "plain http is allowed on loopback only",
        ),
        (
            "http://127.0.0.1:9/in",
            "`webhooks[0].url` is plain http, to a host that is not allowed",
        ),
        ("http://localhost:9/in", "add `localhost` to outbound.allow_hosts"),
        (
            "https://10.0.0.7/in",
            "`webhooks[0].url` names an address that is not public",
        ),
        (
            "https://169.254.169.254/in",
            "names an address that is not public",
        ),
        ("https://0x7f000001/in", "names an address that is not public"),
        ("https://[::1]/in", "add `[::1]` to outbound.allow_hosts"),
        (
            "https://[::ffff:10.0.0.7]/in",
            "names an address that is not public",
        ),
        ("hooks.example.com/in", "not a URL"),
        (
            "https://user:pw@hooks.example.com/in",
            "`webhooks[0].url` has a user or password",
        ),
        ("https://hooks.example.com/in#x", "leave out what follows"),
    ] {
        let shown = webhook_faults(&crm(url), "", &secret);
        assert!(
            shown.contains(expected),
            "for {url} expected {expected:?} in\n{shown}"
        );
    }
    for (url, outbound) in [
        ("http://127.0.0.1:9/in", "allow_hosts: [127.0.0.1]"),
        ("https://10.0.0.7/in", "allow_hosts: [10.0.0.7]"),
        ("https://[::1]:8443/in", "allow_hosts: [\"[::1]\"]"),
        ("https://8.8.8.8/in", ""),
    ] {
        assert!(
            load_webhooks(&crm(url), outbound, &secret).is_ok(),
            "{url} with {outbound}"
        );
    }
    // Leave for one host is leave for no other.
    let shown = webhook_faults(&crm("https://10.0.0.8/in"), "allow_hosts: [10.0.0.7]", &secret);
    assert!(shown.contains("not public"), "{shown}");
}

#[test]
fn a_malformed_or_missing_webhook_secret_is_refused_and_never_shown() {
    let url = crm("https://hooks.example.com/in");
    let (short, long) = (signing_secret(23), signing_secret(65));
    let second = format!("{}\nwhsec_not base64\n", signing_secret(32));
    for secret in [
        "hunter2-hunter2-hunter2-hunter2",
        "whsec_????",
        "whsec_",
        &short,
        &long,
        &second,
    ] {
        let shown = webhook_faults(&url, "", secret);
        assert!(
            shown.contains("`webhooks[0].secret_file` holds something that is no signing secret"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2") && !shown.contains(&short), "{shown}");
    }
    for (webhook, expected) in [
        (
            "{id: crm, url: https://hooks.example.com}",
            "`webhooks[0].secret_file` is missing",
        ),
        (
            "{id: crm, url: https://hooks.example.com, secret_file: nowhere}",
            "`webhooks[0].secret_file` names ",
        ),
        (
            "{id: crm, url: https://hooks.example.com, secret: hunter2}",
            "`webhooks[0].secret` is a secret in the configuration file",
        ),
    ] {
        let shown = webhook_faults(webhook, "", "");
        assert!(shown.contains(expected), "expected {expected:?} in\n{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn ids_events_and_keys_of_webhooks_are_checked() {
    let secret = signing_secret(32);
    let rest = "url: https://hooks.example.com, secret_file: crm-webhook-secret";
    for (webhooks, expected) in [
        (format!("{{{rest}}}"), "`webhooks[0].id` is missing"),
        (
            "{id: crm, secret_file: crm-webhook-secret}".to_owned(),
            "`webhooks[0].url` is missing",
        ),
        (
            format!("{{id: My CRM, {rest}}}"),
            "`webhooks[0].id` is `My CRM`; write 1 to 32",
        ),
        (
            format!("{{id: crm, {rest}}}, {{id: crm, {rest}}}"),
            "`webhooks[1].id` is `crm`, as another's; give every receiver its own id",
        ),
        (
            format!("{{id: crm, {rest}, events: [hold.ended, hold.startet]}}"),
            "`webhooks[0].events[1]` is `hold.startet`, not one of",
        ),
        (
            format!("{{id: crm, {rest}, events: [hold.startet]}}"),
            "did you mean `hold.started`?",
        ),
        (
            format!("{{id: crm, {rest}, event: [hold.ended]}}"),
            "did you mean `events`?",
        ),
        ("crm".to_owned(), "`webhooks[0]`"),
    ] {
        let shown = webhook_faults(&webhooks, "", &secret);
        assert!(
            shown.contains(expected),
            "for {webhooks} expected {expected:?} in\n{shown}"
        );
        assert!(shown.contains("line "), "{shown}");
    }
    let good = crm("https://hooks.example.com");
    for (outbound, expected) in [
        (
            "allow_hosts: [\"receiver:8443\"]",
            "`outbound.allow_hosts[0]` is `receiver:8443`; write a host alone",
        ),
        ("allow_hosts: [\"receiver/in\"]", "write a host alone"),
        (
            "give_up_after: 1m",
            "`outbound.give_up_after` is 1m; the least is 1h",
        ),
        (
            "give_up_after: 90d",
            "`outbound.give_up_after` is 90d; the most is 60d",
        ),
        ("timeout: 10", "`outbound.timeout` is `10`, not a length of time"),
    ] {
        let shown = webhook_faults(&good, outbound, &secret);
        assert!(
            shown.contains(expected),
            "for {outbound} expected {expected:?} in\n{shown}"
        );
    }
}

#[test]
fn all_faults_of_webhooks_come_at_once() {
    let webhooks = "{id: crm, url: https://10.0.0.7, secret_file: crm-webhook-secret}, \
        {id: crm, url: ftp://x, secret_file: crm-webhook-secret, events: [nothing]}, \
        {id: crm, url: https://hooks.example.com, secret_file: crm-webhook-secret}";
    let shown = webhook_faults(webhooks, "allow_hosts: [\"a b\"]", "hunter2");
    for key in [
        "`webhooks[0].secret_file`",
        "`webhooks[1].url`",
        "`webhooks[1].events[0]`",
        "`outbound.allow_hosts[0]`",
    ] {
        assert!(shown.contains(key), "{key} in\n{shown}");
    }
}

// Where a client is told, and where its keys are, is held to the same rule.
#[test]
fn addresses_of_clients_that_are_not_public_need_leave() {
    let published = "auth: private_key_jwt\n    jwks_uri: https://10.0.0.7/jwks";
    let text =
        with("#auth: client_secret_basic", published).replacen("    secret_file: bank-secret\n", "", 1);
    let shown = faults(&text);
    assert!(
        shown.contains("`clients[0].jwks_uri` names an address that is not public"),
        "{shown}"
    );
    let allowed = text.replacen("#outbound:", "outbound: {allow_hosts: [10.0.0.7]}", 1);
    load(&allowed).unwrap();
    let plain = text.replacen("https://10.0.0.7", "http://127.0.0.1:9", 1);
    assert!(faults(&plain).contains("`clients[0].jwks_uri` is plain http, to a host that is not allowed"));
    let logout = with(
        "#auth: client_secret_basic",
        "backchannel_logout_uri: https://192.168.0.1/logout",
    );
    assert!(
        faults(&logout).contains("`clients[0].backchannel_logout_uri` names an address that is not public")
    );
}

// P14: a guard that lasts a moment guards nothing.
#[test]
fn clocks_of_guards_have_sane_bounds_unless_things_are_only_tried_out() {
    for (usual, wrong, problem) in [
        (
            "thaw_wait: 24h",
            "thaw_wait: 10s",
            "`thaw_wait` is 10s; the least is 1h",
        ),
        (
            "thaw_wait: 24h",
            "thaw_wait: 60d",
            "`thaw_wait` is 60d; the most is 30d",
        ),
        (
            "report_window: 30d",
            "report_window: 1s",
            "`report_window` is 1s; the least is 1d",
        ),
        (
            "link_validity: 30d",
            "link_validity: 365d",
            "`link_validity` is 365d; the most is 90d",
        ),
        (
            "link_validity: 30d",
            "link_validity: 1h",
            "`link_validity` is 1h; the least is 7d",
        ),
        (
            "lapse_after: 72h",
            "lapse_after: 1s",
            "`lapse_after` is 1s; the least is 1d",
        ),
        (
            "probation: 7d",
            "probation: 1s",
            "`probation` is 1s; the least is 1d",
        ),
        (
            "loosening_wait: 24h",
            "loosening_wait: 1s",
            "`loosening_wait` is 1s; the least is 1h",
        ),
    ] {
        let shown = policy_faults(&policy_with(usual, wrong));
        assert!(shown.contains(problem), "{wrong}: {shown}");
    }
    let text = policy_with("thaw_wait: 24h", "thaw_wait: 10s")
        .replace("unsafe_short_clocks: false", "unsafe_short_clocks: true");
    let loaded = config::load_policy(&text).unwrap();
    assert_eq!(loaded.policy.thaw_wait.to_string(), "10s");
    let warned = loaded
        .warnings
        .iter()
        .any(|w| w.to_string().contains("unsafe_short_clocks"));
    assert!(warned, "{:?}", loaded.warnings);
}

// One rule for everything private: secrets, store keys, signing keys.
#[test]
fn what_others_can_read_is_refused_whatever_it_is() {
    let directory = files();
    fs::create_dir(directory.path().join("keys")).unwrap();
    for name in ["store-keys", "keys/a.json"] {
        private(directory.path(), name, "{}");
    }
    let load = || config::load(DEFAULT, no_environment(), directory.path());
    assert!(load().is_ok());
    for (name, key) in [
        ("bank-secret", "clients[0].secret_file"),
        ("store-keys", "store.keys_file"),
        ("keys/a.json", "keys.directory"),
    ] {
        let path = directory.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let shown = load().unwrap_err().to_string();
        assert!(shown.contains(&format!("`{key}` names")), "{shown}");
        assert!(shown.contains("which others can read (mode 0644)"), "{shown}");
        assert!(shown.contains("chmod 600"), "{shown}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load().is_ok());
    }
}

// Keycloak takes nearly everything for the name of a realm.
#[test]
fn a_realm_may_have_spaces_and_umlauts_in_its_name() {
    let named = |name: &str| with("realm: customers", &format!("realm: \"{name}\""));
    let loaded = load(&named("Köln GmbH.Test v2")).unwrap();
    let upstream = &loaded.config.upstreams[0];
    assert_eq!(upstream.realm, "Köln GmbH.Test v2");
    assert_eq!(
        upstream.issuer(),
        "https://login.example.com/realms/K%C3%B6ln%20GmbH.Test%20v2"
    );
    for name in ["a/b", "a?b", "a#b", "a%62", " a", "..", "a;b"] {
        assert!(faults(&named(name)).contains("not the name of a realm"), "{name}");
    }
}
