//! Who is told what. `IDPro`'s eight kinds (rows C1 to C8), what happens around a freeze, and attempts that changed
//! nothing.
//!
//! A notice goes to every channel known before the change, each as an effect of its own, so that one refusing
//! mail server never silences another channel; a channel that came with the change is told too, without a link.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::ceiling::Ceiling;
use crate::domain::change::{Change, ChangeKind, Proof};
use crate::domain::hold::Record;
use crate::domain::policy::{AtEnd, Policy};
use crate::domain::subject::account::{Account, ChannelId, Contact, ContactKind, FactorClass};
use crate::domain::time::Timestamp;

/// Which message. Each has a folder of templates of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// C1.
    EmailChanged,
    /// C2.
    PhoneChanged,
    /// C3.
    PasswordChanged,
    /// C4: a second factor.
    MfaDeviceChanged,
    /// C5.
    RecoveryCodesReset,
    /// C6: a passkey, a security key, a linked login.
    PossessionFactorChanged,
    /// C7.
    IntermediaryChanged,
    /// C8: a recovery was attempted, with success or without.
    RecoveryAttempted,
    /// Somebody said "this was not me": the account is frozen.
    AccountFrozen,
    /// Two administrators have decided that the freeze will end.
    FreezeEnding,
    /// The freeze is over; what follows.
    FreezeEnded,
    /// The account is still frozen: how it goes on.
    FreezeStands,
    /// A channel that had spoken before said so again: nothing changes by it.
    ReportRepeated,
    /// Somebody at the IdP tried to take the limits away: they stand.
    RestrictionKept,
    /// To an administrator: somebody else got a role that may end freezes.
    AdministratorAdded,
}

impl Message {
    /// Every message.
    pub const ALL: [Self; 15] = [
        Self::EmailChanged,
        Self::PhoneChanged,
        Self::PasswordChanged,
        Self::MfaDeviceChanged,
        Self::RecoveryCodesReset,
        Self::PossessionFactorChanged,
        Self::IntermediaryChanged,
        Self::RecoveryAttempted,
        Self::AccountFrozen,
        Self::FreezeEnding,
        Self::FreezeEnded,
        Self::FreezeStands,
        Self::ReportRepeated,
        Self::RestrictionKept,
        Self::AdministratorAdded,
    ];

    /// The name of its folder.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmailChanged => "email_changed",
            Self::PhoneChanged => "phone_changed",
            Self::PasswordChanged => "password_changed",
            Self::MfaDeviceChanged => "mfa_device_changed",
            Self::RecoveryCodesReset => "recovery_codes_reset",
            Self::PossessionFactorChanged => "possession_factor_changed",
            Self::IntermediaryChanged => "intermediary_changed",
            Self::RecoveryAttempted => "recovery_attempted",
            Self::AccountFrozen => "account_frozen",
            Self::FreezeEnding => "freeze_ending",
            Self::FreezeEnded => "freeze_ended",
            Self::FreezeStands => "freeze_stands",
            Self::ReportRepeated => "report_repeated",
            Self::RestrictionKept => "restriction_kept",
            Self::AdministratorAdded => "administrator_added",
        }
    }

    /// The message that tells of a change.
    #[must_use]
    pub const fn of(kind: ChangeKind, factor: Option<FactorClass>) -> Self {
        match kind {
            ChangeKind::EmailChanged => Self::EmailChanged,
            ChangeKind::PhoneChanged => Self::PhoneChanged,
            ChangeKind::RecoveryCodesReset | ChangeKind::RecoveryCodeUsed => Self::RecoveryCodesReset,
            ChangeKind::IntermediaryChanged => Self::IntermediaryChanged,
            ChangeKind::PasswordReset | ChangeKind::PasswordChanged | ChangeKind::PasswordSetByAdmin => {
                Self::PasswordChanged
            }
            ChangeKind::AllFactorsReplaced => Self::MfaDeviceChanged,
            ChangeKind::FederatedLinkChanged => Self::PossessionFactorChanged,
            ChangeKind::FactorAdded | ChangeKind::FactorRemoved | ChangeKind::CredentialInitialised => {
                match factor {
                    Some(FactorClass::Passkey | FactorClass::FederatedLink) => Self::PossessionFactorChanged,
                    Some(FactorClass::Password) => Self::PasswordChanged,
                    Some(FactorClass::RecoveryCodes) => Self::RecoveryCodesReset,
                    Some(FactorClass::Otp | FactorClass::Other) | None => Self::MfaDeviceChanged,
                }
            }
        }
    }
}

