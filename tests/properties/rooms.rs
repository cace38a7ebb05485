//! P17: what nobody proved costs nothing lasting, takes no place that others need, and keeps no right secret out.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reentry::domain::pace::{Pace, judge};
use reentry::domain::room::Room;

const MOST: usize = 64;
const SHARE: usize = 8;
/// So many take all they can get, and nobody who has nothing yet is turned away.
const GREEDY: u8 = 11;

proptest! {
    #[test]
    fn p17_a_room_is_bounded_each_has_a_share_and_who_has_nothing_yet_finds_a_place(
        steps in prop::collection::vec((0..GREEDY, 1..20_u8, prop::bool::weighted(0.75)), 0..200),
    ) {
        let mut room: Room<u8> = Room::new(MOST, SHARE);
        let mut held: BTreeMap<u8, usize> = BTreeMap::new();
        for (who, times, enters) in steps {
            for _ in 0..times {
                let mine = held.entry(who).or_default();
                if enters {
                    *mine += usize::from(room.enter(&who));
                } else {
                    *mine = mine.saturating_sub(1);
                    room.leave(&who);
                }
                prop_assert!(*mine <= SHARE);
                prop_assert_eq!(room.held(&who), *mine);
            }
            prop_assert_eq!(room.taken(), held.values().sum::<usize>());
            prop_assert!(room.taken() <= MOST);
            let newcomer = u8::MAX;
            prop_assert!(room.enter(&newcomer), "{:?}", held);
            room.leave(&newcomer);
        }
    }

    #[test]
    fn p17_those_who_cannot_be_told_apart_leave_room_for_those_who_can(crowd in 0..500_usize, most in 4..2_000_usize) {
        let mut room: Room<Option<u8>> = Room::new(most, SHARE);
        for _ in 0..crowd {
            room.enter_many(&None);
        }
        prop_assert!(room.enter(&Some(1)));
    }

    #[test]
    fn p17_whatever_failed_before_what_is_proven_is_answered_and_uses_nothing_up(
        count in 1..20_u32,
        attempts in prop::collection::vec((any::<bool>(), 0..2_000_000_u64), 0..300),
    ) {
        let pace = Pace::new(count, 60_000_000);
        let (mut full_at, mut now, mut failures) = (0, 0, 0);
        for (proven, later) in attempts {
            now += later;
            let before = full_at;
            let answered = judge(proven, || {
                full_at = pace.take(full_at, now)?;
                Ok::<(), u64>(())
            });
            if proven {
                prop_assert_eq!((answered, full_at), (Ok(()), before));
            } else if answered.is_ok() {
                failures += 1;
            }
            // All at once, and then one at a time.
            prop_assert!(failures <= u64::from(count) + now / (60_000_000 / u64::from(count)));
        }
    }
}
