//! What in an account's lines speaks for and against a verdict.

use super::{SKEW, Story, TELLS, is_of_making, is_within};
use crate::domain::change::Proof;
use crate::domain::subject::account::FactorClass;
use crate::idp::keycloak::events::{self, AdminAct};
use crate::idp::keycloak::representations::{Credential, Event};

/// A log-in counts as proof of a voluntary change for this long: Keycloak's own limit for actions that a client
/// starts (`KC_ACTION_MAX_AGE`).
const LOGIN_AGE: i64 = 300_000;
/// A generic event and its deprecated twin are raised in one request.
const TWIN: i64 = 2_000;
/// Recovery codes are dated by when their page was shown, and told of when it is sent: so long after, at most.
const CODES: i64 = 1_800_000;
/// A credential is stored this long before its event, at most.
const STORED: i64 = 5_000;

impl Story<'_> {
    /// Rules 1 and 2. A mail that was asked for after a change had nothing to do with it when the old factors were proven
    /// before it; without that, the clock of the node that sent it may be ahead.
    pub(super) fn sent_reset(&self, event: &Event) -> bool {
        let life = self.rules.reset_lifespan.millis().saturating_add(SKEW);
        let proven = self.logged_in(event);
        self.events.iter().any(|sent| {
            let age = event.time.saturating_sub(sent.time);
            let may_be_used = (0..=life).contains(&age) || (-SKEW..0).contains(&age) && !proven;
            is_reset_mail(sent) && (may_be_used || age >= -SKEW && same_code(sent, event))
        })
    }

    /// The latest reset or actions mail by an administrator whose link may still have been used at `time`.
    pub(super) fn last_admin_link(&self, time: i64) -> Option<i64> {
        let acts = self.window.admin.iter().filter(|event| {
            matches!(
                events::admin_act(event),
                Some((_, AdminAct::SetPassword | AdminAct::SentActions))
            )
        });
        let life = self.rules.admin_lifespan.millis();
        acts.map(|event| event.time)
            .filter(|sent| (-SKEW..=life).contains(&time.saturating_sub(*sent)))
            .max()
    }

    /// Rule 4: a log-in into the session of this change, with what the account had before. Single sign-on repeats the
    /// same line without asking for anything, so only what began the session counts.
    pub(super) fn logged_in(&self, event: &Event) -> bool {
        let Some((code, began)) = self.began(event) else {
            return false;
        };
        let recent = event.time.saturating_sub(began) <= LOGIN_AGE;
        !self.tainted.contains(code) && (recent || self.rules.fresh_login_for_actions)
    }

    /// The session that a change was made in and when it began, as far back as anything shows it; `None` when no line
    /// before the change tells of it.
    fn began<'e>(&self, event: &'e Event) -> Option<(&'e str, i64)> {
        let code = events::code(event)?;
        let first = self.logins(code).filter(|at| *at < event.time).min()?;
        // Start times have whole seconds.
        let listed = self
            .window
            .sessions
            .get(code)
            .map(|began| began.saturating_add(1_000));
        Some((code, listed.map_or(first, |listed| listed.min(first))))
    }

    pub(super) fn logins<'s>(&'s self, session: &'s str) -> impl Iterator<Item = i64> + 's {
        let into = move |event: &&&Event| {
            event.kind == "LOGIN" && event.error.is_none() && event.session_id.as_deref() == Some(session)
        };
        self.events.iter().filter(into).map(|event| event.time)
    }

    /// What proved somebody who added or removed a factor. `EligibleFactor` only when everything they could have
    /// logged in with was past its probation by then.
    pub(super) fn factor_proof(&self, event: &Event) -> Proof {
        if self.sent_reset(event) {
            return Proof::Message;
        }
        let inside = self.inside_log_in(event);
        let login = inside || self.logged_in(event);
        if !login && self.last_admin_link(event.time).is_some() {
            return Proof::Administrator;
        }
        let began = self.began(event);
        let recent = inside || began.is_some_and(|(_, began)| event.time.saturating_sub(began) <= LOGIN_AGE);
        match (login, recent && self.settled(event)) {
            (true, true) => Proof::EligibleFactor,
            (true, false) => Proof::RecentLogin,
            (false, _) => Proof::Unproven,
        }
    }

    /// Whether every credential the account had before `event` was past its probation, and nothing was replaced
    /// in that time.
    pub(super) fn settled(&self, event: &Event) -> bool {
        let probation = self.rules.probation.millis();
        let at_creation = |at: i64| is_of_making(at, self.created);
        let class = events::credential(event).map(|(_, class, _)| class);
        // The credential that this event tells of was stored a moment before it.
        let stored = |credential: &Credential| {
            let itself = Some(events::class(&credential.kind)) == class;
            credential
                .created_date
                .filter(|created| *created < event.time.saturating_sub(if itself { STORED } else { 0 }))
        };
        let mut before = self.window.credentials.iter().filter_map(stored).peekable();
        let some = before.peek().is_some();
        let old =
            before.all(|created| created.saturating_add(probation) <= event.time || at_creation(created));
        let young =
            |at: i64| at < event.time && at.saturating_add(probation) > event.time && !at_creation(at);
        let moved = self.events.iter().any(|other| {
            let linked = other.error.is_none() && other.kind.contains("FEDERATED_IDENTITY");
            let moved = linked || events::credential(other).is_some();
            moved && !are_twins(other, event) && young(other.time)
        });
        let by_admin = self.window.admin.iter().any(|other| {
            let acts = matches!(
                events::admin_act(other),
                Some((
                    _,
                    AdminAct::SetPassword
                        | AdminAct::RemovedCredential(_)
                        | AdminAct::Linked(_)
                        | AdminAct::Unlinked(_)
                ))
            );
            acts && young(other.time)
        });
        // One of unknown age may be younger than anything.
        let undated = self
            .window
            .credentials
            .iter()
            .any(|credential| credential.created_date.is_none());
        some && old && !undated && !moved && !by_admin
    }

    /// Whether a factor took the place of another one of its class: set in a recovery, and none older is left.
    pub(super) fn replaced(&self, event: &Event, class: FactorClass) -> bool {
        let older = |credential: &&Credential| {
            events::class(&credential.kind) == class
                && credential
                    .created_date
                    .is_some_and(|created| created < event.time.saturating_sub(STORED))
        };
        self.sent_reset(event)
            && !self
                .window
                .credentials
                .iter()
                .any(|credential| older(&credential))
    }

    /// Whether nothing speaks against the first credential of its class on a young account.
    /// `event` is the user event that set it, when it was one.
    pub(super) fn may_be_first(&self, time: i64, class: FactorClass, event: Option<&Event>) -> bool {
        let young = is_within(time, self.created, self.rules.enrolment);
        let earlier = self.events.iter().any(|other| {
            let same = events::credential(other).is_some_and(|(_, other, _)| other == class);
            let itself = event.is_some_and(|event| event == *other || are_twins(event, other));
            let registered = other.kind == "REGISTER"
                && other.error.is_none()
                && class == FactorClass::Password
                && other.details.get("register_method").map(String::as_str) != Some("broker");
            (same || registered) && !itself && other.time <= time
        });
        let by_admin = self
            .window
            .admin
            .iter()
            .any(|other| match events::admin_act(other) {
                Some((_, AdminAct::SetPassword)) => class == FactorClass::Password && other.time < time,
                Some((_, AdminAct::RemovedCredential(_))) => other.time < time,
                _ => false,
            });
        let listed = self.window.credentials.iter().any(|credential| {
            events::class(&credential.kind) == class
                && credential
                    .created_date
                    .is_none_or(|created| created < time.saturating_sub(STORED))
        });
        young && !earlier && !by_admin && !listed
    }

    /// The session that the change itself began, if it did: its id is the `code_id`, nobody had logged into it
    /// before, and it is not older than the change.
    pub(super) fn own_session(&self, event: &Event) -> Option<String> {
        let code = events::code(event)?;
        self.is_new(code, event.time).then(|| code.to_owned())
    }

    /// Whether a line tells of a credential of `class` that was stored at `created`.
    pub(super) fn is_logged(&self, created: i64, class: FactorClass) -> bool {
        let near = |time: i64| time.abs_diff(created) <= TELLS.unsigned_abs();
        let written_down = |time: i64| {
            class == FactorClass::RecoveryCodes && (created..=created.saturating_add(CODES)).contains(&time)
        };
        let by_user = self.events.iter().any(|event| {
            let set = events::credential(event).is_some_and(|(_, of, _)| of == class);
            set && written_down(event.time) || (set || event.kind == "REGISTER") && near(event.time)
        });
        let by_admin = self.window.admin.iter().any(|event| {
            matches!(events::admin_act(event), Some((_, AdminAct::SetPassword))) && near(event.time)
        });
        by_user || by_admin
    }
}

/// Whether two events are a generic one and its deprecated clone, raised for one act.
pub(super) fn are_twins(one: &Event, other: &Event) -> bool {
    let act =
        |event| events::credential(event).map(|(touch, class, deprecated)| ((touch, class), deprecated));
    let (Some((one_act, one_old)), Some((other_act, other_old))) = (act(one), act(other)) else {
        return false;
    };
    one.time.abs_diff(other.time) <= TWIN.unsigned_abs()
        && events::code(one) == events::code(other)
        && one_act == other_act
        && one_old != other_old
}

/// A mail with a reset link was sent.
pub(super) fn is_reset_mail(event: &Event) -> bool {
    event.kind == "SEND_RESET_PASSWORD" && event.error.is_none()
}

pub(super) fn same_code(one: &Event, other: &Event) -> bool {
    events::code(one).is_some() && events::code(one) == events::code(other)
}
