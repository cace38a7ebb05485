//! One SMTP conversation (RFC 5321, with AUTH of RFC 4954), as far as a client that behaves needs it.

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Behaviour, Mail, State, lock};

type Wire = BufReader<TcpStream>;

pub(super) async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    lock(&state).attempts += 1;
    let behaviour = lock(&state).behaviour;
    match behaviour {
        Behaviour::Close => {}
        Behaviour::Hang => wait_for_the_other_end(stream).await,
        _ => {
            let _ = converse(BufReader::new(stream), &state).await;
        }
    }
}

async fn wait_for_the_other_end(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}

async fn converse(mut wire: Wire, state: &Mutex<State>) -> io::Result<()> {
    say(&mut wire, "220 mail.test ESMTP").await?;
    let mut authenticated = lock(state).login.is_none();
    let mut from = String::new();
    let mut recipients: Vec<String> = Vec::new();
    while let Some(line) = hear(&mut wire).await? {
        let behaviour = lock(state).behaviour;
        match behaviour {
            Behaviour::Close => return Ok(()),
            Behaviour::Hang => {
                wait_for_the_other_end(wire.into_inner()).await;
                return Ok(());
            }
            _ => {}
        }
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => {
                say(&mut wire, "250-mail.test\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME").await?
            }
            "AUTH" => {
                authenticated = log_in(&mut wire, &line, state).await?;
                let answer = if authenticated {
                    "235 2.7.0 welcome"
                } else {
                    "535 5.7.8 wrong user or password"
                };
                say(&mut wire, answer).await?;
            }
            "MAIL" if !authenticated => say(&mut wire, "530 5.7.0 authentication required").await?,
            "MAIL" => {
                from = address(&line);
                recipients.clear();
                say(&mut wire, "250 2.1.0 sender ok").await?;
            }
            "RCPT" => {
                let recipient = address(&line);
                if lock(state).hung.contains(&recipient.to_lowercase()) {
                    wait_for_the_other_end(wire.into_inner()).await;
                    return Ok(());
                }
                let refusal = refusal(state, behaviour, &recipient);
                if let Some(code) = refusal {
                    say(&mut wire, &format!("{code} recipient refused")).await?;
                } else {
                    recipients.push(recipient);
                    say(&mut wire, "250 2.1.5 recipient ok").await?;
                }
            }
            "DATA" if recipients.is_empty() => say(&mut wire, "554 5.5.1 no valid recipients").await?,
            "DATA" => {
                say(&mut wire, "354 go on").await?;
                let raw = body(&mut wire).await?;
                let behaviour = lock(state).behaviour;
                if let Behaviour::RefuseContent(code) = behaviour {
                    say(&mut wire, &format!("{code} content refused")).await?;
                } else {
                    let mail = Mail::parse(std::mem::take(&mut from), std::mem::take(&mut recipients), raw);
                    lock(state).mails.push(mail);
                    say(&mut wire, "250 2.0.0 taken").await?;
                }
            }
            "RSET" => {
                recipients.clear();
                say(&mut wire, "250 2.0.0 ok").await?;
            }
            "NOOP" => say(&mut wire, "250 2.0.0 ok").await?,
            "QUIT" => return say(&mut wire, "221 2.0.0 bye").await,
            _ => say(&mut wire, "502 5.5.1 not implemented").await?,
        }
    }
    Ok(())
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

async fn log_in(wire: &mut Wire, line: &str, state: &Mutex<State>) -> io::Result<bool> {
    let mut words = line.split(' ').skip(1);
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    let (user, password) = if mechanism == "PLAIN" {
        let response = match initial {
            Some(response) => response,
            None => ask(wire, "334 ").await?,
        };
        let plain = decode(&response);
        let mut parts = plain.split('\0').skip(1).map(str::to_owned);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    } else {
        let user = match initial {
            Some(user) => user,
            None => ask(wire, "334 VXNlcm5hbWU6").await?,
        };
        let password = ask(wire, "334 UGFzc3dvcmQ6").await?;
        (decode(&user), decode(&password))
    };
    let expected = lock(state).login.clone();
    Ok(expected.is_none_or(|login| login == (user, password)))
}

fn decode(text: &str) -> String {
    String::from_utf8_lossy(&STANDARD.decode(text.trim()).unwrap_or_default()).into_owned()
}

async fn ask(wire: &mut Wire, prompt: &str) -> io::Result<String> {
    say(wire, prompt).await?;
    Ok(hear(wire).await?.unwrap_or_default())
}

async fn say(wire: &mut Wire, line: &str) -> io::Result<()> {
    wire.write_all(line.as_bytes()).await?;
    wire.write_all(b"\r\n").await?;
    wire.flush().await
}

async fn hear(wire: &mut Wire) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = wire.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The octets up to the lone dot, with dots unstuffed (RFC 5321 §4.5.2).
async fn body(wire: &mut Wire) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        if wire.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" || line == b".\n" {
            return Ok(all);
        }
        all.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// What stands in the angle brackets of `MAIL FROM:<…>` and `RCPT TO:<…>`.
fn address(line: &str) -> String {
    let inner = line
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(inner, _)| inner);
    inner.unwrap_or_default().to_owned()
}
