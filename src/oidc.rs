//! The protocol's rules without a web framework.
//!
//! Keys and the checking of our own tokens stand here beside the broker's rules, because both sides of a token
//! have to agree on one thing: which key says which algorithm.

pub mod assertion;
pub mod authorize;
pub mod claims;
pub mod claims_request;
pub mod client_auth;
pub mod client_keys;
pub mod digest;
pub mod discovery;
pub mod farewell;
pub mod keys;
pub mod logout;
pub mod mint;
pub mod params;
pub mod remember;
pub mod settings;
mod transport;
pub mod upstream;
pub mod verify;

use std::sync::Arc;

use crate::domain::time::Timestamp;
use crate::ports::outbound::Outbound;
use crate::ports::signer::Signer;
use client_keys::Published;
use keys::KeyRing;
use settings::BrokerSettings;
use upstream::Upstreams;
use verify::{Expected, Refusal, Verified};

/// Everything the protocol needs: who may ask, who is asked, and the keys.
#[derive(Debug)]
pub struct Broker {
    /// Issuer, clients, upstreams.
    pub settings: BrokerSettings,
    /// Signs, and verifies what it signed.
    pub keys: Arc<KeyRing>,
    /// The IdPs as OpenID providers.
    pub upstreams: Upstreams,
    /// Keys that clients publish.
    pub published: Published,
}

impl Broker {
    /// A broker that asks the IdPs of its settings; `outbound` fetches the keys that clients publish.
    ///
    /// # Errors
    /// An HTTP client that cannot be built (TLS).
    pub fn new(
        settings: BrokerSettings,
        keys: Arc<KeyRing>,
        outbound: Arc<dyn Outbound>,
    ) -> Result<Self, reqwest::Error> {
        let published = Published::new(&settings, outbound);
        let upstreams = Upstreams::new(
            &settings.upstreams,
            reqwest::Client::builder(),
            settings.freshness,
        )?;
        Ok(Self {
            settings,
            keys,
            upstreams,
            published,
        })
    }

    /// The signer.
    #[must_use]
    pub fn signer(&self) -> &dyn Signer {
        self.keys.as_ref()
    }

    /// Checks one of our access tokens; any audience.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn access_token(
        &self,
        token: &str,
        audience: Option<&str>,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        let expected = Expected {
            issuer: &self.settings.issuer,
            audience,
            typ: verify::ACCESS_TOKEN,
            expired: false,
        };
        verify::verify(&self.keys, token, &expected, now)
    }

    /// Checks one of our ID tokens as a hint: an expired one is good enough (OIDC RP-Initiated Logout §4).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn hint(&self, token: &str, now: Timestamp) -> Result<Verified, Refusal> {
        let expected = Expected {
            issuer: &self.settings.issuer,
            audience: None,
            typ: verify::ID_TOKEN,
            expired: true,
        };
        verify::verify(&self.keys, token, &expected, now)
    }
}
