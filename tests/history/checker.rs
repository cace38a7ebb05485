//! Whether what happened was allowed to happen. It knows the promise and nothing of how Reentry keeps it.
//!
//! A request was decided at some moment between the sending and the answer, so a rule applies only where it holds at
//! every such moment: what is judged, is judged for sure.

use std::collections::BTreeMap;

use crate::chronicle::{Chronicle, Hold, Millis, Said, Way, Withdrawn};
use crate::company::{ACCESS, ROLE};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// P1, P2, P10: a token or an answer allowed more than a hold that was committed and not over.
    TooStrong(String),
    /// ISS-6: the first token after a log-in did not know of a change that Keycloak had finished before.
    Unaware(String),
    /// ISS-6: a session of before a committed change was renewed.
    Survived(String),
    /// ISS-10: something was issued for an account that was frozen.
    Frozen(String),
    /// P16, ISS-12: something was given that Keycloak had taken away longer ago than a token lives.
    Outlived(String),
    /// The epoch of an account went back (contract section 1).
    EpochWentBack(String),
    /// P10: a change at Keycloak that no hold tells of.
    Missed(String),
    /// P8: a hold that nobody was told of.
    Untold(String),
    /// A hold that was still unknown when everything was quiet.
    NeverSeen(String),
}

/// Everything that was wrong.
pub fn check(chronicle: &Chronicle) -> Vec<Violation> {
    let mut found = Vec::new();
    for said in &chronicle.said {
        found.extend(too_strong(chronicle, said));
        found.extend(unaware(chronicle, said));
        found.extend(survived(chronicle, said));
        found.extend(frozen(chronicle, said));
        found.extend(outlived(chronicle, said));
    }
    found.extend(epochs(chronicle));
    found.extend(changes(chronicle));
    found
}

fn holds_of(chronicle: &Chronicle, person: usize) -> impl Iterator<Item = &Hold> {
    chronicle.holds.iter().filter(move |h| h.person == person)
}

/// Whether `said` allows more than `hold` does.
fn beyond(said: &Said, hold: &Hold) -> bool {
    let classes = match said.recovery_scope.as_str() {
        "full" => return true,
        "none" => "",
        classes => classes,
    };
    let more = |word: &str| !hold.allowed.contains(word);
    classes.split(' ').any(|word| !word.is_empty() && more(word))
        || said.scopes.iter().any(|scope| !hold.scopes.contains(scope))
}

fn too_strong(chronicle: &Chronicle, said: &Said) -> Option<Violation> {
    let hold = holds_of(chronicle, said.person)
        .filter(|h| h.applies_to(said))
        .find(|h| beyond(said, h))?;
    Some(Violation::TooStrong(format!("{said:?} in {hold:?}")))
}

fn unaware(chronicle: &Chronicle, said: &Said) -> Option<Violation> {
    if said.way != Way::Exchange {
        return None;
    }
    let before =
        |change: &&crate::chronicle::Change| change.person == said.person && change.until < said.asked;
    let change = chronicle.changes.iter().filter(before).max_by_key(|c| c.until)?;
    let of = |h: &&Hold| h.tells_of(change) && !h.is_over(said);
    let hold = holds_of(chronicle, said.person)
        .filter(of)
        .find(|h| beyond(said, h))?;
    Some(Violation::Unaware(format!("{said:?} after {change:?}, {hold:?}")))
}

fn survived(chronicle: &Chronicle, said: &Said) -> Option<Violation> {
    if said.way != Way::Refresh {
        return None;
    }
    let session = chronicle.sessions.iter().find(|s| s.number == said.session)?;
    let ended =
        |h: &&Hold| h.at < h.end && session.began < h.at && h.seen().is_some_and(|seen| said.asked > seen);
    let hold = holds_of(chronicle, said.person).find(ended)?;
    Some(Violation::Survived(format!(
        "{said:?} of {session:?} after {hold:?}"
    )))
}

fn frozen(chronicle: &Chronicle, said: &Said) -> Option<Violation> {
    let mut reports = chronicle.reports.iter();
    let report = reports.find(|r| r.person == said.person && r.acknowledged < said.asked)?;
    // An answer about a token that says `none` gives nothing: it is what is said when state cannot be read (ISS-2).
    let issues = matches!(said.way, Way::Exchange | Way::Refresh);
    let gives = issues || said.recovery_scope != "none";
    gives.then(|| Violation::Frozen(format!("{said:?} after {report:?}")))
}

/// How long an answer may take, and clocks may differ.
const SLACK: Millis = 2_500;

fn outlived(chronicle: &Chronicle, said: &Said) -> Option<Violation> {
    // What is issued rests on what was read a token's life ago at most; what is said about a token that is out may be
    // as old as that token besides.
    let issued = matches!(said.way, Way::Exchange | Way::Refresh);
    let reach = SLACK + if issued { ACCESS } else { 2 * ACCESS };
    let gives = |what: Withdrawn| match what {
        Withdrawn::Account => issued || said.recovery_scope != "none",
        Withdrawn::Role => said.roles.contains(ROLE),
    };
    let withdrawal = chronicle.withdrawals.iter().find(|w| {
        let long_gone = said.asked > w.from + reach && w.until.is_none_or(|until| said.answered < until);
        w.person == said.person && long_gone && gives(w.what)
    })?;
    Some(Violation::Outlived(format!("{said:?} after {withdrawal:?}")))
}

