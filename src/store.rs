//! Where state lives: Redis for many nodes, a file for one node and for `demo`. One contract suite, `tests/store.rs`.
//!
//! Both adapters answer the same questions in the same way, because what is hard is written once:
//! `shared` holds the rules (what makes a reading believable, what a commit has to compare before it writes, when
//! an update runs again) and a [`backend`](self) only reads and commits octets. A commit compares the former
//! value of everything that the closure *saw*, not only of what it writes: a refresh that writes grants after it
//! saw an unrestricted record must not win against the hold that arrived in between (P1).
//!
//! **A missing record is not safety (P5).** An empty answer can come from an account to which nothing happened,
//! and as well from a flushed store, a restored backup, the wrong database, or a demoted node. So every partition
//! has a marker (see `marker`), every reading carries it, and a due entry is a second witness: whoever is due
//! must have a record.
//!
//! **Nor is a record that is there.** Whoever can write to the store and has no key cannot make a value, since each that
//! decides is sealed for its place; but he may have copied one, and put it back when a hold has come. So every commit of
//! a subject has a number, and the record's value, which every reading brings, says which snapshot and which grants
//! belong to it (`shared::anchor`). What does not fit, and what is older than this process has seen, is a loss: the
//! account alone is restricted, an alarm is raised, and it is made anew from its IdP (`flow::mend`). The same finds a
//! record that was taken away, with or without its due entry.
//!
//! **What can be read in a dump.** Records, snapshots, grants, the outbox and log-in state are sealed ([`seal`]); audit
//! lines hold the `sub` and no address and stay open, since an operator may have to look at them. Keys name subjects by
//! a keyed hash only.
//!
//! **What ends by itself.** Nothing that matters: the end of a hold is data. Expiry is garbage collection, always
//! relative to the last write and never set on a record that has a due entry, so that no clock that is wrong can
//! make a held account look quiet.

mod backend;
pub mod codec;
pub mod embedded;
mod marker;
pub mod redis;
mod retention;
pub mod seal;
mod shared;
