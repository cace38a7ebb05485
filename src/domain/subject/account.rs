//! The snapshot of one account: contacts and factors with their ages.
//!
//! Kept so that a change can be told from a first enrolment, so that an address that was removed yesterday is
//! still told today, and so that nothing enrolled during a change can speak against it (P7).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::hold::contest::Doubt;
use crate::domain::policy::Policy;
use crate::domain::time::{Span, Timestamp};

/// What sort of address a contact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactKind {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
}

/// A stable, keyed name of one address: no address can be read from it. 1 to 64 of `A-Z a-z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(pub String);

/// One address of an account, present or past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Keyed name of the address.
    pub id: ChannelId,
    /// E-mail or phone.
    pub kind: ContactKind,
    /// The address itself. Encrypted at rest.
    pub address: String,
    /// Whether the IdP says that the owner proved it.
    pub verified: bool,
    /// Since when the account has it.
    pub since: Timestamp,
    /// When it was removed, if it was.
    pub gone: Option<Timestamp>,
}

/// How long a removed contact that comes back is taken for itself: as long as it keeps its veto at least.
const RETURNS_WITHIN: Span = Span::from_days(30);
/// How long it must have been the account's for that: a newcomer gains no age by being taken away.
const RETURNS_AFTER: Span = Span::from_days(7);

impl Contact {
    /// What somebody has to hold to read what is sent here: of a mailbox without regard to case and to what stands
    /// behind a `+`, of a telephone its digits.
    fn mailbox(&self) -> String {
        match (self.kind, self.address.rsplit_once('@')) {
            (ContactKind::Email, Some((local, domain))) => {
                let box_of = local.split('+').next().unwrap_or(local);
                format!("{box_of}@{domain}").to_lowercase()
            }
            (ContactKind::Email, None) => self.address.to_lowercase(),
            (ContactKind::Phone, _) => self.address.chars().filter(char::is_ascii_digit).collect(),
        }
    }

    /// Whether this contact, removed at `gone` and there again at `seen`, keeps its age.
    fn returns(&self, gone: Timestamp, seen: Timestamp) -> bool {
        seen < gone.plus(RETURNS_WITHIN) && self.since.plus(RETURNS_AFTER) <= gone
    }

    /// This contact after a reading at `seen` that shows it as `now`, or not at all.
    fn seen_again(&self, now: Option<&Self>, seen: Timestamp) -> Self {
        let Some(now) = now else {
            let gone = self.gone.or(Some(seen));
            return Self { gone, ..self.clone() };
        };
        match self.gone {
            // Taken away and put back while it had its voice, it keeps its age: or whoever holds the account could
            // make a newcomer of the owner's address by changing it twice.
            Some(gone) if !self.returns(gone, seen) => Self {
                since: seen,
                ..now.clone()
            },
            // Once proved stays proved: an attacker who makes the IdP forget it silences nobody.
            _ => Self {
                gone: None,
                verified: now.verified || self.verified,
                ..self.clone()
            },
        }
    }
}

/// The class of a factor; classes are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorClass {
    /// A password.
    Password,
    /// A one-time-password generator.
    Otp,
    /// A passkey or security key (`WebAuthn`).
    Passkey,
    /// Printed or stored recovery codes.
    RecoveryCodes,
    /// A login at another identity provider.
    FederatedLink,
    /// Anything the adapter does not know.
    Other,
}

/// One factor of an account, present or past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factor {
    /// The IdP's id of it. A password that was set anew keeps its id and gets a new `created`.
    pub id: String,
    /// Its class.
    pub class: FactorClass,
    /// When it was enrolled, by the IdP's word; [`Factor::UNDATED`] when the IdP does not know.
    pub created: Timestamp,
    /// When it was removed or replaced, if it was.
    pub gone: Option<Timestamp>,
    /// Enrolled in the session that created the account.
    pub at_creation: bool,
    /// How many uses it has left, where it has a number of them and the IdP shows it: recovery codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
}

impl Factor {
    /// The age of a factor of which the IdP tells none, such as a password that a directory keeps: it is older than
    /// nothing, so it is never eligible.
    pub const UNDATED: Timestamp = Timestamp::from_millis(i64::MAX);

    /// Whether the IdP knows when it was enrolled.
    #[must_use]
    pub fn is_dated(&self) -> bool {
        self.created != Self::UNDATED
    }

    /// Whether this factor is *eligible* against a change at `change`: enrolled before it and older than the
    /// probation, or enrolled in the session that created the account (and not replaced since).
    #[must_use]
    pub fn eligible(&self, change: Timestamp, probation: Span) -> bool {
        self.is_dated()
            && self.gone.is_none_or(|gone| gone >= change)
            && self.created < change
            && (self.at_creation || self.created.plus(probation) <= change)
    }
}

/// What the adapter read about an account that tiers are chosen by. Never what a user can edit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Effective role names: realm roles as they are, client roles as `client/role`.
    pub roles: BTreeSet<String>,
    /// Group paths.
    pub groups: BTreeSet<String>,
    /// Attributes that only administrators may edit.
    pub attributes: std::collections::BTreeMap<String, Vec<String>>,
}

