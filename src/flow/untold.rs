//! Changes that no line of the IdP's log tells of: the log was switched off, shrunk or cleared, or the IdP never says.
//!
//! What the account has now is compared with the snapshot of before, which every change that *was* told has already
//! brought up to date. So a credential with another date than the snapshot's was set behind our back, and what cannot
//! be told apart from a recovery counts as one. Logins at other providers are left out: only the log knows their age.

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::Subject;
use crate::domain::subject::account::{Account, Factor, FactorClass};
use crate::domain::time::{Span, Timestamp};
use crate::flow::ingest::Era;
use crate::flow::rebuild::TELLS;
use crate::flow::{Flow, FlowError, ingest};
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
    let since = first.minus(TELLS);
    let idp = flow.idp(&subject.upstream)?;
    let lines = idp.story(&subject.sub, since, flow.now(None)).await?;
    let mut told = Vec::new();
    for one in &lines {
        if let Heard::Change(change) = &one.heard {
            ingest::line(flow, &subject.upstream, one, Era::Ours).await?;
            // A line that tells of a removal explains nothing that is there.
            if change.kind != ChangeKind::FactorRemoved {
                told.push((change.factor, change.at));
            }
        }
    }
    let (told, untold): (Vec<Change>, Vec<Change>) =
        found(flow, subject, reading).await?.into_iter().partition(|new| {
            let tells =
                |(factor, at): &(_, Timestamp)| *factor == new.factor && at.since(new.at).abs() <= TELLS;
            told.iter().any(tells)
        });
    for change in untold {
        tracing::warn!(upstream = %subject.upstream, kind = ?change.kind, "a credential was set and no log says so");
        ingest::store_change(flow, subject, &change, Some(reading), Era::Ours).await?;
    }
    if !told.is_empty() {
        ingest::refresh(flow, &flow.key(subject), &reading.account).await?;
    }
    Ok(())
}

async fn found(flow: &Flow, subject: &Subject, reading: &Reading) -> Result<Vec<Change>, FlowError> {
    let loaded = flow.store.read(&flow.key(subject), Parts::ACCOUNT).await?;
    let received = flow.now(loaded.store_time).latest();
    let enrolment = flow.policy.load().enrolment_window;
    let before = loaded.account.as_ref();
    Ok(before.map_or_else(Vec::new, |before| {
        let mut changes = credentials(before, &reading.account, received, enrolment);
        for change in &mut changes {
            change.offset = reading.ahead;
        }
        changes
    }))
}

/// The changes that explain credentials of `now` that `before` does not have. The id is the one the adapter gives to
/// what it finds by date alone.
fn credentials(before: &Account, now: &Account, received: Timestamp, enrolment: Span) -> Vec<Change> {
    let known = |factor: &Factor| {
        before
            .factors
            .iter()
            .any(|old| old.id == factor.id && old.created == factor.created)
    };
    let untold = now
        .factors
        .iter()
        .filter(|factor| factor.gone.is_none() && factor.class != FactorClass::FederatedLink);
    untold
        .filter(|factor| !known(factor))
        .map(|factor| {
            let first = factor.created < now.created.plus(enrolment)
                && !before.factors.iter().any(|old| old.class == factor.class);
            let kind = match factor.class {
                _ if first => ChangeKind::CredentialInitialised,
                FactorClass::Password => ChangeKind::PasswordReset,
                FactorClass::RecoveryCodes => ChangeKind::RecoveryCodesReset,
                _ => ChangeKind::FactorAdded,
            };
            Change {
                id: format!("{}@{}", factor.id, factor.created.millis()),
                source: Source::Reconcile,
                kind,
                factor: Some(factor.class),
                at: factor.created,
                offset: Span::ZERO,
                received,
                proof: Proof::Unproven,
                mediated: false,
                session: None,
                channel: None,
                origin: None,
                previous_address: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(factors: &[(&str, FactorClass, i64)]) -> Account {
        let factor = |(id, class, created): &(&str, FactorClass, i64)| Factor {
            id: (*id).to_owned(),
            class: *class,
            created: Timestamp::from_secs(*created),
            gone: None,
            at_creation: false,
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
            let received = Timestamp::from_secs(9_000);
            credentials(&before, now, received, Span::from_secs(enrolment))
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
