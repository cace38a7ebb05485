//! The surfaces for people and operators: the report page, the admin API, the operations listener.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "surfaces/account.rs"]
mod account;
#[path = "surfaces/admin.rs"]
mod admin;
#[path = "surfaces/guards.rs"]
mod guards;
#[path = "surfaces/ops.rs"]
mod ops;
#[path = "surfaces/pages.rs"]
mod pages;
#[path = "surfaces/report.rs"]
mod report;
#[path = "surfaces/trouble.rs"]
mod trouble;
#[path = "surfaces/world.rs"]
mod world;
