//! One atomic step over a subject's grants, with an answer.
//!
//! The closure may run several times, and only its last run counts. Everything an answer depends on is read in the
//! same step that stores it, so a hold that lands meanwhile is seen (P1).

use std::sync::Mutex;

use crate::domain::audit::Entry;
use crate::domain::hold::Effect;
use crate::domain::session::Grants;
use crate::domain::subject::Subject;
use crate::domain::time::Now;
use crate::flow::Flow;
use crate::ports::seal::SubjectKey;
use crate::ports::store::{Loaded, Parts, StoreError, Write};

/// What one run of the closure came to.
#[derive(Clone, Debug)]
pub struct Step<T> {
    /// The answer.
    pub answer: T,
    /// What to store, if anything.
    pub grants: Option<Grants>,
    /// What has to be done because of it, and whose it is.
    pub effects: Option<(Subject, Vec<(String, Effect)>)>,
    /// What is written down about it. Says whose it is by the effects.
    pub audit: Vec<Entry>,
}

impl<T> Step<T> {
    /// An answer that changes nothing.
    pub const fn done(answer: T) -> Self {
        Self {
            answer,
            grants: None,
            effects: None,
            audit: Vec::new(),
        }
    }

    /// An answer with what has to be stored for it to be true.
    pub const fn store(answer: T, grants: Grants) -> Self {
        Self {
            answer,
            grants: Some(grants),
            effects: None,
            audit: Vec::new(),
        }
    }

    /// The same with a line in the audit log about `subject`.
    #[must_use]
    pub fn saying(mut self, subject: &Subject, entry: Entry) -> Self {
        let told = Write::saying(subject, entry);
        let (_, effects) = self.effects.get_or_insert_with(|| (subject.clone(), Vec::new()));
        effects.extend(told.effects);
        self.audit.extend(told.audit);
        self
    }

    /// The same with effects.
    #[must_use]
    pub fn with(mut self, subject: Subject, effects: Vec<(String, Effect)>) -> Self {
        let (_, all) = self.effects.get_or_insert_with(|| (subject, Vec::new()));
        all.extend(effects);
        self
    }
}

/// Runs a step.
///
/// # Errors
/// [`StoreError`]; nothing was stored then.
pub async fn run<T: Send>(
    flow: &Flow,
    key: &SubjectKey,
    step: &(dyn Fn(&Loaded, Now) -> Step<T> + Send + Sync),
) -> Result<T, StoreError> {
    let slot = Mutex::new(None);
    flow.store
        .update(key, Parts::GRANTS, None, &|loaded| {
            let Step {
                answer,
                grants,
                effects,
                audit,
            } = step(loaded, flow.now(loaded.store_time));
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(answer);
            }
            let (subject, effects) = effects.unzip();
            grants.map(|grants| Write {
                subject,
                grants: Some(grants),
                effects: effects.unwrap_or_default(),
                audit,
                ..Write::default()
            })
        })
        .await?;
    let answer = slot.into_inner().ok().flatten();
    answer.ok_or_else(|| StoreError::Unavailable("the store ran no change".to_owned()))
}
