//! `mail`: how notices leave.

use std::time::Duration;

use secrecy::SecretString;

use super::reader::Section;
use super::values::{deadline, email, mailbox, port};
use super::words::filled;

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// Not at all; only for a server on this machine or a trusted network.
    None,
    /// STARTTLS, required (RFC 3207).
    Starttls,
    /// TLS from the first octet (RFC 8314).
    Implicit,
}

/// Log-in at the mail server.
#[derive(Clone, Debug)]
pub struct MailLogin {
    /// User.
    pub user: String,
    /// Password.
    pub password: SecretString,
}

/// The section `mail`.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The server's name, as in its certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Protection.
    pub tls: MailTls,
    /// A file with further certificates to trust (PEM), for a private authority.
    pub ca_file: Option<std::path::PathBuf>,
    /// Log-in, where the server wants one.
    pub login: Option<MailLogin>,
    /// Sender: an address, or `Name <address>`.
    pub from: String,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// Longest wait for the server.
    pub timeout: Duration,
}

impl Mail {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let host = s.required("host", "smtp.example.com", filled);
        let tls = s.choice(
            "tls",
            MailTls::Starttls,
            &[
                ("none", MailTls::None),
                ("starttls", MailTls::Starttls),
                ("implicit", MailTls::Implicit),
            ],
        );
        let usual = if tls == Some(MailTls::Implicit) { 465 } else { 587 };
        let port = s.or("port", usual, port);
        let ca_file = s.file("ca_file");
        let login = login(s);
        let from = s.required("from", "notices@example.com", mailbox);
        let reply_to = s.optional("reply_to", email);
        let timeout = s.or("timeout", Duration::from_secs(10), deadline);
        let (host, login) = (host?, login?);
        let here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if tls == Some(MailTls::None) && !here {
            let advice = "write `tls: starttls`";
            if login.is_some() {
                s.fault(
                    "tls",
                    "is none, so the password would be sent in the clear",
                    advice,
                );
                return None;
            }
            s.warn(
                "tls",
                "is none: notices can be read and changed on their way",
                advice,
            );
        }
        Some(Self {
            host,
            port: port?,
            tls: tls?,
            ca_file: ca_file?,
            login,
            from: from?,
            reply_to: reply_to?,
            timeout: timeout?,
        })
    }
}

#[expect(clippy::option_option, reason = "not there and not readable are two things")]
fn login(s: &Section<'_>) -> Option<Option<MailLogin>> {
    let user = s.optional("user", filled);
    let password = s.secret("password");
    match (user?, password?) {
        (None, None) => Some(None),
        (Some(user), Some(password)) => Some(Some(MailLogin { user, password })),
        (Some(_), None) => {
            let problem = "is missing, but there is a user";
            s.fault("password_file", problem, "name a file with the password");
            None
        }
        (None, Some(_)) => {
            s.fault("user", "is missing, but there is a password", "write the user");
            None
        }
    }
}
