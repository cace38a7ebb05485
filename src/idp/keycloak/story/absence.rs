//! What the absence of lines says.
//!
//! A change inside a log-in (a temporary or expired password, a factor that everybody has to enrol, an action that an
//! application asks for with the log-in) leaves no `LOGIN` before it: Keycloak writes that line when the log-in is done.
//! The same lines come of a reset, but a reset leaves more: the mail that was sent, or an administrator's act. So where
//! both logs are known to be whole for as long as such a link may live, what they do not show did not happen, and whoever
//! came as far as the action had proven what the account had before. Lines can only be added to that: a mail, an
//! administrator's act, an older session, a login at another provider, and the change is what it was without this rule.
//! A realm where people come to a new password in another way than by Keycloak's mail has to say so: nothing here shows it.

use super::evidence::{is_reset_mail, same_code};
use super::{SKEW, Story, is_within};
use crate::domain::subject::account::FactorClass;
use crate::domain::time::Span;
use crate::idp::keycloak::events::{self, AdminAct};
use crate::idp::keycloak::representations::{AdminEvent, Event};

/// A line that explains a change may be dated so much later than it: the clock of another node, believed for a minute.
const APART: i64 = 60_000;

/// For which times both logs are known to show every line, in milliseconds since the epoch by Keycloak's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Both hold lines as old as this.
    pub since: i64,
    /// When what is recorded was changed.
    pub edits: Vec<i64>,
}

impl Whole {
    /// As if no line were ever missing: shows whether anything depends on it.
    #[must_use]
    pub const fn assumed() -> Self {
        Self {
            since: i64::MIN,
            edits: Vec::new(),
        }
    }

    fn covers(&self, from: i64, to: i64) -> bool {
        let edited = self.edits.iter().any(|at| (from..=to).contains(at));
        self.since <= from && !edited
    }
}

impl Story<'_> {
    /// Rule 5: a required action inside a log-in that began with what the account had before.
    pub(super) fn inside_log_in(&self, event: &Event) -> bool {
        let Some(code) = events::code(event) else {
            return false;
        };
        let action = event.details.contains_key("custom_required_action");
        action
            && self.rules.resets_leave_lines
            && !self.tainted.contains(code)
            && self.is_new(code, event.time)
            && self.shows_everything(event)
            && !self.events.iter().any(|other| self.began_otherwise(other, event))
            && !self
                .window
                .admin
                .iter()
                .any(|act| self.was_handed_over(act, event))
    }

    /// Whether nobody was in this session before the change.
    pub(super) fn is_new(&self, code: &str, time: i64) -> bool {
        let used = self.logins(code).any(|at| at <= time);
        // Start times have whole seconds, and the other node's clock may be behind.
        let listed = self.window.sessions.get(code);
        !used && listed.is_none_or(|began| began.saturating_add(1_000 + SKEW) > time)
    }

    /// Whether both logs are whole for as long before the change as a link may live that led to it, or as long as there is
    /// the account.
    fn shows_everything(&self, event: &Event) -> bool {
        let longest = self.rules.reset_lifespan.max(self.rules.admin_lifespan);
        let reach = longest.millis().saturating_add(APART);
        let mut from = event.time.saturating_sub(reach);
        if is_within(event.time, self.created, Span::from_millis(reach)) {
            from = from.max(self.created);
        }
        let whole = self.window.whole.as_ref();
        whole.is_some_and(|whole| whole.covers(from.min(event.time), event.time))
    }

    /// What may have led to a change counts for so long, whatever the configuration says of the life of links.
    fn counts(&self, at: i64, event: &Event) -> bool {
        let rules = self.rules;
        let longest = rules
            .probation
            .max(rules.reset_lifespan)
            .max(rules.admin_lifespan);
        (-APART..=longest.millis().saturating_add(APART)).contains(&event.time.saturating_sub(at))
    }

    /// Whether a line shows that the session of the change may have begun with something else than the old factors.
    fn began_otherwise(&self, other: &Event, event: &Event) -> bool {
        let reset = is_reset_mail(other) || other.kind == "RESET_PASSWORD";
        let same = same_code(other, event);
        let arrived = matches!(
            other.kind.as_str(),
            "FEDERATED_IDENTITY_LINK" | "FEDERATED_IDENTITY_OVERRIDE_LINK" | "REGISTER"
        );
        other.error.is_none()
            && (reset && self.counts(other.time, event) || same && (arrived || is_brokered(other)))
    }

    /// Whether an administrator gave a way in: a link in a mail, or a password that was not the account's first.
    fn was_handed_over(&self, act: &AdminEvent, event: &Event) -> bool {
        let gave = match events::admin_act(act) {
            Some((_, AdminAct::SentActions | AdminAct::SentVerification)) => true,
            Some((_, AdminAct::SetPassword)) => !self.may_be_first(act.time, FactorClass::Password, None),
            _ => false,
        };
        gave && self.counts(act.time, event)
    }
}

/// Somebody came by a login at another provider.
fn is_brokered(event: &Event) -> bool {
    event.details.contains_key("identity_provider")
}
