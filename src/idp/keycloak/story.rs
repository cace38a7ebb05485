//! What happened to one account: its recent lines in both logs, judged into changes.
//!
//! No single field of a Keycloak event says "this was a recovery": a reset, a voluntary change and a first
//! enrolment all end in the same `UPDATE_CREDENTIAL`. What tells them apart is the company the event keeps, so
//! an account's lines are always judged together, and again whenever one more turns up: a verdict can then only
//! become stricter. What cannot be told apart from a recovery counts as one.
//!
//! The rules, strongest first, for a password that was set:
//! 1. `SEND_RESET_PASSWORD` in the same root authentication session (`code_id`): a recovery.
//! 2. `SEND_RESET_PASSWORD` in another one, within the life of its link: a recovery (another browser).
//! 3. An administrator's reset or actions mail, within the life of its link: set by an administrator.
//! 4. A `LOGIN` whose session is the `code_id` of the change and that began it at most 300 s before: voluntary. A log-in
//!    *after* the change proves nothing, and neither does a later one into the same session: single sign-on repeats the
//!    line, member by member the same, without asking for anything. Not in a session that began with a recovery, a
//!    recovery code, a newly linked login or an administrator who took the account's place.
//! 5. Inside a log-in, by a log that is whole and shows nothing that a recovery leaves: see `absence`.
//! 6. Anything else: a recovery, unproven.
//!
//! "Initialised" comes before all of them, as a candidate: nothing in the logs speaks against the first credential
//! of its class on a young account. The logs cannot speak *for* it (creating a user with a password leaves the
//! same event as creating one without), so the snapshot has the last word, in the use case that stores the change.

// Every instant here comes from outside and may be any number.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod absence;
mod administrators;
mod evidence;

use std::collections::{BTreeMap, BTreeSet};

pub use self::absence::Whole;
use self::evidence::are_twins;
use super::account::Former;
use super::events::{self, Touch};
use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::account::{FactorClass, NODES, is_of_first};
use crate::domain::time::{Span, Timestamp};
use crate::idp::keycloak::representations::{AdminEvent, Credential, Event};

/// A credential and the line that tells of it are this near to each other, at most.
const TELLS: i64 = 60_000;
/// A credential younger than this may have a line that is not visible yet.
const SETTLED: i64 = 60_000;
/// What is enrolled this soon after the account was made belongs to its making.
const AT_CREATION: i64 = 300_000;
/// Clocks of two nodes of one Keycloak may differ by this much.
const SKEW: i64 = NODES.millis();
/// An instant that lies ahead of the server's clock by more than this is no instant.
const AHEAD: i64 = 60_000;

/// When an account was made, as far as that can be: nobody knows it of one that the server gives no date, or one that is
/// still to come at `clock`. Then it was long ago, so that nothing on it is young.
#[must_use]
pub fn made(created: i64, clock: Timestamp) -> i64 {
    let possible = 1..=clock.millis().saturating_add(AHEAD);
    if possible.contains(&created) { created } else { 0 }
}

/// Whether something at `time` belongs to the first `within` of an account that was made at `created`.
const fn is_within(time: i64, created: i64, within: Span) -> bool {
    is_of_first(
        within,
        Timestamp::from_millis(created),
        Timestamp::from_millis(time),
    )
}

/// Whether something at `time` belongs to the making of an account that was made at `created`.
#[must_use]
pub const fn is_of_making(time: i64, created: i64) -> bool {
    is_within(time, created, Span::from_millis(AT_CREATION))
}

/// Everything about one account that its story is judged from.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// When the account was made, in milliseconds since the epoch.
    pub created: i64,
    /// Its user events, in any order.
    pub events: Vec<Event>,
    /// Admin events about it, in any order.
    pub admin: Vec<AdminEvent>,
    /// The addresses that it no longer has.
    pub former: Vec<Former>,
    /// Its credentials as they are now.
    pub credentials: Vec<Credential>,
    /// Its live sessions: when each began, in milliseconds (whole seconds).
    pub sessions: BTreeMap<String, i64>,
    /// For which times both logs are known to be whole; `None` when that is not known.
    pub whole: Option<Whole>,
}

