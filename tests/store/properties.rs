//! P9 and P10 on the functions that ship, over a real server and a real file.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reentry::domain::change::{Change, ChangeKind, Proof, Source};
use reentry::domain::hold::Record;
use reentry::domain::hold::apply::{Setting, apply};
use reentry::domain::policy::Policy;
use reentry::domain::tier::TierName;
use reentry::domain::time::{Now, Span, Timestamp};
use reentry::ports::seal::Seal as _;
use reentry::ports::store::{Mark, Parts, Updated, Write};

use crate::house::House;
use crate::values::change as observed;
use crate::values::{END, account, at, effect_ids, held_from, line_ids, record, subject, write};

/// How many cases; each is a story of several commits on a real store.
const CASES: u32 = 64;

/// Cases that are the same in every run.
fn cases<S: Strategy>(strategy: &S) -> Vec<S::Value> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..CASES)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// One update of the model.
#[derive(Clone, Debug)]
struct Step {
    sub: u8,
    mark: Option<u8>,
    /// What the closure gives: nothing, a quiet record, or one that is due.
    outcome: u8,
    effects: u8,
    lines: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let mark = prop::option::of(0_u8..4);
    (0_u8..3, mark, 0_u8..3, 0_u8..3, 0_u8..3).prop_map(|(sub, mark, outcome, effects, lines)| Step {
        sub,
        mark,
        outcome,
        effects,
        lines,
    })
}

/// What must be stored.
#[derive(Default)]
struct Model {
    records: BTreeMap<String, Record>,
    marks: BTreeSet<(String, u8)>,
    effects: BTreeSet<String>,
    lines: BTreeSet<String>,
    due: BTreeSet<String>,
}

impl Model {
    /// The write of a step, or nothing.
    fn wanted(sub: &str, step: &Step, epoch: i64) -> Option<Write> {
        let base = write(sub, epoch);
        let record = match step.outcome {
            0 => return None,
            1 => record(sub, epoch),
            _ => held_from(sub, at(epoch)),
        };
        let named = |n: u8| format!("{sub}:{epoch}:{n}");
        let effect = base.effects[0].1.clone();
        let line = base.audit[0].clone();
        Some(Write {
            record: Some(record),
            effects: (0..step.effects).map(|n| (named(n), effect.clone())).collect(),
            audit: (0..step.lines)
                .map(|n| {
                    let mut line = line.clone();
                    line.id = named(n);
                    line
                })
                .collect(),
            ..base
        })
    }

    fn take(&mut self, sub: &str, step: &Step, write: Option<&Write>) -> &'static str {
        if let Some(mark) = step.mark
            && !self.marks.insert((sub.to_owned(), mark))
        {
            return "duplicate";
        }
        let Some(write) = write else {
            return "unchanged";
        };
        let record = write.record.clone().unwrap();
        if record.due().is_some() {
            self.due.insert(sub.to_owned());
        } else {
            self.due.remove(sub);
        }
        self.records.insert(sub.to_owned(), record);
        self.effects
            .extend(write.effects.iter().map(|(id, _)| id.clone()));
        self.lines.extend(write.audit.iter().map(|l| l.id.clone()));
        "stored"
    }
}

const fn name(updated: &Updated) -> &'static str {
    match updated {
        Updated::Stored => "stored",
        Updated::Duplicate => "duplicate",
        Updated::Unchanged => "unchanged",
    }
}

/// Compares everything in the store with the model.
async fn agrees(house: &dyn House, model: &Model, subs: &BTreeSet<String>) {
    let (store, keys) = (house.store(), house.keys());
    for sub in subs {
        let key = keys.subject(&subject(sub));
        let loaded = store.read(&key, Parts::RECORD).await.unwrap();
        assert_eq!(loaded.record.as_ref(), model.records.get(sub), "{sub}");
    }
    let effects = effect_ids(&*store).await;
    let unique: BTreeSet<String> = effects.iter().cloned().collect();
    assert_eq!(unique.len(), effects.len(), "an effect was stored twice");
    assert_eq!(unique, model.effects, "effects");
    let lines = line_ids(&*store, None).await;
    assert_eq!(lines.len(), model.lines.len(), "audit lines");
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), model.lines);
    let due: BTreeSet<_> = store.due(END, 10_000).await.unwrap().into_iter().collect();
    let wanted = model.due.iter().map(|sub| keys.subject(&subject(sub)));
    assert_eq!(due, wanted.collect(), "due entries");
}

