//! Subjects, records and writes to store.

use reentry::domain::audit::Entry;
use reentry::domain::hold::{Effect, Record};
use reentry::domain::session::Grants;
use reentry::domain::subject::account::{Account, ChannelId, Contact, ContactKind};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::Timestamp;
use reentry::ports::store::Write;

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