/// What stories are judged by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// An account is young for this long.
    pub enrolment: Span,
    /// A credential proves nothing about another one before it is this old.
    pub probation: Span,
    /// Life of the link in a reset mail.
    pub reset_lifespan: Span,
    /// Life of the link in an administrator's mail.
    pub admin_lifespan: Span,
    /// Actions that a client starts are known to ask for a log-in that is at most 300 s old.
    pub fresh_login_for_actions: bool,
    /// Every way to a new password without the old one sends Keycloak's own mail, or is an administrator's act.
    pub resets_leave_lines: bool,
    /// User attributes that hold telephone numbers.
    pub phone_attributes: Vec<String>,
    /// Id of our own service account.
    pub own: Option<String>,
}

/// One judged line: when it happened by Keycloak's clock, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Milliseconds since the epoch.
    pub time: i64,
    /// Keycloak's id of the event.
    pub event: String,
    /// What it says.
    pub what: What,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A change.
    Change(Box<Change>),
    /// Contacts, factors or facts may differ.
    Touched,
    /// Groups or roles were moved by somebody else: the group's id, or what was sent.
    Moved {
        /// For people.
        what: String,
        /// Id of the group, when it was a group.
        group: Option<String>,
    },
}

/// Judges every line of the window, oldest first. `received` is now, `ahead` how far Keycloak's clock is ahead.
#[must_use]
pub fn judge(window: &Window, rules: &Rules, received: Timestamp, ahead: Span) -> Vec<Told> {
    let mut story = Story::new(window, rules, received, ahead);
    let mut lines = Vec::new();
    for event in story.events.clone() {
        lines.extend(story.user_event(event));
    }
    for event in &window.admin {
        lines.extend(story.admin_event(event));
    }
    lines.extend(
        window
            .credentials
            .iter()
            .filter_map(|credential| story.unlogged(credential)),
    );
    lines.sort_by_key(|line| line.time);
    lines
}

struct Story<'a> {
    window: &'a Window,
    rules: &'a Rules,
    received: Timestamp,
    ahead: Span,
    /// See [`made`].
    created: i64,
    /// By time; of equal times what weakens a proof comes first.
    events: Vec<&'a Event>,
    /// Sessions that something else than a log-in with the old factors began.
    tainted: BTreeSet<String>,
}

impl<'a> Story<'a> {
    fn new(window: &'a Window, rules: &'a Rules, received: Timestamp, ahead: Span) -> Self {
        let mut events: Vec<&Event> = window.events.iter().collect();
        events.sort_by_key(|event| (event.time, event.kind == "LOGIN"));
        Self {
            window,
            rules,
            received,
            ahead,
            created: made(window.created, received.plus(ahead)),
            events,
            tainted: window.events.iter().filter_map(taint).collect(),
        }
    }

    fn user_event(&mut self, event: &'a Event) -> Vec<Told> {
        if event.error.is_some() {
            return Vec::new();
        }
        let told = |what| Told {
            time: event.time,
            event: events::id(event),
            what,
        };
        let change = |change: Change| told(What::Change(Box::new(change)));
        if let Some((touch, class, twin)) = events::credential(event) {
            if twin && self.events.iter().any(|other| are_twins(event, other)) {
                return Vec::new();
            }
            return vec![change(self.credential_changed(event, touch, class))];
        }
        match event.kind.as_str() {
            "FEDERATED_IDENTITY_LINK" | "FEDERATED_IDENTITY_OVERRIDE_LINK" | "REMOVE_FEDERATED_IDENTITY" => {
                vec![change(self.link_changed(event))]
            }
            "UPDATE_EMAIL" | "UPDATE_PROFILE" => {
                let mut lines: Vec<Told> = self.contacts_changed(event).into_iter().map(change).collect();
                lines.push(told(What::Touched));
                lines
            }
            "LOGIN" if events::used_recovery_code(event) => vec![change(self.code_used(event))],
            "REGISTER" | "VERIFY_EMAIL" => vec![told(What::Touched)],
            _ => Vec::new(),
        }
    }