pub async fn p9_effects_audit_and_due_follow_the_record_or_nothing_does(house: &mut dyn House) {
    let mut model = Model::default();
    let mut subs = BTreeSet::new();
    let mut epoch = 0;
    for (case, steps) in cases(&prop::collection::vec(step(), 1..8)).iter().enumerate() {
        for step in steps {
            epoch += 1;
            let sub = format!("u{case}-{}", step.sub);
            let wanted = Model::wanted(&sub, step, epoch);
            let mark = step.mark.map(|m| Mark {
                name: format!("user_events:{sub}:{m}"),
                keep: Span::from_days(1),
            });
            let key = house.keys().subject(&subject(&sub));
            let updated = house
                .store()
                .update(&key, Parts::ALL, mark.as_ref(), &|_| wanted.clone())
                .await
                .unwrap();
            let expected = model.take(&sub, step, wanted.as_ref());
            assert_eq!(name(&updated), expected, "{step:?}");
            subs.insert(sub);
        }
        if case % 16 == 15 {
            agrees(house, &model, &subs).await;
        }
    }
    agrees(house, &model, &subs).await;
}

pub async fn p9_everything_survives_a_crash_after_the_answer(house: &mut dyn House) {
    let mut model = Model::default();
    let mut subs = BTreeSet::new();
    for epoch in 1..=20 {
        let sub = format!("u{epoch}");
        let step = Step {
            sub: 0,
            mark: Some(0),
            outcome: 2,
            effects: 2,
            lines: 2,
        };
        let wanted = Model::wanted(&sub, &step, epoch);
        let mark = Mark {
            name: format!("user_events:{sub}:0"),
            keep: Span::from_days(1),
        };
        let key = house.keys().subject(&subject(&sub));
        let store = house.store();
        store
            .update(&key, Parts::ALL, Some(&mark), &|_| wanted.clone())
            .await
            .unwrap();
        model.take(&sub, &step, wanted.as_ref());
        subs.insert(sub);
    }
    house.crash().await;
    agrees(house, &model, &subs).await;
    // The marks too: what comes again after the crash counts once.
    for sub in &subs {
        let mark = Mark {
            name: format!("user_events:{sub}:0"),
            keep: Span::from_days(1),
        };
        let key = house.keys().subject(&subject(sub));
        let store = house.store();
        let late = |_: &_| Some(write(sub, 99));
        let again = store.update(&key, Parts::RECORD, Some(&mark), &late);
        assert!(matches!(again.await.unwrap(), Updated::Duplicate));
    }
    agrees(house, &model, &subs).await;
}

/// A change out of a few that differ in row, time and proof.
fn change() -> impl Strategy<Value = Change> {
    let kinds = prop::sample::select(vec![
        ChangeKind::PasswordReset,
        ChangeKind::PasswordChanged,
        ChangeKind::FactorAdded,
        ChangeKind::FactorRemoved,
        ChangeKind::EmailChanged,
        ChangeKind::CredentialInitialised,
    ]);
    let proofs = prop::sample::select(vec![Proof::Unproven, Proof::RecentLogin, Proof::EligibleFactor]);
    (0_u8..5, kinds, proofs, 0_i64..72, any::<bool>()).prop_map(|(id, kind, proof, hours, ours)| Change {
        proof,
        session: ours.then(|| format!("s{id}")),
        ..observed(&format!("e{id}"), kind, at(hours * 3600))
    })
}

/// What each source says about the same event is the same, so an id is one change.
fn distinct(changes: Vec<Change>) -> Vec<Change> {
    let mut ids = BTreeSet::new();
    let first = |c: &Change| ids.insert(c.id.clone());
    let mut changes: Vec<Change> = changes.into_iter().filter(first).collect();
    changes.sort_by_key(|c| c.at);
    changes
}

/// A story: what happened, and in which order it is heard, with repetitions from either source.
fn story() -> impl Strategy<Value = (&'static str, Vec<Change>, Vec<(usize, bool)>)> {
    let tiers = prop::sample::select(vec!["consumer", "b2b_user", "b2b_admin", "high_assurance"]);
    let heard = prop::collection::vec(change(), 1..5)
        .prop_map(distinct)
        .prop_flat_map(|changes| {
            let all: Vec<usize> = (0..changes.len()).collect();
            let heard = prop::collection::vec((0..changes.len(), any::<bool>()), 0..5);
            let order = (Just(all), heard).prop_map(|(all, extra)| {
                let once = all.into_iter().map(|index| (index, false));
                once.chain(extra).collect::<Vec<_>>()
            });
            (Just(changes), order.prop_shuffle())
        });
    (tiers, heard).prop_map(|(tier, (changes, order))| (tier, changes, order))
}

