//! A small world to run the rules in: one subject, an IdP whose true state is a function of time, a store.

use std::collections::BTreeSet;

use proptest::prelude::*;
use reentry::domain::audit::Entry;
use reentry::domain::ceiling::{Ceiling, Class};
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::entitlement::{Asking, Entitlement, Request, State, entitle};
use reentry::domain::hold::apply::{Setting, apply, told};
use reentry::domain::hold::{Effect, Record, Transition};
use reentry::domain::notice::Notice;
use reentry::domain::policy::Policy;
use reentry::domain::subject::account::{Account, ChannelId, Contact, ContactKind, Factor, FactorClass};
use reentry::domain::subject::{Subject, UpstreamId};
use reentry::domain::time::{Now, Span, Timestamp};

/// Midnight of day 0.
const DAY0: i64 = 1_800_000_000;

/// So many minutes after midnight of day 0.
pub fn minute(minutes: i64) -> Timestamp {
    Timestamp::from_secs(DAY0 + minutes * 60)
}

/// So many hours after midnight of day 0.
pub fn hour(hours: i64) -> Timestamp {
    minute(hours * 60)
}

pub fn at(instant: Timestamp) -> Now {
    Now::exact(instant)
}

pub fn subject() -> Subject {
    Subject::new(UpstreamId::parse("kc").unwrap(), "user-1").unwrap()
}

pub fn class(word: &str) -> Class {
    Class::parse(word).unwrap()
}

pub fn ceiling(words: &str) -> Ceiling {
    Ceiling::parse(words).unwrap()
}

pub fn words(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// The default policy with a few scopes.
pub fn policy() -> Policy {
    let mut policy = Policy::standard();
    policy.scopes = [
        (class("read"), words(&["accounts:read", "shared"])),
        (class("write"), words(&["payees:write", "shared"])),
        (class("pay"), words(&["transfers:write"])),
    ]
    .into();
    policy.roles = [
        (class("read"), words(&["viewer"])),
        (class("admin"), words(&["operator"])),
    ]
    .into();
    policy
}

pub fn channel(name: &str) -> ChannelId {
    ChannelId(name.to_owned())
}

pub fn contact(name: &str, since: Timestamp) -> Contact {
    let phone = name.starts_with("tel");
    Contact {
        id: channel(name),
        kind: if phone {
            ContactKind::Phone
        } else {
            ContactKind::Email
        },
        address: name.to_owned(),
        verified: true,
        since,
        gone: None,
    }
}

pub fn factor(id: &str, class: FactorClass, created: Timestamp) -> Factor {
    Factor {
        id: id.to_owned(),
        class,
        created,
        gone: None,
        at_creation: false,
        remaining: None,
    }
}

/// An account a hundred days old: a mailbox, a telephone, a password, a one-time-password generator.
pub fn account() -> Account {
    let born = hour(-2400);
    Account {
        created: born,
        contacts: vec![contact("mail", born), contact("tel", born)],
        factors: vec![
            factor("pw", FactorClass::Password, born),
            factor("otp", FactorClass::Otp, born),
        ],
        enabled: true,
        ..Account::default()
    }
}

/// A change that we heard of at once, by a clock that is right, proven by nothing.
pub fn change(id: &str, kind: ChangeKind, at: Timestamp) -> Change {
    Change {
        id: id.to_owned(),
        source: Source::UserEvents,
        kind,
        factor: None,
        at,
        offset: Span::ZERO,
        received: at,
        proof: Proof::Unproven,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: None,
    }
}

/// The store and the outbox of one subject.
#[derive(Clone)]
pub struct World {
    pub policy: Policy,
    pub tier: usize,
    pub record: Option<Record>,
    pub account: Option<Account>,
    pub effects: Vec<(String, Effect)>,
    pub audit: Vec<Entry>,
    pub cases: u32,
}

impl World {
    /// A world whose store has the snapshot of [`account`]. Tiers: 0 consumer, 1 b2b user, 2 b2b admin, 3 high.
    pub fn new(tier: usize) -> Self {
        Self {
            policy: policy(),
            tier,
            record: None,
            account: Some(account()),
            effects: Vec::new(),
            audit: Vec::new(),
            cases: 0,
        }
    }

    /// Runs the transition of a change without storing it.
    pub fn judge(&self, change: &Change, reading: Option<&Account>, now: Now) -> Option<Transition> {
        let setting = Setting {
            policy: &self.policy,
            tier: &self.policy.tiers[self.tier],
            place: 0,
            now,
            reference: &format!("case{}", self.cases),
        };
        apply(
            &subject(),
            self.record.as_ref(),
            self.account.as_ref(),
            reading,
            change,
            setting,
        )
    }

    /// Takes a change, as read at `now`; gives the transition, if there was one.
    pub fn hear(&mut self, change: &Change, reading: Option<&Account>, now: Now) -> Option<Transition> {
        let transition = self.judge(change, reading, now);
        self.cases += 1;
        transition.inspect(|t| self.store(t))
    }

    /// The same without a fresh reading.
    pub fn heard(&mut self, kind: ChangeKind, when: Timestamp) -> String {
        let case = format!("case{}", self.cases);
        let id = format!("change{}", self.cases);
        self.hear(&change(&id, kind, when), None, at(when)).unwrap();
        case
    }

    pub fn store(&mut self, t: &Transition) {
        self.record = Some(t.record.clone());
        if let Some(account) = &t.account {
            self.account = Some(account.clone());
        }
        self.effects.extend(t.effects.iter().cloned());
        self.audit.extend(t.audit.iter().cloned());
    }

    /// A channel of before accepts the notice about `case`.
    pub fn accept(&mut self, case: &str, now: Now) -> bool {
        let transition = self.record.as_ref().and_then(|r| told(r, case, now));
        if let Some(t) = &transition {
            self.store(t);
        }
        transition.is_some()
    }

    pub fn record(&self) -> &Record {
        self.record.as_ref().unwrap()
    }

    pub fn accounts(&self) -> &Account {
        self.account.as_ref().unwrap()
    }

    /// What a token of a session that logged in before everything says at `now`.
    pub fn allowed(&self, now: Now) -> Ceiling {
        ask(self.record.as_ref(), &self.policy, now, Some(hour(-1))).recovery_scope
    }
}

/// The entitlement of a checked session with this `auth_time`.
pub fn ask(record: Option<&Record>, policy: &Policy, now: Now, auth_time: Option<Timestamp>) -> Entitlement {
    let scopes = words(&[
        "openid",
        "accounts:read",
        "payees:write",
        "transfers:write",
        "shared",
        "loose",
    ]);
    let none = BTreeSet::new();
    let session = Asking {
        id: "s1",
        auth_time,
        checked: true,
        eligible: true,
    };
    let request = Request {
        client: "c1",
        session: Some(session),
        scopes: &scopes,
        roles: &none,
        groups: &none,
        issued: None,
    };
    entitle(State::Known(record), &request, now, policy)
}

/// The notices among effects.
pub fn notices(effects: &[(String, Effect)]) -> Vec<Notice> {
    let notices = effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Notice(notice) => Some((**notice).clone()),
        _ => None,
    });
    notices.collect()
}

