//! A change of a credential or a contact, as it was observed, and the row of the hold table that it falls in.

use serde::{Deserialize, Serialize};

use crate::domain::subject::account::{ChannelId, FactorClass};
use crate::domain::time::{Span, Timestamp};

/// What was changed (domain "Words").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A new password by way of recovery, or one that cannot be told from it.
    PasswordReset,
    /// A new password set by somebody who was logged in.
    PasswordChanged,
    /// A new password set by an administrator, or by a link that an administrator had sent.
    PasswordSetByAdmin,
    /// A factor more.
    FactorAdded,
    /// A factor less, or another in its place.
    FactorRemoved,
    /// New recovery codes.
    RecoveryCodesReset,
    /// A recovery code was used.
    RecoveryCodeUsed,
    /// Another e-mail address.
    EmailChanged,
    /// Another telephone number.
    PhoneChanged,
    /// Another trusted intermediary.
    IntermediaryChanged,
    /// A login at another provider was linked or unlinked.
    FederatedLinkChanged,
    /// The first credential of its class on a young account: an invitation, not a recovery.
    CredentialInitialised,
    /// Derived: everything that proved the owner before is gone.
    AllFactorsReplaced,
}

impl ChangeKind {
    /// As what owners are told of it. What cannot be told apart from a reset is held as one, but it is only called so
    /// where a message carried its proof: its owner may have changed it.
    #[must_use]
    pub const fn said(self, by_message: bool) -> Self {
        match self {
            Self::PasswordReset if !by_message => Self::PasswordChanged,
            other => other,
        }
    }

    /// Whether an address was changed, so that `email_verified` is not believed while it holds (contract section 3).
    #[must_use]
    pub const fn is_contact(self) -> bool {
        matches!(self, Self::EmailChanged | Self::PhoneChanged)
    }
}

/// What proved that the person who made the change was the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Nothing that we know of. What cannot be told apart from a recovery counts as one.
    Unproven,
    /// A link or code in a message: whoever holds the mailbox.
    Message,
    /// A log-in with what the account had before, at most 300 s earlier in the same session, or the one that the change was
    /// made inside of.
    RecentLogin,
    /// A factor that was eligible against this change.
    EligibleFactor,
    /// An administrator, who is not the owner.
    Administrator,
}

/// Where a change was heard from. Marks are kept per source: a webhook's id never marks a poller's event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The poller over the IdP's user events, and the log-in-time check, which reads the same log.
    UserEvents,
    /// The poller over the IdP's admin events.
    AdminEvents,
    /// Comparison of what the IdP has with the snapshot.
    Reconcile,
    /// A change that went through us.
    Mediated,
    /// A push from outside (later).
    Hook,
}

impl Source {
    /// The source's name in keys and audit lines.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UserEvents => "user_events",
            Self::AdminEvents => "admin_events",
            Self::Reconcile => "reconcile",
            Self::Mediated => "mediated",
            Self::Hook => "hook",
        }
    }
}

/// One observed change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The same from every source where the IdP gives an id; at most 128 octets.
    pub id: String,
    /// Who told us.
    pub source: Source,
    /// What was changed.
    pub kind: ChangeKind,
    /// The class of the factor that changed, where there is one.
    pub factor: Option<FactorClass>,
    /// When it happened, by the IdP's clock, uncorrected.
    pub at: Timestamp,
    /// How far the IdP's clock is ahead of ours, as last sampled.
    pub offset: Span,
    /// When we heard of it.
    pub received: Timestamp,
    /// What proved it.
    pub proof: Proof,
    /// Whether it went through us.
    pub mediated: bool,
    /// The IdP's session of the change itself, if it lives on: it is born restricted instead of ended (ISS-6).
    pub session: Option<String>,
    /// The channel that carried the proof, if one did.
    pub channel: Option<ChannelId>,
    /// Where from, coarse (a network or a place), for the notice.
    pub origin: Option<String>,
    /// The address the account had before, where the IdP's event names it (the snapshot may be younger).
    pub previous_address: Option<String>,
}

