//! A line of the IdP's log becomes a transition, exactly once in effect.
//!
//! The mark of an event is set in the same atomic step as what it did, so a line may be read any number of
//! times, by the poller and by the log-in-time check, in any order.

mod contacts;
mod login;
mod mark;
mod ours;

use std::collections::BTreeSet;

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::hold::apply::{Setting, apply};
use crate::domain::hold::attempt::Undoing;
use crate::domain::hold::rebuild::{hush, was_told};
use crate::domain::hold::{Record, Transition};
use crate::domain::session::Withdrawal;
use crate::domain::subject::account::{Account, Contact, ContactKind, FactorClass};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Span, Timestamp};
use crate::flow::tamper::{acted, disagreed, tampered};
use crate::flow::{Flow, FlowError, kin, session, told};
use crate::ports::idp::{Heard, IdpError, Line, Observation, Reading, Told};
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, Parts, Updated, Write};

pub(super) use contacts::contacts_lost;
use contacts::{contact_change, lost_contacts};
pub use login::{Checked, login_check};
use mark::change_mark;
pub(super) use mark::unheard;
pub(super) use ours::took_away;

/// How long an event is remembered: longer than any overlap or back-fill of a poller.
pub(super) const MARK_KEEP: Span = Span::from_days(60);

/// When the lines of a page were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// While we stood beside the IdP, or could have.
    Ours,
    /// Before this installation first read the log: what still holds, holds; what would only be told says nothing.
    Before,
}

/// Takes one line of the IdP's log.
///
/// # Errors
/// [`FlowError`]: nothing was stored, the line has to come again. An account that is gone is no error.
pub async fn line(flow: &Flow, upstream: &UpstreamId, line: &Line, era: Era) -> Result<Updated, FlowError> {
    let Some(subject) = Subject::new(upstream.clone(), &line.sub) else {
        return Err(FlowError::Unknown(line.sub.clone()));
    };
    take(flow, &subject, &line.heard, &mut None, era).await
}

/// Takes what is heard of an account, with a reading that is no older where there is one; else one is made, and is there
/// for the account's next line.
///
/// # Errors
/// As [`line()`].
pub(super) async fn take(
    flow: &Flow,
    subject: &Subject,
    heard: &Heard,
    reading: &mut Option<Reading>,
    era: Era,
) -> Result<Updated, FlowError> {
    match heard {
        Heard::Change(change) => {
            let updated = changed(flow, subject, change, reading, era).await?;
            Ok(updated.unwrap_or(Updated::Unchanged))
        }
        Heard::Withdrawn { what, .. } => {
            // Only what was deleted is told so by a line; that it was switched off is read.
            if *what == Withdrawal::Account {
                kin::gone(flow, subject).await?;
            }
            Ok(session::withdraw(flow, subject, what).await?)
        }
        Heard::Touched { id } => touched(flow, subject, id, reading).await,
        Heard::Tampered { id, what, own } => {
            let (event, own) = (id.as_str(), *own);
            tampered(flow, subject, Undoing { event, what, own }).await
        }
        Heard::Entered { id } => {
            let loaded = flow.store.read(&flow.key(subject), Parts::RECORD).await?;
            let now = flow.now(loaded.store_time);
            let held = |record: &Record| record.restriction(now).is_some();
            if !loaded.record.as_ref().is_some_and(held) {
                return Ok(Updated::Unchanged);
            }
            touched(flow, subject, id, reading).await
        }
        Heard::Acted { id, what, at, made } => acted(flow, subject, (id, *at), what, made.as_deref()).await,
    }
}

/// Takes the lines of an observation: those of `events`, or all; always those that no log has.
///
/// # Errors
/// [`FlowError`]: the account has to be observed again; what was stored stays.
pub(super) async fn observed(
    flow: &Flow,
    subject: &Subject,
    observation: &Observation,
    events: Option<&BTreeSet<String>>,
    era: Era,
) -> Result<(), FlowError> {
    let unlogged = |told: &&Told| matches!(&told.heard, Heard::Change(c) if c.source == Source::Reconcile);
    let wanted = |told: &&Told| events.is_none_or(|events| events.contains(&told.event)) || unlogged(told);
    let mut reading = Some(observation.reading.clone());
    for told in observation.told.iter().filter(wanted) {
        take(flow, subject, &told.heard, &mut reading, era).await?;
    }
    Ok(())
}

