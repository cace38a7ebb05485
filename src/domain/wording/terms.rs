//! Sentences that depend on a deployment's clocks: how tokens become whole after a hold, and how long what an application
//! already has goes on.

use super::Wording;
use crate::domain::policy::{AtEnd, Policy};
use crate::domain::time::Span;

/// The clocks that sentences name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How old every way to sign in has to be before a log-in proves the owner.
    pub probation: Span,
    /// How long an access token lives that is out.
    pub access: Span,
}

impl Terms {
    /// Those of a policy.
    #[must_use]
    pub const fn of(policy: &Policy) -> Self {
        Self {
            probation: policy.probation,
            access: policy.lifetimes.access,
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            probation: Span::from_days(7),
            access: Span::from_mins(15),
        }
    }
}

impl Wording {
    /// The same words with a deployment's clocks.
    #[must_use]
    pub fn with(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// What it takes, beside time, until a limit has ended (ISS-7); `None` where it ends by time alone.
    #[must_use]
    pub fn then(&self, at_end: AtEnd) -> Option<String> {
        match at_end {
            AtEnd::Auto => None,
            AtEnd::FreshLogin => Some("After that it stays so until you have signed in anew.".to_owned()),
            AtEnd::FreshEligibleLogin => Some(format!(
                "After that it stays so until you have signed in anew, at a time when every way to sign in to the \
                 account is at least {} old.",
                self.probation()
            )),
        }
    }

    /// How old a way to sign in has to be, as people say it.
    #[must_use]
    pub fn probation(&self) -> String {
        Self::length(self.terms.probation)
    }

    /// How long what applications already have goes on after everything was ended.
    #[must_use]
    pub fn lag(&self) -> String {
        format!(
            "An application that asks us every time stops at once; one that does not may go on for up to {}.",
            Self::length(self.terms.access)
        )
    }
}
