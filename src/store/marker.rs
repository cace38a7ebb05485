//! The proof that an empty answer means "nothing happened" (P5).
//!
//! Every partition has a marker: which installation it belongs to, whose keyed names it holds, for which IdPs, and a
//! fence that every commit moves on. `init` makes it, and a rebuild; so it is missing from a store that was flushed, or
//! that never was ours. A fence lower than one that this process has seen is a store that went back in time: a restored
//! backup, a replica that was promoted too early. What counts is the highest seen *when the command was sent*; an answer
//! may rightly be older than what another answer said meanwhile.
//!
//! **Generations.** The upper half of a fence counts the rebuilds of its partition, the lower half its commits. So a
//! rebuild is above every fence that anybody can have seen, also where commits got lost that only somebody else saw;
//! and a store that falls back behind a rebuild is lower again than what every process has seen of it.
//!
//! **Memory.** Processes write what they saw of the fences into a setting and into a file of their own, and read it
//! when they start: a backup that is restored while nobody runs is noticed too.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::domain::time::Timestamp;
use crate::ports::store::{Loss, StoreError};

/// Partitions, fixed at installation.
pub(crate) const PARTITIONS: usize = 256;
/// Commits of one generation, as a power of two. Scripts count in doubles, which are exact up to 2^53.
pub(crate) const GENERATION: u32 = 32;
/// First word of a witness.
const WITNESS: &str = "1";

/// A partition's marker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Random id of the installation, in hexadecimal.
    pub(crate) incarnation: String,
    /// Fingerprint of the names key, a colon, and the ids of the IdPs it was made for, separated by commas, each with
    /// an equals sign and a keyed hash of which one it is.
    pub(crate) fingerprint: String,
    /// Moved on by every commit.
    pub(crate) fence: u64,
    /// Being rebuilt: what is there may be less than was true.
    pub(crate) rebuilding: bool,
    /// The latest loss, if there was one.
    pub(crate) loss: Option<Past>,
}

/// What is remembered of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// Changes that began before this were told.
    pub(crate) told_before: Timestamp,
    /// Grants that began at or before this are gone.
    pub(crate) begun: Timestamp,
}

/// The first fence of the generation after that of `fence`.
pub(crate) const fn next_generation(fence: u64) -> u64 {
    ((fence >> GENERATION) + 1) << GENERATION
}

/// What a marker must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Which installation; any, as long as none has been seen.
    pub(crate) incarnation: Option<String>,
    /// Whose names, and for which IdPs.
    pub(crate) fingerprint: String,
    /// Not lower than this.
    pub(crate) fence: u64,
    /// Whether one of a partition that is being rebuilt will do.
    pub(crate) rebuilding: bool,
}

impl Expected {
    /// Whose names, without the IdPs.
    pub(crate) fn keys(&self) -> &str {
        keys_of(&self.fingerprint)
    }

    /// Why a partition with this marker cannot be believed; nothing when it can.
    pub(crate) fn fault(&self, marker: Option<&Marker>) -> Option<Loss> {
        let Some(marker) = marker else {
            return Some(Loss::Missing);
        };
        if marker.fingerprint != self.fingerprint {
            if keys_of(&marker.fingerprint) != self.keys() {
                return Some(Loss::OtherKeys);
            }
            let (known, ours) = (ids_of(&marker.fingerprint), ids_of(&self.fingerprint));
            let missing: Vec<&str> = ours
                .keys()
                .filter(|id| !known.contains_key(*id))
                .copied()
                .collect();
            if !missing.is_empty() {
                return Some(Loss::OtherUpstreams {
                    configured: missing.join("`, `"),
                    known: known.into_keys().collect::<Vec<_>>().join("`, `"),
                });
            }
            let other = |id: &str, own: Option<&str>| {
                let made_for = known.get(id).copied().flatten();
                own.is_some() && made_for.is_some() && made_for != own
            };
            let others = ours.iter().filter(|(id, own)| other(id, **own));
            let others: Vec<&str> = others.map(|(id, _)| *id).collect();
            if !others.is_empty() {
                let ids = others.join("` and `");
                return Some(Loss::OtherIdentity { ids });
            }
        }
        let ours = self.incarnation.as_ref();
        if ours.is_some_and(|i| *i != marker.incarnation) {
            return Some(Loss::OtherInstallation);
        }
        if marker.fence < self.fence {
            return Some(Loss::RolledBack);
        }
        (marker.rebuilding && !self.rebuilding).then_some(Loss::Rebuilding)
    }
}

/// Whose names, of a fingerprint.
pub(crate) fn keys_of(fingerprint: &str) -> &str {
    fingerprint.split(':').next().unwrap_or_default()
}

/// Ids of IdPs, and which one each is, as far as that was noted.
fn ids_of(fingerprint: &str) -> BTreeMap<&str, Option<&str>> {
    let ids = fingerprint.split_once(':').map_or("", |(_, ids)| ids);
    let each = ids.split(',').filter(|id| !id.is_empty());
    each.map(|id| {
        id.split_once('=')
            .map_or((id, None), |(id, which)| (id, Some(which)))
    })
    .collect()
}