/// Takes a change that was pushed: as [`line()`], but somebody has to be told when there is no such account.
///
/// # Errors
/// [`FlowError`]: nothing was stored; [`IdpError::UnknownSubject`] when the IdP knows no such account.
pub async fn pushed(flow: &Flow, upstream: &UpstreamId, line: &Line) -> Result<Updated, FlowError> {
    let Heard::Change(change) = &line.heard else {
        return self::line(flow, upstream, line, Era::Ours).await;
    };
    let subject = Subject::new(upstream.clone(), &line.sub)
        .ok_or_else(|| FlowError::Unknown("the `sub` is none".to_owned()))?;
    let updated = changed(flow, &subject, change, &mut None, Era::Ours).await?;
    updated.ok_or(FlowError::Idp(IdpError::UnknownSubject))
}

/// A change: judged by the tier the account has now. `None` when there is no such account (any more).
async fn changed(
    flow: &Flow,
    subject: &Subject,
    change: &Change,
    reading: &mut Option<Reading>,
    era: Era,
) -> Result<Option<Updated>, FlowError> {
    // A log-in-time check brings what has long been stored: no need to read the account for that.
    let parts = Parts::RECORD.while_rebuilding();
    let known = flow.store.read(&flow.key(subject), parts).await?.record;
    let same = |c: &crate::domain::hold::Cause| {
        c.change == change.id
            && c.sources.contains(&change.source)
            && (c.row == change.row() || change.kind == ChangeKind::CredentialInitialised)
    };
    if known.is_some_and(|record| record.causes.iter().any(same)) {
        // It may have been stored by a try that was never acknowledged: who finds its mark has that confirmed.
        let (key, mark) = (flow.key(subject), change_mark(change));
        flow.store.update(&key, parts, Some(&mark), &|_| None).await?;
        return Ok(Some(Updated::Duplicate));
    }
    if reading.is_none() {
        match steady_reading(flow, subject).await {
            Ok(live) => *reading = Some(live),
            Err(FlowError::Idp(IdpError::UnknownSubject)) => return Ok(None),
            Err(error) => {
                // Facts that cannot be read choose the strictest tier: waiting for them would leave tokens whole.
                tracing::warn!(upstream = %subject.upstream, %error, "account unreadable at a change: strictest tier");
            }
        }
    }
    store_change(flow, subject, change, reading.as_ref(), era)
        .await
        .map(Some)
}

/// A live reading, with a second try for a passing fault.
async fn steady_reading(flow: &Flow, subject: &Subject) -> Result<Reading, FlowError> {
    match flow.reading(subject).await {
        Err(FlowError::Idp(IdpError::Unreachable(_))) => flow.reading(subject).await,
        other => other,
    }
}

/// Whether an administrator's edit only seems to take away an address, since the log no longer has the line that did:
/// the snapshot of before does not have the address any more.
pub(super) fn is_old_news(flow: &Flow, snapshot: Option<&Account>, change: &Change) -> bool {
    let (Some(account), Some(address)) = (snapshot, change.previous_address.as_deref()) else {
        return false;
    };
    if change.source != Source::AdminEvents {
        return false;
    }
    let kind = match change.kind {
        ChangeKind::EmailChanged => ContactKind::Email,
        ChangeKind::PhoneChanged => ContactKind::Phone,
        _ => return false,
    };
    let id = flow.seal.channel(kind, address);
    let had = account.contacts.iter().find(|c| c.id == id);
    // What went at the edit may be dated by either clock.
    let by_either = |gone: Timestamp| gone.plus(told::TELLS).plus(change.offset.abs());
    let edited = change.at.minus(change.offset);
    had.is_none_or(|c| c.gone.is_some_and(|gone| by_either(gone) < edited))
}

