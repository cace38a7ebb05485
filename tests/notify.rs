//! Mails: what they say (every message held to a snapshot, as text and as HTML), and how they are handed in.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use reentry::domain::ceiling::Ceiling;
use reentry::domain::change::ChangeKind;
use reentry::domain::notice::{Content, Ended, Message, Notice};
use reentry::domain::policy::AtEnd;
use reentry::domain::subject::account::{ChannelId, ContactKind};
use reentry::domain::time::Timestamp;
use reentry::domain::wording::Wording;
use reentry::notify::Gateways;
use reentry::notify::mail::{Messages, Sender};
use reentry::notify::smtp::{Mailer, Relay, RelayFault, Security};
use reentry::ports::notifier::{Notifier, NotifyError, Outgoing};
use reentry_test_support::mail::{Behaviour, MailSink};

const LINK: &str = "https://login.bank.example/cancel/AQIDBAUGBwgJ";
const ACCOUNT: &str = "https://login.bank.example/account";
/// 21 November 2026, 09:12 UTC.
const AT: i64 = 1_795_252_320;

fn messages() -> Messages {
    let sender = Sender {
        name: "Example Bank".to_owned(),
        accent: "#0b5394".to_owned(),
        support: Some("+351 210 000 000, day and night".to_owned()),
    };
    Messages::new(Wording::new(TimeZone::UTC, &BTreeMap::new()), sender).unwrap()
}

/// Messages that are only sent while an account is frozen.
const FROZEN: [Message; 3] = [
    Message::AccountFrozen,
    Message::FreezeEnding,
    Message::FreezeStands,
];

fn notice(message: Message, change: Option<ChangeKind>) -> Notice {
    let about_a_change = change.is_some();
    Notice {
        case: "rc_0123456789abcdefghijkl".to_owned(),
        channel: ChannelId("c1".to_owned()),
        kind: ContactKind::Email,
        address: "ana@example.org".to_owned(),
        before: true,
        link: ![Message::RestrictionKept, Message::AdministratorAdded].contains(&message),
        content: Content {
            message,
            change,
            at: Timestamp::from_secs(AT),
            origin: change.map(|_| "Lisbon".to_owned()),
            allowed: match message {
                Message::FreezeEnded | Message::RestrictionKept => Some(Ceiling::of(&["read"])),
                _ => about_a_change.then(|| Ceiling::of(&["read", "write"])),
            },
            until: (about_a_change || matches!(message, Message::FreezeEnding | Message::FreezeEnded))
                .then(|| Timestamp::from_secs(AT + 86_400)),
            locale: None,
            name: "Ana Sousa".to_owned(),
            count: None,
            frozen: FROZEN.contains(&message),
            ended: (message == Message::FreezeEnded).then_some(Ended::Unfounded),
            at_end: (message == Message::FreezeEnded).then_some(AtEnd::FreshEligibleLogin),
        },
    }
}

fn outgoing(notice: &Notice) -> Outgoing<'_> {
    Outgoing {
        id: "rc_0123456789abcdefghijkl:password_changed:c1",
        notice,
        link: notice.link.then(|| LINK.to_owned()),
        account_page: ACCOUNT.to_owned(),
    }
}

