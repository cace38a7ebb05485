//! An account that was deleted while it was held or frozen, and made again, begins restricted.
//!
//! Nothing at the IdP ties the new account to the old one but what it is known by: an address, a user name, an id in a
//! directory. So when a restricted account goes, its keyed names are kept with what restricted it, until the hold would
//! have ended. An account that is seen with one of them gets at least that: deleting an account ends no hold (P2).
//!
//! What anybody can write into an account is no name of it: or whoever wrote another's address into his own, and had
//! himself frozen and deleted, would freeze that other (P17). So an address counts only when it was the account's own
//! and verified when it went; telephone numbers, which several people share, never do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::audit::Entry;
use crate::domain::ceiling::Ceiling;
use crate::domain::hold::apply::Setting;
use crate::domain::hold::attempt::{Undoing, tampered};
use crate::domain::hold::rebuild::carried::Carried;
use crate::domain::hold::rebuild::{Evidence, rebuild};
use crate::domain::hold::{Posture, Record, Transition};
use crate::domain::policy::Policy;
use crate::domain::subject::account::{Account, Contact, ContactKind};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Span, Timestamp};
use crate::flow::{Flow, FlowError};
use crate::ports::idp::Reading;
use crate::ports::store::{Loaded, Mark, Parts, Write};

/// How long a freeze is remembered whose account is gone: nothing but people ended it.
const FREEZE: Span = Span::from_days(180);

/// What restricted an account that is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Left {
    /// The case.
    case: String,
    /// What was allowed.
    allowed: String,
    /// It was frozen.
    frozen: bool,
    /// Milliseconds since the epoch.
    until: i64,
}

impl Left {
    fn of(record: &Record, now: Now) -> Option<Self> {
        let frozen = matches!(record.posture(now), Posture::Contested(_));
        if let Some(contest) = record.contest.as_ref().filter(|_| frozen) {
            return Some(Self {
                case: contest.case.clone(),
                allowed: Ceiling::none().to_string(),
                frozen: true,
                until: now.latest().plus(FREEZE).millis(),
            });
        }
        let held = record.restriction(now)?;
        let until = held.until.unwrap_or_else(|| now.latest().plus(FREEZE));
        Some(Self {
            case: held.reference,
            allowed: held.allowed.to_string(),
            frozen: false,
            until: until.millis(),
        })
    }

    /// The stricter of two, if there are two.
    fn stricter(one: Option<Self>, other: Self) -> Self {
        let Some(one) = one else { return other };
        let wider = |left: &Self| Ceiling::parse(&left.allowed).unwrap_or(Ceiling::none());
        let keep = one.frozen || (!other.frozen && wider(&one).within(&wider(&other)));
        if keep { one } else { other }
    }
}

fn named(upstream: &UpstreamId, name: &str) -> String {
    format!("gone:{upstream}:{name}")
}

/// Until when there is any at all: asked first, so that an ordinary log-in costs one look.
fn any(upstream: &UpstreamId) -> String {
    format!("gone-any:{upstream}")
}

/// What an account that goes was known by.
fn proven_names(account: &Account) -> impl Iterator<Item = &str> {
    let verified = account.contacts.iter().filter(|c| c.verified);
    addresses(verified).chain(account.names.iter().map(String::as_str))
}

/// What an account is known by that may be one of before.
fn names(account: &Account) -> impl Iterator<Item = &str> {
    addresses(account.contacts.iter()).chain(account.names.iter().map(String::as_str))
}

fn addresses<'a>(contacts: impl Iterator<Item = &'a Contact>) -> impl Iterator<Item = &'a str> {
    let there = contacts.filter(|c| c.kind == ContactKind::Email && c.gone.is_none());
    there.map(|c| c.id.0.as_str())
}