/// Brings a change to the store, as ingest does: marked per source, applied, committed.
async fn hear(house: &dyn House, sub: &str, tier: &str, change: &Change, received: Timestamp) {
    let policy = Policy::standard();
    let tier = policy.tier(&TierName(tier.to_owned())).unwrap();
    let change = &Change {
        received,
        ..change.clone()
    };
    let who = subject(sub);
    let key = house.keys().subject(&who);
    let mark = Mark {
        name: format!("{}:{sub}:{}", change.source.as_str(), change.id),
        keep: Span::from_days(1),
    };
    let account = account();
    let reference = format!("h-{}-{}", change.id, change.source.as_str());
    let closure = |old: &reentry::ports::store::Loaded| {
        let setting = Setting {
            policy: &policy,
            tier,
            place: 0,
            now: Now::exact(received),
            reference: &reference,
        };
        let before = old.account.as_ref().or(Some(&account));
        apply(&who, old.record.as_ref(), before, None, change, setting).map(Write::from)
    };
    house
        .store()
        .update(&key, Parts::ACCOUNT, Some(&mark), &closure)
        .await
        .unwrap();
}

async fn end_state(house: &dyn House, sub: &str) -> Option<Record> {
    let key = house.keys().subject(&subject(sub));
    let store = house.store();
    store.read(&key, Parts::RECORD).await.unwrap().record
}

/// Whether `one` is at least as strict as `other` at every instant that matters.
fn assert_at_least_as_strict(one: Option<&Record>, other: Option<&Record>, story: &str) {
    let Some(other) = other else { return };
    let Some(one) = one else {
        panic!("nothing was stored: {story}");
    };
    let restricted = other.restriction(Now::exact(at(LATE))).is_some();
    assert!(one.epoch > 0 || !restricted, "{story}");
    for hour in 0..(24 * 10) {
        let now = Now::exact(at(LATE + hour * 3600));
        if let Some(other) = other.restriction(now) {
            let one = one.restriction(now);
            let one = one.unwrap_or_else(|| panic!("free at hour {hour}: {story}"));
            assert!(one.allowed.within(&other.allowed), "hour {hour}: {story}");
            assert!(one.until >= other.until, "hour {hour}: {story}");
        }
    }
    for began in [at(0), at(LATE / 2), at(LATE)] {
        for session in [None, Some("s0"), Some("s1"), Some("other")] {
            let (one, other) = (
                one.session_lives(began, session),
                other.session_lives(began, session),
            );
            assert!(!one || other, "a session lives on: {story}");
        }
    }
}

/// When everything has happened and everything is heard that was missed.
const LATE: i64 = 72 * 3600;

pub async fn p10_repeated_and_reordered_changes_end_the_same_or_stricter(house: &mut dyn House) {
    // Everything is heard at once, after it has happened: an outage is over.
    compare(house, Clone::clone, |_| at(LATE)).await;
}

pub async fn p10_delayed_changes_end_the_same_or_stricter(house: &mut dyn House) {
    // One hears of everything as it happens, the other of everything late, repeated, in another order; but not so
    // late that a change only tells any more (domain "End").
    let recent = |change: &Change| Change {
        at: at(LATE - at(LATE).since(change.at).secs() / 2),
        ..change.clone()
    };
    compare(house, recent, |change| change.at).await;
}

pub async fn p10_changes_heard_again_much_later_end_the_same_or_stricter(house: &mut dyn House) {
    for (case, (tier, changes, order)) in cases(&story()).iter().enumerate() {
        let (once, again) = (format!("a{case}"), format!("b{case}"));
        for change in changes {
            hear(house, &once, tier, change, change.at).await;
            hear(house, &again, tier, change, change.at).await;
        }
        for (index, _) in order {
            let change = Change {
                source: Source::Reconcile,
                ..changes[*index].clone()
            };
            hear(house, &again, tier, &change, at(LATE + 36 * 3600)).await;
        }
        let repeated = end_state(house, &again).await;
        let known = end_state(house, &once).await;
        let story = format!("{tier}: {changes:#?} heard again as {order:?}");
        assert_at_least_as_strict(repeated.as_ref(), known.as_ref(), &story);
    }
}

/// Tells one account what happened in order, each at the time that `heard` says, and another account late.
async fn compare(
    house: &dyn House,
    happened: impl Fn(&Change) -> Change,
    heard: impl Fn(&Change) -> Timestamp,
) {
    for (case, (tier, changes, order)) in cases(&story()).iter().enumerate() {
        let changes: Vec<Change> = changes.iter().map(&happened).collect();
        let (straight, shuffled) = (format!("a{case}"), format!("b{case}"));
        for change in &changes {
            hear(house, &straight, tier, change, heard(change)).await;
        }
        for (index, other_source) in order {
            let mut change = changes[*index].clone();
            if *other_source {
                change.source = Source::Reconcile;
            }
            hear(house, &shuffled, tier, &change, at(LATE)).await;
        }
        let (one, other) = (
            end_state(house, &shuffled).await,
            end_state(house, &straight).await,
        );
        let story = format!("{tier}: {changes:#?} heard as {order:?}");
        assert_at_least_as_strict(one.as_ref(), other.as_ref(), &story);
    }
}