/// Every message, once for each change that it can tell of.
fn every() -> Vec<(String, Notice)> {
    use ChangeKind as K;
    let changes: &[(Message, &[K])] = &[
        (Message::EmailChanged, &[K::EmailChanged]),
        (Message::PhoneChanged, &[K::PhoneChanged]),
        (
            Message::PasswordChanged,
            &[
                K::PasswordReset,
                K::PasswordChanged,
                K::PasswordSetByAdmin,
                K::CredentialInitialised,
            ],
        ),
        (
            Message::MfaDeviceChanged,
            &[
                K::FactorAdded,
                K::FactorRemoved,
                K::AllFactorsReplaced,
                K::CredentialInitialised,
            ],
        ),
        (
            Message::RecoveryCodesReset,
            &[
                K::RecoveryCodesReset,
                K::RecoveryCodeUsed,
                K::CredentialInitialised,
            ],
        ),
        (
            Message::PossessionFactorChanged,
            &[
                K::FactorAdded,
                K::FactorRemoved,
                K::FederatedLinkChanged,
                K::CredentialInitialised,
            ],
        ),
        (Message::IntermediaryChanged, &[K::IntermediaryChanged]),
        (Message::RecoveryAttempted, &[]),
        (Message::AccountFrozen, &[]),
        (Message::FreezeEnding, &[]),
        (Message::FreezeEnded, &[]),
        (Message::FreezeStands, &[]),
        (Message::ReportRepeated, &[]),
        (Message::RestrictionKept, &[]),
        (Message::AdministratorAdded, &[]),
    ];
    let mut all = Vec::new();
    for (message, kinds) in changes {
        if kinds.is_empty() {
            all.push((message.as_str().to_owned(), notice(*message, None)));
        }
        for kind in *kinds {
            let name = serde_json::to_value(kind).unwrap();
            let mut notice = notice(*message, Some(*kind));
            if matches!(
                kind,
                K::CredentialInitialised | K::PasswordChanged | K::IntermediaryChanged
            ) {
                notice.content.allowed = None;
                notice.content.until = None;
            }
            all.push((format!("{}-{}", message.as_str(), name.as_str().unwrap()), notice));
        }
    }
    all
}

/// Compares with the kept text; `REENTRY_SNAPSHOTS=write` keeps what there is now.
fn snapshot(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots/mail")
        .join(name);
    let write = std::process::Command::new("sh")
        .args(["-c", "test \"$REENTRY_SNAPSHOTS\" = write"])
        .status()
        .is_ok_and(|s| s.success());
    if write {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "{} differs from the kept one", path.display());
}

/// The visible words of an HTML body, whitespace collapsed.
fn words_of(html: &str) -> String {
    let body = html.split_once("<body>").expect("a body").1;
    let mut words = String::new();
    let mut inside = false;
    for c in body.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                words.push(' ');
            }
            c if !inside => words.push(c),
            _ => {}
        }
    }
    let plain = words
        .replace("&#x27;", "'")
        .replace("&quot;", "\"")
        .replace("&#x2f;", "/")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

// rows C1 to C8: every kind has its message, in both forms.
#[test]
fn every_message_says_what_it_is_kept_to_say() {
    let messages = messages();
    let mut seen = std::collections::BTreeSet::new();
    for (name, notice) in every() {
        let rendered = messages.render(&outgoing(&notice)).unwrap();
        seen.insert(notice.content.message);
        snapshot(
            &format!("{name}.txt"),
            &format!("Subject: {}\n\n{}", rendered.subject, rendered.text),
        );
        snapshot(&format!("{name}.html"), &rendered.html);
    }
    assert_eq!(seen.len(), Message::ALL.len(), "every message is among them");
}

#[test]
fn text_and_html_say_the_same() {
    let messages = messages();
    for (name, notice) in every() {
        let rendered = messages.render(&outgoing(&notice)).unwrap();
        let html = words_of(&rendered.html);
        let text: String = rendered.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let html = html
            .strip_prefix(&rendered.subject)
            .expect("the subject is the heading")
            .trim();
        assert_eq!(html, text, "{name}");
    }
}

#[test]
fn a_mail_has_one_link_written_out_and_nothing_remote() {
    let messages = messages();
    for (name, notice) in every() {
        for (before, link) in [(true, true), (true, false), (false, false)] {
            let notice = Notice {
                before,
                link,
                ..notice.clone()
            };
            let rendered = messages.render(&outgoing(&notice)).unwrap();
            let expected = match (before, link) {
                (_, true) => Some(LINK),
                // Nobody signs in to a frozen account.
                (true, false) => Some(ACCOUNT).filter(|_| !notice.content.frozen),
                (false, false) => None,
            };
            let count = rendered.text.matches("://").count();
            assert_eq!(
                count,
                usize::from(expected.is_some()),
                "{name}: {}",
                rendered.text
            );
            assert_eq!(rendered.html.matches("href=").count(), count, "{name}");
            if let Some(expected) = expected {
                assert!(
                    rendered.text.contains(&format!("\n{expected}\n")),
                    "{name}: on a line of its own"
                );
            }
            for remote in [
                "<img",
                "src=",
                "url(",
                "@import",
                "<link",
                "<script",
                "unsubscribe",
            ] {
                assert!(!rendered.html.to_lowercase().contains(remote), "{name}: {remote}");
            }
        }
    }
}

