//! `GET /.well-known/jwks.json` (RFC 7517): every key whose signatures count.

use actix_web::{HttpResponse, web};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    key::{Algorithm, KeyEntry, KeyState},
    service::Service,
};

/// The key set, newest first. Pending keys are in it, so that verifiers know them in advance.
pub async fn jwks(service: web::Data<Service>) -> HttpResponse {
    let now = service.clock.now();
    let standing = service.keyring.standing();
    let counts = |key: &&std::sync::Arc<KeyEntry>| key.state(now) != KeyState::Revoked;
    let keys: Vec<_> = standing.keys().rev().filter(counts).map(|key| jwk(key)).collect();
    HttpResponse::Ok().content_type("application/jwk-set+json").body(json!({ "keys": keys }).to_string())
}

fn jwk(key: &KeyEntry) -> Value {
    let (x, y) = key.public_key.coordinates();
    // RFC 7518 §6.2, RFC 8037 §2, RFC 8812 §3.
    let (kty, crv, alg) = match key.algorithm() {
        Algorithm::P256 => ("EC", "P-256", "ES256"),
        Algorithm::Ed25519 => ("OKP", "Ed25519", "EdDSA"),
        Algorithm::Secp256k1 => ("EC", "secp256k1", "ES256K"),
    };
    let mut jwk = json!({
        "kty": kty,
        "crv": crv,
        "x": URL_SAFE_NO_PAD.encode(x),
        "alg": alg,
        "use": "sig",
        "kid": key.id,
    });
    if let Some(y) = y {
        jwk["y"] = json!(URL_SAFE_NO_PAD.encode(y));
    }
    jwk
}
