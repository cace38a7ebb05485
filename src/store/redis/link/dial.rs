//! How a single connection is made: address, credentials, TLS, deadlines.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisResult, TlsCertificates,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::connection::Connection;

/// A node's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }

    /// `host:port`, where the host may hold colons of its own.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self::new(host, port.parse().ok()?))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What every connection to one kind of server has in common.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretString>,
    pub(crate) database: u16,
    pub(crate) tls: bool,
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl Dial {
    /// Whether the settings can be used at all; connects to nobody.
    ///
    /// # Errors
    /// When not, for example because of an authority that is no certificate.
    pub(crate) fn try_out(&self) -> RedisResult<()> {
        self.client(&Endpoint::new("localhost", 1)).map(|_| ())
    }

    fn client(&self, at: &Endpoint) -> RedisResult<Client> {
        let host = at.host.clone();
        let address = if self.tls {
            ConnectionAddr::TcpTls {
                host,
                port: at.port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, at.port)
        };
        let info = address.into_connection_info()?;
        let mut own = info.redis_settings().clone().set_db(i64::from(self.database));
        if let Some(user) = &self.user {
            own = own.set_username(user);
        }
        if let Some(password) = &self.password {
            own = own.set_password(password.expose_secret());
        }
        let info = info
            .set_redis_settings(own)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match &self.ca {
            Some(ca) => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(ca.clone()),
                },
            ),
            None => Client::open(info),
        }
    }

    /// A new connection whose answers may take `extra` longer than usual.
    ///
    /// # Errors
    /// When it does not stand in time.
    pub(super) async fn open(&self, at: &Endpoint, extra: Duration) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout + extra));
        let client = self.client(at)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let deadline = self.connect_timeout + self.response_timeout;
        match tokio::time::timeout(deadline, connecting).await {
            Ok(connected) => connected.map(Connection::from),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["a:1", "[::1]:2"] {
            assert_eq!(
                Endpoint::parse(text).map(|e| e.to_string()).as_deref(),
                Some(text)
            );
        }
        assert_eq!(Endpoint::parse("a"), None);
        assert_eq!(Endpoint::parse("::1:7"), Some(Endpoint::new("::1", 7)));
    }
}