fn epochs(chronicle: &Chronicle) -> Vec<Violation> {
    let mut persons: BTreeMap<usize, Vec<(&Said, i64)>> = BTreeMap::new();
    for said in &chronicle.said {
        // A token carries the epoch of its birth; only an issuance says what it is now.
        if let (Some(epoch), Way::Exchange | Way::Refresh) = (said.epoch, said.way) {
            persons.entry(said.person).or_default().push((said, epoch));
        }
    }
    let mut found = Vec::new();
    for issued in persons.values() {
        for (earlier, was) in issued {
            let later = issued
                .iter()
                .find(|(s, is)| s.asked > earlier.answered && is < was);
            found.extend(later.map(|(s, _)| Violation::EpochWentBack(format!("{s:?} after {earlier:?}"))));
        }
    }
    found
}

fn changes(chronicle: &Chronicle) -> Vec<Violation> {
    let mut found = Vec::new();
    for change in &chronicle.changes {
        if !chronicle.holds.iter().any(|hold| hold.tells_of(change)) {
            found.push(Violation::Missed(format!("{change:?}")));
        }
    }
    for hold in &chronicle.holds {
        if !chronicle.told(hold) {
            found.push(Violation::Untold(format!("{}: {hold:?}", hold.case)));
        }
        if hold.terms.is_empty() && hold.at < hold.end {
            found.push(Violation::NeverSeen(format!("{hold:?}")));
        }
    }
    found
}

/// How much of what the checker judges there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Tokens and answers that a hold which was known applied to.
    pub held: usize,
    /// First tokens after a log-in that followed a change.
    pub aware: usize,
    /// Mails beyond the first of each notice.
    pub repeated: usize,
}

/// Counts it.
pub fn judged(chronicle: &Chronicle) -> Judged {
    let in_hold = |said: &&Said| holds_of(chronicle, said.person).any(|h| h.applies_to(said));
    let after = |said: &&Said| {
        let mut changes = chronicle.changes.iter();
        said.way == Way::Exchange && changes.any(|c| c.person == said.person && c.until < said.asked)
    };
    let mut mails: Vec<_> = chronicle.mails.iter().map(|m| (m.person, &m.id)).collect();
    mails.sort();
    let all = mails.len();
    mails.dedup();
    Judged {
        held: chronicle.said.iter().filter(in_hold).count(),
        aware: chronicle.said.iter().filter(after).count(),
        repeated: all - mails.len(),
    }
}

/// Ways in which a product that looks right could be wrong, each planted into what really happened.
pub fn planted(chronicle: &Chronicle) -> [(&'static str, Chronicle); 4] {
    let mut strong = chronicle.clone();
    let in_hold = |said: &Said| {
        said.way == Way::Refresh
            && said.recovery_scope != "full"
            && holds_of(chronicle, said.person).any(|h| h.applies_to(said))
    };
    let held = strong
        .said
        .iter_mut()
        .find(|s| in_hold(s))
        .expect("a refresh in a hold");
    "full".clone_into(&mut held.recovery_scope);

    let mut silent = chronicle.clone();
    let told = silent
        .holds
        .iter()
        .find_map(|h| h.notice.clone())
        .expect("a hold");
    silent.mails.retain(|m| m.id != told);

    let mut thawed = chronicle.clone();
    let report = thawed.reports.first().cloned().expect("a report");
    let mut after = thawed
        .said
        .iter()
        .find(|s| s.way == Way::Exchange)
        .cloned()
        .expect("a sign-in");
    after.person = report.person;
    (after.asked, after.answered) = (report.acknowledged + 10, report.acknowledged + 20);
    "none".clone_into(&mut after.recovery_scope);
    after.scopes.clear();
    after.epoch = None;
    thawed.said.push(after);
    let mut outlived = chronicle.clone();
    let withdrawal = outlived.withdrawals.first().cloned().expect("a withdrawal");
    let mut late = outlived
        .said
        .iter()
        .find(|s| s.way == Way::Refresh)
        .cloned()
        .expect("a refresh");
    (late.person, late.session) = (withdrawal.person, u32::MAX);
    (late.asked, late.answered) = (
        withdrawal.from + ACCESS + SLACK + 1,
        withdrawal.from + ACCESS + SLACK + 2,
    );
    late.roles.insert(ROLE.to_owned());
    "none".clone_into(&mut late.recovery_scope);
    late.scopes.clear();
    late.epoch = None;
    for gone in outlived
        .withdrawals
        .iter_mut()
        .filter(|w| w.person == withdrawal.person)
    {
        gone.until = None;
    }
    outlived.said.push(late);
    [
        ("a token of an account that was switched off", outlived),
        ("a token of a hold that says full", strong),
        ("a hold without its notice", silent),
        ("a token after a report", thawed),
    ]
}