/// The account is gone at the IdP. When it was restricted, that is an alarm, and what it was known by is kept.
///
/// # Errors
/// [`FlowError::Store`]: it has to be told again.
pub(super) async fn gone(flow: &Flow, subject: &Subject) -> Result<(), FlowError> {
    let key = flow.key(subject);
    let loaded = flow.store.read(&key, Parts::ACCOUNT).await?;
    let now = flow.now(loaded.store_time);
    let Some(left) = loaded.record.as_ref().and_then(|record| Left::of(record, now)) else {
        return Ok(());
    };
    let text = serde_json::to_string(&left).unwrap_or_default();
    let account = loaded.account.unwrap_or_default();
    for name in proven_names(&account) {
        flow.store
            .set_setting(&named(&subject.upstream, name), &text, None)
            .await?;
    }
    let last = until(flow, &subject.upstream).await?.max(left.until);
    flow.store
        .set_setting(&any(&subject.upstream), &last.to_string(), None)
        .await?;
    let mark = Mark {
        name: format!("gone:{}", left.case),
        keep: FREEZE,
    };
    let id = format!("gone:{}", left.case);
    let said = |_: &Loaded| {
        let entry = Entry::system(id.clone(), now.stamp(), "held_account_deleted", Some(&left.case))
            .with("allowed", &left.allowed)
            .with("frozen", left.frozen)
            .alarming();
        Some(Write::saying(subject, entry))
    };
    tracing::error!(upstream = %subject.upstream, case = left.case, "an account was deleted while it was restricted");
    flow.store.update(&key, Parts::RECORD, Some(&mark), &said).await?;
    Ok(())
}

async fn until(flow: &Flow, upstream: &UpstreamId) -> Result<i64, FlowError> {
    let text = flow.store.setting(&any(upstream)).await?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(i64::MIN))
}

/// What restricted the accounts that went and were known by a name of this one, where it still runs; the strictest.
async fn left_behind(
    flow: &Flow,
    upstream: &UpstreamId,
    account: &Account,
) -> Result<Option<Left>, FlowError> {
    let now = flow.now(None);
    let runs = |until: i64| now.earliest() < Timestamp::from_millis(until);
    // An account that was there long before cannot be one that was made again.
    if account.created.plus(FREEZE) < now.earliest() || !runs(until(flow, upstream).await?) {
        return Ok(None);
    }
    let mut found: Option<Left> = None;
    for name in names(account) {
        let text = flow.store.setting(&named(upstream, name)).await?;
        let left = text.and_then(|text| serde_json::from_str::<Left>(&text).ok());
        if let Some(left) = left.filter(|left| runs(left.until)) {
            found = Some(Left::stricter(found, left));
        }
    }
    Ok(found)
}

/// Restricts an account that is known by a name of one that went while it was restricted.
///
/// # Errors
/// [`FlowError`]: nothing was stored, and it has to be looked at again.
pub(super) async fn returned(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<(), FlowError> {
    let Some(left) = left_behind(flow, &subject.upstream, &reading.account).await? else {
        return Ok(());
    };
    let policy = flow.policy.load_full();
    let Some(tier) = policy.choose(reading.facts.as_ref()) else {
        return Err(FlowError::Unknown("the policy has no tier".to_owned()));
    };
    let key = flow.key(subject);
    let mark = Mark {
        name: format!("returned:{}:{}", left.case, subject.sub),
        keep: FREEZE,
    };
    let carried = Carried {
        ceiling: Some(Ceiling::parse(&left.allowed).unwrap_or(Ceiling::none())),
        contested: left.frozen,
        ..Carried::default()
    };
    let restrict = |loaded: &Loaded| {
        let now = flow.now(loaded.store_time);
        let evidence = Evidence {
            changes: &[],
            before: loaded.account.as_ref(),
            after: Some(&reading.account),
            carried: &carried,
            witnessed: false,
            lost: false,
            told_before: now.latest(),
            unheard: &BTreeSet::new(),
        };
        let setting = Setting {
            policy: &policy,
            tier,
            place: key.place(),
            now,
            reference: "",
        };
        let case = |change: &str| flow.case_of(subject, change);
        let known = |effect: &str| flow.store.told(effect);
        let mut made = rebuild(subject, loaded.record.as_ref(), evidence, &case, &known, setting)?;
        let entry = Entry::system(
            format!("returned:{}", made.record.epoch),
            now.stamp(),
            "deleted_account_returned",
            None,
        )
        .with("former_case", &left.case)
        .with("allowed", &left.allowed)
        .with("frozen", left.frozen)
        .alarming();
        made.audit.push(entry);
        told(&mut made, &reading.account, &left, now, &policy);
        Some(Write::from(made))
    };
    flow.store
        .update(&key, Parts::ACCOUNT, Some(&mark), &restrict)
        .await?;
    Ok(())
}

/// Whoever has the account now learns that it is restricted, and why, and has the link to say that this was not them.
fn told(made: &mut Transition, account: &Account, left: &Left, now: Now, policy: &Policy) {
    let undoing = Undoing {
        event: &format!("returned:{}", left.case),
        what: "the account was deleted while it was restricted, and made again",
        own: false,
    };
    if let Some(told) = tampered(&made.record, Some(account), undoing, now, policy) {
        made.record = told.record;
        made.effects.extend(told.effects);
    }
}