/// Stores one change and the snapshot that goes with it, unless its mark is there.
///
/// # Errors
/// [`FlowError`]: nothing was stored.
pub(super) async fn store_change(
    flow: &Flow,
    subject: &Subject,
    change: &Change,
    reading: Option<&Reading>,
    era: Era,
) -> Result<Updated, FlowError> {
    let (key, mark) = (flow.key(subject), change_mark(change));
    let policy = flow.policy.load_full();
    let facts = reading.and_then(|r| r.facts.as_ref());
    let Some(tier) = policy.choose(facts) else {
        return Err(FlowError::Unknown("the policy has no tier".to_owned()));
    };
    let case = flow.case_of(subject, &change.id);
    let after = reading.map(|r| &r.account);
    let parts = Parts::ACCOUNT.while_rebuilding();
    let updated = flow
        .store
        .update(&key, parts, Some(&mark), &|loaded| {
            if is_old_news(flow, loaded.account.as_ref(), change) {
                return None;
            }
            let now = flow.now(loaded.store_time);
            let setting = Setting {
                policy: &policy,
                tier,
                place: key.place(),
                now,
                reference: &case,
            };
            let before = before(flow, loaded, after, change);
            let change = confirmed(change, loaded.account.as_ref(), after);
            let change = with_channel(&change, before.as_ref());
            apply(
                subject,
                loaded.record.as_ref(),
                before.as_ref(),
                after,
                &change,
                setting,
            )
            .and_then(|t| spoken(flow, t, loaded, &change, era))
            .map(|mut t| {
                let (had, told) = (loaded.account.as_ref(), std::slice::from_ref(&change));
                // A use of a code changes nothing of the account but the number that is left.
                let used = (change.kind == ChangeKind::RecoveryCodeUsed)
                    .then_some(had)
                    .flatten();
                let account = t.account.take().or_else(|| used.cloned());
                t.account =
                    account.map(|account| told::counted(told::known(&account, had, told), after, &change));
                Write::from(t)
            })
        })
        .await?;
    if matches!(updated, Updated::Stored) {
        metrics::counter!("reentry_changes_total", "kind" => format!("{:?}", change.kind)).increment(1);
        tracing::info!(upstream = %subject.upstream, kind = ?change.kind, source = change.source.as_str(), tier = %tier.name.0, "change stored");
    }
    Ok(updated)
}

/// Leaves out what was said before: to owners before the store was lost, or before this installation was there.
fn spoken(flow: &Flow, mut t: Transition, loaded: &Loaded, change: &Change, era: Era) -> Option<Transition> {
    let Some(told_before) = loaded.told_before else {
        return (era == Era::Ours || holds(&t.record, &change.id)).then_some(t);
    };
    let old = was_told(change.start(), told_before);
    hush(&mut t.effects, old, &|effect| flow.store.told(effect));
    if old {
        // Written down then, and announced: the rebuild says that it was.
        t.audit.clear();
    }
    Some(t)
}

/// A change as it is judged with a snapshot of before and a reading.
pub(super) fn judged(change: &Change, snapshot: Option<&Account>, after: Option<&Account>) -> Change {
    let change = confirmed(change, snapshot, after);
    with_channel(&change, snapshot.or(after))
}

/// Whether anything of a change restricts, as opposed to having only told.
fn holds(record: &Record, change: &str) -> bool {
    record
        .causes
        .iter()
        .any(|c| c.holds() && c.change.split('#').next() == Some(change))
}

/// The account as it was before the change, as far as anybody knows. A name that only a reading of after knows is the
/// hijacker's, and greets nobody.
fn before(flow: &Flow, loaded: &Loaded, after: Option<&Account>, change: &Change) -> Option<Account> {
    let nameless = after.map(|a| Account {
        name: String::new(),
        ..a.clone()
    });
    with_previous(flow, loaded.account.as_ref().or(nameless.as_ref()), change)
}

/// The snapshot with the address that the event itself names as the old one, in case the snapshot is younger.
fn with_previous(flow: &Flow, before: Option<&Account>, change: &Change) -> Option<Account> {
    let mut account = before?.clone();
    let kind = if change.kind == ChangeKind::PhoneChanged {
        ContactKind::Phone
    } else {
        ContactKind::Email
    };
    if let Some(address) = change
        .previous_address
        .as_deref()
        // What is pushed from outside is compared with the snapshot and never added to it: or whoever may push would
        // choose whom we write to.
        .filter(|_| change.kind.is_contact() && change.source != Source::Hook)
    {
        let id = flow.seal.channel(kind, address);
        if !account.contacts.iter().any(|c| c.id == id) {
            let since = account.created.min(change.start().minus(Span::from_millis(1)));
            let gone = Some(change.start());
            account.contacts.push(Contact {
                id,
                kind,
                address: address.to_owned(),
                verified: false,
                since,
                gone,
            });
        }
    }
    Some(account)
}

/// A credential is stored this long before the event that tells of it, at most.
const STORED: Span = Span::from_secs(5);
/// What is linked this soon after an account was made belongs to its making.
const AT_CREATION: Span = Span::from_mins(5);

