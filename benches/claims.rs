//! The relying party's claim parser and checker.

use criterion::{Criterion, criterion_group, criterion_main};
use reentry::domain::ceiling::Class;
use reentry::rp::profile::Profile;
use reentry::rp::{Checker, Config, json};
use std::hint::black_box;

const FULL: &[u8] = br#"{"iss":"https://id.example.com","sub":"0d9e0b5c-6f1e-4f6e-9a51-1b7c1f6d8a11","aud":"https://api.bank.example.com","client_id":"bank","iat":1795251600,"exp":1795252500,"jti":"q83vEjRWeJCrze8SNFZ4kA.3p9vZfC0n2","sid":"5f0c5a1b8c7d4e6fa1b2","scope":"openid profile email accounts:read payees:write payments:write","acr":"1","auth_time":1795251590,"recovery_scope":"full","recovery_epoch":0}"#;
const HELD: &[u8] = br#"{"iss":"https://id.example.com","sub":"0d9e0b5c-6f1e-4f6e-9a51-1b7c1f6d8a11","aud":"https://api.bank.example.com","client_id":"bank","iat":1795251600,"exp":1795251900,"jti":"q83vEjRWeJCrze8SNFZ4kA.3p9vZfC0n2","sid":"5f0c5a1b8c7d4e6fa1b2","scope":"openid profile email accounts:read payees:write","acr":"1","auth_time":1795251590,"recovery_scope":"read write","recovery_epoch":1795251600,"recovery_until":1795338000,"recovery_ref":"rc_4kq2vwr7n3tz5m8xc6bd"}"#;

fn claims(c: &mut Criterion) {
    let checker = Checker::new(Config {
        protected: [("https://id.example.com".to_owned(), Profile::Reentry)].into(),
        ..Config::default()
    });
    let pay = Class::parse("pay");
    for (name, payload) in [("full", FULL), ("held", HELD)] {
        c.bench_function(&format!("claims parse, {name}"), |b| {
            b.iter(|| json::object(black_box(payload)));
        });
        let Ok(parsed) = json::object(payload) else {
            continue;
        };
        c.bench_function(&format!("claims check, {name}"), |b| {
            b.iter(|| checker.check(black_box(&parsed), pay.as_ref(), Some("payments:write")));
        });
        c.bench_function(&format!("claims parse and check, {name}"), |b| {
            b.iter(|| {
                json::object(black_box(payload))
                    .map(|parsed| checker.check(&parsed, pay.as_ref(), Some("payments:write")))
            });
        });
    }
}

criterion_group!(benches, claims);
criterion_main!(benches);
