//! What operators ask of the store: audit lines, markers, fitness.

use super::form::order;
use super::{Shared, chain};
use crate::domain::audit::Entry;
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Timestamp;
use crate::ports::seal::{Seal as _, SubjectKey};
use crate::ports::store::{Loss, Lost, Soundness, StoreError};
use crate::store::backend::Backend;
use crate::store::marker::{Expected, Marker, PARTITIONS, keys_of, united};
use crate::store::seal::hex;

/// Audit lines read at a time when those of one subject are looked for.
const PAGE: usize = 500;

impl<B: Backend> Shared<B> {
    pub(super) async fn audit_lines(
        &self,
        key: Option<&SubjectKey>,
        before: Timestamp,
        max: usize,
    ) -> Result<Vec<(Subject, Entry)>, StoreError> {
        let (mut found, mut cursor) = (Vec::new(), order(before));
        let partition = key.map(SubjectKey::partition);
        let page = if key.is_some() { PAGE } else { max.max(1) };
        while found.len() < max {
            let lines = self.backend.audit(partition, cursor, page).await?;
            let Some(last) = lines.last() else { break };
            cursor = last.order;
            for line in &lines {
                let audited = chain::read(&line.bytes)?;
                if key.is_none_or(|key| self.keys.subject(&audited.subject) == *key) {
                    found.push((audited.subject, audited.entry));
                }
            }
        }
        found.truncate(max);
        Ok(found)
    }

    /// Creates markers in a store that has none, or confirms that they are ours. An installation that was left
    /// half made is completed; one that lost a marker is not mended, since its values are gone too.
    pub(super) async fn install(&self, moved: Option<&UpstreamId>) -> Result<bool, StoreError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| StoreError::Unavailable("no randomness".to_owned()))?;
        let fresh = Marker {
            incarnation: hex(&id),
            fingerprint: self.keys.fingerprint(),
            fence: 1,
            ..Marker::default()
        };
        let markers = self.backend.markers().await?;
        let known = self.backend.installation(None).await?;
        if known.is_none() && markers.iter().any(Option::is_some) {
            return Err(StoreError::Unsound(
                "there are markers, but no note of the installation: values were lost".to_owned(),
            ));
        }
        let ours = match known {
            Some(known) => known,
            None => self.backend.installation(Some(&fresh)).await?.unwrap_or(fresh),
        };
        let mut expected = Expected {
            incarnation: Some(ours.incarnation.clone()),
            fingerprint: self.keys.fingerprint(),
            fence: 0,
            rebuilding: true,
        };
        let both = united(&expected.fingerprint, &ours.fingerprint);
        let told = |ids: &str| moved.is_some_and(|m| m.as_str() == ids);
        match expected.fault(Some(&ours)) {
            // The operator says with `init` that an identity provider was added, or that it has moved; and a former
            // version did not note which one it is.
            None if both == ours.fingerprint => {}
            Some(Loss::OtherIdentity { ids }) if !told(&ids) => {
                return Err(StoreError::Unsound(Loss::OtherIdentity { ids }.to_string()));
            }
            None | Some(Loss::OtherUpstreams { .. } | Loss::OtherIdentity { .. }) => {
                self.backend.widen(&both).await?;
                tracing::info!(fingerprint = both, "the store knows of the identity providers");
                keys_of(&both).clone_into(&mut expected.fingerprint);
            }
            Some(loss) => return Err(StoreError::Unsound(loss.to_string())),
        }
        self.complete(&expected, &ours, &markers).await
    }

    /// `ours.fence` is 1 until every marker was made once, then 2.
    async fn complete(
        &self,
        expected: &Expected,
        ours: &Marker,
        markers: &[Option<Marker>],
    ) -> Result<bool, StoreError> {
        let complete = ours.fence > 1;
        for (partition, marker) in (0..=u8::MAX).zip(markers) {
            match marker {
                Some(marker) => {
                    if let Some(fault) = expected.fault(Some(marker)) {
                        return Err(StoreError::Unsound(format!("partition {partition:03}: {fault}")));
                    }
                }
                None if complete => {
                    return Err(StoreError::Unsound(format!(
                        "partition {partition:03} has lost its marker and with it its values: it has to be rebuilt"
                    )));
                }
                None => {}
            }
        }
        if complete {
            return Ok(false);
        }
        let first = Marker {
            fence: 1,
            ..ours.clone()
        };
        self.backend.create_markers(&first).await?;
        let done = Marker {
            fence: 2,
            ..ours.clone()
        };
        self.backend.installation(Some(&done)).await?;
        Ok(true)
    }

    pub(super) async fn soundness(&self) -> Result<Soundness, StoreError> {
        let mut soundness = self.backend.check().await?;
        let lost = self.losses().await?;
        soundness.restricted_partitions = lost.iter().map(|l| l.partition).collect();
        let Some(first) = lost.first() else {
            return Ok(soundness);
        };
        let all = lost.len() == PARTITIONS;
        let missing = lost.iter().all(|l| l.loss == Loss::Missing);
        soundness.faults.push(if all && missing && !first.heals {
            "the store has no markers, so every account is restricted. If this is a new installation run `reentry store init`; if not, the store was flushed or this is another database: point it at the right one, or have it rebuilt from the identity provider with `reentry store rebuild`"
                .to_owned()
        } else {
            let (heal, stay): (Vec<&Lost>, Vec<&Lost>) = lost.iter().partition(|l| l.heals);
            let what = match (heal.is_empty(), stay.first()) {
                (false, None) => "they are being rebuilt from the identity provider",
                (_, Some(_)) => "check that key file, database number, node and upstream ids are the right ones; what has to be rebuilt all the same is named by `reentry store rebuild`",
                (true, None) => "",
            };
            format!(
                "{} of 256 partitions cannot be believed, their accounts are restricted; {what} (partition {:03}: {})",
                lost.len(),
                first.partition,
                stay.first().unwrap_or(&first).loss
            )
        });
        Ok(soundness)
    }
}
