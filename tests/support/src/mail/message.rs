//! A mail taken apart: headers (RFC 2047), parts (RFC 2045), text, links.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A mail as it was accepted.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Envelope sender.
    pub from: String,
    /// Envelope recipients, as given.
    pub recipients: Vec<String>,
    /// Decoded headers of the whole mail, in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// Decoded `Subject`, empty when there is none.
    pub subject: String,
    /// The first `text/plain` part, decoded; empty when there is none.
    pub text: String,
    /// The first `text/html` part, decoded; empty when there is none.
    pub html: String,
    /// The mail as it came over the wire.
    pub raw: String,
}

impl Mail {
    pub(super) fn parse(from: String, recipients: Vec<String>, raw: Vec<u8>) -> Self {
        let (headers, body) = split(&raw);
        let headers = parse_headers(&headers);
        let mut parts = Vec::new();
        collect(&headers, body, &mut parts);
        let first = |kind: &str| {
            parts
                .iter()
                .find(|(media, _)| media == kind)
                .map(|(_, text)| text.clone())
                .unwrap_or_default()
        };
        let (text, html) = (first("text/plain"), first("text/html"));
        let subject = header(&headers, "subject").unwrap_or_default().to_owned();
        Self {
            from,
            recipients,
            subject,
            text,
            html,
            headers,
            raw: String::from_utf8_lossy(&raw).into_owned(),
        }
    }

    /// The first header of this name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the envelope names this address, in any case of letters.
    pub fn is_to(&self, recipient: &str) -> bool {
        self.recipients
            .iter()
            .any(|one| one.eq_ignore_ascii_case(recipient))
    }

    /// The http and https links of the text part (of the HTML part when there is no text), in order.
    pub fn links(&self) -> Vec<String> {
        if self.text.is_empty() {
            self.html_links()
        } else {
            links_in(&self.text)
        }
    }

    /// The `href`s of the HTML part, in order.
    pub fn html_links(&self) -> Vec<String> {
        let document = scraper::Html::parse_document(&self.html);
        let anchors = scraper::Selector::parse("a[href]").expect("a selector");
        document
            .select(&anchors)
            .filter_map(|anchor| anchor.value().attr("href"))
            .map(str::to_owned)
            .collect()
    }

    /// The only link that contains `part`; panics when there is none or more than one.
    pub fn link(&self, part: &str) -> String {
        let mut found: Vec<_> = self
            .links()
            .into_iter()
            .filter(|link| link.contains(part))
            .collect();
        found.dedup();
        assert!(
            found.len() == 1,
            "one link with {part:?} expected in {:?}:\n{}",
            self.subject,
            self.text
        );
        found.remove(0)
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(one, _)| one.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn links_in(text: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\'' | ')' | ']' | '}');
    let mut links = Vec::new();
    let mut rest = text;
    while let Some(start) = ["http://", "https://"]
        .iter()
        .filter_map(|scheme| rest.find(scheme))
        .min()
    {
        let tail = &rest[start..];
        let end = tail.find(ends).unwrap_or(tail.len());
        links.push(
            tail[..end]
                .trim_end_matches(['.', ',', ';', ':', '!', '?'])
                .to_owned(),
        );
        rest = &tail[end..];
    }
    links
}

/// Header lines (unfolded) and body octets.
fn split(raw: &[u8]) -> (Vec<String>, &[u8]) {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = raw;
    loop {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| at + 1);
        let (line, tail) = rest.split_at(end);
        rest = tail;
        let line = String::from_utf8_lossy(line)
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if line.is_empty() {
            return (lines, rest);
        }
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push(line),
        }
        if rest.is_empty() {
            return (lines, rest);
        }
    }
}

fn parse_headers(lines: &[String]) -> Vec<(String, String)> {
    let pairs = lines.iter().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), decode_words(value.trim())))
        .collect()
}

fn collect(headers: &[(String, String)], body: &[u8], parts: &mut Vec<(String, String)>) {
    let content_type = header(headers, "content-type").unwrap_or("text/plain; charset=us-ascii");
    let media = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if media.starts_with("multipart/") {
        let boundary = parameter(content_type, "boundary").expect("a boundary of a multipart mail");
        for part in split_parts(body, &boundary) {
            let (lines, content) = split(part);
            collect(&parse_headers(&lines), content, parts);
        }
        return;
    }
    let encoding = header(headers, "content-transfer-encoding")
        .unwrap_or("7bit")
        .to_ascii_lowercase();
    let octets = match encoding.as_str() {
        "base64" => {
            let compact: Vec<u8> = body
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            STANDARD.decode(compact).expect("valid base64 in a mail part")
        }
        "quoted-printable" => quoted_printable(body, false),
        _ => body.to_vec(),
    };
    parts.push((
        media,
        to_text(&octets, parameter(content_type, "charset").as_deref()),
    ));
}

