//! One function: what a token may be used for, now. Every enforcement path renders its answer and adds nothing.

use std::collections::BTreeSet;

use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::hold::{Record, Restriction};
use crate::domain::policy::Policy;
use crate::domain::time::{Now, Span, Timestamp};

/// What is known about the subject when it is asked about.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// The store answered: a record, or for sure none.
    Known(Option<&'a Record>),
    /// The store could not be read, or could not be believed. Restricted to nothing (P5).
    Unreadable,
}

impl<'a, E> From<Result<Option<&'a Record>, E>> for State<'a> {
    /// What a reading of the store says. A fault of whatever kind is never an account to which nothing happened.
    fn from(read: Result<Option<&'a Record>, E>) -> Self {
        read.map_or(Self::Unreadable, Self::Known)
    }
}

/// The session that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking<'a> {
    /// Its id (`sid`).
    pub id: &'a str,
    /// When the user logged in, by the IdP's word.
    pub auth_time: Option<Timestamp>,
    /// Whether the IdP has been asked about this user's latest changes since the log-in (contract section 3).
    pub checked: bool,
    /// Whether the log-in was with factors past their probation only.
    pub eligible: bool,
}

/// What the token at hand already says, for introspection, userinfo and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its `recovery_scope`; unreadable is `none`.
    pub ceiling: Ceiling,
    /// Its `recovery_epoch`.
    pub epoch: i64,
}

/// A question about a token.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The client it is for.
    pub client: &'a str,
    /// The session it is from; none for machine tokens.
    pub session: Option<Asking<'a>>,
    /// OAuth scopes: what was consented to, or what the token at hand has.
    pub scopes: &'a BTreeSet<String>,
    /// Role values that would go in.
    pub roles: &'a BTreeSet<String>,
    /// Group values that would go in.
    pub groups: &'a BTreeSet<String>,
    /// What the token at hand says, when there is one: the answer is the stricter of both (ISS-8).
    pub issued: Option<Issued>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// OAuth scopes that stay.
    pub scopes: BTreeSet<String>,
    /// Role values that stay.
    pub roles: BTreeSet<String>,
    /// Group values that stay.
    pub groups: BTreeSet<String>,
    /// The ceiling.
    pub recovery_scope: Ceiling,
    /// Classes that a step-up would lift; none while there is no step-up.
    pub recovery_lift: Option<Ceiling>,
    /// Expected end, for display.
    pub recovery_until: Option<Timestamp>,
    /// Grows at every tightening.
    pub recovery_epoch: i64,
    /// The case.
    pub recovery_ref: Option<String>,
    /// Longest lifetime of an access token (ISS-5).
    pub max_lifetime: Span,
    /// Nothing may be issued at all (ISS-10).
    pub contested: bool,
    /// A contact hold runs: `email_verified` and `phone_number_verified` go out false.
    pub contact_hold: bool,
    /// The state could not be read: what needs stored state answers 503 (ISS-2).
    pub unreadable: bool,
    /// What would be allowed if every tier were switched on, when that is less (roll-out).
    pub shadow: Option<Ceiling>,
}

/// Decides. Pure: the same record, request, instant and policy give the same answer on every path.
#[must_use]
pub fn entitle(state: State<'_>, request: &Request<'_>, now: Now, policy: &Policy) -> Entitlement {
    let State::Known(record) = state else {
        return unreadable(request, policy);
    };
    // The token at hand was signed by us: a store that knows of fewer tightenings than it has forgotten one (P5).
    let witnessed = request.issued.as_ref().map_or(0, |i| i.epoch);
    if witnessed > record.map_or(0, |r| r.epoch) {
        return unreadable(request, policy);
    }
    let mut facts = Facts::default();
    let Some(record) = record else {
        let ceiling = if checked(request) {
            Ceiling::Full
        } else {
            Ceiling::none()
        };
        return render(request, &ceiling, None, policy, facts);
    };
    facts.epoch = record.epoch;
    facts.contested = record.contest.as_ref().is_some_and(|c| c.enforced);
    facts.contact_hold = record.contact_hold(now);
    facts.shadow = record.shadow(now).map(|r| r.allowed);
    let restriction = restriction(record, request, now);
    let mut ceiling = restriction.as_ref().map_or(Ceiling::Full, |r| r.allowed.clone());
    if !facts.contested && record.unreadable.is_none() {
        ceiling = elevated(ceiling, record, request, now);
    }
    if !checked(request) {
        ceiling = Ceiling::none();
    }
    render(request, &ceiling, restriction, policy, facts)
}

