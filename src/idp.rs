//! Adapters to identity providers: read their events, act on accounts, wire and check a tenant; and the hook by which
//! any program tells of a change.
pub mod generic;
pub mod keycloak;