fn split_parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let delimiter = format!("--{boundary}").into_bytes();
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() {
        let end = body[at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(body.len(), |next| at + next + 1);
        let line = body[at..end].trim_ascii_end();
        let closing = line.strip_suffix(b"--") == Some(delimiter.as_slice());
        if closing || line == delimiter.as_slice() {
            if let Some(from) = start {
                // The line break before a delimiter belongs to the delimiter.
                let part: &[u8] = &body[from..at];
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                parts.push(part.strip_suffix(b"\r").unwrap_or(part));
            }
            if closing {
                break;
            }
            start = Some(end);
        }
        at = end;
    }
    parts
}

fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn to_text(octets: &[u8], charset: Option<&str>) -> String {
    let latin = charset.is_some_and(|name| name.eq_ignore_ascii_case("iso-8859-1"));
    if latin {
        octets.iter().copied().map(char::from).collect()
    } else {
        String::from_utf8_lossy(octets).into_owned()
    }
}

/// RFC 2045 §6.7; in a header word (`q`) an underscore is a space (RFC 2047 §4.2).
fn quoted_printable(input: &[u8], q: bool) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'_', _) if q => output.push(b' '),
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => rest = after,
            (b'=', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let value = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match value {
                    Some(value) => {
                        output.push(value);
                        rest = after;
                    }
                    None => output.push(byte),
                }
            }
            _ => output.push(byte),
        }
    }
    output
}

/// Encoded words of RFC 2047; white space between two of them is no part of the text.
fn decode_words(value: &str) -> String {
    let mut output = String::new();
    let mut after_word = false;
    let mut rest = value;
    while let Some(start) = rest.find("=?") {
        let Some((decoded, length)) = decode_word(&rest[start..]) else {
            output.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            after_word = false;
            continue;
        };
        let between = &rest[..start];
        if !(after_word && between.trim().is_empty()) {
            output.push_str(between);
        }
        output.push_str(&decoded);
        rest = &rest[start + length..];
        after_word = true;
    }
    output.push_str(rest);
    output
}

fn decode_word(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix("=?")?;
    let (charset, rest) = inner.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (content, _) = rest.split_once("?=")?;
    let octets = match encoding {
        "B" | "b" => STANDARD.decode(content).ok()?,
        "Q" | "q" => quoted_printable(content.as_bytes(), true),
        _ => return None,
    };
    let length = 2 + charset.len() + 1 + encoding.len() + 1 + content.len() + 2;
    Some((to_text(&octets, Some(charset)), length))
}

#[cfg(test)]
mod tests {
    use super::{Mail, decode_words};

    const NESTED: &str = "From: a@x.test\r\nSubject: one\r\n two\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=\"out\"\r\n\r\npreamble\r\n--out\r\n\
        Content-Type: multipart/alternative;\r\n boundary=in\r\n\r\n--in\r\n\
        Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        Open http://x.test/a?k=3D1&=\r\nl=3D2 gr=C3=BC=C3=9Fe\r\n--in\r\n\
        Content-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        PGEgaHJlZj0iaHR0cDov\r\nL3gudGVzdC9oP2E9MSZhbXA7Yj0yIj5nbzwvYT4=\r\n--in--\r\n--out--\r\n";

    #[test]
    fn nested_parts_are_decoded() {
        let mail = Mail::parse(
            "f@x.test".into(),
            vec!["A@x.test".into()],
            NESTED.as_bytes().to_vec(),
        );
        assert_eq!(mail.subject, "one two");
        assert_eq!(mail.text, "Open http://x.test/a?k=1&l=2 grüße");
        assert_eq!(mail.links(), ["http://x.test/a?k=1&l=2"]);
        assert_eq!(mail.html_links(), ["http://x.test/h?a=1&b=2"]);
        assert_eq!(mail.link("/a?"), "http://x.test/a?k=1&l=2");
        assert!(mail.is_to("a@X.test"));
    }

    #[test]
    fn header_words_are_decoded() {
        assert_eq!(
            decode_words("=?utf-8?Q?gr=C3=BC_=C3=9Fe?= =?utf-8?B?IPCfkYs=?= end"),
            "grü ße 👋 end"
        );
        assert_eq!(decode_words("=?iso-8859-1?q?=FC?="), "ü");
        assert_eq!(decode_words("a =? b"), "a =? b");
    }
}
