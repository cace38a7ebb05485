//! The workload: people who sign in, keep their sessions, forget their passwords and report what was not them, through
//! a relying party that writes down what it is told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reentry_test_support::browser::Browser;
use reentry_test_support::clock::now_ms;
use reentry_test_support::keycloak::{Realm, pages};
use reentry_test_support::mail::{Mail, MailSink};
use reentry_test_support::rp::{RelyingParty, Reply, claims};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::chronicle::{Change, Chronicle, Millis, Report, Said, Session, Way};
use crate::company::{ASKED, REDIRECT, RESIDENT, SECRET, address, name};

/// How long a relying party waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a person tries to sign in.
const SIGN_IN: Duration = Duration::from_secs(30);

/// What everybody shares.
pub struct Town {
    /// The realm they live in.
    pub realm: Arc<Realm>,
    /// Where their mail arrives.
    pub mails: Arc<MailSink>,
    /// The relying party.
    pub shop: RelyingParty,
    /// Its way to the broker, without connections that are kept: each request may meet the other replica.
    pub http: reqwest::Client,
    /// What is written down.
    pub chronicle: Arc<Mutex<Chronicle>>,
    /// Until when they act.
    pub until: Instant,
}

impl Town {
    /// Writes something down.
    pub fn write(&self, what: impl FnOnce(&mut Chronicle)) {
        what(&mut self.chronicle.lock().expect("nobody panics while writing"));
    }
}

/// A session as its relying party keeps it.
#[derive(Clone)]
struct Held {
    number: u32,
    access: String,
    refresh: String,
}

/// One person.
pub struct Person {
    town: Arc<Town>,
    index: usize,
    chance: Chance,
    password: String,
    sessions: Vec<Held>,
    count: u32,
    /// After this many changes of the password the next mail is answered with a report.
    reports_after: Option<u32>,
    changes: u32,
    frozen: bool,
    rests_until: Instant,
}

impl Person {
    /// Somebody who has just moved in.
    pub fn new(town: Arc<Town>, index: usize, seed: u64, password: &str, reports_after: Option<u32>) -> Self {
        Self {
            town,
            index,
            chance: Chance::new(seed, 1 + u64::try_from(index).unwrap()),
            password: password.to_owned(),
            sessions: Vec::new(),
            count: 0,
            reports_after,
            changes: 0,
            frozen: false,
            rests_until: Instant::now(),
        }
    }

    /// Lives until the time is over.
    pub async fn live(mut self) {
        while Instant::now() < self.town.until {
            self.act().await;
            tokio::time::sleep(self.chance.span(60, 700)).await;
        }
    }

    async fn act(&mut self) {
        let dice = self.chance.below(100);
        if self.sessions.is_empty() || dice < 10 {
            if !self.frozen || dice < 5 {
                self.sign_in().await;
            }
            return;
        }
        match dice {
            10..62 => self.renew().await,
            62..80 => self.introspect().await,
            80..90 => self.userinfo().await,
            _ if self.frozen || self.index == RESIDENT || Instant::now() < self.rests_until => {}
            _ => self.change().await,
        }
    }

    /// A sign-in in a browser of its own. A panic in it is a page that did not come: somebody was killed.
    async fn sign_in(&mut self) {
        let (town, user, password) = (Arc::clone(&self.town), name(self.index), self.password.clone());
        let walk = tokio::spawn(async move {
            let mut browser = Browser::new().stopping_at(REDIRECT);
            let request = town.shop.authorization(ASKED);
            let page = browser.get(request.url.as_str()).await;
            let page = pages::log_in(&mut browser, &page, &user, &password).await;
            (page.is_stop() && page.stopped().as_str().contains("code="))
                .then(|| (town.shop.code(&request, page.stopped()), request.verifier))
        });
        let Ok(Ok(Some((code, verifier)))) = tokio::time::timeout(SIGN_IN, walk).await else {
            return;
        };
        self.exchange(&code, &verifier).await;
    }