    fn credential_changed(&mut self, event: &Event, touch: Touch, class: FactorClass) -> Change {
        let (kind, proof) = match (touch, class) {
            _ if touch == Touch::Set && self.may_be_first(event.time, class, Some(event)) => {
                let proof = match class {
                    FactorClass::Password => self.origin_of(event).1,
                    _ => self.factor_proof(event),
                };
                (ChangeKind::CredentialInitialised, proof)
            }
            (Touch::Set, FactorClass::Password) => self.origin_of(event),
            (Touch::Set, FactorClass::RecoveryCodes) => {
                (ChangeKind::RecoveryCodesReset, self.factor_proof(event))
            }
            (Touch::Set, _) if self.replaced(event, class) => {
                (ChangeKind::FactorRemoved, self.factor_proof(event))
            }
            (Touch::Set, _) => (ChangeKind::FactorAdded, self.factor_proof(event)),
            (Touch::Removed, _) => (ChangeKind::FactorRemoved, self.factor_proof(event)),
        };
        let mut change = self.change(event, kind, proof);
        change.factor = Some(class);
        self.weakened(event, &change);
        change
    }

    /// Where a new password came from (the rules at the head of this file).
    fn origin_of(&self, event: &Event) -> (ChangeKind, Proof) {
        if self.sent_reset(event) {
            return (ChangeKind::PasswordReset, Proof::Message);
        }
        if self.inside_log_in(event) {
            return (ChangeKind::PasswordChanged, Proof::RecentLogin);
        }
        let login = self.logged_in(event);
        let admin = self.last_admin_link(event.time);
        // A link of an administrator is used up by the first new password after it; with a log-in of its own
        // before it, a later one is the user's.
        let used = |sent: i64| {
            self.events.iter().any(|other| {
                sent <= other.time
                    && other.time < event.time
                    && !are_twins(other, event)
                    && matches!(
                        events::credential(other),
                        Some((Touch::Set, FactorClass::Password, _))
                    )
            })
        };
        if admin.is_some_and(|sent| !(login && used(sent))) {
            return (ChangeKind::PasswordSetByAdmin, Proof::Administrator);
        }
        if login {
            return (ChangeKind::PasswordChanged, Proof::RecentLogin);
        }
        (ChangeKind::PasswordReset, Proof::Unproven)
    }

    /// A log-in with a recovery code. Its own session is born restricted.
    fn code_used(&self, event: &Event) -> Change {
        let mut change = self.change(event, ChangeKind::RecoveryCodeUsed, Proof::Unproven);
        change.factor = Some(FactorClass::RecoveryCodes);
        let session = event.session_id.as_deref();
        let new = session.filter(|session| self.is_new(session, event.time.saturating_sub(1)));
        change.session = new.map(str::to_owned);
        change
    }

    fn link_changed(&mut self, event: &Event) -> Change {
        let linked = event.kind != "REMOVE_FEDERATED_IDENTITY";
        let earlier = self.events.iter().any(|other| {
            other.error.is_none() && other.kind.contains("FEDERATED_IDENTITY") && other.time < event.time
        });
        let born = is_of_making(event.time, self.created);
        let kind = if linked && born && !earlier {
            ChangeKind::CredentialInitialised
        } else {
            ChangeKind::FederatedLinkChanged
        };
        let mut change = self.change(event, kind, self.factor_proof(event));
        change.factor = Some(FactorClass::FederatedLink);
        if kind == ChangeKind::FederatedLinkChanged {
            self.weakened(event, &change);
        }
        change
    }

    /// What follows in the session of an unproven change proves nothing more than it did.
    fn weakened(&mut self, event: &Event, change: &Change) {
        let voluntary = matches!(change.proof, Proof::RecentLogin | Proof::EligibleFactor);
        if let Some(code) = events::code(event).filter(|_| !voluntary) {
            self.tainted.insert(code.to_owned());
        }
    }

