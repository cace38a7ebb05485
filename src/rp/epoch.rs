//! The memory of rule 9 (contract section 2): a token that is older than the newest tightening this relying party
//! has seen is refused, although it has not expired.
//!
//! Optional. Bounded in both directions: what was seen is forgotten after the longest token lifetime (an older
//! token would have expired anyway), and beyond `capacity` subjects the one seen longest ago goes first, which
//! loses this extra check for it and nothing else.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::domain::time::{Span, Timestamp};
use crate::rp::profile::Profile;

/// Why a token is refused: 401 `invalid_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// There was a tightening since it was issued.
    #[error("a newer token of this account has a higher recovery_epoch")]
    Older,
    /// The issuer's tokens carry the claim, this one does not, or not as a whole number from 0 on.
    #[error("recovery_epoch is missing or not a whole number")]
    Missing,
    /// `iss` or `sub` is missing.
    #[error("iss or sub is missing")]
    Nobody,
}

type Owner = (String, String);

/// Highest `recovery_epoch` seen for each (iss, sub).
#[derive(Clone, Debug)]
pub struct Epochs {
    lifetime: Span,
    capacity: usize,
    seen: HashMap<Owner, (i64, u64)>,
    order: BTreeMap<u64, (Timestamp, Owner)>,
    next: u64,
}

impl Epochs {
    /// A memory for at most `capacity` accounts (at least one). `lifetime` is the longest lifetime of an access
    /// token, with the leeway given to `exp`.
    #[must_use]
    pub fn new(lifetime: Span, capacity: usize) -> Self {
        Self {
            lifetime,
            capacity: capacity.max(1),
            seen: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    /// How many accounts are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Takes notice of a valid token at `now` and says whether it is still good.
    ///
    /// # Errors
    /// [`Stale`]: answer 401 `invalid_token`; nothing was remembered.
    pub fn observe(
        &mut self,
        profile: Profile,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), Stale> {
        if !profile.carries_epoch() {
            return Ok(());
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let owner = text("iss").zip(text("sub")).ok_or(Stale::Nobody)?;
        let epoch = claims.get("recovery_epoch").and_then(Value::as_i64);
        let epoch = epoch.filter(|e| *e >= 0).ok_or(Stale::Missing)?;
        self.forget(now);
        let known = self.seen.get(&owner).copied();
        if known.is_some_and(|(highest, _)| epoch < highest) {
            return Err(Stale::Older);
        }
        if let Some((_, place)) = known {
            self.order.remove(&place);
        }
        self.order.insert(self.next, (now, owner.clone()));
        self.seen.insert(owner, (epoch, self.next));
        self.next = self.next.saturating_add(1);
        while self.seen.len() > self.capacity {
            self.drop_oldest();
        }
        Ok(())
    }

    /// Forgets what is older than the longest token lifetime.
    fn forget(&mut self, now: Timestamp) {
        while let Some((_, (at, _))) = self.order.first_key_value() {
            if now < at.plus(self.lifetime) {
                break;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, (_, owner))) = self.order.pop_first() {
            self.seen.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn token(sub: &str, epoch: i64) -> Map<String, Value> {
        let claims = json!({"iss": "i", "sub": sub, "recovery_epoch": epoch});
        claims.as_object().unwrap().clone()
    }

    // contract section 2, rule 9.
    #[test]
    fn a_lower_epoch_than_seen_is_refused_until_forgotten() {
        let mut epochs = Epochs::new(Span::from_mins(15), 10);
        let mut see = |sub, epoch, now| epochs.observe(Profile::Reentry, &token(sub, epoch), at(now));
        assert_eq!(see("a", 5, 0), Ok(()));
        assert_eq!(see("a", 5, 1), Ok(()));
        assert_eq!(see("a", 4, 2), Err(Stale::Older));
        assert_eq!(see("b", 1, 3), Ok(()));
        assert_eq!(see("a", 6, 4), Ok(()));
        assert_eq!(see("a", 5, 903), Err(Stale::Older));
        assert_eq!(see("a", 5, 904), Ok(()));
    }

    #[test]
    fn absent_or_odd_is_refused_where_the_profile_carries_it() {
        let mut epochs = Epochs::new(Span::from_mins(15), 10);
        for odd in [json!(null), json!("5"), json!(1.5), json!(-1), json!([1])] {
            let mut claims = token("a", 0);
            claims.insert("recovery_epoch".to_owned(), odd);
            assert_eq!(
                epochs.observe(Profile::Reentry, &claims, at(0)),
                Err(Stale::Missing)
            );
            assert_eq!(epochs.observe(Profile::Keycloak, &claims, at(0)), Ok(()));
        }
        assert!(epochs.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unseen_goes_first() {
        let mut epochs = Epochs::new(Span::from_hours(1), 3);
        for sub in ["a", "b", "c", "a", "d"] {
            assert_eq!(epochs.observe(Profile::Reentry, &token(sub, 9), at(1)), Ok(()));
        }
        assert_eq!(epochs.len(), 3);
        assert_eq!(
            epochs.observe(Profile::Reentry, &token("a", 8), at(2)),
            Err(Stale::Older)
        );
        assert_eq!(epochs.observe(Profile::Reentry, &token("b", 8), at(2)), Ok(()));
    }
}