/// The answer when nothing can be known: nothing is allowed. The token's own epoch stays, so that a relying party
/// does not take the answer for an old token's.
fn unreadable(request: &Request<'_>, policy: &Policy) -> Entitlement {
    let facts = Facts {
        unreadable: true,
        epoch: request.issued.as_ref().map_or(0, |i| i.epoch),
        ..Facts::default()
    };
    render(request, &Ceiling::none(), None, policy, facts)
}

/// Whether the log-in-time check was answered, where there is a session to check.
fn checked(request: &Request<'_>) -> bool {
    request.session.is_none_or(|s| s.checked)
}

/// The restriction on this session: what runs, and what a hold that is over still asks of it.
fn restriction(record: &Record, request: &Request<'_>, now: Now) -> Option<Restriction> {
    let running = record.restriction(now);
    let (auth_time, eligible) = request
        .session
        .map_or((None, false), |s| (s.auth_time, s.eligible));
    let waiting = record.awaits_login(now, auth_time, eligible);
    match (running, waiting) {
        (Some(run), Some(wait)) => Some(Restriction {
            allowed: run.allowed.intersect(&wait.allowed),
            ..run
        }),
        (run, wait) => run.or(wait),
    }
}

/// The ceiling with the unexpired elevations of exactly this client and session (P1, ISS-11).
fn elevated(ceiling: Ceiling, record: &Record, request: &Request<'_>, now: Now) -> Ceiling {
    let (Ceiling::Only(mut classes), Some(session)) = (ceiling.clone(), request.session) else {
        return ceiling;
    };
    let ours = record
        .elevations
        .iter()
        .filter(|e| e.client == request.client && e.session == session.id && e.active(now));
    let lifted: Vec<Class> = ours.map(|e| e.class.clone()).collect();
    classes.extend(lifted);
    Ceiling::Only(classes)
}

#[derive(Default)]
struct Facts {
    epoch: i64,
    contested: bool,
    contact_hold: bool,
    unreadable: bool,
    shadow: Option<Ceiling>,
}

/// Everything that follows from the ceiling.
fn render(
    request: &Request<'_>,
    ceiling: &Ceiling,
    restriction: Option<Restriction>,
    policy: &Policy,
    facts: Facts,
) -> Entitlement {
    let issued = request.issued.as_ref();
    let ceiling = issued.map_or(ceiling.clone(), |i| ceiling.intersect(&i.ceiling));
    let full = ceiling.is_full();
    Entitlement {
        scopes: policy.reduce_scopes(request.scopes, &ceiling),
        roles: policy.reduce_roles(request.roles, &ceiling),
        groups: policy.reduce_groups(request.groups, &ceiling),
        recovery_lift: None,
        recovery_until: restriction.as_ref().filter(|_| !full).and_then(|r| r.until),
        recovery_epoch: facts.epoch,
        recovery_ref: restriction.filter(|_| !full).map(|r| r.reference),
        max_lifetime: if full {
            policy.lifetimes.access
        } else {
            // What is restricted never outlives what is whole.
            policy.lifetimes.restricted.min(policy.lifetimes.access)
        },
        contested: facts.contested,
        contact_hold: facts.contact_hold,
        unreadable: facts.unreadable,
        shadow: facts.shadow.filter(|s| !ceiling.within(s)),
        recovery_scope: ceiling,
    }
}