    /// E-mail and telephone numbers that an event names as changed.
    fn contacts_changed(&self, event: &Event) -> Vec<Change> {
        let value = |prefix: &str, name: &str| {
            let text = event.details.get(&format!("{prefix}_{name}")).map(String::as_str);
            text.filter(|text| !text.is_empty())
        };
        // Filling in what a new account lacks is part of making it.
        let born = is_of_making(event.time, self.created);
        let names = std::iter::once("email").chain(self.rules.phone_attributes.iter().map(String::as_str));
        let mut changes: Vec<Change> = Vec::new();
        for name in names {
            let (previous, updated) = (value("previous", name), value("updated", name));
            if previous == updated || (previous.is_none() && born) {
                continue;
            }
            let kind = if name == "email" {
                ChangeKind::EmailChanged
            } else {
                ChangeKind::PhoneChanged
            };
            let mut change = self.change(event, kind, self.contact_proof(event));
            // Several values are joined by `::`.
            change.previous_address = previous
                .and_then(|text| text.split("::").next())
                .map(str::to_owned);
            if !changes.is_empty() {
                change.id = format!("{}#{name}", change.id);
            }
            changes.push(change);
        }
        changes
    }

    fn contact_proof(&self, event: &Event) -> Proof {
        if self.logged_in(event) {
            Proof::RecentLogin
        } else {
            Proof::Unproven
        }
    }

    /// A credential that no line of any log tells of: set by a user storage provider or an importer, or behind a
    /// log that was switched off. Not before the account's own lines begin, and not so fresh that its line may
    /// still be on its way to us.
    fn unlogged(&self, credential: &Credential) -> Option<Told> {
        let created = credential.created_date?;
        let class = events::class(&credential.kind);
        let clock = self.received.plus(self.ahead).millis();
        // What is dated later than it can be never settles.
        let unsettled = clock.saturating_sub(SETTLED).saturating_add(1)..=clock.saturating_add(AHEAD);
        let began = self
            .events
            .first()
            .is_some_and(|first| first.time < created.saturating_sub(TELLS));
        if is_of_making(created, self.created) || unsettled.contains(&created) || !began {
            return None;
        }
        if self.is_logged(created, class) {
            return None;
        }
        let kind = match class {
            FactorClass::Password => ChangeKind::PasswordReset,
            FactorClass::RecoveryCodes => ChangeKind::RecoveryCodesReset,
            _ => ChangeKind::FactorAdded,
        };
        let change = Change {
            id: format!("{}@{created}", credential.name()),
            source: Source::Reconcile,
            kind,
            factor: Some(class),
            at: Timestamp::from_millis(created),
            offset: self.ahead,
            received: self.received,
            proof: Proof::Unproven,
            mediated: false,
            session: None,
            channel: None,
            origin: None,
            previous_address: None,
        };
        Some(Told {
            time: created,
            event: change.id.clone(),
            what: What::Change(Box::new(change)),
        })
    }

    fn change(&self, event: &Event, kind: ChangeKind, proof: Proof) -> Change {
        Change {
            id: events::id(event),
            source: Source::UserEvents,
            kind,
            factor: None,
            at: Timestamp::from_millis(event.time),
            offset: self.ahead,
            received: self.received,
            proof,
            mediated: false,
            session: self.own_session(event),
            channel: None,
            origin: event.ip_address.as_deref().and_then(events::network),
            previous_address: None,
        }
    }
}

/// The session that this line shows to have begun with something else than the account's own factors: a recovery code,
/// or an administrator who took its place.
fn taint(event: &Event) -> Option<String> {
    let began = event.kind == "IMPERSONATE" || events::used_recovery_code(event);
    let session = event
        .session_id
        .as_ref()
        .filter(|_| began && event.error.is_none())?;
    Some(session.clone())
}

#[cfg(test)]
mod tests;
