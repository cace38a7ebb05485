//! The ways out of a freeze that need no administrator: quorum, identity verification, an eligible passkey.

use super::{Contest, distinct, plain, send};
use crate::domain::audit::Entry;
use crate::domain::hold::{Record, Transition};
use crate::domain::notice::{Content, Ended, Message};
use crate::domain::policy::{Exit, Policy};
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span};

/// What proves that somebody may leave a freeze by another way than a thaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitProof {
    /// Distinct trusted intermediaries approved, of whom this many were needed.
    Quorum {
        /// Who approved.
        approvals: Vec<String>,
        /// How many are needed, at least two.
        needed: usize,
    },
    /// An identity-verification provider recognised the owner.
    IdentityVerification,
    /// A passkey with user verification; says whether it is eligible against the contested change.
    Passkey {
        /// Enrolled before the contested change and past its probation.
        eligible: bool,
        /// User verification was performed.
        verified: bool,
    },
}

/// Leaves a freeze by quorum, identity verification or passkey; the holds that run stay. `None` when the proof
/// does not do, or the tier has no such exit. An eligible passkey overrules a mailbox, 24 h after everyone was told.
#[must_use]
pub fn leave(
    old: &Record,
    account: &Account,
    proof: &ExitProof,
    now: Now,
    policy: &Policy,
) -> Option<Transition> {
    let contest = old.contest.as_ref()?;
    let (exit, enough) = match proof {
        ExitProof::Quorum { approvals, needed } => {
            (Exit::Quorum, distinct(approvals, old) >= (*needed).max(2))
        }
        ExitProof::IdentityVerification => (Exit::IdentityVerification, true),
        ExitProof::Passkey { eligible, verified } => {
            let waited = contest
                .told
                .is_some_and(|told| told.plus(Span::from_hours(24)) <= now.earliest());
            (Exit::Passkey, *eligible && *verified && waited)
        }
    };
    if !enough || !contest.exits.contains(&exit) {
        return None;
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let id = format!("{}:left:{}", contest.case, t.record.updated.millis());
    t.audit.push(
        Entry::system(id, now.latest(), "freeze_left", Some(&contest.case))
            .with("exit", format!("{exit:?}"))
            .with("enforced", contest.enforced),
    );
    if contest.enforced {
        let message = Content {
            ended: Some(Ended::Proven),
            ..plain(Message::FreezeEnded, now)
        };
        send(
            &mut t,
            account,
            &contest.case,
            contest.contested_since,
            &message,
            policy,
        );
    }
    // What came with the contested change is still there: that somebody is the owner does not make it the owner's.
    t.record.lapsed = contest.enforced.then(|| Contest {
        thaw: None,
        proven: Some(now.latest()),
        ..contest.clone()
    });
    t.record.contest = None;
    t.converge();
    Some(t)
}
