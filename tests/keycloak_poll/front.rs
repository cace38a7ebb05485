//! Stands before a real Keycloak and passes everything on, but for the faults it is told: answers of its own, a gate,
//! a clock that is wrong, a crowd in the log.
//!
//! The log is paged here, over the real server's rows, by the server's own rules: `dateFrom` inclusive, sorted by time
//! alone, then `first` and `max`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reentry_test_support::clock::now_ms;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Members that are instants in milliseconds.
const INSTANTS: [&str; 5] = ["time", "createdTimestamp", "createdDate", "start", "lastAccess"];

#[derive(Default)]
struct Told {
    /// Answers instead of the server's: part of a path, status, how often.
    answers: VecDeque<(String, u16, u32)>,
    /// From which real instant on the clock was how far ahead, in milliseconds.
    clock: Vec<(i64, i64)>,
    /// Rows that stand in the log of user events beside the real ones.
    crowd: Vec<Value>,
    /// Tokens with another time in them, and the real ones.
    tokens: BTreeMap<String, String>,
    asked: BTreeMap<String, u32>,
    /// Bodies instead of the server's, with 200: part of a path, body, how often.
    forged: Vec<(String, String, u32)>,
    /// Answers from the second call on: the end of a path, status, how many calls pass first.
    later: Vec<(String, u16, u32)>,
    /// A place in the list of users that no page may have.
    spoilt: Option<u32>,
    /// Users that a page has at most.
    most: Option<usize>,
}

/// The proxy.
pub struct Front {
    pub base: String,
    inner: Arc<Inner>,
}

struct Inner {
    target: String,
    http: reqwest::Client,
    told: Mutex<Told>,
    gate: Semaphore,
}

impl Front {
    pub async fn before(target: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            target: target.to_owned(),
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            told: Mutex::default(),
            gate: Semaphore::new(1_000),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, inner }
    }

    /// Answers `status` to the next `times` calls whose path ends with `path`; before the path may stand a method.
    pub fn answer(&self, path: &str, status: u16, times: u32) {
        let mut told = self.inner.told.lock().unwrap();
        told.answers.push_back((path.to_owned(), status, times));
    }

    /// Answers `status` to every call whose path ends with `path`, once `passed` more have passed.
    pub fn answer_after(&self, path: &str, status: u16, passed: u32) {
        let mut told = self.inner.told.lock().unwrap();
        told.later.push((path.to_owned(), status, passed));
    }

    /// Answers this body to every call whose path ends with `path`.
    pub fn forge(&self, path: &str, body: &str) {
        let mut told = self.inner.told.lock().unwrap();
        told.forged.push((path.to_owned(), body.to_owned(), u32::MAX));
    }

    /// Answers this body to the next call whose path ends with `path`.
    pub fn forge_once(&self, path: &str, body: &str) {
        let mut told = self.inner.told.lock().unwrap();
        told.forged.push((path.to_owned(), body.to_owned(), 1));
    }

    /// Every page of users with this place in it fails.
    pub fn spoil(&self, place: u32) {
        self.inner.told.lock().unwrap().spoilt = Some(place);
    }

    /// A page of users has at most so many.
    pub fn shorten(&self, most: usize) {
        self.inner.told.lock().unwrap().most = Some(most);
    }

    /// Forgets every answer.
    pub fn pass(&self) {
        let mut told = self.inner.told.lock().unwrap();
        told.answers.clear();
        told.forged.clear();
        told.later.clear();
        told.spoilt = None;
        told.most = None;
    }

    /// From now on the server's clock is this far ahead.
    pub fn set_clock(&self, ahead_s: i64) {
        let now = i64::try_from(now_ms()).unwrap();
        self.inner.told.lock().unwrap().clock.push((now, ahead_s * 1000));
    }

    /// These rows stand in the log, too.
    pub fn crowd(&self, rows: Vec<Value>) {
        self.inner.told.lock().unwrap().crowd = rows;
    }

    /// How often a path was asked for that has `part` in it.
    pub fn asked_below(&self, part: &str) -> u32 {
        let told = self.inner.told.lock().unwrap();
        let below = told.asked.iter().filter(|(asked, _)| asked.contains(part));
        below.map(|(_, times)| times).sum()
    }

    /// How often a path that ends with `path` was asked for.
    pub fn asked(&self, path: &str) -> u32 {
        let told = self.inner.told.lock().unwrap();
        told.asked
            .iter()
            .filter(|(asked, _)| asked.ends_with(path))
            .map(|(_, count)| count)
            .sum()
    }

    /// Lets nobody through until the answer is dropped.
    pub async fn close(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.inner.gate.acquire_many(1_000).await.unwrap()
    }
}

/// Whether it is the list of all users.
fn is_list(path: &str) -> bool {
    path.ends_with("/users") && !path.contains("/roles/")
}

