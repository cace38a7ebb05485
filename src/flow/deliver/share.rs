//! Which part of the outbox is this replica's.
//!
//! The partitions are dealt out in groups. A replica works on a group only under its lease, so no two deliver the same
//! entry; the share of one that died is taken over when its leases end. Who is there is noted in a list with an end for
//! each; it only says how many shares there are, and never decides: leases do. A replica that slept finds its leases
//! over by its own clock before it sends anything, and one whose lease was another's meanwhile sees it by the fence.
//! What was under way when it fell asleep may be sent twice, with one id: receivers tell it by that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::domain::time::{Span, Timestamp};
use crate::flow::Flow;
use crate::ports::store::{Lease, PendingId, StoreError};

/// How many groups there are.
const GROUPS: u8 = 16;
/// Partitions of a group.
const WIDTH: u8 = 16;
/// How long a group is kept without a word.
const LEASE: Duration = Duration::from_secs(6);
/// How long before its end a lease counts as over.
const MARGIN: Duration = Duration::from_millis(500);
/// How often leases are extended.
const BEAT: Duration = Duration::from_secs(2);
/// The list of replicas, and the lease under which it is written.
const MEMBERS: &str = "outbox:members";

/// A group that is ours.
#[derive(Clone, Copy, Debug)]
struct Held {
    fence: u64,
    until: Instant,
    /// It goes to another replica as soon as what is under way in it is done.
    leaving: bool,
}

/// Leave to deliver one entry, as long as its group stays ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    group: u8,
    fence: u64,
}

#[derive(Debug, Default)]
struct Standing {
    held: BTreeMap<u8, Held>,
    beat: Option<Instant>,
    /// How many replicas there are, and which of them we are.
    place: Option<(usize, usize)>,
}

/// This replica's share.
#[derive(Debug)]
pub(super) struct Share {
    owner: String,
    /// Everything is ours, without a lease: the store has no other user, or the caller knows what it does.
    whole: bool,
    standing: Mutex<Standing>,
}

