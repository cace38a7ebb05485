//! Contacts that went: seen by comparing, where the IdP's log names no address of before.

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::account::{Account, Contact, ContactKind};
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::Flow;

/// More contacts of a kind that went at once than these are one change: every channel is told of it in any case.
const ONE_BY_ONE: usize = 2;

/// Contacts the snapshot has as present and the IdP has no more; of a crowd of them the one that the account had longest.
pub(super) fn lost_contacts(before: &Account, now: &Account) -> Vec<(ContactKind, String)> {
    let before = before.watched();
    let present = |c: &&Contact| c.gone.is_none() && !now.contacts.iter().any(|n| n.id == c.id);
    let mut lost: Vec<&Contact> = before.contacts.iter().filter(present).collect();
    lost.sort_by_key(|c| (c.kind, c.since));
    let of_kind = lost.chunk_by(|one, other| one.kind == other.kind);
    let told = of_kind.flat_map(|lost| {
        let most = if lost.len() > ONE_BY_ONE { 1 } else { lost.len() };
        lost.iter().take(most)
    });
    told.map(|c| (c.kind, c.address.clone())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::account::ChannelId;

    fn account(phones: std::ops::Range<i64>) -> Account {
        let phone = |n: i64| Contact {
            id: ChannelId(format!("c{n}")),
            kind: ContactKind::Phone,
            address: format!("+{n}"),
            verified: true,
            since: Timestamp::from_secs(100 - n),
            gone: None,
        };
        Account {
            contacts: phones.map(phone).collect(),
            ..Account::default()
        }
    }

    #[test]
    fn a_crowd_of_contacts_that_went_at_once_is_one_change() {
        let lost = |phones| {
            let lost = lost_contacts(&account(phones), &account(0..1));
            lost.into_iter().map(|(_, address)| address).collect::<Vec<_>>()
        };
        assert_eq!(lost(0..1), Vec::<String>::new());
        assert_eq!(lost(0..3), ["+2", "+1"]);
        assert_eq!(lost(0..4), ["+3"], "the one that it had longest");
        assert_eq!(lost(0..90).len(), 1);
    }
}
