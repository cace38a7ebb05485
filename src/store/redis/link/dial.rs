//! How a single connection is made: address, credentials, TLS, deadlines.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, RedisResult};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
        self.connector().map(|_| ())
    }

    /// How TLS is done, where it is.
    fn connector(&self) -> RedisResult<Option<TlsConnector>> {
        if !self.tls {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            for certificate in CertificateDer::pem_slice_iter(ca) {
                roots
                    .add(certificate.map_err(std::io::Error::other)?)
                    .map_err(std::io::Error::other)?;
            }
        } else {
            let mut system = rustls_native_certs::load_native_certs();
            if let Some(error) = system.errors.pop() {
                return Err(std::io::Error::other(error).into());
            }
            for certificate in system.certs {
                roots.add(certificate).map_err(std::io::Error::other)?;
            }
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(TlsConnector::from(Arc::new(config))))
    }

    /// A new connection whose answers may take `extra` longer than usual.
    ///
    /// # Errors
    /// When it does not stand in time.
    pub(super) async fn open(&self, at: &Endpoint, extra: Duration) -> RedisResult<Connection> {
        let deadline = self.connect_timeout + self.response_timeout;
        let opened = async {
            let stream = tokio::time::timeout(
                self.connect_timeout,
                TcpStream::connect((at.host.as_str(), at.port)),
            );
            let stream = stream.await.map_err(std::io::Error::from)??;
            stream.set_nodelay(true)?;
            let patience = self.response_timeout + extra;
            let connection = match self.connector()? {
                None => Connection::over(stream, patience),
                Some(tls) => {
                    let name = ServerName::try_from(at.host.clone())?;
                    Connection::over(tls.connect(name, stream).await?, patience)
                }
            };
            self.introduce(&connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(deadline, opened).await {
            Ok(opened) => opened,
            Err(late) => Err(std::io::Error::from(late).into()),
        }
    }

    /// Says who we are, and which database is meant. A server that does not want to know the program's name
    /// (before 7.2, a Sentinel, an ACL user without `client|setinfo`) does not have to.
    async fn introduce(&self, connection: &Connection) -> RedisResult<()> {
        let mut asked = Pipeline::with_capacity(4);
        if let Some(password) = &self.password {
            let auth = asked.cmd("AUTH");
            if let Some(user) = &self.user {
                auth.arg(user);
            }
            auth.arg(password.expose_secret());
        }
        if self.database != 0 {
            asked.cmd("SELECT").arg(self.database);
        }
        let needed = asked.len();
        for (what, value) in [("LIB-NAME", "reentry"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            asked.cmd("CLIENT").arg("SETINFO").arg(what).arg(value);
        }
        let answers = connection.send(&asked).await?;
        answers
            .into_iter()
            .take(needed)
            .try_for_each(|answer| answer.map(|_| ()))
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
