//! E-mail over SMTP (RFC 5321) with STARTTLS (RFC 3207), implicit TLS (RFC 8314) and AUTH (RFC 4954).
//!
//! STARTTLS is required or not used: a server that does not offer it gets nothing. What is refused for good is
//! only what is wrong with this one address; a server that is down, full or in a bad mood is asked again.

use std::fmt::Write as _;

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters, TlsVersion};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};

use crate::notify::mail::{Messages, Rendered};
use crate::ports::notifier::{Notifier, NotifyError, Outgoing};

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: for a relay on the same machine or behind a mesh that encrypts.
    None,
    /// STARTTLS, required.
    StartTls,
    /// TLS from the first octet (port 465).
    Implicit,
}

/// Where mail is handed in.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Host name or address; with TLS the name in its certificate.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// User and password.
    pub credentials: Option<(String, SecretString)>,
    /// Further trusted certificates, PEM.
    pub authorities: Option<Vec<u8>>,
    /// A whole delivery has to be over after this.
    pub deadline: Duration,
    /// Sender's address.
    pub from: String,
    /// Sender's name; may be empty.
    pub from_name: String,
    /// Where answers go, if not to the sender.
    pub reply_to: Option<String>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RelayFault {
    /// The sender's or the reply address is none.
    #[error("`{0}` is not an e-mail address")]
    Address(String),
    /// The certificates do not parse, or TLS cannot be set up.
    #[error("TLS towards the mail server cannot be set up: {0}")]
    Tls(String),
    /// A password would go over the network in the clear.
    #[error("a password is never sent unencrypted to {0}: use starttls or tls")]
    ClearPassword(String),
}

/// Hands e-mails to a relay.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    deadline: Duration,
    messages: Messages,
}

impl Mailer {
    /// A mailer for `relay`. Connects to nothing yet.
    ///
    /// # Errors
    /// [`RelayFault`] says what has to be changed.
    pub fn new(relay: &Relay, messages: Messages) -> Result<Self, RelayFault> {
        let address = |text: &str| {
            text.parse::<Address>()
                .map_err(|_| RelayFault::Address(text.to_owned()))
        };
        let name = Some(relay.from_name.clone()).filter(|name| !name.is_empty());
        let from = Mailbox::new(name, address(&relay.from)?);
        let reply_to = relay.reply_to.as_deref().map(address).transpose()?;
        Ok(Self {
            transport: transport(relay)?,
            from,
            reply_to: reply_to.map(|a| Mailbox::new(None, a)),
            deadline: relay.deadline,
            messages,
        })
    }

    /// Whether the relay answers, takes our certificate expectations and our password: for `doctor`.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn check(&self) -> Result<(), String> {
        match tokio::time::timeout(self.deadline, self.transport.test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the mail server closed the connection".to_owned()),
            Ok(Err(error)) => Err(told(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.deadline)),
        }
    }

    /// Sends one plain mail to `address`, for `doctor`.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn send_test(&self, address: &str) -> Result<(), String> {
        let to: Address = address
            .parse()
            .map_err(|_| format!("`{address}` is not an e-mail address"))?;
        let body = "This is a test of the mail settings. Notices about your account would come this way.\n";
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject("Test of the mail settings")
            .body(body.to_owned())
            .map_err(|e| e.to_string())?;
        match tokio::time::timeout(self.deadline, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(told(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.deadline)),
        }
    }

    /// The whole message as it goes over the wire.
    ///
    /// # Errors
    /// [`NotifyError::Never`] when the address is none, or a template fails.
    pub fn compose(&self, outgoing: &Outgoing<'_>) -> Result<Message, NotifyError> {
        let to: Address =
            outgoing.notice.address.parse().map_err(|_| {
                NotifyError::Never("the address is not one that mail can be sent to".to_owned())
            })?;
        let Rendered { subject, text, html } = self
            .messages
            .render(outgoing)
            .map_err(|e| NotifyError::Never(format!("the message cannot be written: {e}")))?;
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .message_id(Some(self.message_id(outgoing.id)))
            .date_now()
            .header(AutoSubmitted);
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        builder
            .multipart(MultiPart::alternative_plain_html(text, html))
            .map_err(|e| NotifyError::Never(format!("the message cannot be built: {e}")))
    }

    /// Stable for an effect, so that a repeated delivery is recognisable; says nothing about the account.
    fn message_id(&self, effect: &str) -> String {
        let hash = digest::digest(&digest::SHA256, effect.as_bytes());
        let mut name = String::with_capacity(32);
        for octet in hash.as_ref().iter().take(16) {
            let _ = write!(name, "{octet:02x}");
        }
        format!("<{name}@{}>", self.from.email.domain())
    }
}

