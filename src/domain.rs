//! The pure core: what happens to an account that recovers.
//!
//! No IO, no async, no clock, no randomness, no environment. Time and ids come in as arguments, so every
//! rule can be run a million times by a property test exactly as it ships.

pub mod audit;
pub mod ceiling;
pub mod change;
pub mod entitlement;
pub mod event;
pub mod hold;
pub mod holders;
pub mod json;
pub mod notice;
pub mod pace;
pub mod policy;
pub mod room;
pub mod session;
pub mod subject;
pub mod tier;
pub mod time;
pub mod wording;
