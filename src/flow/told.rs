//! Which line of the IdP's log tells of which credential, and what is made of one that no line tells of.
//!
//! Neither names the other: they are of one class, and near to each other in time. Each line tells of one credential, and
//! the nearest pairs are made first, so that a credential that was set in silence is not taken for one that somebody
//! else's line tells of.

use std::collections::HashSet;

use crate::domain::change::{Change, ChangeKind, Proof, Source};
use crate::domain::subject::account::{Account, Factor, FactorClass};
use crate::domain::time::{Now, Span};

/// A credential and the line that tells of it are this near to each other, at most.
pub(super) const TELLS: Span = Span::from_mins(1);

/// Recovery codes are dated by when their page was shown, and told of when it is sent: so long after, at most.
const CODES: Span = Span::from_mins(30);
/// A credential that took another one's place is told of as that one's loss, in the same request.
const IN_ITS_PLACE: Span = Span::from_secs(2);

/// How far a line is from a credential that it may tell of.
fn apart(factor: &Factor, change: &Change) -> Option<Span> {
    if change.factor != Some(factor.class) {
        return None;
    }
    let (after, apart) = (
        change.at.since(factor.created),
        change.at.since(factor.created).abs(),
    );
    let voluntary = matches!(change.proof, Proof::RecentLogin | Proof::EligibleFactor);
    let most = match factor.class {
        // What an owner removed explains nothing that is there.
        _ if change.kind == ChangeKind::FactorRemoved && voluntary => return None,
        _ if change.kind == ChangeKind::FactorRemoved => IN_ITS_PLACE,
        FactorClass::RecoveryCodes if after > Span::ZERO => CODES,
        _ => TELLS,
    };
    (apart <= most).then_some(apart)
}

/// The credentials that an account has now and that none of these changes tells of. `before`: what it had when it was
/// last read, for lines that tell of a credential that has been replaced since. Log-ins at other providers are left out:
/// only the log knows their age.
pub(super) fn silent<'a>(now: &'a Account, before: Option<&'a Account>, told: &[Change]) -> Vec<&'a Factor> {
    let credential = |factor: &&Factor| factor.class != FactorClass::FederatedLink;
    let there = now.factors.iter().filter(credential).filter(|f| f.gone.is_none());
    let mut all: Vec<&Factor> = there.collect();
    let still = all.len();
    let former = before.into_iter().flat_map(|account| &account.factors);
    for factor in former.filter(credential) {
        let same = |f: &&Factor| f.id == factor.id && f.created == factor.created;
        if !all.iter().any(same) {
            all.push(factor);
        }
    }
    let mut pairs = Vec::new();
    for (credential, factor) in all.iter().enumerate() {
        for (line, change) in told.iter().enumerate() {
            pairs.extend(apart(factor, change).map(|apart| (apart, credential, line)));
        }
    }
    pairs.sort_unstable();
    let (mut explained, mut used) = (HashSet::new(), HashSet::new());
    for (_, credential, line) in pairs {
        if !explained.contains(&credential) && used.insert(line) {
            explained.insert(credential);
        }
    }
    let there = all.into_iter().take(still).enumerate();
    there
        .filter(|(credential, _)| !explained.contains(credential))
        .map(|(_, factor)| factor)
        .collect()
}

/// The account as a snapshot may have it: without credentials that neither the snapshot of before has nor one of these
/// changes tells of. They are looked for at the next log-in, and by the reconcile. Without a snapshot of before
/// everything is as it was found.
pub(super) fn known(now: &Account, before: Option<&Account>, told: &[Change]) -> Account {
    let Some(before) = before else {
        return now.clone();
    };
    let had = |f: &Factor| {
        before
            .factors
            .iter()
            .any(|b| b.id == f.id && b.created == f.created)
    };
    let new = silent(now, Some(before), told).into_iter().filter(|f| !had(f));
    let new: HashSet<String> = new.map(id).collect();
    let mut account = now.clone();
    account
        .factors
        .retain(|f| f.gone.is_some() || !new.contains(&id(f)));
    account
}

/// The id of the change that a credential's date tells of: the same whoever finds it.
pub(super) fn id(factor: &Factor) -> String {
    format!("{}@{}", factor.id, factor.created.millis())
}

