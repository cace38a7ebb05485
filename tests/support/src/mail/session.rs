//! One SMTP conversation (RFC 5321, with AUTH of RFC 4954 and STARTTLS of RFC 3207), as far as a client that
//! behaves needs it.

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::tls::{Security, Stream, Tls};
use super::{Behaviour, Mail, State, lock};

/// What has been said so far.
struct Conversation {
    wire: BufReader<Box<dyn Stream>>,
    tls: Tls,
    encrypted: bool,
    login: Option<String>,
    from: String,
    recipients: Vec<String>,
}

pub(super) async fn serve(stream: TcpStream, tls: Tls, state: Arc<Mutex<State>>) {
    lock(&state).attempts += 1;
    let behaviour = lock(&state).behaviour;
    match behaviour {
        Behaviour::Close => {}
        Behaviour::Hang => wait_for_the_other_end(Box::new(stream)).await,
        _ => {
            let _ = converse(Box::new(stream), tls, &state).await;
        }
    }
}

async fn wait_for_the_other_end(mut stream: Box<dyn Stream>) {
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}

async fn converse(stream: Box<dyn Stream>, tls: Tls, state: &Mutex<State>) -> io::Result<()> {
    let encrypted = tls.security == Security::Implicit;
    let stream = if encrypted {
        tls.accept(stream).await?
    } else {
        stream
    };
    let mut talk = Conversation {
        wire: BufReader::new(stream),
        tls,
        encrypted,
        login: None,
        from: String::new(),
        recipients: Vec::new(),
    };
    talk.say("220 mail.test ESMTP").await?;
    while let Some(line) = talk.hear().await? {
        let behaviour = lock(state).behaviour;
        match behaviour {
            Behaviour::Close => return Ok(()),
            Behaviour::Hang => {
                wait_for_the_other_end(talk.wire.into_inner()).await;
                return Ok(());
            }
            _ => {}
        }
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        if verb == "QUIT" {
            return talk.say("221 2.0.0 bye").await;
        }
        if verb == "STARTTLS" && talk.may_start_tls() {
            talk.say("220 2.0.0 go on").await?;
            let plain = talk.wire.into_inner();
            talk.wire = BufReader::new(talk.tls.accept(plain).await?);
            talk.encrypted = true;
            continue;
        }
        talk.answer(&verb, &line, behaviour, state).await?;
    }
    Ok(())
}

impl Conversation {
    fn may_start_tls(&self) -> bool {
        self.tls.security == Security::StartTls && !self.encrypted
    }

    async fn answer(
        &mut self,
        verb: &str,
        line: &str,
        behaviour: Behaviour,
        state: &Mutex<State>,
    ) -> io::Result<()> {
        let must_log_in = lock(state).login.is_some() && self.login.is_none();
        match verb {
            "EHLO" if self.may_start_tls() => self.say("250-mail.test\r\n250-STARTTLS\r\n250 8BITMIME").await,
            "EHLO" | "HELO" => {
                self.say("250-mail.test\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME")
                    .await
            }
            "AUTH" | "MAIL" if self.may_start_tls() => self.say("530 5.7.0 STARTTLS first").await,
            "AUTH" => self.log_in(line, state).await,
            "MAIL" if must_log_in => self.say("530 5.7.0 authentication required").await,
            "MAIL" => {
                self.from = address(line);
                self.recipients.clear();
                self.say("250 2.1.0 sender ok").await
            }
            "RCPT" => {
                let recipient = address(line);
                if let Some(code) = refusal(state, behaviour, &recipient) {
                    return self.say(&format!("{code} recipient refused")).await;
                }
                self.recipients.push(recipient);
                self.say("250 2.1.5 recipient ok").await
            }
            "DATA" if self.recipients.is_empty() => self.say("554 5.5.1 no valid recipients").await,
            "DATA" => self.take(state).await,
            "RSET" => {
                self.recipients.clear();
                self.say("250 2.0.0 ok").await
            }
            "NOOP" => self.say("250 2.0.0 ok").await,
            _ => self.say("502 5.5.1 not implemented").await,
        }
    }

    async fn take(&mut self, state: &Mutex<State>) -> io::Result<()> {
        self.say("354 go on").await?;
        let raw = self.body().await?;
        let behaviour = lock(state).behaviour;
        if let Behaviour::RefuseContent(code) = behaviour {
            return self.say(&format!("{code} content refused")).await;
        }
        let (from, recipients) = (
            std::mem::take(&mut self.from),
            std::mem::take(&mut self.recipients),
        );
        let mut mail = Mail::parse(from, recipients, raw);
        mail.encrypted = self.encrypted;
        mail.login.clone_from(&self.login);
        lock(state).mails.push(mail);
        self.say("250 2.0.0 taken").await
    }

    async fn log_in(&mut self, line: &str, state: &Mutex<State>) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let given = if mechanism == "PLAIN" {
            let response = match initial {
                Some(response) => response,
                None => self.ask("334 ").await?,
            };
            let plain = decode(&response);
            let mut parts = plain.split('\0').skip(1).map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        } else {
            let user = match initial {
                Some(user) => user,
                None => self.ask("334 VXNlcm5hbWU6").await?,
            };
            let password = self.ask("334 UGFzc3dvcmQ6").await?;
            (decode(&user), decode(&password))
        };
        let expected = lock(state).login.clone();
        if expected.is_none_or(|login| login == given) {
            self.login = Some(given.0);
            return self.say("235 2.7.0 welcome").await;
        }
        self.say("535 5.7.8 wrong user or password").await
    }

    async fn ask(&mut self, prompt: &str) -> io::Result<String> {
        self.say(prompt).await?;
        Ok(self.hear().await?.unwrap_or_default())
    }

    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.wire.write_all(line.as_bytes()).await?;
        self.wire.write_all(b"\r\n").await?;
        self.wire.flush().await
    }

    async fn hear(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.wire.read_line(&mut line).await?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The octets up to the lone dot, with dots unstuffed (RFC 5321 §4.5.2).
    async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.wire.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" || line == b".\n" {
                return Ok(all);
            }
            all.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }
}

fn refusal(state: &Mutex<State>, behaviour: Behaviour, recipient: &str) -> Option<u16> {
    if let Behaviour::RefuseRecipient(code) = behaviour {
        return Some(code);
    }
    let wanted = recipient.to_lowercase();
    lock(state)
        .refused
        .iter()
        .find(|(refused, _)| *refused == wanted)
        .map(|(_, code)| *code)
}

fn decode(text: &str) -> String {
    String::from_utf8_lossy(&STANDARD.decode(text.trim()).unwrap_or_default()).into_owned()
}

/// What stands in the angle brackets of `MAIL FROM:<…>` and `RCPT TO:<…>`.
fn address(line: &str) -> String {
    let inner = line
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(inner, _)| inner);
    inner.unwrap_or_default().to_owned()
}