// Whoever it was not has to be told what to do: by the link, or whom to turn to and what to name there.
#[test]
fn every_message_says_what_to_do_if_this_was_not_you() {
    let messages = messages();
    // Whom another account's role is told is not asked whether it was them.
    let own = |(_, notice): &(String, Notice)| notice.content.message != Message::AdministratorAdded;
    for (name, notice) in every().into_iter().filter(own) {
        for (before, link) in [(true, true), (true, false), (false, false)] {
            let notice = Notice {
                before,
                link,
                ..notice.clone()
            };
            let text = messages.render(&outgoing(&notice)).unwrap().text;
            let turns =
                text.contains("et in touch: ") && text.contains(&format!("reference {}", notice.case));
            assert!(turns || text.contains(LINK), "{name}: {text}");
        }
    }
}

#[test]
fn no_internal_word_reaches_an_owner() {
    let messages = messages();
    for (name, notice) in every() {
        let rendered = messages.render(&outgoing(&notice)).unwrap();
        let words = format!(
            "{} {} {}",
            rendered.subject,
            rendered.text,
            words_of(&rendered.html)
        )
        .to_lowercase();
        for internal in [
            "hold",
            "contested",
            "tier",
            "recovery_scope",
            "epoch",
            "token",
            "undefined",
            "none ",
        ] {
            assert!(!words.contains(internal), "{name} says {internal}");
        }
    }
}

#[test]
fn what_others_chose_cannot_break_out() {
    let mut notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    notice.content.name = "<script>alert(1)</script>".to_owned();
    notice.content.origin = Some("a</p><a href=x>b\r\nBcc: evil@example.org".to_owned());
    let rendered = messages().render(&outgoing(&notice)).unwrap();
    assert!(!rendered.html.contains("<script") && !rendered.html.contains("<a href=x"));
    assert!(!rendered.text.contains("\nBcc:") && !rendered.subject.contains('\n'));
    assert!(
        !rendered.text.contains("alert"),
        "a name that is none is not greeted"
    );
}

fn relay(port: u16, security: Security) -> Relay {
    Relay {
        host: "localhost".to_owned(),
        port,
        security,
        credentials: None,
        authorities: None,
        deadline: Duration::from_secs(5),
        from: "notices@bank.example".to_owned(),
        from_name: "Example Bank".to_owned(),
        reply_to: None,
    }
}

fn mailer(relay: &Relay) -> Mailer {
    Mailer::new(relay, messages()).unwrap()
}

#[test]
fn headers_are_those_of_a_machine_that_repeats_itself_recognisably() {
    let notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    let mailer = mailer(&relay(25, Security::None));
    let one = String::from_utf8(mailer.compose(&outgoing(&notice)).unwrap().formatted()).unwrap();
    let again = String::from_utf8(mailer.compose(&outgoing(&notice)).unwrap().formatted()).unwrap();
    let id = |mail: &str| {
        mail.lines()
            .find(|l| l.starts_with("Message-ID: <"))
            .map(str::to_owned)
    };
    assert!(id(&one).unwrap().ends_with("@bank.example>") && id(&one) == id(&again));
    assert!(
        !id(&one).unwrap().contains("rc_"),
        "the id says nothing about the case"
    );
    assert!(one.contains("Auto-Submitted: auto-generated\r\n"));
    assert!(one.contains("Content-Type: multipart/alternative;"));
    assert!(
        one.find("text/plain").unwrap() < one.find("text/html").unwrap(),
        "text first"
    );
    assert!(!one.contains("List-Unsubscribe"));
    let other = Outgoing {
        id: "another",
        ..outgoing(&notice)
    };
    let other = String::from_utf8(mailer.compose(&other).unwrap().formatted()).unwrap();
    assert_ne!(id(&one), id(&other));
}