/// What the attacker, or the owner, does at the IdP.
#[derive(Clone, Debug)]
pub struct Act {
    pub kind: ChangeKind,
    pub proof: Proof,
    pub mediated: bool,
    /// Minutes after day 0.
    pub minute: i64,
    /// Minutes until the first delivery of the event.
    pub delay: i64,
    /// Minutes until a second delivery from another source, if there is one.
    pub again: Option<i64>,
    /// Minutes until a notice about it is accepted after it was stored, if one ever is.
    pub accepted: Option<i64>,
}

const KINDS: [ChangeKind; 9] = [
    ChangeKind::PasswordReset,
    ChangeKind::PasswordChanged,
    ChangeKind::PasswordSetByAdmin,
    ChangeKind::FactorAdded,
    ChangeKind::FactorRemoved,
    ChangeKind::RecoveryCodesReset,
    ChangeKind::EmailChanged,
    ChangeKind::PhoneChanged,
    ChangeKind::FederatedLinkChanged,
];

pub fn act() -> impl Strategy<Value = Act> {
    let proof = prop_oneof![
        4 => Just(Proof::Unproven),
        2 => Just(Proof::RecentLogin),
        1 => Just(Proof::EligibleFactor),
        1 => Just(Proof::Message),
    ];
    let delay = prop_oneof![3 => Just(0_i64), 3 => 0..600_i64, 3 => 0..9000_i64];
    let again = prop::option::of(0..9000_i64);
    // Soon enough that `acceptance + told_min` is within twice the shortest length: the one case in which being told
    // makes a hold longer is not about events.
    let accepted = prop_oneof![1 => Just(None), 3 => (0..100_i64).prop_map(Some)];
    (
        prop::sample::select(&KINDS[..]),
        proof,
        any::<bool>(),
        0..9000_i64,
        delay,
        again,
        accepted,
    )
        .prop_map(|(kind, proof, mediated, minute, delay, again, accepted)| Act {
            kind,
            proof,
            mediated,
            minute,
            delay,
            again,
            accepted,
        })
}

