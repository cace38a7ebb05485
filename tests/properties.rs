//! The domain's safety properties, each a test of its name, on the functions that ship.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "properties/contest.rs"]
mod contest;
#[path = "properties/grants.rs"]
mod grants;
#[path = "properties/histories.rs"]
mod histories;
#[path = "properties/holders.rs"]
mod holders;
#[path = "properties/inforce.rs"]
mod inforce;
#[path = "properties/rebuild.rs"]
mod rebuild;
#[path = "properties/rooms.rs"]
mod rooms;
#[path = "properties/sentences.rs"]
mod sentences;
#[path = "properties/table.rs"]
mod table;
#[path = "properties/tokens.rs"]
mod tokens;
#[path = "properties/unreadable.rs"]
mod unreadable;
#[path = "properties/versions.rs"]
mod versions;
#[path = "properties/withdrawn.rs"]
mod withdrawn;
#[path = "properties/world.rs"]
mod world;