#[tokio::test]
async fn an_address_that_is_none_never_goes_out() {
    for bad in [
        "",
        "ana",
        "ana@example.org\r\nBcc: evil@example.org",
        "a b@example.org",
        "ana@exa mple.org",
    ] {
        let mut notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
        notice.address = bad.to_owned();
        let answer = mailer(&relay(9, Security::None))
            .deliver(&outgoing(&notice))
            .await;
        assert!(
            matches!(answer, Err(NotifyError::Never(_))),
            "{bad:?}: {answer:?}"
        );
    }
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_do() {
    let wrong = Relay {
        from: "nobody".to_owned(),
        ..relay(25, Security::None)
    };
    assert!(matches!(
        Mailer::new(&wrong, messages()),
        Err(RelayFault::Address(_))
    ));
    let wrong = Relay {
        authorities: Some(b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec()),
        ..relay(25, Security::StartTls)
    };
    assert!(matches!(Mailer::new(&wrong, messages()), Err(RelayFault::Tls(_))));
    let wrong = Relay {
        host: "mail.bank.example".to_owned(),
        credentials: Some(("u".to_owned(), "p".into())),
        ..relay(25, Security::None)
    };
    assert!(matches!(
        Mailer::new(&wrong, messages()),
        Err(RelayFault::ClearPassword(_))
    ));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_asked_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    let answer = mailer(&relay(port, Security::None))
        .deliver(&outgoing(&notice))
        .await;
    assert!(matches!(answer, Err(NotifyError::Later(_))), "{answer:?}");
}

#[tokio::test]
async fn a_text_message_without_a_gateway_is_refused_visibly() {
    let mut notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    notice.kind = ContactKind::Phone;
    let gateways = Gateways {
        email: mailer(&relay(9, Security::None)),
    };
    let answer = gateways.deliver(&outgoing(&notice)).await;
    assert!(matches!(answer, Err(NotifyError::Never(why)) if why.contains("gateway")));
}

/// A relay that others wrote; it ends with the test.
struct Theirs {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    port: u16,
    certificate: Vec<u8>,
}

impl Theirs {
    /// `how`: `plain`, `starttls` or `implicit`.
    fn start(how: &str) -> Self {
        use std::io::BufRead as _;
        let python = reentry_test_support::clock::env("REENTRY_TEST_PYTHON").expect("run scripts/test");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notify/relay.py");
        let mut child = std::process::Command::new(python)
            .args([script, how])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let port = u16::try_from(first["port"].as_u64().unwrap()).unwrap();
        let certificate = first["certificate"].as_str().unwrap().as_bytes().to_vec();
        Self {
            child,
            lines,
            port,
            certificate,
        }
    }

    /// The next mail that was taken.
    fn mail(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    fn relay(&self, security: Security) -> Relay {
        Relay {
            credentials: Some(("reentry".to_owned(), "correct horse".into())),
            authorities: Some(self.certificate.clone()),
            ..relay(self.port, security)
        }
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_others_wrote_takes_our_mail_over_tls_with_a_password() {
    for (how, security) in [("starttls", Security::StartTls), ("implicit", Security::Implicit)] {
        let mut theirs = Theirs::start(how);
        let mut notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
        notice.content.name = "Zoë Ångström".to_owned();
        let mailer = mailer(&theirs.relay(security));
        assert_eq!(mailer.check().await, Ok(()), "{how}");
        mailer.deliver(&outgoing(&notice)).await.unwrap();
        let mail = theirs.mail();
        assert_eq!(mail["encrypted"], true, "{how}");
        assert_eq!(mail["login"], "reentry", "{how}");
        assert_eq!(mail["to"], serde_json::json!(["ana@example.org"]));
        assert_eq!(mail["defects"], serde_json::json!([]));
        assert_eq!(mail["headers"]["Subject"], "Your password was reset");
        assert_eq!(mail["headers"]["Auto-Submitted"], "auto-generated");
        assert_eq!(
            mail["parts"],
            serde_json::json!(["multipart/alternative", "text/plain", "text/html"])
        );
        let rendered = messages().render(&outgoing(&notice)).unwrap();
        let read = |part: &str| mail[part].as_str().unwrap().replace("\r\n", "\n");
        assert_eq!(
            read("text").trim_end(),
            rendered.text.trim_end(),
            "{how}: what was said arrives"
        );
        assert_eq!(read("html").trim_end(), rendered.html.trim_end(), "{how}");
        assert!(read("text").contains("Zoë Ångström") && read("text").contains(LINK));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_in_the_clear_to_a_stranger_or_with_a_wrong_password() {
    let notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    let theirs = Theirs::start("starttls");
    let unknown = Relay {
        authorities: None,
        ..theirs.relay(Security::StartTls)
    };
    let other_name = Relay {
        host: "127.0.0.2".to_owned(),
        ..theirs.relay(Security::StartTls)
    };
    let password = Relay {
        credentials: Some(("reentry".to_owned(), "wrong".into())),
        ..theirs.relay(Security::StartTls)
    };
    let clear = Relay {
        credentials: None,
        ..theirs.relay(Security::None)
    };
    let implicit = theirs.relay(Security::Implicit);
    let plain = Theirs::start("plain");
    let downgrade = Relay {
        credentials: None,
        ..plain.relay(Security::StartTls)
    };
    for (what, relay) in [
        ("a certificate that nobody vouches for", unknown),
        ("a certificate of another name", other_name),
        ("a wrong password", password),
        ("no encryption where it is demanded", clear),
        ("TLS at once where STARTTLS is spoken", implicit),
        ("a server without STARTTLS", downgrade),
    ] {
        let answer = mailer(&Relay {
            deadline: Duration::from_secs(4),
            ..relay
        })
        .deliver(&outgoing(&notice))
        .await;
        let Err(NotifyError::Later(why)) = answer else {
            panic!("{what}: {answer:?}")
        };
        assert!(
            !why.contains("correct horse") && !why.contains("ana@"),
            "{what}: {why}"
        );
    }
}

// row C14: refused for this address for good, or for now.
#[tokio::test(flavor = "multi_thread")]
async fn only_an_address_that_is_refused_for_good_is_given_up() {
    let sink = MailSink::start();
    let mailer = mailer(&Relay {
        deadline: Duration::from_secs(2),
        ..relay(sink.port(), Security::None)
    });
    let notice = notice(Message::PasswordChanged, Some(ChangeKind::PasswordReset));
    for (behaviour, never) in [
        (Behaviour::RefuseRecipient(450), false),
        (Behaviour::RefuseRecipient(451), false),
        (Behaviour::RefuseRecipient(550), true),
        (Behaviour::RefuseRecipient(551), true),
        (Behaviour::RefuseRecipient(553), true),
        (Behaviour::RefuseRecipient(554), false),
        (Behaviour::RefuseContent(452), false),
        (Behaviour::RefuseContent(554), false),
        (Behaviour::Hang, false),
        (Behaviour::Close, false),
    ] {
        sink.behave(behaviour);
        let answer = mailer.deliver(&outgoing(&notice)).await;
        match answer {
            Err(NotifyError::Never(_)) => assert!(never, "{behaviour:?}"),
            Err(NotifyError::Later(_)) => assert!(!never, "{behaviour:?}"),
            Ok(()) => panic!("{behaviour:?} was taken"),
        }
    }
    assert!(sink.all().is_empty());
    sink.behave(Behaviour::Accept);
    mailer.deliver(&outgoing(&notice)).await.unwrap();
    let [mail] = &sink.all()[..] else {
        panic!("one mail")
    };
    assert_eq!(mail.link("/cancel/"), LINK);
}