pub fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..=most).prop_map(|mut acts| {
        acts.sort_by_key(|a| a.minute);
        acts
    })
}

/// The change that the IdP's log shows for the act with this number.
pub fn logged(number: usize, act: &Act, received: Timestamp) -> Change {
    Change {
        proof: act.proof.clone(),
        mediated: act.mediated,
        received,
        session: act.mediated.then(|| format!("sid{number}")),
        channel: (act.proof == Proof::Message).then(|| channel("mail")),
        ..change(&format!("e{number}"), act.kind, minute(act.minute))
    }
}

/// What the IdP shows at `now`: every act up to then has been done to the account.
pub fn truth(acts: &[Act], now: Timestamp) -> Account {
    let mut account = account();
    for (number, act) in acts.iter().enumerate() {
        let when = minute(act.minute);
        if when > now {
            break;
        }
        match act.kind {
            ChangeKind::PasswordReset | ChangeKind::PasswordChanged | ChangeKind::PasswordSetByAdmin => {
                account.factors.retain(|f| f.class != FactorClass::Password);
                account.factors.push(factor("pw", FactorClass::Password, when));
            }
            ChangeKind::FactorAdded => {
                account
                    .factors
                    .push(factor(&format!("key{number}"), FactorClass::Passkey, when));
            }
            ChangeKind::FactorRemoved => account.factors.retain(|f| f.class != FactorClass::Otp),
            ChangeKind::EmailChanged => {
                account.contacts.retain(|c| c.kind != ContactKind::Email);
                account
                    .contacts
                    .push(contact(&format!("mail{number}"), hour(-2400)));
            }
            ChangeKind::PhoneChanged => {
                account.contacts.retain(|c| c.kind != ContactKind::Phone);
                account
                    .contacts
                    .push(contact(&format!("tel{number}"), hour(-2400)));
            }
            _ => {}
        }
    }
    account
}

/// Something that reaches us.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The event of an act, from a source.
    Event(usize, Source),
    /// A notice about the case that the event of an act opened was accepted.
    Accepted(usize),
}

/// Plays deliveries, each at its minute, with the reading the IdP gives at that time; gives the case of each act.
pub fn play(world: &mut World, acts: &[Act], mut deliveries: Vec<(i64, Delivery)>) {
    deliveries.sort_by_key(|(minute, _)| *minute);
    let mut cases: Vec<Option<String>> = vec![None; acts.len()];
    for (when, delivery) in deliveries {
        let instant = minute(when);
        match delivery {
            Delivery::Event(number, source) => {
                let change = Change {
                    source,
                    ..logged(number, &acts[number], instant)
                };
                let case = format!("case{}", world.cases);
                world.hear(&change, Some(&truth(acts, instant)), at(instant));
                cases[number].get_or_insert(case);
            }
            Delivery::Accepted(number) => {
                let Some(case) = &cases[number] else { continue };
                for case in [case.clone(), format!("{case}-1")] {
                    world.accept(&case, at(instant));
                }
            }
        }
    }
}

/// Every event when it happens; acceptances after that.
pub fn in_order(acts: &[Act]) -> Vec<(i64, Delivery)> {
    let mut deliveries = Vec::new();
    for (number, act) in acts.iter().enumerate() {
        deliveries.push((act.minute, Delivery::Event(number, Source::UserEvents)));
        if let Some(accepted) = act.accepted {
            deliveries.push((act.minute + accepted, Delivery::Accepted(number)));
        }
    }
    deliveries
}

/// Every event delayed, some of them twice.
pub fn out_of_order(acts: &[Act]) -> Vec<(i64, Delivery)> {
    let mut deliveries = Vec::new();
    for (number, act) in acts.iter().enumerate() {
        let first = act.minute + act.delay;
        deliveries.push((first, Delivery::Event(number, Source::UserEvents)));
        let again = act
            .again
            .map(|later| (act.minute + later, Delivery::Event(number, Source::Reconcile)));
        deliveries.extend(again);
        if let Some(accepted) = act.accepted {
            deliveries.push((first + accepted, Delivery::Accepted(number)));
        }
    }
    deliveries
}
