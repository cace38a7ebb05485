//! Reminders while a freeze stands: to the owner's channels, and to those who run the deployment.

use super::{Contest, ThawStep, tell, thaw_step};
use crate::domain::audit::Entry;
use crate::domain::hold::{Record, Transition};
use crate::domain::notice::Message;
use crate::domain::policy::Policy;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};

/// When a freeze that only people end is told of again, in days since it began. No more than these.
const DAYS: [i64; 6] = [3, 7, 14, 30, 60, 90];

impl Contest {
    /// When the next reminder is due: at half time of a freeze that ends by itself, and some days after one began that
    /// does not. `None` when all went out.
    #[must_use]
    pub fn reminder(&self) -> Option<Timestamp> {
        if let Some(end) = self.lapse() {
            let half = Span::from_millis(end.since(self.since).millis() / 2);
            return (self.reminders == 0).then(|| self.since.plus(half));
        }
        let days = DAYS.get(usize::from(self.reminders));
        days.map(|days| self.since.plus(Span::from_days(*days)))
    }
}

/// The reminder that is due at `now`; `None` when none is.
#[must_use]
pub fn remind(old: &Record, account: &Account, now: Now, policy: &Policy) -> Option<Transition> {
    let contest = old.contest.as_ref()?;
    if thaw_step(old, now) != ThawStep::Remind {
        return None;
    }
    let mut t = Transition::new(old.clone());
    t.record.touch(now);
    let id = format!("{}:reminded:{}", contest.case, contest.reminders);
    let line = Entry::system(id, now.latest(), "freeze_stands", Some(&contest.case))
        .with("enforced", contest.enforced)
        .with("ends_by_itself", contest.lapse().is_some());
    t.audit.push(line.alarming());
    if let Some(contest) = t.record.contest.as_mut() {
        // After a time in which nobody could look, one reminder goes out, not all that were due.
        contest.reminders = contest.reminders.saturating_add(1);
        while contest.reminder().is_some_and(|at| at <= now.earliest()) {
            contest.reminders = contest.reminders.saturating_add(1);
        }
    }
    tell(&mut t, account, Message::FreezeStands, now, policy);
    Some(t)
}
