//! The decision itself: `entitle`, and reading and writing the record that it looks at.

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::entitlement::{Asking, Issued, Request, State, entitle};
use reentry::domain::hold::Record;
use reentry::domain::hold::apply::{Setting, apply};
use reentry::domain::policy::Policy;
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::store::codec;

const NOW: i64 = 1_795_251_600_000;

/// A subject whose password was reset, and `more` times again.
fn held(policy: &Policy, more: i64) -> Option<Record> {
    let subject = Subject::new(
        UpstreamId::parse("keycloak")?,
        "0d9e0b5c-6f1e-4f6e-9a51-1b7c1f6d8a11",
    )?;
    let tier = policy.tiers.first()?;
    let mut record: Option<Record> = None;
    for n in 0..=more {
        let at = Timestamp::from_millis(NOW - (more - n) * 3_600_000);
        let change = Change {
            id: format!("7b0f3b1e-54b3-4f57-8d9a-6f4a5d1c{n:04}"),
            source: Source::UserEvents,
            kind: ChangeKind::PasswordReset,
            factor: None,
            at,
            offset: Span::ZERO,
            received: at,
            proof: Proof::Message,
            mediated: false,
            session: Some("5f0c5a1b-8c7d-4e6f-a1b2-c3d4e5f60718".to_owned()),
            channel: None,
            origin: None,
            previous_address: None,
        };
        let setting = Setting {
            policy,
            tier,
            place: 0,
            now: Now::exact(at),
            reference: &format!("rc_4kq2vwr7n3tz5m8xc6bd{n}"),
        };
        record = Some(apply(&subject, record.as_ref(), None, None, &change, setting)?.record);
    }
    record
}

fn words(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|w| (*w).to_owned()).collect()
}

fn decision(c: &mut Criterion) {
    let policy = Policy::standard();
    let scopes = words(&["openid", "profile", "email", "accounts:read", "payments:write"]);
    let none = BTreeSet::new();
    let request = Request {
        client: "bank",
        session: Some(Asking {
            id: "q83vEjRWeJCrze8SNFZ4kA",
            auth_time: Some(Timestamp::from_millis(NOW - 10_000)),
            checked: true,
            eligible: false,
        }),
        scopes: &scopes,
        roles: &none,
        groups: &none,
        issued: Some(Issued {
            ceiling: Ceiling::Full,
            epoch: 0,
        }),
    };
    let now = Now::exact(Timestamp::from_millis(NOW + 60_000));
    let (one, six) = (held(&policy, 0), held(&policy, 5));
    for (name, record) in [("no record", None), ("one cause", one), ("six causes", six)] {
        c.bench_function(&format!("entitle, {name}"), |b| {
            b.iter(|| {
                let state = State::Known(black_box(record.as_ref()));
                entitle(state, black_box(&request), now, &policy)
            });
        });
        let Some(record) = record else { continue };
        c.bench_function(&format!("record encode, {name}"), |b| {
            b.iter(|| codec::encode(black_box(&record)));
        });
        if let Ok(octets) = codec::encode(&record) {
            c.bench_function(&format!("record decode, {name} ({} octets)", octets.len()), |b| {
                b.iter(|| codec::decode::<Record>("a record", black_box(&octets)));
            });
        }
    }
}

criterion_group!(benches, decision);
criterion_main!(benches);
