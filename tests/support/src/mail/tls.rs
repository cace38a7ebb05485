//! TLS of the mail server, under a certificate of its own.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// How connections are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// By `STARTTLS` (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314).
    Implicit,
}

/// What a conversation runs over, before and after `STARTTLS`.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone)]
pub(super) struct Tls {
    pub(super) security: Security,
    pub(super) acceptor: Option<TlsAcceptor>,
}

impl Tls {
    pub(super) async fn accept(&self, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        let acceptor = self.acceptor.as_ref().expect("a server with TLS");
        Ok(Box::new(acceptor.accept(stream).await?))
    }
}

/// A self-signed certificate for the loopback: the acceptor, and the PEM to trust.
pub(super) fn certificate() -> (TlsAcceptor, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

#[cfg(test)]
mod tests {
    use super::Security;
    use crate::mail::MailSink;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
    use tokio::net::TcpStream;

    async fn say<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut BufReader<S>, line: &str, code: &str) {
        if !line.is_empty() {
            wire.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            wire.flush().await.unwrap();
        }
        let mut answer = String::from("250-");
        while answer.as_bytes().get(3) == Some(&b'-') {
            answer.clear();
            wire.read_line(&mut answer).await.unwrap();
        }
        assert!(answer.starts_with(code), "{line:?}: {answer:?}");
    }

    #[tokio::test]
    async fn mail_goes_through_tls_both_ways() {
        for security in [Security::StartTls, Security::Implicit] {
            let sink = MailSink::start_secured(security);
            sink.require_login("u", "p");
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(sink.authority().as_bytes()).unwrap())
                .unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut plain = BufReader::new(TcpStream::connect(sink.address()).await.unwrap());
            if security == Security::StartTls {
                say(&mut plain, "", "220").await;
                say(&mut plain, "EHLO me", "250").await;
                say(&mut plain, "MAIL FROM:<f@x.test>", "530").await;
                say(&mut plain, "STARTTLS", "220").await;
            }
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, plain.into_inner()).await.unwrap();
            let mut wire = BufReader::new(stream);
            if security == Security::Implicit {
                say(&mut wire, "", "220").await;
            }
            for (line, code) in [
                ("EHLO me", "250"),
                ("AUTH PLAIN AHUAcA==", "235"),
                ("MAIL FROM:<f@x.test>", "250"),
                ("RCPT TO:<a@x.test>", "250"),
                ("DATA", "354"),
                ("Subject: s\r\n\r\nt\r\n.", "250"),
            ] {
                say(&mut wire, line, code).await;
            }
            let mail = sink.wait_for("a@x.test", "s", Duration::from_secs(1)).await;
            assert!(mail.encrypted);
            assert_eq!(mail.login.as_deref(), Some("u"));
        }
    }
}
