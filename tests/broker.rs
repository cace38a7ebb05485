//! The broker, as relying parties and browsers see it, without an IdP of its own: an OpenID provider of the test stands
//! in, so that it can misbehave. The same on a real Keycloak is in `tests/e2e_keycloak.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "broker/abuse.rs"]
mod abuse;
#[path = "broker/assertions.rs"]
mod assertions;
#[path = "broker/cost.rs"]
mod cost;
#[path = "broker/doors.rs"]
mod doors;
#[path = "broker/farewells.rs"]
mod farewells;
#[path = "broker/forge.rs"]
mod forge;
#[path = "broker/forgeries.rs"]
mod forgeries;
#[path = "broker/happy.rs"]
mod happy;
#[path = "broker/holds.rs"]
mod holds;
#[path = "broker/house.rs"]
mod house;
#[path = "broker/limits.rs"]
mod limits;
#[path = "broker/listener.rs"]
mod listener;
#[path = "broker/logout.rs"]
mod logout;
#[path = "broker/op.rs"]
mod op;
#[path = "broker/requests.rs"]
mod requests;
#[path = "broker/rotation.rs"]
mod rotation;
#[path = "broker/rp.rs"]
mod rp;
#[path = "broker/rubbish.rs"]
mod rubbish;
#[path = "broker/traces.rs"]
mod traces;
#[path = "broker/trouble.rs"]
mod trouble;
#[path = "broker/upstreams.rs"]
mod upstreams;
#[path = "broker/withdrawn.rs"]
mod withdrawn;
