//! Tokens with any header, signed by keys of the tests.

use std::path::PathBuf;

use aws_lc_rs::hmac as mac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reentry::ports::signer::Algorithm;
use serde_json::{Value, json};

use crate::house::keys_of;

/// The private keys of one folder.
pub struct Keys(PathBuf);

fn message(header: &Value, claims: &Value) -> String {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn with(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    with(&message(header, claims), b"")
}

/// A token with a MAC.
pub fn hmac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = message(header, claims);
    let key = mac::Key::new(mac::HMAC_SHA256, secret);
    with(&message, mac::sign(&key, message.as_bytes()).as_ref())
}

impl Keys {
    pub fn of(name: &str) -> Self {
        Self(keys_of(name))
    }

    fn file(&self, algorithm: Algorithm) -> Value {
        let files = std::fs::read_dir(&self.0).unwrap();
        let read = |e: std::fs::DirEntry| -> Value {
            serde_json::from_slice(&std::fs::read(e.path()).unwrap()).unwrap()
        };
        files
            .map(|e| read(e.unwrap()))
            .find(|k| k["algorithm"] == algorithm.as_str())
            .unwrap()
    }

    pub fn kid(&self, algorithm: Algorithm) -> String {
        self.file(algorithm)["kid"].as_str().unwrap().to_owned()
    }

    fn pkcs8(&self, algorithm: Algorithm) -> Vec<u8> {
        let file = self.file(algorithm);
        let pem = file["private_key"].as_str().unwrap();
        let body: String = pem.lines().filter(|l| !l.starts_with('-')).collect();
        STANDARD.decode(body).unwrap()
    }

    /// A token with this header, whatever it says, by the key of `algorithm`.
    pub fn sign(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let (key, random) = (self.pkcs8(algorithm), SystemRandom::new());
        let signature = if algorithm == Algorithm::Es256 {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key)
                .unwrap()
                .sign(&random, message.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec()
        } else {
            let pair = RsaKeyPair::from_pkcs8(&key).unwrap();
            let mut signature = vec![0; pair.public_modulus_len()];
            let padding: &dyn aws_lc_rs::signature::RsaEncoding = if header["alg"] == "PS256" {
                &RSA_PSS_SHA256
            } else {
                &RSA_PKCS1_SHA256
            };
            pair.sign(padding, &random, message.as_bytes(), &mut signature)
                .unwrap();
            signature
        };
        with(&message, &signature)
    }

    /// The public halves as a JWK Set.
    pub fn set(&self) -> Value {
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8(Algorithm::Es256))
            .unwrap();
        let point = ec.public_key().as_ref();
        let part = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        let rsa = RsaKeyPair::from_pkcs8(&self.pkcs8(Algorithm::Rs256)).unwrap();
        let public = rsa.public_key();
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": self.kid(Algorithm::Es256), "use": "sig",
              "x": part(&point[1..33]), "y": part(&point[33..65]) },
            { "kty": "RSA", "kid": self.kid(Algorithm::Rs256), "use": "sig",
              "n": part(public.modulus().big_endian_without_leading_zero()),
              "e": part(public.exponent().big_endian_without_leading_zero()) },
        ] })
    }
}
