//! Use cases: load, ask the domain, store, done. Nothing here decides; nothing here names an adapter.

pub mod account;
pub mod converge;
mod crowd;
pub mod deliver;
pub mod entitle;
pub mod farewell;
pub mod grant;
pub mod heads;
pub mod holders;
pub mod hook;
pub mod inforce;
pub mod ingest;
mod kin;
pub mod letter;
pub mod link;
pub mod live;
pub mod mend;
pub mod opaque;
pub mod poll;
pub mod rebuild;
pub mod reconcile;
pub mod report;
pub mod room;
pub mod session;
mod signed_out;
pub mod step;
pub mod sweep;
mod tamper;
pub mod thaw;
mod told;
pub mod unreadable;
pub mod untold;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::policy::Policy;
use crate::domain::subject::account::{Account, ContactKind};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::{Now, Timestamp};
use crate::flow::watch::Watch;
use crate::ports::clock::{Clock, Entropy};
use crate::ports::idp::{IdentityProvider, IdpError, Look, Observation, Reading};
use crate::ports::notifier::Notifier;
use crate::ports::seal::{Seal, SubjectKey};
use crate::ports::store::{Store, StoreError};
use crate::ports::trace::Trace;

/// Everything the use cases work with.
pub struct Flow {
    /// Where state lives.
    pub store: Arc<dyn Store>,
    /// Keyed names and MACs.
    pub seal: Arc<dyn Seal>,
    /// Our clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Today's policy.
    pub policy: ArcSwap<Policy>,
    /// The IdPs by configured id.
    pub upstreams: BTreeMap<UpstreamId, Arc<dyn IdentityProvider>>,
    /// The gateway for notices.
    pub notifier: Arc<dyn Notifier>,
    /// The issuer URL without a trailing slash: links in notices begin with it.
    pub issuer: String,
    /// How far each IdP's log was read, as far as this process knows.
    pub watch: Watch,
}

/// Why a use case could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// State could not be had: restricted, or 503.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The IdP did not answer, or refused.
    #[error(transparent)]
    Idp(#[from] IdpError),
    /// There is no such IdP in the configuration, or the `sub` is none.
    #[error("no such identity provider or subject: {0}")]
    Unknown(String),
}

impl Flow {
    /// What time it is, taking the store's clock into account when it has one (P6).
    #[must_use]
    pub fn now(&self, store_time: Option<Timestamp>) -> Now {
        let own = self.clock.now();
        store_time.map_or(Now::exact(own), |store| Now::between(own, store))
    }

    /// What the IdPs need that keep a log.
    #[must_use]
    pub fn watching(upstreams: &BTreeMap<UpstreamId, Arc<dyn IdentityProvider>>) -> Watch {
        let logs = upstreams.iter().filter(|(_, idp)| idp.keeps_log());
        Watch::new(logs.map(|(id, _)| id.clone()))
    }

    /// The IdP of a subject.
    ///
    /// # Errors
    /// [`FlowError::Unknown`] when it is not configured (any more).
    pub fn idp(&self, upstream: &UpstreamId) -> Result<&Arc<dyn IdentityProvider>, FlowError> {
        self.upstreams
            .get(upstream)
            .ok_or_else(|| FlowError::Unknown(upstream.to_string()))
    }

    /// The store's key of a subject.
    #[must_use]
    pub fn key(&self, subject: &Subject) -> SubjectKey {
        self.seal.subject(subject)
    }

    /// An unpredictable URL-safe name of `N` octets of entropy.
    #[must_use]
    pub fn random<const N: usize>(&self) -> String {
        let mut buffer = [0; N];
        self.entropy.fill(&mut buffer);
        URL_SAFE_NO_PAD.encode(buffer)
    }

    /// A fresh case id: `rc_` and 22 characters.
    #[must_use]
    pub fn case_id(&self) -> String {
        format!("rc_{}", self.random::<16>())
    }

    /// A new trace, for work that no request began.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let (mut id, mut span) = ([0; 16], [0; 8]);
        self.entropy.fill(&mut id);
        self.entropy.fill(&mut span);
        Trace::new(id, span)
    }

    /// The next step of the trace of what caused some work; of a new one when nobody knows.
    #[must_use]
    pub fn step(&self, cause: Option<&Trace>) -> Trace {
        let fresh = self.trace();
        cause.map_or_else(|| fresh.clone(), |trace| trace.next(fresh.step()))
    }

    /// The case that a change opens: the same every time, so that links in messages outlive a lost store.
    #[must_use]
    pub fn case_of(&self, subject: &Subject, change: &str) -> String {
        format!("rc_{}", self.seal.case(subject, change))
    }

    /// Reads an account live and names its contacts. Whether it got or lost a role that may end freezes is kept and told.
    ///
    /// # Errors
    /// [`FlowError::Idp`].
    pub async fn reading(&self, subject: &Subject) -> Result<Reading, FlowError> {
        let mut reading = self.idp(&subject.upstream)?.account(&subject.sub).await?;
        reading = self.taken_in(subject, reading).await;
        Ok(reading)
    }

    async fn note_holder(&self, subject: &Subject, reading: &Reading) {
        if let Some(facts) = &reading.facts
            && let Err(error) = holders::looked(self, subject, facts).await
        {
            tracing::warn!(upstream = %subject.upstream, %error, "who may end freezes could not be kept; the next reading does it");
        }
    }

    /// Observes an account and names its contacts.
    ///
    /// # Errors
    /// [`FlowError::Idp`].
    pub async fn observe(&self, subject: &Subject, look: Look) -> Result<Observation, FlowError> {
        let idp = self.idp(&subject.upstream)?;
        let mut observation = idp.observe(&subject.sub, look).await?;
        observation.reading = self.taken_in(subject, observation.reading).await;
        Ok(observation)
    }

    /// A reading that the adapter made, with its contacts named.
    pub(crate) async fn taken_in(&self, subject: &Subject, mut reading: Reading) -> Reading {
        let unwatched = self.name_contacts(&mut reading.account);
        if unwatched > 0 {
            crowd::said(self, subject, unwatched).await;
        }
        self.note_holder(subject, &reading).await;
        reading
    }

    /// Gives every contact that is watched, and whatever else the account is known by, its keyed name. Says how many contacts
    /// are not watched.
    fn name_contacts(&self, account: &mut Account) -> usize {
        let unwatched = account.watch();
        for contact in &mut account.contacts {
            contact.id = self.seal.channel(contact.kind, &contact.address);
        }
        for name in &mut account.names {
            *name = self.seal.channel(ContactKind::Email, name).0;
        }
        unwatched
    }
}
