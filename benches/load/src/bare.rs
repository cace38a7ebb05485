//! The bare programs: what the machine must charge, and nothing of ours.
//!
//! axum alone; axum and one Redis read; the same and one ES256 signature with a kept key; a Redis read, a write and a
//! signature. Each with tokio's current-thread runtime, one Redis connection, `TCP_NODELAY`. They answer a plain GET;
//! `/form` takes the octets that an introspection takes and gives as many as it gives, so that what is ours can be told
//! from what HTTP costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use reentry_test_support::ports::free_port;
use reentry_test_support::redis::Redis;

use crate::measure::{Place, Windows};
use crate::report::Report;
use crate::work::{Same, Target, listening, row, windows};

/// axum alone.
pub const HELLO: &str = "bare: axum";
/// axum and one Redis read.
pub const READ: &str = "bare: axum + Redis read";
/// The same with the octets of an introspection.
pub const FORM: &str = "bare: axum + Redis read, introspection's octets";
/// And one signature.
pub const SIGN: &str = "bare: axum + Redis read + ES256";
/// Read, write, signature.
pub const ROTATE: &str = "bare: axum + Redis read and write + ES256";

/// Keys in Redis, 96 octets each.
const KEYS: usize = 100_000;

struct Bare {
    redis: ConnectionManager,
    at: AtomicUsize,
    pair: EcdsaKeyPair,
    random: SystemRandom,
    header: String,
}

impl Bare {
    fn key(&self) -> String {
        format!("k:{}", self.at.fetch_add(7919, Ordering::Relaxed) % KEYS)
    }

    async fn read(&self) -> Vec<u8> {
        let mut redis = self.redis.clone();
        redis.get(self.key()).await.expect("a value")
    }

    fn sign(&self, value: &[u8]) -> String {
        let claims = serde_json::json!({
            "iss": "https://id.example.com", "sub": "0d9e0b5c-6f1e-4f6e-9a51-1b7c1f6d8a11", "aud": "bank",
            "client_id": "bank", "iat": 1_795_251_600, "exp": 1_795_252_500, "jti": String::from_utf8_lossy(value),
            "scope": "accounts:read payees:write payments:write", "recovery_scope": "full", "recovery_epoch": 0,
        });
        let mut token = self.header.clone();
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self
            .pair
            .sign(&self.random, token.as_bytes())
            .expect("a signature");
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

async fn hello() -> &'static str {
    "hello"
}

async fn read(State(bare): State<Arc<Bare>>) -> Vec<u8> {
    bare.read().await
}

/// As many octets in and out as an introspection has.
async fn form(State(bare): State<Arc<Bare>>, body: Bytes) -> impl IntoResponse {
    let value = bare.read().await;
    let mut answer = Vec::with_capacity(512);
    while answer.len() < 420 {
        answer.extend_from_slice(&value);
    }
    answer.truncate(420.min(body.len()));
    ([(header::CONTENT_TYPE, "application/json")], answer)
}

async fn sign(State(bare): State<Arc<Bare>>) -> String {
    let value = bare.read().await;
    bare.sign(&value)
}

async fn rotate(State(bare): State<Arc<Bare>>) -> String {
    let mut redis = bare.redis.clone();
    let key = bare.key();
    let value: Vec<u8> = redis.get(&key).await.expect("a value");
    let () = redis.set(&key, &value).await.expect("a write");
    bare.sign(&value)
}

/// The program itself: `bare PORT REDIS_PORT`.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [port, redis] = arguments else {
        bail!("{}", crate::USAGE);
    };
    let (port, redis): (u16, u16) = (port.parse()?, redis.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = redis::Client::open(format!("redis://127.0.0.1:{redis}/0"))?;
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| anyhow::anyhow!("no key could be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        let header =
            serde_json::json!({ "typ": "at+jwt", "alg": "ES256", "kid": "0123456789abcdef0123456789abcdef" });
        let bare = Bare {
            redis: ConnectionManager::new(client).await?,
            at: AtomicUsize::new(0),
            pair,
            random,
            header: format!("{}.", URL_SAFE_NO_PAD.encode(header.to_string())),
        };
        let router = Router::new()
            .route("/hello", get(hello))
            .route("/read", get(read))
            .route("/form", post(form))
            .route("/sign", get(sign))
            .route("/rotate", get(rotate))
            .with_state(Arc::new(bare));
        use axum::serve::ListenerExt as _;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        anyhow::Ok(())
    })
}

/// Measures all of them.
pub async fn measure(place: &Place, settings: Windows, report: &mut Report) -> anyhow::Result<()> {
    let redis = Redis::start();
    fill(&redis).await?;
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.args(["bare", &port.to_string(), &redis.port().to_string()]);
    let mut target = Target {
        server: place.start(command, Path::new("/dev/null"))?,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        redis,
        idle: 0.0,
    };
    listening(&mut target.server, target.address).await?;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes();
    let token = "e".repeat(700);
    let body = format!("token={token}");
    let form = format!(
        "POST /form HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic Z2F0ZTpnYXRlLXNlY3JldA==\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let all = [
        (HELLO, get("/hello")),
        (READ, get("/read")),
        (FORM, form.into_bytes()),
        (SIGN, get("/sign")),
        (ROTATE, get("/rotate")),
    ];
    // A path alone says little: what it is held against is measured with it.
    for (name, request) in all {
        let works = Same::all(vec![request], "");
        let (measured, _) = windows(&target, works, settings).await?;
        report.rows.push(row(name, measured, None));
    }
    Ok(())
}

async fn fill(redis: &Redis) -> anyhow::Result<()> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let value = [b'v'; 96];
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(1000) {
        let mut pipeline = redis::pipe();
        for n in chunk {
            pipeline.set(format!("k:{n}"), &value[..]).ignore();
        }
        let () = pipeline.query_async(&mut connection).await?;
    }
    Ok(())
}