/// Contacts and factors of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When the IdP created the account.
    pub created: Timestamp,
    /// Name for greeting on pages; may be empty.
    pub name: String,
    /// Present and past contacts.
    pub contacts: Vec<Contact>,
    /// Present and past factors.
    pub factors: Vec<Factor>,
    /// Whether the IdP lets the account log in.
    pub enabled: bool,
    /// BCP 47 tag of the account's language, if known.
    pub locale: Option<String>,
    /// What it is known by beside its contacts, such as a user name and an id in a directory: keyed names, as those of
    /// channels. In a live reading, before the caller has named them, the plain words.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Clocks of two nodes of one IdP may differ by this much.
pub const NODES: Span = Span::from_secs(5);

/// Whether something at `at` belongs to the first `within` of an account that was made at `created`. What is dated before
/// that by more than clocks may differ did not happen then, whatever its date says.
#[must_use]
pub const fn is_of_first(within: Span, created: Timestamp, at: Timestamp) -> bool {
    let age = at.since(created).millis();
    -NODES.millis() <= age && age <= within.millis()
}

/// So many contacts of a kind are watched: of those that an account has, and again of those that it had. An owner may
/// write any number of them into an attribute, and everything that is told goes to each.
pub const WATCHED: usize = 10;

impl Account {
    /// Leaves out contacts beyond what is watched, and says how many. The oldest stay, of equal ages those that were proven,
    /// then those that stand first: whoever adds a crowd pushes out nobody who was there.
    pub fn watch(&mut self) -> usize {
        let each = self.contacts.iter().enumerate();
        let mut ranked: Vec<_> = each
            .map(|(place, c)| ((c.kind, c.gone.is_some()), c.since, !c.verified, place))
            .collect();
        ranked.sort();
        let (mut kept, mut group, mut taken) = (BTreeSet::new(), None, 0);
        for (of, _, _, place) in ranked {
            taken = if group == Some(of) { taken + 1 } else { 1 };
            group = Some(of);
            if taken <= WATCHED {
                kept.insert(place);
            }
        }
        let (before, mut place) = (self.contacts.len(), 0);
        self.contacts.retain(|_| {
            place += 1;
            kept.contains(&(place - 1))
        });
        before.saturating_sub(self.contacts.len())
    }

    /// The same account with what is watched of it.
    #[must_use]
    pub fn watched(&self) -> Self {
        let mut account = self.clone();
        account.watch();
        account
    }

    /// Whether something at `at` came within the first `within` of this account.
    #[must_use]
    pub const fn is_young(&self, at: Timestamp, within: Span) -> bool {
        is_of_first(within, self.created, at)
    }

    /// Whether `contact` may veto a change at `change` (domain "Cancel"): verified, and either one that the account was
    /// made with or older than the probation.
    #[must_use]
    pub fn may_veto(&self, contact: &Contact, change: Timestamp, policy: &Policy) -> bool {
        let made_with = contact.since <= self.created;
        contact.verified && (made_with || contact.since.plus(policy.probation) <= change)
    }

    /// Whether somebody who logs in with what is on this account now has proven to be who was there: every way to sign
    /// in is past its probation at `now`, and none came with what is in `doubt`, or after it. No age makes up for that.
    #[must_use]
    pub fn proves(&self, now: Timestamp, probation: Span, doubt: Option<Doubt>) -> bool {
        let sound =
            |f: &Factor| f.eligible(now, probation) && doubt.is_none_or(|doubt| !doubt.covers(f.created));
        !self.factors.is_empty() && self.factors.iter().all(sound)
    }

    /// Whether two channels are independent, as far as anybody knows: not two spellings of one mailbox, and not an
    /// address and the one that took its place in one edit, to which it may well be forwarded. A channel that nobody
    /// knows any more counts as independent: what it says keeps an account shut.
    #[must_use]
    pub fn independent(&self, one: &ChannelId, other: &ChannelId) -> bool {
        let known = |id: &ChannelId| self.contacts.iter().find(|c| c.id == *id);
        let (Some(a), Some(b)) = (known(one), known(other)) else {
            return one != other;
        };
        let replaced = |old: &Contact, new: &Contact| old.gone.is_some_and(|gone| gone == new.since);
        let forwards = a.kind == b.kind && (replaced(a, b) || replaced(b, a));
        one != other && (a.kind != b.kind || a.mailbox() != b.mailbox()) && !forwards
    }

