//! Relying parties that know nothing of Reentry, written by others, unchanged: they log in while the account is in a
//! hold, refresh, ask, revoke and log out, with what their libraries do by themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "e2e/world.rs"]
#[expect(dead_code, reason = "each suite uses its part of the world")]
mod world;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use reentry_test_support::browser::Browser;
use reentry_test_support::clock::env;
use reentry_test_support::keycloak::pages;
use serde_json::{Value, json};

use world::{ASKED, CHANGED, HELD, REDIRECT, Setup, World, scope_set};

/// Runs a client program, doing in the browser what it asks for: first a recovery, then a log-out.
async fn story(world: &World, mut command: Command) -> Value {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client program starts");
    let (mut input, output) = (
        child.stdin.take().unwrap(),
        BufReader::new(child.stdout.take().unwrap()),
    );
    let mut browser = world::browser();
    let mut recovered = false;
    for line in output.lines() {
        let said: Value = serde_json::from_str(&line.unwrap()).expect("a line of JSON");
        if let Some(url) = said["open"].as_str() {
            let at = if recovered {
                log_out(&mut browser, url).await
            } else {
                recover(world, &mut browser, url).await
            };
            recovered = true;
            writeln!(input, "{at}").unwrap();
        } else {
            assert!(child.wait().unwrap().success());
            return said["result"].clone();
        }
    }
    panic!("the client program ended early: {:?}", child.wait());
}

async fn recover(world: &World, browser: &mut Browser, url: &str) -> String {
    let page = browser.get(url).await;
    let who = ("ana", "ana@example.com");
    let page = pages::forgot_password(browser, &page, &world.mails, who, CHANGED).await;
    page.stopped().to_string()
}

async fn log_out(browser: &mut Browser, url: &str) -> String {
    let page = browser.get(url).await;
    page.stopped().to_string()
}

fn assert_story(result: &Value) {
    assert_eq!(result["id_token"]["recovery_scope"], "read write", "{result:#}");
    for answer in ["login_scope", "refreshed_scope"] {
        assert_eq!(scope_set(result[answer].as_str().unwrap()), HELD, "{result:#}");
    }
    assert_eq!(result["userinfo"]["sub"], result["id_token"]["sub"], "{result:#}");
    assert_eq!(result["introspection"]["active"], true, "{result:#}");
    assert_eq!(
        result["introspection"]["recovery_scope"], "read write",
        "{result:#}"
    );
    assert_eq!(result["refused"], "invalid_grant", "{result:#}");
    assert_eq!(result["revoked"], json!({ "active": false }), "{result:#}");
    let out = result["logout"].as_str().unwrap();
    assert!(
        out.starts_with(REDIRECT) && out.contains("state=bye"),
        "{result:#}"
    );
}

/// `client` authenticates as the library does by default.
fn program(world: &World, program: &str, script: &str, client: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command.args([
        world.issuer.as_str(),
        client,
        &format!("{client}-secret-of-the-test"),
        REDIRECT,
        ASKED,
    ]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_works_unchanged() {
    let world = World::start(Setup::default()).await;
    let node = env("REENTRY_TEST_NODE").expect("REENTRY_TEST_NODE names Node.js: run scripts/test");
    assert_story(&story(&world, program(&world, &node, "openid-client.mjs", "back-office")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_works_unchanged() {
    let world = World::start(Setup::default()).await;
    let python = env("REENTRY_TEST_PYTHON").expect("REENTRY_TEST_PYTHON names Python: run scripts/test");
    assert_story(&story(&world, program(&world, &python, "authlib_client.py", "shop")).await);
}
