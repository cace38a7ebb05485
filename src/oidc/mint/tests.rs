use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::domain::ceiling::{Ceiling, Class};
use crate::domain::entitlement::{Asking, Request, State, entitle};
use crate::domain::hold::Record;
use crate::domain::policy::Policy;
use crate::domain::policy::claims::{is_own_group, is_own_role};
use crate::domain::subject::{Subject, UpstreamId};
use crate::domain::time::Now;
use crate::oidc::keys::KeyRing;
use crate::oidc::keys::create;
use crate::oidc::settings::Upstream;
use crate::ports::clock::Clock;
use crate::ports::outbound::{Answer, Outbound, OutboundError, Post};
use crate::ports::signer::Algorithm;

const START: i64 = 1_800_000_000;

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn subject() -> Subject {
    Subject::new(UpstreamId::parse("kc").unwrap(), "alice").unwrap()
}

fn settings() -> BrokerSettings {
    let upstream = Upstream {
        id: UpstreamId::parse("kc").unwrap(),
        name: "kc".to_owned(),
        issuer: "https://id.example".to_owned(),
        client_id: "reentry".to_owned(),
        client_secret: None,
        scopes: Vec::new(),
        subject_prefix: String::new(),
        end_session: true,
    };
    BrokerSettings::new("https://l.example", Vec::new(), vec![upstream]).unwrap()
}

fn policy() -> Policy {
    let class = |word| Class::parse(word).unwrap();
    let mut policy = Policy::standard();
    policy.roles = BTreeMap::from([(class("read"), set(&["viewer"])), (class("pay"), set(&["payer"]))]);
    policy.groups = BTreeMap::from([
        (class("read"), set(&["/staff"])),
        (class("admin"), set(&["/chiefs"])),
    ]);
    policy
}

/// Names by which rights travel elsewhere, beside what they are laid over.
const NAMES: [&str; 14] = [
    "roles",
    "groups",
    "realm_access",
    "resource_access",
    "permissions",
    "entitlements",
    "scp",
    "Roles",
    "GROUPS",
    "https://shop.example/roles",
    "realm_access.roles",
    "cognito:groups",
    "app-roles",
    "role",
];

/// What an account may have: of the maps, of none, and of ours.
const RIGHTS: [&str; 10] = [
    "viewer",
    "payer",
    "boss",
    "/staff",
    "/chiefs",
    "/nowhere",
    "reentry-admin",
    "reentry-hold.read",
    "/reentry/hold.read",
    "/reentry",
];

fn some_rights() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::sample::subsequence(RIGHTS.to_vec(), 0..=RIGHTS.len()).prop_map(|w| set(&w))
}

/// The IdP's claims: some of the names, each with rights in a shape of its own.
fn told() -> impl Strategy<Value = Map<String, Value>> {
    let one = (proptest::sample::select(NAMES.to_vec()), some_rights(), 0..4_u8);
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let shaped = all.into_iter().map(|(name, rights, shape)| {
            let value = match shape {
                0 => json!(rights),
                1 => json!({ "roles": rights }),
                2 => json!({ "shop": { "roles": rights } }),
                _ => json!(rights.into_iter().collect::<Vec<_>>().join(" ")),
            };
            (name.to_owned(), value)
        });
        shaped.collect()
    })
}

fn ceilings() -> impl Strategy<Value = Ceiling> {
    proptest::sample::select(vec!["full", "none", "read", "read write", "pay", "admin"])
        .prop_map(|words| Ceiling::parse(words).unwrap())
}

/// Every right that is spelt anywhere in a document.
fn spelt(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            found.extend(text.split(' ').filter(|w| RIGHTS.contains(w)).map(str::to_owned));
        }
        Value::Array(all) => all.iter().for_each(|v| spelt(v, found)),
        Value::Object(all) => all.values().for_each(|v| spelt(v, found)),
        _ => {}
    }
}

fn session(claims: &Map<String, Value>, roles: &BTreeSet<String>, groups: &BTreeSet<String>) -> Session {
    Session {
        id: "s1".to_owned(),
        subject: subject(),
        upstream_sid: None,
        began: Timestamp::from_secs(START),
        auth_time: Some(Timestamp::from_secs(START)),
        acr: None,
        amr: Vec::new(),
        // As a version before this one may have stored it: nothing left out.
        claims: Value::Object(claims.clone()).to_string(),
        roles: roles.clone(),
        groups: groups.clone(),
        checked: true,
        eligible: true,
        cookie: Vec::new(),
        id_token: String::new(),
        clients: BTreeSet::new(),
        ended: None,
        facts_at: None,
        closed: None,
    }
}

fn family() -> Family {
    Family {
        id: "f1".to_owned(),
        client: "bank".to_owned(),
        session: "s1".to_owned(),
        scopes: set(&["openid"]),
        began: Timestamp::from_secs(START),
        expires: Timestamp::from_secs(START + 3600),
        offline: false,
        nonce: None,
        generation: 1,
        rotated: Timestamp::from_secs(START),
        revoked: None,
        denied: Vec::new(),
    }
}

fn entitlement(session: &Session, ceiling: Ceiling, policy: &Policy) -> Entitlement {
    let scopes = set(&["openid", "profile"]);
    let request = Request {
        client: "bank",
        session: Some(Asking {
            id: "s1",
            auth_time: session.auth_time,
            checked: true,
            eligible: true,
        }),
        scopes: &scopes,
        roles: &session.roles,
        groups: &session.groups,
        issued: Some(crate::domain::entitlement::Issued { ceiling, epoch: 0 }),
    };
    let record = Record::new(subject());
    entitle(
        State::Known(Some(&record)),
        &request,
        Now::exact(Timestamp::from_secs(START)),
        policy,
    )
}