    /// Merges a fresh reading of the IdP into this snapshot at `seen`: keeps ages, marks what is gone.
    ///
    /// `seen` is when the reading was taken: never earlier, since what it shows may have come after the change that
    /// made us look, and a contact must not look older than it is (P7). A contact that the snapshot has already
    /// keeps its `since`; a factor with another `created` is a replacement of the old one. A number of uses that is left
    /// stays as it was: what was used has to be told first.
    #[must_use]
    pub fn refreshed(&self, reading: &Self, seen: Timestamp) -> Self {
        let mut next = Self {
            contacts: Vec::new(),
            factors: Vec::new(),
            // A name is whatever its owner typed, and whoever takes over an account can type: messages about a change
            // use the name of before it.
            name: self.name.clone(),
            ..reading.clone()
        };
        for old in &self.contacts {
            let still = reading
                .contacts
                .iter()
                .find(|c| c.id == old.id && c.gone.is_none());
            next.contacts.push(old.seen_again(still, seen));
        }
        for new in reading
            .contacts
            .iter()
            .filter(|c| !self.contacts.iter().any(|o| o.id == c.id))
        {
            next.contacts.push(Contact {
                since: seen.max(new.since),
                ..new.clone()
            });
        }
        for old in &self.factors {
            let same = |f: &&Factor| f.id == old.id && f.created == old.created;
            let found = reading.factors.iter().find(same);
            let gone = if found.is_some() {
                None
            } else {
                old.gone.or(Some(seen))
            };
            next.factors.push(Factor {
                gone,
                remaining: old.remaining.or(found.and_then(|f| f.remaining)),
                ..old.clone()
            });
        }
        for new in &reading.factors {
            if !self
                .factors
                .iter()
                .any(|o| o.id == new.id && o.created == new.created)
            {
                next.factors.push(new.clone());
            }
        }
        next.watch();
        next
    }

    /// The snapshot after everything enrolled or changed since `since` was taken back at `at` (a thaw with the
    /// finding `owner`): the contacts of before are themselves again, with their ages.
    #[must_use]
    pub fn restored(&self, since: Timestamp, at: Timestamp) -> Self {
        let mut next = self.clone();
        for contact in &mut next.contacts {
            if contact.since >= since {
                contact.gone = contact.gone.or(Some(at));
            } else if contact.gone.is_some_and(|gone| gone >= since) {
                contact.gone = None;
            }
        }
        let enrolled = |f: &&mut Factor| f.is_dated() && f.created >= since;
        for factor in next.factors.iter_mut().filter(enrolled) {
            factor.gone = factor.gone.or(Some(at));
        }
        next
    }

    /// Drops what has been gone for so long that no rule asks for it any more.
    #[must_use]
    pub fn pruned(mut self, now: Timestamp, keep: Span) -> Self {
        self.contacts
            .retain(|c| c.gone.is_none_or(|gone| now < gone.plus(keep)));
        self.factors
            .retain(|f| f.gone.is_none_or(|gone| now < gone.plus(keep)));
        self
    }

    /// Whether all that proved the owner before `baseline` is gone now, and the change at `change` had a part in it
    /// (domain word `all_factors_replaced`): two or more classes and at least one eligible factor before, none of the
    /// eligible ones left. A later change of what came instead replaces nothing of the owner's.
    #[must_use]
    pub fn all_replaced(&self, baseline: Timestamp, change: Timestamp, probation: Span) -> bool {
        let before: Vec<&Factor> = self
            .factors
            .iter()
            .filter(|f| f.created < baseline && f.gone.is_none_or(|gone| gone >= baseline))
            .collect();
        let classes: BTreeSet<FactorClass> = before.iter().map(|f| f.class).collect();
        let eligible: Vec<&&Factor> = before
            .iter()
            .filter(|f| f.eligible(baseline, probation))
            .collect();
        classes.len() >= 2
            && eligible.iter().all(|f| f.gone.is_some())
            && eligible.iter().any(|f| f.gone.is_some_and(|gone| gone >= change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(number: usize, since: i64, verified: bool, gone: Option<i64>) -> Contact {
        Contact {
            id: ChannelId(format!("c{number}")),
            kind: ContactKind::Phone,
            address: format!("+{number}"),
            verified,
            since: Timestamp::from_secs(since),
            gone: gone.map(Timestamp::from_secs),
        }
    }

    // P8, P15: a crowd of addresses floods nobody, and hides nobody who was there.
    #[test]
    fn no_more_contacts_of_a_kind_are_watched_than_ten_and_the_oldest_are_among_them() {
        let mut contacts: Vec<Contact> = (100..1_100).map(|n| phone(n, 50, false, None)).collect();
        contacts.push(phone(1, 10, false, None));
        contacts.push(phone(2, 50, true, None));
        contacts.extend((2_000..3_000).map(|n| phone(n, 60, false, Some(70))));
        contacts.push(phone(3, 5, false, Some(70)));
        contacts.push(Contact {
            kind: ContactKind::Email,
            ..phone(4, 99, false, None)
        });
        let mut account = Account {
            contacts,
            ..Account::default()
        };
        let next = Account::default().refreshed(&account, Timestamp::from_secs(100));
        assert_eq!(next.contacts.len(), 2 * WATCHED + 1);
        assert_eq!(account.watch(), 2_004 - 2 * WATCHED - 1);
        assert_eq!(account.watch(), 0);
        let left: Vec<&str> = account.contacts.iter().map(|c| c.address.as_str()).collect();
        for number in ["+1", "+2", "+3", "+4", "+100", "+2000"] {
            assert!(left.contains(&number), "{number} of {left:?}");
        }
    }
}