impl Share {
    /// Nothing yet; `whole`: everything, for good.
    pub(super) fn new(owner: &str, whole: bool) -> Self {
        Self {
            owner: owner.to_owned(),
            whole,
            standing: Mutex::default(),
        }
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions that are ours now.
    pub(super) fn partitions(&self) -> Vec<u8> {
        let (now, standing) = (Instant::now(), self.standing());
        let works = |held: &Held| !held.leaving && now < held.until;
        let ours = |p: &u8| self.whole || standing.held.get(&(p / WIDTH)).is_some_and(works);
        (0..=u8::MAX).filter(ours).collect()
    }

    /// Leave to deliver an entry of this partition; none when it is not ours.
    pub(super) fn ticket(&self, partition: u8) -> Option<Ticket> {
        let group = partition / WIDTH;
        if self.whole {
            return Some(Ticket { group, fence: 0 });
        }
        let held = self.standing().held.get(&group).copied();
        let held = held.filter(|held| Instant::now() < held.until)?;
        Some(Ticket {
            group,
            fence: held.fence,
        })
    }

    /// Whether the group was ours all the time since the ticket was given, and still is.
    pub(super) fn stands(&self, ticket: Ticket) -> bool {
        let held = self.standing().held.get(&ticket.group).copied();
        self.whole || held.is_some_and(|h| h.fence == ticket.fence && Instant::now() < h.until)
    }

    /// Takes and extends leases, when it is time, and gives up what is another's share and has nothing under way.
    ///
    /// # Errors
    /// [`StoreError`]: what is held ends by itself.
    pub(super) async fn renew(&self, flow: &Flow, under_way: &BTreeSet<PendingId>) -> Result<(), StoreError> {
        let due = self.standing().beat.is_none_or(|at| at.elapsed() >= BEAT);
        if self.whole || !due {
            return Ok(());
        }
        self.standing().beat = Some(Instant::now());
        let (count, ours) = self.place(flow).await?;
        let wanted = |group: u8| usize::from(group) % count.max(1) == ours;
        let busy: BTreeSet<u8> = under_way.iter().map(|at| at.partition / WIDTH).collect();
        let held: Vec<u8> = self.standing().held.keys().copied().collect();
        let keep = |group: &u8| wanted(*group) || (held.contains(group) && busy.contains(group));
        let kept = (0..GROUPS).filter(keep);
        let taken = join_all(kept.map(|group| self.take(flow, group, !wanted(group)))).await;
        for group in held.iter().filter(|group| !keep(group)) {
            self.standing().held.remove(group);
            flow.store.release(&name(*group), &self.owner).await?;
        }
        taken.into_iter().collect()
    }

    async fn take(&self, flow: &Flow, group: u8, leaving: bool) -> Result<(), StoreError> {
        let until = Instant::now() + LEASE.saturating_sub(MARGIN);
        let lease = flow.store.lease(&name(group), &self.owner, span(LEASE)).await?;
        let mut standing = self.standing();
        match lease {
            Some(Lease { fence, .. }) => {
                let held = Held {
                    fence,
                    until,
                    leaving,
                };
                standing.held.insert(group, held);
            }
            None => drop(standing.held.remove(&group)),
        }
        Ok(())
    }

    /// How many replicas there are, and which of them we are. What was known stays while another writes the list.
    async fn place(&self, flow: &Flow) -> Result<(usize, usize), StoreError> {
        let known = self.standing().place;
        let Some(members) = self.sign(flow, true).await? else {
            return Ok(known.unwrap_or((1, 0)));
        };
        let ours = members.keys().position(|m| *m == self.owner).unwrap_or(0);
        let place = (members.len(), ours);
        if known.is_some_and(|known| known.0 != place.0) {
            tracing::info!(replicas = place.0, "the outbox is shared anew");
        }
        self.standing().place = Some(place);
        Ok(place)
    }

    /// Signs the list of replicas, or takes our name off it. Nothing while another writes it.
    async fn sign(&self, flow: &Flow, there: bool) -> Result<Option<BTreeMap<String, i64>>, StoreError> {
        let (store, now) = (&flow.store, flow.clock.now());
        let Some(lock) = store.lease(MEMBERS, &self.owner, span(BEAT)).await? else {
            return Ok(None);
        };
        let mut members = members(&store.setting(MEMBERS).await?.unwrap_or_default(), now);
        members.remove(&self.owner);
        if there {
            members.insert(self.owner.clone(), now.plus(span(LEASE)).millis());
        }
        let text: Vec<String> = members.iter().map(|(m, until)| format!("{m}={until}")).collect();
        let set = store.set_setting(MEMBERS, &text.join(" "), Some(&lock)).await;
        store.release(MEMBERS, &self.owner).await?;
        match set {
            Ok(()) => Ok(Some(members)),
            Err(StoreError::StaleLease(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Hands everything back, so that others need not wait for the leases to end.
    pub(super) async fn hand_back(&self, flow: &Flow) {
        let held = std::mem::take(&mut self.standing().held);
        let released = held.keys().map(|group| {
            let name = name(*group);
            async move { flow.store.release(&name, &self.owner).await }
        });
        let mut done: Result<(), StoreError> = join_all(released).await.into_iter().collect();
        if done.is_ok() && !self.whole {
            done = self.sign(flow, false).await.map(|_| ());
        }
        if let Err(error) = done {
            tracing::warn!(%error, "our share of the outbox ends by itself");
        }
    }
}

fn name(group: u8) -> String {
    format!("outbox:{group:02}")
}

fn span(duration: Duration) -> Span {
    Span::from_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// Those on the list whose time is not over.
fn members(list: &str, now: Timestamp) -> BTreeMap<String, i64> {
    let one = |entry: &str| {
        let (member, until) = entry.rsplit_once('=')?;
        Some((member.to_owned(), until.parse::<i64>().ok()?))
    };
    let read = list.split_whitespace().filter_map(one);
    read.filter(|(_, until)| *until > now.millis()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_forgets_who_is_gone_and_what_it_cannot_read() {
        let now = Timestamp::from_millis(100);
        let found = members("a=101 b=100 c== rubbish d=200", now);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "d"]);
    }

    #[test]
    fn a_ticket_stands_only_under_the_fence_it_was_given_for() {
        let share = Share::new("a", false);
        assert_eq!(share.ticket(17), None);
        let hold = |fence, until, leaving| {
            let held = Held {
                fence,
                until,
                leaving,
            };
            share.standing().held.insert(1, held);
        };
        let later = Instant::now() + LEASE;
        hold(7, later, false);
        let ticket = share.ticket(17).unwrap_or(Ticket { group: 9, fence: 0 });
        assert!(share.stands(ticket));
        assert_eq!(share.partitions(), (16..32).collect::<Vec<u8>>());
        // What goes to another takes nothing new, and ends what it has.
        hold(7, later, true);
        assert!(share.stands(ticket));
        assert_eq!(share.partitions(), Vec::<u8>::new());
        // Another had it in between.
        hold(9, later, false);
        assert!(!share.stands(ticket));
        // Slept through its end.
        let ticket = share.ticket(17).unwrap_or(ticket);
        hold(9, Instant::now(), false);
        assert!(!share.stands(ticket));
        assert_eq!(share.partitions(), Vec::<u8>::new());
        assert!(Share::new("a", true).stands(ticket));
    }
}