/// The change that a credential's date tells of; `now` by our clock, and how far the date's clock is ahead of it. One
/// without a date came just now, for all that anybody knows. What cannot be told apart from a recovery counts as one.
pub(super) fn by_date(factor: &Factor, (now, ahead): (Now, Span)) -> Change {
    let kind = match factor.class {
        FactorClass::Password => ChangeKind::PasswordReset,
        FactorClass::RecoveryCodes => ChangeKind::RecoveryCodesReset,
        _ => ChangeKind::FactorAdded,
    };
    Change {
        id: id(factor),
        source: Source::Reconcile,
        kind,
        factor: Some(factor.class),
        at: if factor.is_dated() {
            factor.created
        } else {
            now.latest().plus(ahead)
        },
        offset: ahead,
        received: now.latest(),
        proof: Proof::Unproven,
        mediated: false,
        session: None,
        channel: None,
        origin: None,
        previous_address: None,
    }
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
        };
        Account {
            factors: factors.iter().map(factor).collect(),
            ..Account::default()
        }
    }

    fn line(kind: ChangeKind, class: FactorClass, at: i64) -> Change {
        Change {
            id: format!("{kind:?}:{at}"),
            source: Source::UserEvents,
            kind,
            factor: Some(class),
            at: Timestamp::from_secs(at),
            offset: Span::ZERO,
            received: Timestamp::from_secs(at),
            proof: Proof::Unproven,
            mediated: false,
            session: None,
            channel: None,
            origin: None,
            previous_address: None,
        }
    }

    fn untold(account: &Account, told: &[Change]) -> Vec<String> {
        silent(account, None, told).iter().map(|f| f.id.clone()).collect()
    }

    use ChangeKind::{FactorAdded, FactorRemoved};
    use FactorClass::{FederatedLink, Otp, Password};

    #[test]
    fn a_line_explains_a_credential_of_its_class_within_a_minute() {
        let now = account(&[("o", Otp, 1_000), ("link:x", FederatedLink, 1_000)]);
        assert_eq!(untold(&now, &[]), ["o"]);
        for (at, explains) in [(940, true), (1_060, true), (939, false), (1_061, false)] {
            let told = [line(FactorAdded, Otp, at)];
            assert_eq!(untold(&now, &told).is_empty(), explains, "{at}");
        }
        assert_eq!(
            untold(&now, &[line(ChangeKind::PasswordReset, Password, 1_000)]),
            ["o"]
        );
    }

    // P1: an authenticator that somebody put there in silence just after another was removed.
    #[test]
    fn a_removal_explains_nothing_that_is_there() {
        let now = account(&[("o", Otp, 1_000)]);
        let removed = |at, proof| Change {
            proof,
            ..line(FactorRemoved, Otp, at)
        };
        assert_eq!(untold(&now, &[removed(990, Proof::Message)]), ["o"]);
        assert_eq!(untold(&now, &[removed(1_000, Proof::RecentLogin)]), ["o"]);
        // But for one that a reset put in the place of another: its line is that of the loss.
        assert_eq!(
            untold(&now, &[removed(1_001, Proof::Message)]),
            Vec::<String>::new()
        );
    }

    // Keycloak dates recovery codes by when they were shown.
    #[test]
    fn recovery_codes_may_take_a_while_to_write_down() {
        let now = account(&[("r", FactorClass::RecoveryCodes, 1_000)]);
        for (at, explains) in [(939, false), (940, true), (2_800, true), (2_801, false)] {
            let told = [line(
                ChangeKind::RecoveryCodesReset,
                FactorClass::RecoveryCodes,
                at,
            )];
            assert_eq!(untold(&now, &told).is_empty(), explains, "{at}");
        }
    }

    // P1: an authenticator that somebody put there in silence just after the owner added one.
    #[test]
    fn a_line_explains_one_credential_the_nearest() {
        let now = account(&[("silent", Otp, 1_005), ("own", Otp, 1_000)]);
        let added = |at| line(FactorAdded, Otp, at);
        assert_eq!(untold(&now, &[added(1_000)]), ["silent"]);
        assert_eq!(untold(&now, &[added(1_000), added(1_030)]), Vec::<String>::new());
        // A password has one credential; its line tells of the one that was there.
        let (before, now) = (
            account(&[("p", Password, 1_000)]),
            account(&[("p", Password, 1_030)]),
        );
        let told = [line(ChangeKind::PasswordReset, Password, 1_000)];
        let found = silent(&now, Some(&before), &told);
        assert_eq!(
            found.iter().map(|f| f.created).collect::<Vec<_>>(),
            [Timestamp::from_secs(1_030)]
        );
        let had = account(&[("known", Otp, 950), ("new", Otp, 1_000)]);
        assert_eq!(untold(&had, &[added(950), added(1_000)]), Vec::<String>::new());
    }

    // P1: what was set in silence is still to be found when a change of something else was told first.
    #[test]
    fn a_snapshot_takes_in_what_it_had_and_what_was_told() {
        let before = account(&[("p", Password, 10), ("gone", Otp, 20)]);
        let mut now = account(&[
            ("p", Password, 1_000),
            ("o", Otp, 1_000),
            ("link:x", FederatedLink, 1_000),
        ]);
        let ids = |account: &Account| -> Vec<String> { account.factors.iter().map(id).collect() };
        assert_eq!(ids(&known(&now, None, &[])), ids(&now), "the first snapshot");
        assert_eq!(ids(&known(&now, Some(&before), &[])), ["link:x@1000000"]);
        let told = [line(FactorAdded, Otp, 1_001)];
        assert_eq!(
            ids(&known(&now, Some(&before), &told)),
            ["o@1000000", "link:x@1000000"]
        );
        now.factors.extend(before.factors.clone());
        assert_eq!(
            ids(&known(&now, Some(&before), &[])),
            ["link:x@1000000", "p@10000", "gone@20000"]
        );
    }
}
