//! Subjects, records and writes to store.

use std::collections::BTreeSet;

use reentry::domain::audit::Entry;
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::hold::apply::{Setting, apply};
use reentry::domain::hold::{Effect, Record};
use reentry::domain::policy::Policy;
use reentry::domain::session::{Grants, Session};
use reentry::domain::subject::account::{Account, ChannelId, Contact, ContactKind, FactorClass};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::tier::TierName;
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::ports::seal::SubjectKey;
use reentry::ports::store::{Store, StoreError, Write};

/// An instant in the year the tests were written.
pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000 + secs)
}

pub fn subject(sub: &str) -> Subject {
    Subject::new(UpstreamId::parse("keycloak").unwrap(), sub).unwrap()
}

pub fn record(sub: &str, epoch: i64) -> Record {
    Record {
        epoch,
        updated: at(epoch),
        ..Record::new(subject(sub))
    }
}

pub const ADDRESS: &str = "alice.the.owner@example.com";

pub fn account() -> Account {
    Account {
        name: "Alice".to_owned(),
        contacts: vec![Contact {
            id: ChannelId("c1".to_owned()),
            kind: ContactKind::Email,
            address: ADDRESS.to_owned(),
            verified: true,
            since: at(-100),
            gone: None,
        }],
        enabled: true,
        ..Account::default()
    }
}

/// A write with an effect and an audit line named after it.
pub fn write(sub: &str, epoch: i64) -> Write {
    Write {
        record: Some(record(sub, epoch)),
        account: Some(account()),
        grants: Some(Grants::default()),
        effects: vec![(format!("effect:{sub}:{epoch}"), Effect::Converge)],
        audit: vec![line(&format!("line:{sub}:{epoch}"), epoch)],
        ..Write::default()
    }
}

pub fn line(id: &str, secs: i64) -> Entry {
    Entry::system(id.to_owned(), at(secs), "stored", None)
}

/// After everything.
pub const END: Timestamp = Timestamp::from_millis(i64::MAX);

/// Ids of the effects that are to be done, in the order in which the store gives them.
pub async fn effect_ids(store: &dyn Store) -> Vec<String> {
    let pending = store.pending(END, 10_000).await.unwrap();
    pending.into_iter().map(|p| p.id).collect()
}

/// Ids of audit lines, newest first.
pub async fn line_ids(store: &dyn Store, key: Option<&SubjectKey>) -> Vec<String> {
    let lines = store.audit(key, END, 10_000).await.unwrap();
    lines.into_iter().map(|(_, entry)| entry.id).collect()
}

/// Whether the store was not believed.
pub fn is_unsound<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(
        answer,
        Err(StoreError::Unsound(_) | StoreError::Lost { .. } | StoreError::Altered(_))
    )
}

/// A change of which little is known.
pub fn change(id: &str, kind: ChangeKind, happened: Timestamp) -> Change {
    Change {
        id: id.to_owned(),
        source: Source::UserEvents,
        kind,
        factor: Some(FactorClass::Otp),
        at: happened,
        offset: Span::ZERO,
        received: happened,
        proof: Proof::Unproven,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: None,
    }
}

/// A record that restricts, so that it is due: a password reset that nobody was told about yet.
pub fn held(sub: &str) -> Record {
    let policy = Policy::standard();
    let setting = Setting {
        policy: &policy,
        tier: policy.tier(&TierName("consumer".to_owned())).unwrap(),
        place: 0,
        now: Now::exact(at(0)),
        reference: "h-1",
    };
    let reset = change("c-1", ChangeKind::PasswordReset, at(0));
    let account = account();
    let applied = apply(&subject(sub), None, Some(&account), None, &reset, setting);
    applied.unwrap().record
}

/// The same, due at another instant: a hold of one hour that nobody was told about is due two hours later.
pub fn held_from(sub: &str, start: Timestamp) -> Record {
    let mut record = held(sub);
    for cause in &mut record.causes {
        cause.at = start;
        cause.length = Span::from_hours(1);
    }
    record
}

/// A session whose claims hold an address.
pub fn session() -> Session {
    Session {
        id: "sid".to_owned(),
        subject: subject("u"),
        upstream_sid: None,
        began: at(0),
        auth_time: None,
        acr: None,
        amr: Vec::new(),
        claims: format!("{{\"email\":\"{ADDRESS}\"}}"),
        roles: BTreeSet::new(),
        groups: BTreeSet::new(),
        checked: true,
        eligible: true,
        cookie: Vec::new(),
        id_token: String::new(),
        clients: BTreeSet::new(),
        ended: None,
        facts_at: None,
        closed: None,
    }
}