/// A row of the hold table (domain "Hold: the restriction").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// Password reset, unmediated or by e-mail alone; set by an admin.
    PasswordReset,
    /// Password reset that an eligible strong factor proved (mediated).
    PasswordResetProven,
    /// Password changed, the old one proven at most 300 s before in that session.
    PasswordChanged,
    /// Factor removed or replaced; recovery codes reset; recovery code used.
    FactorLost,
    /// Factor added or login linked, proven by an eligible one.
    FactorAddedProven,
    /// Factor added or login linked, unproven.
    FactorAddedUnproven,
    /// E-mail or phone changed.
    ContactChanged,
    /// All factors replaced.
    AllReplaced,
    /// Trusted intermediary changed.
    IntermediaryChanged,
    /// Credential initialised.
    Initialised,
    /// Not in the table of changes: what follows a freeze (domain "Contested").
    AfterContest,
}

impl Row {
    /// The rows a policy has to answer, in the order of the table.
    pub const TABLE: [Self; 10] = [
        Self::PasswordReset,
        Self::PasswordResetProven,
        Self::PasswordChanged,
        Self::FactorLost,
        Self::FactorAddedProven,
        Self::FactorAddedUnproven,
        Self::ContactChanged,
        Self::AllReplaced,
        Self::IntermediaryChanged,
        Self::Initialised,
    ];

    /// The row's name in the policy file and in audit lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::PasswordResetProven => "password_reset_proven",
            Self::PasswordChanged => "password_changed",
            Self::FactorLost => "factor_lost",
            Self::FactorAddedProven => "factor_added_proven",
            Self::FactorAddedUnproven => "factor_added_unproven",
            Self::ContactChanged => "contact_changed",
            Self::AllReplaced => "all_replaced",
            Self::IntermediaryChanged => "intermediary_changed",
            Self::Initialised => "credential_initialised",
            Self::AfterContest => "after_contest",
        }
    }

    /// The row by its name in the policy file.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::TABLE.into_iter().find(|row| row.as_str() == name)
    }
}

impl Change {
    /// The row this change falls in. Whatever is not known to be better proven falls in the stricter row.
    #[must_use]
    pub fn row(&self) -> Row {
        match self.kind {
            ChangeKind::CredentialInitialised => Row::Initialised,
            ChangeKind::PasswordReset if self.mediated && self.proof == Proof::EligibleFactor => {
                Row::PasswordResetProven
            }
            ChangeKind::PasswordChanged
                if matches!(self.proof, Proof::RecentLogin | Proof::EligibleFactor) =>
            {
                Row::PasswordChanged
            }
            ChangeKind::PasswordReset | ChangeKind::PasswordSetByAdmin | ChangeKind::PasswordChanged => {
                Row::PasswordReset
            }
            ChangeKind::FactorRemoved | ChangeKind::RecoveryCodesReset | ChangeKind::RecoveryCodeUsed => {
                Row::FactorLost
            }
            ChangeKind::FactorAdded | ChangeKind::FederatedLinkChanged
                if self.proof == Proof::EligibleFactor =>
            {
                Row::FactorAddedProven
            }
            ChangeKind::FactorAdded | ChangeKind::FederatedLinkChanged => Row::FactorAddedUnproven,
            ChangeKind::EmailChanged | ChangeKind::PhoneChanged => Row::ContactChanged,
            ChangeKind::IntermediaryChanged => Row::IntermediaryChanged,
            ChangeKind::AllFactorsReplaced => Row::AllReplaced,
        }
    }

    /// When the clock of the hold starts: the IdP's time corrected by the sampled offset of its clock, or our
    /// receipt, whichever is earlier; a clock that is off by more than a minute is not believed (domain "Start").
    #[must_use]
    pub fn start(&self) -> Timestamp {
        if self.offset.abs() > Span::from_secs(60) {
            return self.received;
        }
        self.at.minus(self.offset).min(self.received)
    }

    /// Whether sessions that began before the change was known end with it (ISS-6): an unmediated change that
    /// holds; a mediated or voluntary one, and one that only tells, ends none.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        !self.mediated && self.row() != Row::PasswordChanged && self.row() != Row::FactorAddedProven
    }
}
