//! Reentry: account recovery as trustworthy as login.
//!
//! The house has one direction: `cli → app → http → flow → ports → domain`. Adapters (`store idp oidc
//! notify`) know the ports and the domain and never each other; `tests/architecture.rs` is the wall.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod flow;
pub mod http;
pub mod idp;
pub mod notify;
pub mod oidc;
pub mod ports;
pub mod rp;
pub mod store;
pub mod telemetry;
