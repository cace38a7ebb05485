//! What follows a thaw or a lapse: a `read` hold of the contested cause's full length.

use super::{Contest, Finding, plain, send};
use crate::domain::ceiling::Ceiling;
use crate::domain::change::{ChangeKind, Row};
use crate::domain::hold::{Cause, Record, Told, Transition};
use crate::domain::notice::{Content, Ended, Message};
use crate::domain::policy::{AtEnd, Policy};
use crate::domain::subject::account::{Account, Contact};
use crate::domain::time::{Now, Timestamp};

/// Puts the hold `after` in the place of the freeze `was` and tells everyone of both by one message, whose acceptance is
/// that hold's. A freeze that only `lapsed` was judged by nobody: what is contested stays in doubt.
pub(super) fn follow(
    t: &mut Transition,
    account: &Account,
    was: &Contest,
    lapsed: bool,
    mut after: Cause,
    now: Now,
    policy: &Policy,
) {
    let since = was.contested_since;
    let ended = match (&was.thaw, lapsed) {
        (Some(thaw), false) if thaw.finding == Finding::Owner => {
            if addresses_back(account, since) {
                Ended::ForTheOwner
            } else {
                Ended::TakenBack
            }
        }
        (_, false) => Ended::Unfounded,
        (_, true) => Ended::Lapsed,
    };
    t.record.contest = None;
    t.record.lapsed = (lapsed && was.enforced).then(|| Contest {
        thaw: None,
        ..was.clone()
    });
    let told = t.record.channels_before(account, since, policy).next().is_some();
    after.told = if told && after.enforced {
        Told::Pending
    } else {
        Told::NoChannel
    };
    after.episode = t.record.joined(after.at, after.end());
    if after.enforced {
        let content = Content {
            allowed: Some(after.allowed.clone()),
            until: (!lapsed).then(|| after.nominal_end()),
            ended: Some(ended),
            at_end: Some(after.at_end),
            ..plain(Message::FreezeEnded, now)
        };
        send(t, account, &after.reference, since, &content, policy);
    }
    t.record.causes.push(after);
    t.converge();
}

/// Whether taking back what was changed since `since` concerns an address: one that came with it, or one that went.
fn addresses_back(account: &Account, since: Timestamp) -> bool {
    let concerned = |c: &Contact| c.since >= since || c.gone.is_some_and(|gone| gone >= since);
    account.contacts.iter().any(concerned)
}

/// The `read` hold that follows a freeze.
pub(super) fn hold(old: &Record, contest: &Contest, reference: &str, now: Now, policy: &Policy) -> Cause {
    let from = old.cause(&contest.case);
    let tier = from
        .map(|c| c.tier.clone())
        .or_else(|| policy.strictest().map(|t| t.name.clone()));
    let tier = tier.unwrap_or(crate::domain::tier::TierName(String::new()));
    let rollout = policy
        .tier(&tier)
        .map_or(crate::domain::policy::Rollout::On, |t| t.enforce);
    Cause {
        reference: reference.to_owned(),
        change: format!("after:{}", contest.case),
        kind: from.map_or(ChangeKind::PasswordReset, |c| c.kind),
        row: Row::AfterContest,
        at: now.latest(),
        length: contest.hold,
        allowed: Ceiling::of(&["read"]),
        sources: Vec::new(),
        told: Told::Pending,
        told_min: policy.told_min.min(contest.hold.quarter()),
        tier,
        at_end: AtEnd::FreshEligibleLogin,
        digest: policy.digest.clone(),
        channel: None,
        bounded: false,
        rollout,
        enforced: contest.enforced,
        episode: 0,
        swept: false,
        contest_length: contest.hold,
        cap: None,
        origin: None,
    }
}