/// A first enrolment is believed only when the snapshot of before shows none of its class: an IdP's log cannot tell
/// an account that never had a password from one that was created with it. Else it is what it would have been.
fn confirmed(change: &Change, snapshot: Option<&Account>, after: Option<&Account>) -> Change {
    let mut change = change.clone();
    if change.kind == ChangeKind::RecoveryCodesReset && change.source == Source::UserEvents {
        let codes = |account: &Account| {
            account
                .factors
                .iter()
                .any(|f| f.class == FactorClass::RecoveryCodes)
        };
        // An account's first codes take no others' place.
        if snapshot.is_some_and(|account| !codes(account)) {
            change.kind = ChangeKind::FactorAdded;
        }
        return change;
    }
    if change.kind != ChangeKind::CredentialInitialised {
        return change;
    }
    let earlier = |account: &Account| {
        account
            .factors
            .iter()
            .any(|f| Some(f.class) == change.factor && (!f.is_dated() || f.created < change.at.minus(STORED)))
    };
    let born = |account: &Account| {
        change.factor == Some(FactorClass::FederatedLink)
            && account.is_young(change.at, AT_CREATION)
            && !earlier(account)
    };
    let first = match snapshot {
        Some(account) => !earlier(account),
        None => after.is_some_and(born),
    };
    if !first {
        change.kind = match (change.factor, &change.proof) {
            (Some(FactorClass::Password), Proof::Administrator) => ChangeKind::PasswordSetByAdmin,
            (Some(FactorClass::Password), Proof::RecentLogin | Proof::EligibleFactor) => {
                ChangeKind::PasswordChanged
            }
            (Some(FactorClass::Password) | None, _) => ChangeKind::PasswordReset,
            (Some(FactorClass::RecoveryCodes), _) => ChangeKind::RecoveryCodesReset,
            (Some(FactorClass::FederatedLink), _) => ChangeKind::FederatedLinkChanged,
            (Some(FactorClass::Otp | FactorClass::Passkey | FactorClass::Other), _) => {
                ChangeKind::FactorAdded
            }
        };
    }
    change
}

/// The change with the mailbox that carried its proof, for the bound on repeated changes.
fn with_channel(change: &Change, account: Option<&Account>) -> Change {
    let mut change = change.clone();
    if change.proof == Proof::Message && change.channel.is_none() {
        let start = change.start();
        let mailbox = account.and_then(|a| {
            a.contacts.iter().find(|c| {
                c.kind == ContactKind::Email && c.since < start && c.gone.is_none_or(|gone| gone >= start)
            })
        });
        change.channel = mailbox.map(|c| c.id.clone());
    }
    change
}

/// Something about the account may differ: compare contacts with the snapshot, refresh it.
async fn touched(
    flow: &Flow,
    subject: &Subject,
    id: &str,
    known: &mut Option<Reading>,
) -> Result<Updated, FlowError> {
    let reading = match known.take() {
        Some(reading) => reading,
        None => match steady_reading(flow, subject).await {
            Ok(reading) => reading,
            Err(FlowError::Idp(IdpError::UnknownSubject)) => {
                kin::gone(flow, subject).await?;
                return Ok(session::withdraw(flow, subject, &Withdrawal::Account).await?);
            }
            Err(error) => return Err(error),
        },
    };
    let reading: &Reading = known.insert(reading);
    kin::returned(flow, subject, reading).await?;
    if reading.is_withdrawn() {
        session::withdraw(flow, subject, &Withdrawal::Account).await?;
    }
    let key = flow.key(subject);
    let loaded = flow.store.read(&key, Parts::ACCOUNT).await?;
    if let Some(before) = &loaded.account {
        for (kind, address) in lost_contacts(before, &reading.account) {
            let change = contact_change(flow, id, kind, address, flow.now(loaded.store_time));
            store_change(flow, subject, &change, Some(reading), Era::Ours).await?;
        }
    }
    disagreed(flow, subject, &loaded, reading, id).await?;
    let known = told::known(&reading.account, loaded.account.as_ref(), &[]);
    refresh(flow, &key, &known).await
}

