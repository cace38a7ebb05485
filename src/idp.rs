//! Adapters to identity providers: read their events, act on accounts, wire and check a tenant.
pub mod keycloak;