/// Who or what ended a freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Two administrators found that the report was right, and the addresses of before were put back.
    ForTheOwner,
    /// Two administrators found nothing wrong.
    Unfounded,
    /// Nobody confirmed the report.
    Lapsed,
    /// Somebody proved to be the owner: a passkey, trusted people, an identity check.
    Proven,
    /// Two administrators found that the report was right; no address had been changed.
    TakenBack,
}

/// What a message says; every word of it is a fact of the stored transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Which message.
    pub message: Message,
    /// What was changed, for messages about a change.
    pub change: Option<ChangeKind>,
    /// When it happened.
    pub at: Timestamp,
    /// Where from, coarse.
    pub origin: Option<String>,
    /// What tokens still allow, when they are restricted.
    pub allowed: Option<Ceiling>,
    /// Expected end of the restriction, when there is one.
    pub until: Option<Timestamp>,
    /// BCP 47 tag of the reader's language, if known.
    pub locale: Option<String>,
    /// Name for the greeting; may be empty.
    pub name: String,
    /// How many attempts it tells of, for messages about attempts.
    #[serde(default)]
    pub count: Option<u32>,
    /// The account is frozen; `until` is then when that ends, if it ends by itself or its end was decided.
    #[serde(default)]
    pub frozen: bool,
    /// How a freeze ended, for the message that says so.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// What else than time it takes until what limits the account has ended; `None` where nothing does.
    #[serde(default)]
    pub at_end: Option<AtEnd>,
}

/// One message to one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The case it belongs to.
    pub case: String,
    /// The channel.
    pub channel: ChannelId,
    /// E-mail or phone.
    pub kind: ContactKind,
    /// Where to. Encrypted at rest with the whole outbox entry.
    pub address: String,
    /// Whether the channel was the account's before the change, so that its acceptance counts as told.
    pub before: bool,
    /// Whether it carries the "this was not me" link.
    pub link: bool,
    /// What it says.
    pub content: Content,
}

/// Plans the notices about `content` for a case: every channel known before `since` (P8), removed ones for as long
/// as they keep their voice, and the newcomers without a link. One address is told once, and of each kind no more than are
/// watched.
#[must_use]
pub fn plan(
    record: &Record,
    account: &Account,
    case: &str,
    since: Timestamp,
    content: &Content,
    policy: &Policy,
) -> Vec<Notice> {
    let account = &account.watched();
    let notice = |c: &Contact, before: bool, link: bool| Notice {
        case: case.to_owned(),
        channel: c.id.clone(),
        kind: c.kind,
        address: c.address.clone(),
        before,
        link,
        content: Content {
            name: account.name.clone(),
            locale: account.locale.clone(),
            ..content.clone()
        },
    };
    let old = record.channels_before(account, since, policy);
    let mut notices: Vec<Notice> = old
        .map(|c| notice(c, true, record.has_voice(account, c, since, policy)))
        .collect();
    let newcomers = account
        .contacts
        .iter()
        .filter(|c| c.since >= since && c.gone.is_none());
    notices.extend(newcomers.map(|c| notice(c, false, false)));
    let mut told = BTreeSet::new();
    notices.retain(|n| told.insert(n.channel.clone()));
    notices
}

/// The content of the message about a change; [`Record::stated`] adds how the account stands.
#[must_use]
pub fn content_of(change: &Change) -> Content {
    Content {
        message: Message::of(change.kind, change.factor),
        change: Some(change.kind.said(change.proof == Proof::Message)),
        at: change.start(),
        origin: change.origin.clone(),
        allowed: None,
        until: None,
        locale: None,
        name: String::new(),
        count: None,
        frozen: false,
        ended: None,
        at_end: None,
    }
}

/// The content of a message about no change, to be completed.
#[must_use]
pub const fn nothing(at: Timestamp) -> Content {
    Content {
        message: Message::RestrictionKept,
        change: None,
        at,
        origin: None,
        allowed: None,
        until: None,
        locale: None,
        name: String::new(),
        count: None,
        frozen: false,
        ended: None,
        at_end: None,
    }
}
