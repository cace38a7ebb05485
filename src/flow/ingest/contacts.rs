//! Contacts that went: seen by comparing, where the IdP's log names no address of before.

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::account::{Account, Contact, ContactKind};
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::Flow;

/// Contacts the snapshot has as present and the IdP has no more.
pub(super) fn lost_contacts(before: &Account, now: &Account) -> Vec<(ContactKind, String)> {
    let present = |c: &&Contact| c.gone.is_none() && !now.contacts.iter().any(|n| n.id == c.id);
    before
        .contacts
        .iter()
        .filter(present)
        .map(|c| (c.kind, c.address.clone()))
        .collect()
}

/// Contacts of the snapshot that the IdP has no more, as the changes that this is.
pub(in crate::flow) fn contacts_lost(
    flow: &Flow,
    before: &Account,
    now: &Account,
    store_time: Option<Timestamp>,
) -> Vec<Change> {
    let at = flow.now(store_time);
    let id = |since: Timestamp| format!("compared:{}", since.millis());
    lost_contacts(before, now)
        .into_iter()
        .map(|(kind, address)| contact_change(flow, &id(at.latest()), kind, address, at))
        .collect()
}

/// A contact change for which the IdP's log names no old address: seen by comparison, at our receipt.
pub(super) fn contact_change(flow: &Flow, id: &str, kind: ContactKind, address: String, now: Now) -> Change {
    let changed = match kind {
        ContactKind::Email => ChangeKind::EmailChanged,
        ContactKind::Phone => ChangeKind::PhoneChanged,
    };
    let channel = flow.seal.channel(kind, &address);
    Change {
        id: format!("{id}:{}", channel.0),
        source: Source::Reconcile,
        kind: changed,
        factor: None,
        at: now.latest(),
        offset: Span::ZERO,
        received: now.latest(),
        proof: Proof::Administrator,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: Some(address),
    }
}