fn minting<'a>(
    client: &'a Client,
    session: &'a Session,
    family: &'a Family,
    entitlement: &'a Entitlement,
    allowed: &'a BTreeSet<String>,
) -> Minting<'a> {
    Minting {
        client,
        sub: "alice",
        session,
        family,
        entitlement,
        jti: "f1.x",
        allowed,
        id_life: Span::from_mins(15),
        nonce: None,
        at: Timestamp::from_secs(START),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // ISS-4, ISS-13: whatever the IdP calls them and whatever an allow-list of before says, the rights in every document
    // are those of the entitlement, the same in each, and never ours.
    #[test]
    fn iss13_no_document_holds_a_right_that_the_entitlement_does_not(
        claims in told(),
        roles in some_rights(),
        groups in some_rights(),
        ceiling in ceilings(),
    ) {
        let policy = policy();
        let allowed: BTreeSet<String> = claims.keys().cloned().collect();
        let session = session(&claims, &roles, &groups);
        let entitlement = entitlement(&session, ceiling, &policy);
        let (client, family) = (Client::public("bank", "https://b.example/cb", &["openid"]), family());
        let m = minting(&client, &session, &family, &entitlement, &allowed);
        let mut live = claims::passed(&session, &allowed, &entitlement.scopes, false);
        claims::rights(&mut live, &entitlement);
        let mut unread = claims::unread(&claims, &allowed);
        claims::rights(&mut unread, &entitlement);
        let documents = [
            access_claims(&settings(), m, Span::from_mins(5)),
            id_claims(&settings(), m, "token"),
            live,
            unread,
        ];
        let mut kept: Map<String, Value> = serde_json::from_str(&claims::kept(&claims, &allowed)).unwrap();
        kept.retain(|_, value| { let mut found = BTreeSet::new(); spelt(value, &mut found); !found.is_empty() });
        prop_assert!(kept.is_empty(), "nothing of it is even stored: {kept:?}");
        for document in documents {
            let mut found = BTreeSet::new();
            for (name, value) in &document {
                if name != "roles" && name != "groups" {
                    spelt(value, &mut found);
                }
            }
            prop_assert!(found.is_empty(), "{found:?} in {document:?}");
            let list = |values: &BTreeSet<String>| (!values.is_empty()).then(|| json!(values));
            prop_assert_eq!(document.get("roles").cloned(), list(&entitlement.roles));
            prop_assert_eq!(document.get("groups").cloned(), list(&entitlement.groups));
        }
        prop_assert!(!entitlement.roles.iter().any(|role| is_own_role(role)));
        prop_assert!(!entitlement.groups.iter().any(|group| is_own_group(group)));
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START)
    }
}

struct Nowhere;

#[async_trait]
impl Outbound for Nowhere {
    async fn post(&self, _: &Post<'_>) -> Result<Answer, OutboundError> {
        Err(OutboundError::Failed("nowhere".to_owned()))
    }

    async fn get(&self, _: &str, _: usize) -> Result<Answer, OutboundError> {
        Err(OutboundError::Failed("nowhere".to_owned()))
    }
}

// An account in hundreds of groups: what is minted is a token that we take ourselves.
#[tokio::test]
async fn no_token_is_larger_than_what_we_accept() {
    let scratch = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        create(scratch.path(), algorithm, false, Timestamp::from_secs(START)).unwrap();
    }
    let ring = KeyRing::load(scratch.path(), Arc::new(Still)).unwrap();
    let broker = Broker::new(settings(), Arc::new(ring), Arc::new(Nowhere)).unwrap();
    let group = |n: usize| format!("/customers/region-07/department-{n:04}");
    let mut big = Map::new();
    big.insert("picture".to_owned(), json!("x".repeat(20_000)));
    let none = Map::new();
    for (groups, roles, claims, left) in [
        (150, 0, &none, (true, false)),
        (400, 3, &none, (false, true)),
        (400, 900, &none, (false, false)),
        (3, 3, &big, (false, false)),
    ] {
        let groups: BTreeSet<String> = (0..groups).map(group).collect();
        let roles: BTreeSet<String> = (0..roles).map(|n| format!("role-number-{n:04}")).collect();
        let session = session(claims, &roles, &groups);
        let policy = policy();
        let entitlement = entitlement(&session, Ceiling::Full, &policy);
        let allowed = set(&["picture"]);
        let family = family();
        for algorithm in [Algorithm::Rs256, Algorithm::EdDsa] {
            let mut client = Client::public("bank", "https://b.example/cb", &["openid"]);
            client.access_token_alg = algorithm;
            client.id_token_alg = algorithm;
            let m = minting(&client, &session, &family, &entitlement, &allowed);
            let minted = mint(&broker, m).await.unwrap();
            let verified = broker
                .access_token(&minted.access, None, m.at)
                .unwrap_or_else(|e| panic!("{} octets: {e}", minted.access.len()));
            assert!(minted.id.unwrap().len() <= verify::MAX_TOKEN);
            let there = (
                verified.claims.contains_key("groups"),
                verified.claims.contains_key("roles"),
            );
            assert_eq!(there, left, "{} groups, {} roles", groups.len(), roles.len());
            assert_eq!(verified.text("recovery_scope"), Some("full"));
        }
    }
}
