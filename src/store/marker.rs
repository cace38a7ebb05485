//! The proof that an empty answer means "nothing happened" (P5).
//!
//! Every partition has a marker: which installation it belongs to, whose keyed names it holds, and a fence that
//! every commit moves on. `init` makes it and nobody else, so it is missing from a store that was flushed, or that
//! never was ours. A fence lower than one that this process has seen is a store that went back in time: a restored
//! backup, a replica that was promoted too early. What counts is the highest seen *when the command was sent*;
//! an answer may rightly be older than what another answer said meanwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ports::store::StoreError;

/// Partitions, fixed at installation.
pub(crate) const PARTITIONS: usize = 256;

/// A partition's marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Random id of the installation, in hexadecimal.
    pub(crate) incarnation: String,
    /// Fingerprint of the names key.
    pub(crate) fingerprint: String,
    /// Moved on by every commit.
    pub(crate) fence: u64,
}

/// What a marker must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Which installation; any, as long as none has been seen.
    pub(crate) incarnation: Option<String>,
    /// Whose names.
    pub(crate) fingerprint: String,
    /// Not lower than this.
    pub(crate) fence: u64,
}

impl Expected {
    /// Why a partition with this marker cannot be believed; nothing when it can.
    pub(crate) fn fault(&self, marker: Option<&Marker>) -> Option<&'static str> {
        let Some(marker) = marker else {
            return Some("its marker is missing: flushed, or another database");
        };
        if marker.fingerprint != self.fingerprint {
            return Some("its marker belongs to other keys: wrong key file or wrong store");
        }
        if self
            .incarnation
            .as_ref()
            .is_some_and(|i| *i != marker.incarnation)
        {
            return Some("its marker belongs to another installation");
        }
        (marker.fence < self.fence)
            .then_some("its fence is lower than one seen before: the store went back in time")
    }
}

/// What this process has seen of the markers.
#[derive(Debug)]
pub(crate) struct Seen {
    fingerprint: String,
    incarnation: OnceLock<String>,
    fences: Vec<AtomicU64>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new(fingerprint: String) -> Self {
        Self {
            fingerprint,
            incarnation: OnceLock::new(),
            fences: (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What the marker must be, for a command that is sent now.
    pub(crate) fn expected(&self, partition: u8) -> Expected {
        let fence = self.fences.get(usize::from(partition));
        Expected {
            incarnation: self.incarnation.get().cloned(),
            fingerprint: self.fingerprint.clone(),
            fence: fence.map_or(0, |f| f.load(Ordering::Acquire)),
        }
    }

    /// Judges a marker that was read by a command sent when `expected` was right, and remembers it if it is good.
    ///
    /// # Errors
    /// [`StoreError::Unsound`].
    pub(crate) fn judge(
        &self,
        partition: u8,
        expected: &Expected,
        marker: Option<&Marker>,
    ) -> Result<(), StoreError> {
        if let Some(fault) = expected.fault(marker) {
            return Err(unsound(partition, fault));
        }
        if let Some(marker) = marker {
            let ours = self.incarnation.get_or_init(|| marker.incarnation.clone());
            if *ours != marker.incarnation {
                return Err(unsound(partition, "its marker belongs to another installation"));
            }
            self.moved(partition, marker.fence);
        }
        Ok(())
    }

    /// A commit moved the fence on.
    pub(crate) fn moved(&self, partition: u8, fence: u64) {
        if let Some(seen) = self.fences.get(usize::from(partition)) {
            seen.fetch_max(fence, Ordering::AcqRel);
        }
    }
}

fn unsound(partition: u8, fault: &str) -> StoreError {
    StoreError::Unsound(format!("partition {partition:03}: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(fence: u64) -> Marker {
        Marker {
            incarnation: "i".to_owned(),
            fingerprint: "f".to_owned(),
            fence,
        }
    }

    // P5
    #[test]
    fn missing_foreign_and_lower_markers_are_not_believed() {
        let seen = Seen::new("f".to_owned());
        seen.judge(3, &seen.expected(3), Some(&marker(7))).unwrap();
        for bad in [
            None,
            Some(marker(6)),
            Some(Marker {
                incarnation: "j".to_owned(),
                ..marker(8)
            }),
            Some(Marker {
                fingerprint: "g".to_owned(),
                ..marker(8)
            }),
        ] {
            let answer = seen.judge(3, &seen.expected(3), bad.as_ref());
            assert!(matches!(answer, Err(StoreError::Unsound(_))), "{bad:?}");
        }
        // Another partition has a fence of its own, but the same installation.
        assert!(seen.judge(4, &seen.expected(4), Some(&marker(1))).is_ok());
    }

    #[test]
    fn an_answer_to_a_command_sent_earlier_may_be_older() {
        let seen = Seen::new("f".to_owned());
        let early = seen.expected(3);
        seen.moved(3, 9);
        assert!(seen.judge(3, &early, Some(&marker(8))).is_ok());
        assert!(seen.judge(3, &seen.expected(3), Some(&marker(8))).is_err());
    }
}