impl Told {
    /// What is answered instead of the server.
    fn instead(&mut self, method: &Method, path: &str, query: &str) -> Option<Response> {
        let refused = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            (status, axum::Json(json!({ "error": "told to" }))).into_response()
        };
        let meant = |end: &str| match end.split_once(' ') {
            Some((only, end)) => method == only && path.ends_with(end),
            None => path.ends_with(end),
        };
        let answer = self
            .answers
            .iter_mut()
            .find(|(end, _, left)| *left > 0 && meant(end));
        if let Some(answer) = answer {
            answer.2 -= 1;
            return Some(refused(answer.1));
        }
        if let Some(later) = self
            .later
            .iter_mut()
            .find(|(end, ..)| path.ends_with(end.as_str()))
        {
            if later.2 == 0 {
                return Some(refused(later.1));
            }
            later.2 -= 1;
        }
        let forged = self
            .forged
            .iter_mut()
            .find(|(end, _, left)| path.ends_with(end.as_str()) && *left > 0);
        if let Some(forged) = forged {
            forged.2 -= 1;
            let json = [(header::CONTENT_TYPE, "application/json")];
            return Some((json, forged.1.clone()).into_response());
        }
        let place = self.spoilt.filter(|_| is_list(path))?;
        let asked: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let number = |name: &str| asked.get(name).and_then(|text| text.parse::<u32>().ok());
        let (first, max) = (number("first")?, number("max")?);
        (first <= place && place < first + max).then(|| refused(500))
    }

    fn ahead(&self, real: i64) -> i64 {
        let set = self.clock.iter().rev().find(|(from, _)| *from <= real);
        set.map_or(0, |(_, ahead)| *ahead)
    }

    /// Real instants become those of the wrong clock.
    fn shift(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_i64().filter(|_| INSTANTS.contains(&name.as_str())) {
                        Some(at) => *member = json!(at + self.ahead(at)),
                        None => self.shift(member),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.shift(item)),
            _ => {}
        }
    }

    /// A token issued by the wrong clock; the real one is kept for the way back.
    fn token(&mut self, real: &str) -> String {
        let ahead = self.ahead(i64::try_from(now_ms()).unwrap()) / 1000;
        let parts: Vec<&str> = real.split('.').collect();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        claims["iat"] = json!(claims["iat"].as_i64().unwrap() + ahead);
        let shown = format!(
            "{}.{}.{}",
            parts[0],
            URL_SAFE_NO_PAD.encode(claims.to_string()),
            parts[2]
        );
        self.tokens.insert(shown.clone(), real.to_owned());
        shown
    }
}

async fn pass(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _open = inner.gate.acquire().await.unwrap();
    let path = uri.path().to_owned();
    let is_log = path.ends_with("/events") || path.ends_with("/admin-events");
    let real = {
        let mut told = inner.told.lock().unwrap();
        *told.asked.entry(path.clone()).or_default() += 1;
        if let Some(answer) = told.instead(&method, &path, uri.query().unwrap_or_default()) {
            return answer;
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        bearer.map(|shown| {
            let shown = shown.trim_start_matches("Bearer ");
            format!("Bearer {}", told.tokens.get(shown).map_or(shown, String::as_str))
        })
    };
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let sent = if is_log {
        let mut whole: Vec<(String, String)> = query
            .iter()
            .filter(|(name, _)| !["dateFrom", "first", "max", "direction"].contains(&name.as_str()))
            .cloned()
            .collect();
        whole.push(("max".to_owned(), "100000".to_owned()));
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&whole)
            .finish()
    } else {
        uri.query().unwrap_or_default().to_owned()
    };
    let url = format!("{}{path}?{sent}", inner.target);
    let mut request = inner.http.request(method.clone(), url).body(body);
    for (name, value) in &headers {
        if ![header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH].contains(name) {
            request = request.header(name, value);
        }
    }
    if let Some(real) = real {
        request = request.header(header::AUTHORIZATION, real);
    }
    let response = request.send().await.unwrap();
    let (status, location) = (
        response.status(),
        response.headers().get(header::LOCATION).cloned(),
    );
    let octets = response.bytes().await.unwrap();
    let octets =
        rewritten(&inner, &path, is_log.then_some(&query), &octets).unwrap_or_else(|| octets.to_vec());
    let mut answer = (status, [(header::CONTENT_TYPE, "application/json")], octets).into_response();
    if let Some(location) = location {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

fn rewritten(
    inner: &Inner,
    path: &str,
    log: Option<&Vec<(String, String)>>,
    octets: &[u8],
) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(octets).ok()?;
    let mut told = inner.told.lock().unwrap();
    if path.ends_with("/token") {
        let real = value["access_token"].as_str()?.to_owned();
        value["access_token"] = json!(told.token(&real));
        return Some(value.to_string().into_bytes());
    }
    told.shift(&mut value);
    if let (true, Some(most), Some(rows)) = (is_list(path), told.most, value.as_array_mut()) {
        rows.truncate(most);
    }
    if let Some(query) = log {
        let asked = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let mut rows = value.as_array()?.clone();
        if path.ends_with("/events") && !path.ends_with("/admin-events") {
            let of = asked("user");
            let crowd = told.crowd.iter();
            let crowd = crowd.filter(|row| of.is_none_or(|of| row["userId"] == of));
            // Equal times come in any order: half of the crowd stands before the real rows.
            let crowd: Vec<Value> = crowd.cloned().collect();
            let (before, behind) = crowd.split_at(crowd.len() / 2);
            rows = [before, &rows, behind].concat();
        }
        let from = asked("dateFrom")
            .and_then(|from| from.parse::<i64>().ok())
            .unwrap_or(0);
        rows.retain(|row| row["time"].as_i64().unwrap() >= from);
        rows.sort_by_key(|row| row["time"].as_i64().unwrap());
        if asked("direction") != Some("asc") {
            rows.reverse();
        }
        let number = |name: &str, default: usize| asked(name).and_then(|n| n.parse().ok()).unwrap_or(default);
        let page: Vec<Value> = rows
            .into_iter()
            .skip(number("first", 0))
            .take(number("max", 100))
            .collect();
        value = Value::Array(page);
    }
    Some(value.to_string().into_bytes())
}