/// The fingerprint of a store that knows the IdPs of both. Which one each is, ours says before theirs.
pub(crate) fn united(ours: &str, theirs: &str) -> String {
    let mut ids = ids_of(theirs);
    for (id, which) in ids_of(ours) {
        let noted = ids.entry(id).or_default();
        *noted = which.or(*noted);
    }
    let one = |(id, which): (&str, Option<&str>)| match which {
        Some(which) => format!("{id}={which}"),
        None => id.to_owned(),
    };
    let ids: Vec<String> = ids.into_iter().map(one).collect();
    if ids.is_empty() {
        keys_of(ours).to_owned()
    } else {
        format!("{}:{}", keys_of(ours), ids.join(","))
    }
}

/// What this process has seen of the markers.
#[derive(Debug)]
pub(crate) struct Seen {
    fingerprint: String,
    incarnation: OnceLock<String>,
    fences: Vec<AtomicU64>,
    /// How many lines the audit chain of each partition had.
    lines: Vec<AtomicU64>,
    /// Whether any marker was found wrong since somebody asked for calm.
    alarmed: AtomicBool,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new(fingerprint: String) -> Self {
        Self {
            fingerprint,
            incarnation: OnceLock::new(),
            fences: (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect(),
            lines: (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect(),
            alarmed: AtomicBool::new(false),
        }
    }

    /// What the marker must be, for a command that is sent now.
    pub(crate) fn expected(&self, partition: u8) -> Expected {
        let fence = self.fences.get(usize::from(partition));
        Expected {
            incarnation: self.incarnation.get().cloned(),
            fingerprint: self.fingerprint.clone(),
            fence: fence.map_or(0, |f| f.load(Ordering::Acquire)),
            rebuilding: false,
        }
    }

    /// The installation, as soon as anything of it was seen.
    pub(crate) fn incarnation(&self) -> Option<&str> {
        self.incarnation.get().map(String::as_str)
    }

    /// Takes the installation's own note in, before any marker of a partition is.
    pub(crate) fn installed(&self, note: &Marker) {
        if keys_of(&note.fingerprint) == keys_of(&self.fingerprint) {
            let _ = self.incarnation.set(note.incarnation.clone());
        }
    }

    /// Judges a marker that was read by a command sent when `expected` was right, and remembers it if it is good.
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    pub(crate) fn judge(
        &self,
        partition: u8,
        expected: &Expected,
        marker: Option<&Marker>,
    ) -> Result<(), StoreError> {
        let lost = |loss| {
            self.alarmed.store(true, Ordering::Release);
            Err(StoreError::Lost { partition, loss })
        };
        if let Some(loss) = expected.fault(marker) {
            if let Some(marker) = marker.filter(|_| loss == Loss::Rebuilding) {
                self.moved(partition, marker.fence);
            }
            return lost(loss);
        }
        if let Some(marker) = marker {
            let ours = self.incarnation.get_or_init(|| marker.incarnation.clone());
            if *ours != marker.incarnation {
                return lost(Loss::OtherInstallation);
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

    /// Audit lines up to this number were written.
    pub(crate) fn wrote(&self, partition: u8, line: u64) {
        if let Some(seen) = self.lines.get(usize::from(partition)) {
            seen.fetch_max(line, Ordering::AcqRel);
        }
    }

    /// How many audit lines a partition had.
    pub(crate) fn lines(&self, partition: u8) -> u64 {
        let lines = self.lines.get(usize::from(partition));
        lines.map_or(0, |l| l.load(Ordering::Acquire))
    }

    /// Everything is about to be looked at: only what is found from here on is an alarm.
    pub(crate) fn calm(&self) {
        self.alarmed.store(false, Ordering::Release);
    }

    /// Whether anything was found wrong since.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarmed.load(Ordering::Acquire)
    }

    /// What was seen, as one line: version, fingerprint of the keys, installation, and in hexadecimal every fence, and
    /// of every audit chain the number of lines.
    pub(crate) fn witness(&self) -> Option<String> {
        let incarnation = self.incarnation.get()?;
        let spelt = |numbers: &[AtomicU64]| {
            let each = numbers.iter().map(|n| format!("{:x}", n.load(Ordering::Acquire)));
            each.collect::<Vec<String>>().join(",")
        };
        let (keys, fences) = (keys_of(&self.fingerprint), spelt(&self.fences));
        let lines = spelt(&self.lines);
        Some(format!("{WITNESS} {keys} {incarnation} {fences} {lines}"))
    }

    /// Takes such a line in. One of another installation or of other keys says nothing about this one.
    pub(crate) fn remember(&self, witness: &str) {
        let mut words = witness.split_ascii_whitespace();
        let (version, keys) = (words.next(), words.next());
        let (Some(incarnation), Some(fences)) = (words.next(), words.next()) else {
            return;
        };
        if version != Some(WITNESS) || keys != Some(keys_of(&self.fingerprint)) {
            return;
        }
        if self.incarnation.get_or_init(|| incarnation.to_owned()) != incarnation {
            return;
        }
        for (partition, fence) in (0..=u8::MAX).zip(fences.split(',')) {
            if let Ok(fence) = u64::from_str_radix(fence, 16) {
                self.moved(partition, fence);
            }
        }
        // A witness of before chains were counted has no such word.
        for (partition, lines) in (0..=u8::MAX).zip(words.next().unwrap_or_default().split(',')) {
            if let Ok(lines) = u64::from_str_radix(lines, 16) {
                self.wrote(partition, lines);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(fence: u64) -> Marker {
        Marker {
            incarnation: "i".to_owned(),
            fingerprint: "f:a,b".to_owned(),
            fence,
            ..Marker::default()
        }
    }

    // P5
    #[test]
    fn missing_foreign_and_lower_markers_are_not_believed() {
        let seen = Seen::new("f:a".to_owned());
        seen.judge(3, &seen.expected(3), Some(&marker(7))).unwrap();
        let other = |incarnation: &str, fingerprint: &str| Marker {
            incarnation: incarnation.to_owned(),
            fingerprint: fingerprint.to_owned(),
            ..marker(8)
        };
        for (bad, why) in [
            (None, Loss::Missing),
            (Some(marker(6)), Loss::RolledBack),
            (Some(other("j", "f:a")), Loss::OtherInstallation),
            (Some(other("i", "g:a")), Loss::OtherKeys),
            (
                Some(Marker {
                    rebuilding: true,
                    ..marker(8)
                }),
                Loss::Rebuilding,
            ),
        ] {
            match seen.judge(3, &seen.expected(3), bad.as_ref()) {
                Err(StoreError::Lost { loss, .. }) => assert_eq!(loss, why, "{bad:?}"),
                other => panic!("{other:?}"),
            }
        }
        // Another partition has a fence of its own, but the same installation.
        assert!(seen.judge(4, &seen.expected(4), Some(&marker(1))).is_ok());
    }

    // P5: an account under a new id of its IdP looks like one to which nothing happened.
    #[test]
    fn a_store_that_was_made_for_other_upstreams_is_not_believed() {
        let seen = Seen::new("f:a,c".to_owned());
        let Some(loss) = seen.expected(0).fault(Some(&marker(7))) else {
            panic!("believed");
        };
        assert!(!loss.heals());
        assert!(loss.to_string().contains("`c`"), "{loss}");
        assert!(loss.to_string().contains("store init"), "{loss}");
        assert_eq!(united("f:a,c", "f:b"), "f:a,b,c");
        let fewer = Seen::new("f:b".to_owned());
        assert_eq!(fewer.expected(0).fault(Some(&marker(7))), None);
    }

    // P5: a copy of an installation that serves another realm.
    #[test]
    fn a_store_that_was_made_for_another_idp_of_the_same_id_is_not_believed() {
        let made = Marker {
            fingerprint: "f:a=11,b=22".to_owned(),
            ..marker(7)
        };
        let fault = |own: &str| Seen::new(own.to_owned()).expected(0).fault(Some(&made));
        assert_eq!(fault("f:a=11,b=22"), None);
        assert_eq!(fault("f:a=11"), None);
        assert_eq!(fault("f:a,b"), None, "a tool that does not know it");
        let Some(loss) = fault("f:a=11,b=33") else {
            panic!("believed");
        };
        assert!(!loss.heals());
        assert!(loss.to_string().contains("--moved b"), "{loss}");
        assert_eq!(united("f:b=33", "f:a=11,b=22"), "f:a=11,b=33");
        assert_eq!(united("f:b", "f:a=11,b=22"), "f:a=11,b=22");
    }

    #[test]
    fn an_answer_to_a_command_sent_earlier_may_be_older() {
        let seen = Seen::new("f".to_owned());
        let early = seen.expected(3);
        seen.moved(3, 9);
        let marker = Marker {
            fingerprint: "f".to_owned(),
            ..marker(8)
        };
        assert!(seen.judge(3, &early, Some(&marker)).is_ok());
        assert!(seen.judge(3, &seen.expected(3), Some(&marker)).is_err());
    }

    #[test]
    fn a_rebuild_is_above_every_commit_that_anybody_can_have_seen() {
        assert!(next_generation(0) > u64::from(u32::MAX));
        assert!(next_generation(next_generation(5)) > next_generation(5) + 1_000_000);
    }

    // P5: what was seen outlives the process.
    #[test]
    fn a_witness_carries_what_was_seen_to_the_next_process() {
        let seen = Seen::new("f:a".to_owned());
        assert_eq!(seen.witness(), None);
        seen.judge(200, &seen.expected(200), Some(&marker(70))).unwrap();
        seen.wrote(9, 300);
        let line = seen.witness().unwrap();
        let next = Seen::new("f:a,b".to_owned());
        next.remember(&line);
        let answer = next.expected(200).fault(Some(&marker(69)));
        assert_eq!(answer, Some(Loss::RolledBack));
        assert_eq!(next.incarnation(), Some("i"));
        assert_eq!((next.lines(9), next.lines(8)), (300, 0));
        let stranger = Seen::new("g:a".to_owned());
        stranger.remember(&line);
        stranger.remember("nonsense");
        assert_eq!((stranger.witness(), stranger.expected(200).fence), (None, 0));
    }
}