#[async_trait]
impl Notifier for Mailer {
    async fn deliver(&self, outgoing: &Outgoing<'_>) -> Result<(), NotifyError> {
        let message = self.compose(outgoing)?;
        match tokio::time::timeout(self.deadline, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if hopeless(&error) => Err(NotifyError::Never(told(&error))),
            Ok(Err(error)) => Err(NotifyError::Later(told(&error))),
            Err(_) => Err(NotifyError::Later(format!(
                "the mail server did not take the message within {:?}",
                self.deadline
            ))),
        }
    }
}

fn transport(relay: &Relay) -> Result<AsyncSmtpTransport<Tokio1Executor>, RelayFault> {
    let tls = match relay.security {
        Security::None => Tls::None,
        Security::StartTls => Tls::Required(parameters(relay)?),
        Security::Implicit => Tls::Wrapper(parameters(relay)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&relay.host)
        .port(relay.port)
        .tls(tls)
        .timeout(Some(relay.deadline));
    if let Some((user, password)) = &relay.credentials {
        if relay.security == Security::None && !loopback(&relay.host) {
            return Err(RelayFault::ClearPassword(relay.host.clone()));
        }
        let password = password.expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}

fn parameters(relay: &Relay) -> Result<TlsParameters, RelayFault> {
    let mut builder = TlsParameters::builder(relay.host.clone()).set_min_tls_version(TlsVersion::Tlsv12);
    if let Some(pem) = &relay.authorities {
        let certificate = Certificate::from_pem(pem).map_err(|e| RelayFault::Tls(e.to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|e| RelayFault::Tls(e.to_string()))
}

fn loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// What a failure says, with its cause: the library's own text stops at "Connection error".
fn told(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // Servers repeat the address that they refuse; logs and audit lines hold none.
    let words = text
        .split_whitespace()
        .map(|word| if word.contains('@') { "(address)" } else { word });
    crate::domain::wording::plain_line(&words.collect::<Vec<_>>().join(" "), 300)
}

/// Whether the refusal is about this one address for good. An enhanced status code (RFC 3463) says so exactly:
/// X.1.1, X.1.2, X.1.3, X.1.6, X.1.10 (bad, unknown, moved address) and X.2.1 (mailbox disabled). Without one,
/// 550, 551 and 553 do (RFC 5321 §4.2.3). Everything else may be a matter of policy, greylisting or our sender.
fn hopeless(error: &lettre::transport::smtp::Error) -> bool {
    let Some(code) = error.status().filter(|_| error.is_permanent()) else {
        return false;
    };
    let text = told(error);
    let enhanced = text.split([' ', ':', '(', ')', '-']).find_map(|word| {
        let mut parts = word.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(5)), Some(Ok(subject)), Some(Ok(detail)), None) => Some((subject, detail)),
            _ => None,
        }
    });
    match enhanced {
        Some((1, detail)) => matches!(detail, 1 | 2 | 3 | 6 | 10),
        Some((2, 1)) => true,
        Some(_) => false,
        None => matches!(u16::from(code), 550 | 551 | 553),
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834 §5): nobody's absence note answers it.
#[derive(Clone, Copy, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
