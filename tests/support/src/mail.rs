//! An SMTP server on the loopback that keeps what it is given and fails when told to.

mod message;
mod session;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use message::Mail;

use crate::clock::background;

/// How the server behaves from the next command on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Takes every mail.
    #[default]
    Accept,
    /// `RCPT` is answered with this code: 4xx for a passing refusal, 5xx for a final one.
    RefuseRecipient(u16),
    /// The mail is refused with this code after it was transferred.
    RefuseContent(u16),
    /// Connections are accepted, and nothing is ever said.
    Hang,
    /// Connections are closed at once.
    Close,
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Mail>,
    behaviour: Behaviour,
    refused: Vec<(String, u16)>,
    hung: Vec<String>,
    login: Option<(String, String)>,
    attempts: usize,
}

/// The mailbox of a whole test; it ends when dropped.
#[derive(Debug)]
pub struct MailSink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl MailSink {
    /// Listens on a free loopback port, without TLS.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = background().spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(session::serve(stream, Arc::clone(&shared)));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    /// The port to send to, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The `smtpServer` object of a Keycloak realm that sends here.
    pub fn keycloak_settings(&self) -> serde_json::Value {
        serde_json::json!({
            "host": "127.0.0.1", "port": self.port().to_string(), "from": "idp@idp.test",
            "fromDisplayName": "The identity provider", "auth": "false", "ssl": "false", "starttls": "false",
        })
    }

    /// Changes how the server behaves.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.state).behaviour = behaviour;
    }

    /// Refuses one recipient with this code and takes the others.
    pub fn refuse(&self, recipient: &str, code: u16) {
        lock(&self.state).refused.push((recipient.to_lowercase(), code));
    }

    /// Says nothing more in a conversation that names this recipient.
    pub fn hang_for(&self, recipient: &str) {
        lock(&self.state).hung.push(recipient.to_lowercase());
    }

    /// Takes every recipient again.
    pub fn refuse_nobody(&self) {
        let mut state = lock(&self.state);
        state.refused.clear();
        state.hung.clear();
    }

    /// Takes mail only after `AUTH PLAIN` or `AUTH LOGIN` with exactly these.
    pub fn require_login(&self, user: &str, password: &str) {
        lock(&self.state).login = Some((user.to_owned(), password.to_owned()));
    }

    /// How many connections began, refused ones included.
    pub fn attempts(&self) -> usize {
        lock(&self.state).attempts
    }

    /// Every mail taken so far, oldest first.
    pub fn all(&self) -> Vec<Mail> {
        lock(&self.state).mails.clone()
    }

    /// The mails to this address, oldest first.
    pub fn to(&self, recipient: &str) -> Vec<Mail> {
        self.all()
            .into_iter()
            .filter(|mail| mail.is_to(recipient))
            .collect()
    }

    /// Forgets the mails taken so far.
    pub fn clear(&self) {
        lock(&self.state).mails.clear();
    }

    /// Waits for the newest mail to `recipient` whose subject contains `subject`, in any case of letters.
    pub async fn wait_for(&self, recipient: &str, subject: &str, timeout: Duration) -> Mail {
        let wanted = subject.to_lowercase();
        let matches = |mail: &Mail| mail.subject.to_lowercase().contains(&wanted);
        let start = Instant::now();
        loop {
            if let Some(mail) = self.to(recipient).into_iter().rev().find(matches) {
                return mail;
            }
            if start.elapsed() > timeout {
                let seen: Vec<_> = self
                    .all()
                    .into_iter()
                    .map(|mail| (mail.recipients, mail.subject))
                    .collect();
                panic!("no mail to {recipient} with subject {subject:?} in {timeout:?}; came: {seen:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until at least `count` mails to `recipient` are there, and gives them all.
    pub async fn wait_count(&self, recipient: &str, count: usize, timeout: Duration) -> Vec<Mail> {
        let start = Instant::now();
        loop {
            let mails = self.to(recipient);
            if mails.len() >= count {
                return mails;
            }
            let subjects: Vec<_> = mails.into_iter().map(|mail| mail.subject).collect();
            assert!(
                start.elapsed() < timeout,
                "{count} mails to {recipient} expected; came: {subjects:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for MailSink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Behaviour, MailSink};
    use std::time::Duration;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpStream;

    async fn talk(sink: &MailSink, lines: &[&str]) -> Vec<String> {
        let mut stream = BufReader::new(TcpStream::connect(sink.address()).await.unwrap());
        let mut answers = vec![read(&mut stream).await];
        for line in lines {
            stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            answers.push(read(&mut stream).await);
        }
        answers
    }

    async fn read(stream: &mut BufReader<TcpStream>) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap() == 0 || line.as_bytes().get(3) != Some(&b'-') {
                all.push_str(&line);
                return all;
            }
            all.push_str(&line);
        }
    }

    const MAIL: &str =
        "To: a@x.test\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\n\r\nSee https://x.test/a?b=1.\r\n..dot\r\n.";

    #[tokio::test]
    async fn a_mail_is_taken_and_decoded() {
        let sink = MailSink::start();
        let answers = talk(
            &sink,
            &[
                "EHLO me",
                "MAIL FROM:<f@x.test>",
                "RCPT TO:<A@x.test>",
                "DATA",
                MAIL,
                "QUIT",
            ],
        )
        .await;
        assert!(
            answers.iter().all(|answer| answer.starts_with(['2', '3'])),
            "{answers:?}"
        );
        let mail = sink.wait_for("a@x.test", "grüße", Duration::from_secs(1)).await;
        assert_eq!(mail.from, "f@x.test");
        assert_eq!(mail.text.trim_end(), "See https://x.test/a?b=1.\r\n.dot");
        assert_eq!(mail.links(), ["https://x.test/a?b=1"]);
    }

    #[tokio::test]
    async fn refusals_are_told_by_code() {
        let sink = MailSink::start();
        sink.refuse("b@x.test", 550);
        let begin = [
            "EHLO me",
            "MAIL FROM:<f@x.test>",
            "RCPT TO:<b@x.test>",
            "RCPT TO:<a@x.test>",
        ];
        let answers = talk(&sink, &begin).await;
        assert!(
            answers[3].starts_with("550") && answers[4].starts_with("250"),
            "{answers:?}"
        );
        sink.behave(Behaviour::RefuseRecipient(451));
        assert!(talk(&sink, &begin).await[4].starts_with("451"));
        sink.behave(Behaviour::Close);
        assert_eq!(talk(&sink, &[]).await, [""]);
        assert!(sink.all().is_empty());
        assert_eq!(sink.attempts(), 3);
    }

    #[tokio::test]
    async fn a_login_can_be_required() {
        let sink = MailSink::start();
        sink.require_login("u", "p");
        let answers = talk(
            &sink,
            &[
                "EHLO me",
                "MAIL FROM:<f@x.test>",
                "AUTH PLAIN AHUAcA==",
                "MAIL FROM:<f@x.test>",
            ],
        );
        let answers = answers.await;
        assert!(answers[1].contains("AUTH PLAIN LOGIN"));
        assert!(
            answers[2].starts_with("530") && answers[3].starts_with("235") && answers[4].starts_with("250")
        );
        let wrong = talk(&sink, &["EHLO me", "AUTH LOGIN", "dQ==", "eA=="]).await;
        assert!(wrong[4].starts_with("535"), "{wrong:?}");
    }
}
