//! Changes that no line of the IdP's log tells of: the log was switched off, shrunk or cleared, or the IdP never says.
//!
//! What the account has now is compared with the snapshot of before, which every change that *was* told has already
//! brought up to date. So a credential with another date than the snapshot's was set behind our back, and what cannot
//! be told apart from a recovery counts as one. Logins at other providers are left out: only the log knows their age.

use std::collections::HashSet;

use crate::domain::change::{Change, ChangeKind};
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, Factor, FactorClass};
use crate::domain::time::{Now, Span};
use crate::flow::ingest::Era;
use crate::flow::{Flow, FlowError, ingest, told};
use crate::ports::idp::{Heard, Reading};
use crate::ports::store::Parts;

/// Takes in every credential of `reading` that neither the snapshot nor a line knows.
///
/// # Errors
/// [`FlowError`]: the check has to be repeated.
pub async fn check(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<(), FlowError> {
    let unknown = found(flow, subject, reading).await?;
    let Some(first) = unknown.iter().map(|change| change.at).min() else {
        return Ok(());
    };
    // A line is stored together with the account as it was read then. So one that is asked for now, after the
    // credential was seen, is there; but the account may have been read a moment too early, when the IdP already told
    // of the change and still showed the account of before. What a line tells of is judged by that line alone.
    let since = first.minus(told::TELLS);
    let idp = flow.idp(&subject.upstream)?;
    let lines = idp.story(&subject.sub, since, flow.now(None)).await?;
    let mut changes = Vec::new();
    for one in lines {
        if let Heard::Change(change) = &one.heard {
            ingest::line(flow, &subject.upstream, &one, Era::Ours).await?;
            changes.push(change.clone());
        }
    }
    let before = flow.store.read(&flow.key(subject), Parts::ACCOUNT).await?.account;
    let silent = told::silent(&reading.account, before.as_ref(), &changes);
    let silent: HashSet<String> = silent.into_iter().map(told::id).collect();
    let (untold, explained): (Vec<Change>, Vec<Change>) = found(flow, subject, reading)
        .await?
        .into_iter()
        .partition(|change| change.kind == ChangeKind::RecoveryCodeUsed || silent.contains(&change.id));
    for change in untold {
        tracing::warn!(upstream = %subject.upstream, kind = ?change.kind, "a credential was set or used and no log says so");
        ingest::store_change(flow, subject, &change, Some(reading), Era::Ours).await?;
    }
    if !explained.is_empty() {
        ingest::refresh(flow, &flow.key(subject), &reading.account).await?;
    }
    Ok(())
}

/// Takes in every contact that went and that no line tells of: a directory, or a user database of somebody's own,
/// changes addresses without one.
///
/// # Errors
/// [`FlowError`]: the check has to be repeated.
pub async fn contacts(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<(), FlowError> {
    if lost(flow, subject, reading).await?.is_empty() {
        return Ok(());
    }
    // The line may have come between the log and the account when they were read.
    let now = flow.now(None);
    let idp = flow.idp(&subject.upstream)?;
    for one in idp
        .story(&subject.sub, now.earliest().minus(told::TELLS), now)
        .await?
    {
        if matches!(one.heard, Heard::Change(_)) {
            ingest::line(flow, &subject.upstream, &one, Era::Ours).await?;
        }
    }
    for change in lost(flow, subject, reading).await? {
        tracing::warn!(upstream = %subject.upstream, kind = ?change.kind, "a contact went and no log says so");
        ingest::store_change(flow, subject, &change, Some(reading), Era::Ours).await?;
    }
    Ok(())
}

async fn lost(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<Vec<Change>, FlowError> {
    let loaded = flow.store.read(&flow.key(subject), Parts::ACCOUNT).await?;
    let before = loaded.account.as_ref();
    Ok(before.map_or_else(Vec::new, |before| {
        ingest::contacts_lost(flow, before, &reading.account, loaded.store_time)
    }))
}

async fn found(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<Vec<Change>, FlowError> {
    let loaded = flow.store.read(&flow.key(subject), Parts::ACCOUNT).await?;
    let now = flow.now(loaded.store_time);
    let enrolment = flow.policy.load().enrolment_window;
    let before = loaded.account.as_ref();
    Ok(before.map_or_else(Vec::new, |before| {
        let mut changes = credentials(before, reading, now, enrolment);
        changes.extend(told::spent(before, &reading.account, (now, reading.ahead)));
        changes
    }))
}

/// The changes that explain credentials that are there now and that `before` does not have.
fn credentials(before: &Account, reading: &Reading, now: Now, enrolment: Span) -> Vec<Change> {
    let account = &reading.account;
    let known = |factor: &Factor| {
        before
            .factors
            .iter()
            .any(|old| old.id == factor.id && old.created == factor.created)
    };
    let untold = account
        .factors
        .iter()
        .filter(|factor| factor.gone.is_none() && factor.class != FactorClass::FederatedLink)
        .filter(|factor| !known(factor));
    untold
        .map(|factor| {
            let first = account.is_young(factor.created, enrolment)
                && !before.factors.iter().any(|old| old.class == factor.class);
            let mut change = told::by_date(factor, (now, reading.ahead));
            if first {
                change.kind = ChangeKind::CredentialInitialised;
            }
            change
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn account(factors: &[(&str, FactorClass, i64)]) -> Account {
        let factor = |(id, class, created): &(&str, FactorClass, i64)| Factor {
            id: (*id).to_owned(),
            class: *class,
            created: Timestamp::from_secs(*created),
            gone: None,
            at_creation: false,
            remaining: None,
        };
        Account {
            created: Timestamp::from_secs(1_000),
            factors: factors.iter().map(factor).collect(),
            ..Account::default()
        }
    }

    #[test]
    fn a_credential_with_another_date_than_the_snapshots_is_a_change() {
        let (password, otp, link) = (
            FactorClass::Password,
            FactorClass::Otp,
            FactorClass::FederatedLink,
        );
        let before = account(&[("p", password, 1_000), ("link:x", link, 1_000)]);
        let found = |now: &Account, enrolment: i64| -> Vec<(String, ChangeKind)> {
            let reading = Reading {
                account: now.clone(),
                ..Reading::default()
            };
            let clock = Now::exact(Timestamp::from_secs(9_000));
            credentials(&before, &reading, clock, Span::from_secs(enrolment))
                .into_iter()
                .map(|change| (change.id, change.kind))
                .collect()
        };
        assert_eq!(found(&before.clone(), 0), []);
        let now = account(&[("p", password, 8_000), ("o", otp, 8_500), ("link:x", link, 2_000)]);
        let reset = ("p@8000000".to_owned(), ChangeKind::PasswordReset);
        let added = ("o@8500000".to_owned(), ChangeKind::FactorAdded);
        assert_eq!(found(&now, 0), [reset.clone(), added]);
        let first = ("o@8500000".to_owned(), ChangeKind::CredentialInitialised);
        assert_eq!(
            found(&now, 100_000),
            [reset, first],
            "a young account may enrol its first of a class"
        );
        let mut gone = account(&[("p", password, 1_000), ("o", otp, 8_500)]);
        gone.factors[1].gone = Some(Timestamp::from_secs(8_600));
        assert_eq!(found(&gone, 0), []);
    }
}
