//! How a record stands at an instant: what is restricted, what a session still owes, what the IdP has to carry. All of it
//! follows from what is stored and from the time that is asked about.

use super::contest::Contest;
use super::episode::Episode;
use super::{Cause, Posture, Record, Restriction, Told};
use crate::domain::ceiling::Ceiling;
use crate::domain::notice::Content;
use crate::domain::policy::AtEnd;
use crate::domain::time::{Now, Timestamp};

impl Record {
    /// The restriction at `now`, counting causes that `counts` lets through.
    fn restriction_of(&self, now: Now, counts: impl Fn(&Cause) -> bool) -> Option<Restriction> {
        let mut running = self.episodes(counts);
        running.retain(|e| now.earliest() < e.end());
        let last = running.iter().max_by_key(|e| e.end())?;
        Some(Restriction {
            allowed: running
                .iter()
                .fold(Ceiling::Full, |all, e| all.intersect(&e.allowed())),
            until: Some(last.end()),
            reference: last.reference(),
        })
    }

    /// The restriction in force at `now`; `None` when tokens are whole. Causes that are only observed (shadow,
    /// outside the cohort) restrict nothing.
    #[must_use]
    pub fn restriction(&self, now: Now) -> Option<Restriction> {
        if let Some(contest) = self.frozen() {
            return Some(Restriction {
                allowed: Ceiling::none(),
                until: None,
                reference: contest.case.clone(),
            });
        }
        if let Some(unreadable) = self.unreadable.as_ref().filter(|u| u.enforced) {
            return Some(Restriction {
                allowed: Ceiling::none(),
                until: None,
                reference: unreadable.case.clone(),
            });
        }
        self.restriction_of(now, |c| c.enforced)
    }

    /// What the restriction would be if every tier were switched on: for logs and metrics of a roll-out.
    #[must_use]
    pub fn shadow(&self, now: Now) -> Option<Restriction> {
        self.restriction_of(now, |_| true)
    }

    /// What a hold that is over by time still asks of a session that logged in at `auth_time`: a fresh log-in
    /// after its end (ISS-7). `eligible` says whether that log-in was with factors past their probation only.
    #[must_use]
    pub fn awaits_login(
        &self,
        now: Now,
        auth_time: Option<Timestamp>,
        eligible: bool,
    ) -> Option<Restriction> {
        let mut waiting = self.episodes(|c| c.enforced);
        waiting.retain(|e| {
            let fresh = auth_time.is_some_and(|at| at >= e.end());
            let wanted = match e.at_end() {
                AtEnd::Auto => true,
                AtEnd::FreshLogin => fresh,
                AtEnd::FreshEligibleLogin => fresh && eligible,
            };
            e.end() <= now.earliest() && !wanted
        });
        let last = waiting.iter().max_by_key(|e| e.end());
        let doubtful = self.doubtful().filter(|_| !eligible);
        let reference = last.map_or_else(|| doubtful.map(|c| c.case.clone()), |e| Some(e.reference()));
        let all = waiting
            .iter()
            .fold(Ceiling::Full, |all, e| all.intersect(&e.allowed()));
        Some(Restriction {
            allowed: doubtful.map_or_else(|| all.clone(), |_| all.intersect(&Ceiling::of(&["read"]))),
            until: None,
            reference: reference?,
        })
    }

    /// What tokens of a session say that has not logged in since holds ended by time that ask for that.
    #[must_use]
    pub fn waits_for_login(&self, now: Now) -> Option<Restriction> {
        self.awaits_login(now, None, false)
    }

    /// How tokens become whole after what restricts the account at `now`: the strictest way of all that runs.
    #[must_use]
    pub fn at_end(&self, now: Now) -> AtEnd {
        let mut running = self.episodes(|c| c.enforced);
        running.retain(|e| now.earliest() < e.end());
        running.iter().map(Episode::at_end).max().unwrap_or(AtEnd::Auto)
    }

    /// What a message says, with how the whole account stands: everything that restricts it at `now`, and `more` that is
    /// about to. What a message says about one change alone is false where another one still holds.
    #[must_use]
    pub fn stated(&self, content: Content, more: Option<&Cause>, now: Now) -> Content {
        if self.frozen().is_some() {
            return Content {
                frozen: true,
                allowed: None,
                until: None,
                ..content
            };
        }
        let runs = |c: &&Cause| c.holds() && c.enforced && now.earliest() < c.end();
        let all: Vec<&Cause> = self.causes.iter().filter(runs).chain(more).collect();
        let doubtful = self.doubtful().map(|_| Ceiling::of(&["read"]));
        let waits = || self.waits_for_login(now).map(|_| AtEnd::FreshLogin);
        let ceilings = all.iter().map(|c| &c.allowed).chain(&doubtful);
        let allowed = ceilings.fold(Ceiling::Full, |all, one| all.intersect(one));
        // Nobody has been told yet, or this message is what tells: the nominal end.
        let end = |c: &&Cause| match c.told {
            Told::Pending => c.nominal_end(),
            _ => c.end(),
        };
        Content {
            frozen: false,
            until: all.iter().map(end).max().filter(|_| doubtful.is_none()),
            at_end: all.iter().map(|c| c.at_end).max().or_else(waits),
            allowed: (!allowed.is_full()).then_some(allowed),
            ..content
        }
    }

    /// A freeze that is over and that nobody has judged, where it was in force.
    fn doubtful(&self) -> Option<&Contest> {
        self.lapsed.as_ref().filter(|c| c.enforced)
    }

    /// Whether a session of ours that began at `began`, out of the IdP's session `upstream_sid`, still lives.
    #[must_use]
    pub fn session_lives(&self, began: Timestamp, upstream_sid: Option<&str>) -> bool {
        self.cuts
            .iter()
            .all(|cut| began > cut.at || (cut.except.is_some() && cut.except.as_deref() == upstream_sid))
    }

    /// What the IdP's own tokens have to be at `now`.
    #[must_use]
    pub fn posture(&self, now: Now) -> Posture {
        match (self.frozen(), self.restriction(now)) {
            (Some(contest), _) => Posture::Contested(contest.at_idp),
            (None, Some(restriction)) => Posture::Held(restriction.allowed),
            // The IdP cannot tell a credential in doubt from another one: its own tokens stay reduced until people
            // have judged.
            (None, None) if self.doubtful().is_some() => Posture::Held(Ceiling::of(&["read"])),
            (None, None) => Posture::Free,
        }
    }

    /// Whether, with the end of the latest holds, the IdP's sessions have to end too (token mode has no other way
    /// to ask for a fresh log-in).
    #[must_use]
    pub fn fresh_login_at_end(&self) -> bool {
        let episodes = self.episodes(|c| c.enforced);
        let latest = episodes.iter().max_by_key(|e| e.end());
        latest.is_some_and(|e| e.at_end() != AtEnd::Auto)
    }

    /// Whether an address was changed in a hold that runs: `email_verified` goes out false (contract section 3).
    #[must_use]
    pub fn contact_hold(&self, now: Now) -> bool {
        let mut running = self.episodes(|c| c.enforced);
        running.retain(|e| now.earliest() < e.end());
        running
            .iter()
            .any(|e| e.causes.iter().any(|c| c.kind.is_contact()))
    }
}