    async fn exchange(&mut self, code: &str, verifier: &str) {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", verifier),
        ];
        let asked = now_ms();
        let Some(reply) = self
            .ask("token_endpoint", &form)
            .await
            .filter(|r| r.status == 200)
        else {
            return;
        };
        self.count += 1;
        let number = u32::try_from(self.index).unwrap() * 10_000 + self.count;
        let began = now_ms();
        self.town.write(|c| c.sessions.push(Session { number, began }));
        self.issued(Way::Exchange, number, asked, &reply);
        self.sessions.push(held(number, &reply, None));
    }

    async fn renew(&mut self) {
        let place = self.chance.below(self.sessions.len());
        let session = self.sessions[place].clone();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", session.refresh.as_str()),
        ];
        let asked = now_ms();
        match self.ask("token_endpoint", &form).await {
            Some(reply) if reply.status == 200 => {
                self.issued(Way::Refresh, session.number, asked, &reply);
                self.sessions[place] = held(session.number, &reply, Some(&session.refresh));
            }
            Some(reply) if reply.status == 400 => {
                self.sessions.remove(place);
            }
            // A lost answer, or no store: the same token again later.
            _ => {}
        }
    }

    async fn introspect(&mut self) {
        let session = self.sessions[self.chance.below(self.sessions.len())].clone();
        let asked = now_ms();
        let form = [("token", session.access.as_str())];
        if let Some(reply) = self
            .ask("introspection_endpoint", &form)
            .await
            .filter(|r| r.status == 200)
            && reply.json["active"] == json!(true)
        {
            self.said(Way::Introspection, session.number, asked, &reply.json);
        }
    }

    async fn userinfo(&mut self) {
        let session = self.sessions[self.chance.below(self.sessions.len())].clone();
        let asked = now_ms();
        let request = self.town.http.get(self.town.shop.endpoint("userinfo_endpoint"));
        if let Some(reply) = answer(request.bearer_auth(&session.access))
            .await
            .filter(|r| r.status == 200)
        {
            self.said(Way::Userinfo, session.number, asked, &reply.json);
        }
    }

    /// The password is changed at Keycloak: by an administrator, or by "Forgot password?" and the mail.
    async fn change(&mut self) {
        self.changes += 1;
        let password = format!("password {} of person {}", self.changes, self.index);
        self.rests_until = Instant::now() + self.chance.span(9_000, 22_000);
        let done = if self.chance.below(3) == 0 {
            self.forgets(&password).await
        } else {
            self.is_reset(&password).await
        };
        if done {
            self.password = password;
            if self.reports_after.is_some_and(|after| self.changes >= after) {
                self.report().await;
            }
        }
    }

    async fn is_reset(&self, password: &str) -> bool {
        let id = self.town.realm.user_id(&name(self.index)).await;
        let body = json!({ "type": "password", "value": password, "temporary": false });
        let from = now_ms();
        self.town
            .realm
            .put(&format!("users/{id}/reset-password"), &body)
            .await;
        let change = Change {
            person: self.index,
            from,
            until: now_ms(),
        };
        self.town.write(|c| c.changes.push(change));
        true
    }

    async fn forgets(&mut self, password: &str) -> bool {
        let (town, index, new) = (Arc::clone(&self.town), self.index, password.to_owned());
        let request = town.shop.authorization(ASKED);
        let verifier = request.verifier.clone();
        let walk = tokio::spawn(async move {
            let asked = |mail: &&Mail| mail.subject.to_lowercase().contains("reset password");
            let count = |town: &Town| town.mails.to(&address(index)).iter().filter(asked).count();
            let mut browser = Browser::new().stopping_at(REDIRECT);
            let page = browser.get(request.url.as_str()).await;
            let known = count(&town);
            pages::ask_for_reset(&mut browser, &page, &name(index)).await;
            let start = Instant::now();
            while count(&town) == known {
                assert!(start.elapsed() < SIGN_IN, "no mail of Keycloak's");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mail = pages::reset_mail(&town.mails, &address(index)).await;
            let page = pages::open_action_link(&mut browser, &mail.link("action-token")).await;
            let from = now_ms();
            let page = pages::set_new_password(&mut browser, &page, &new, false).await;
            // Where it led to belongs to the next step; the password is changed when the form was taken.
            let change = Change {
                person: index,
                from,
                until: now_ms(),
            };
            let led = (page.is_stop() && page.stopped().as_str().contains("code="))
                .then(|| town.shop.code(&request, page.stopped()));
            (change, led)
        });
        let Ok(Ok((change, led))) = tokio::time::timeout(SIGN_IN, walk).await else {
            // Nobody knows whether the form was taken; a sign-in will tell, by the one password or the other.
            self.password = self.which(password).await;
            return false;
        };
        self.town.write(|c| c.changes.push(change));
        if let Some(code) = led {
            self.exchange(&code, &verifier).await;
        }
        true
    }

    /// The password that Keycloak takes, after a change that nobody saw the end of.
    async fn which(&self, new: &str) -> String {
        let id = self.town.realm.user_id(&name(self.index)).await;
        let credentials = self.town.realm.get(&format!("users/{id}/credentials")).await;
        let created = credentials[0]["createdDate"].as_u64().unwrap_or_default();
        let before = now_ms().saturating_sub(2 * u64::try_from(SIGN_IN.as_millis()).unwrap());
        if created < before {
            self.password.clone()
        } else {
            new.to_owned()
        }
    }

    /// Opens the link of the newest notice and presses the button.
    async fn report(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(40) && Instant::now() < self.town.until {
            let mails = self.town.mails.to(&address(self.index));
            let link = mails
                .iter()
                .rev()
                .flat_map(Mail::links)
                .find(|l| l.contains("/cancel/"));
            if let Some(link) = link {
                let page = answer(self.town.http.post(&link)).await;
                if page.is_some_and(|p| p.status == 200) {
                    self.frozen = true;
                    let report = Report {
                        person: self.index,
                        acknowledged: now_ms(),
                    };
                    self.town.write(|c| c.reports.push(report));
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    fn issued(&self, way: Way, session: u32, asked: Millis, reply: &Reply) {
        self.said(way, session, asked, &claims(reply.text("access_token")));
    }

    fn said(&self, way: Way, session: u32, asked: Millis, says: &Value) {
        let text = |member: &str| says[member].as_str().unwrap_or_default().to_owned();
        let said = Said {
            person: self.index,
            session,
            way,
            asked,
            answered: now_ms(),
            recovery_scope: text("recovery_scope"),
            scopes: text("scope").split_whitespace().map(str::to_owned).collect(),
            epoch: says["recovery_epoch"].as_i64(),
            roles: says["roles"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        };
        self.town.write(|c| c.said.push(said));
    }

    async fn ask(&self, endpoint: &str, form: &[(&str, &str)]) -> Option<Reply> {
        let request = self.town.http.post(self.town.shop.endpoint(endpoint));
        answer(request.basic_auth("shop", Some(SECRET)).form(form)).await
    }
}

fn held(number: u32, reply: &Reply, old: Option<&str>) -> Held {
    Held {
        number,
        access: reply.text("access_token").to_owned(),
        refresh: reply.get("refresh_token").or(old).unwrap_or_default().to_owned(),
    }
}

/// The whole answer, or nothing when it did not come.
async fn answer(request: reqwest::RequestBuilder) -> Option<Reply> {
    let read = async {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.ok()?;
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Some(Reply {
            status,
            headers,
            json,
            body,
        })
    };
    tokio::time::timeout(PATIENCE, read).await.ok().flatten()
}