/// Stores a fresh snapshot when it says something new.
///
/// # Errors
/// [`FlowError::Store`].
pub async fn refresh(flow: &Flow, key: &SubjectKey, reading: &Account) -> Result<Updated, FlowError> {
    let updated = flow
        .store
        .update(key, Parts::ACCOUNT, None, &|loaded| {
            let seen: Timestamp = flow.now(loaded.store_time).latest();
            let mut next = loaded
                .account
                .as_ref()
                .map_or_else(|| reading.clone(), |old| old.refreshed(reading, seen));
            // Nobody is greeted by a name that was chosen while somebody else may hold the account.
            let now = flow.now(loaded.store_time);
            let quiet = |r: &Record| r.restriction(now).is_none() && r.doubt().is_none();
            if loaded.record.as_ref().is_none_or(quiet) {
                next.name.clone_from(&reading.name);
            }
            (loaded.account.as_ref() != Some(&next)).then(|| Write {
                account: Some(next),
                ..Write::default()
            })
        })
        .await?;
    Ok(updated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subject::account::Factor;

    fn first(class: FactorClass, proof: Proof) -> Change {
        Change {
            id: "e".to_owned(),
            source: Source::UserEvents,
            kind: ChangeKind::CredentialInitialised,
            factor: Some(class),
            at: Timestamp::from_secs(1_000_000),
            offset: Span::ZERO,
            received: Timestamp::from_secs(1_000_001),
            proof,
            mediated: false,
            session: None,
            channel: None,
            origin: None,
            previous_address: None,
        }
    }

    fn account(class: FactorClass, created: i64) -> Account {
        let factor = Factor {
            id: "f".to_owned(),
            class,
            created: Timestamp::from_secs(created),
            gone: None,
            at_creation: false,
            remaining: None,
        };
        Account {
            created: Timestamp::from_secs(999_900),
            factors: vec![factor],
            ..Account::default()
        }
    }

    // row A6: an invitation is believed by the snapshot, never by the log alone.
    #[test]
    fn a_first_enrolment_is_believed_only_when_the_snapshot_shows_none_before() {
        let password = first(FactorClass::Password, Proof::Message);
        let kind = |change: &Change, snapshot: Option<&Account>, after: Option<&Account>| {
            confirmed(change, snapshot, after).kind
        };
        let otp = account(FactorClass::Otp, 1);
        assert_eq!(
            kind(&password, Some(&otp), None),
            ChangeKind::CredentialInitialised
        );
        let itself = account(FactorClass::Password, 999_999);
        assert_eq!(
            kind(&password, Some(&itself), None),
            ChangeKind::CredentialInitialised
        );
        let had = account(FactorClass::Password, 999_000);
        assert_eq!(kind(&password, Some(&had), None), ChangeKind::PasswordReset);
        assert_eq!(
            kind(&password, None, Some(&itself)),
            ChangeKind::PasswordReset,
            "no snapshot"
        );
        let proven = first(FactorClass::Password, Proof::RecentLogin);
        assert_eq!(
            kind(&proven, Some(&had), None),
            ChangeKind::PasswordChanged,
            "the one that the account was made with was proven"
        );
        let by_admin = first(FactorClass::Password, Proof::Administrator);
        assert_eq!(kind(&by_admin, None, None), ChangeKind::PasswordSetByAdmin);
        let link = first(FactorClass::FederatedLink, Proof::Unproven);
        let linked = account(FactorClass::FederatedLink, 1_000_000);
        assert_eq!(
            kind(&link, None, Some(&linked)),
            ChangeKind::CredentialInitialised,
            "born with the account"
        );
        assert_eq!(kind(&link, None, None), ChangeKind::FederatedLinkChanged);
    }

    // row B1: the first recovery codes are a factor more; the snapshot knows whether there were others.
    #[test]
    fn first_recovery_codes_take_no_others_place() {
        let set = |source| Change {
            kind: ChangeKind::RecoveryCodesReset,
            source,
            ..first(FactorClass::RecoveryCodes, Proof::EligibleFactor)
        };
        let kind = |source, snapshot: Option<&Account>| confirmed(&set(source), snapshot, None).kind;
        let none = account(FactorClass::Password, 1);
        let mut had = account(FactorClass::RecoveryCodes, 1);
        assert_eq!(kind(Source::UserEvents, Some(&none)), ChangeKind::FactorAdded);
        let reset = ChangeKind::RecoveryCodesReset;
        assert_eq!(kind(Source::UserEvents, Some(&had)), reset);
        had.factors[0].gone = Some(Timestamp::from_secs(2));
        assert_eq!(
            kind(Source::UserEvents, Some(&had)),
            reset,
            "somebody took them away"
        );
        assert_eq!(kind(Source::UserEvents, None), reset, "no snapshot");
        assert_eq!(
            kind(Source::Reconcile, Some(&none)),
            reset,
            "no line tells of them"
        );
    }
}
