//! `GET /.well-known/jwks.json` (RFC 7517): every key whose signatures count.

use actix_web::{HttpResponse, web};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    key::{Algorithm, KeyEntry, KeyId, KeyState},
    service::Service,
};

/// A JWK set.
#[derive(Serialize, utoipa::ToSchema)]
struct KeySet {
    keys: Vec<Jwk>,
}

/// One public key.
#[derive(Serialize, utoipa::ToSchema)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    alg: &'static str,
    r#use: &'static str,
    kid: KeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

/// The key set, newest first. Pending keys are in it, so that verifiers know them in advance.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "jwks_jwks",
    tag = "jwks",
    responses(
        (status = 200, description = "The key set", body = KeySet, content_type = "application/jwk-set+json"),
    )
)]
pub async fn jwks(service: web::Data<Service>) -> HttpResponse {
    let now = service.clock.now();
    let standing = service.keyring.standing();
    let counts = |key: &&std::sync::Arc<KeyEntry>| key.state(now) != KeyState::Revoked;
    let keys: Vec<_> = standing.keys().rev().filter(counts).map(|key| jwk(key)).collect();
    HttpResponse::Ok().content_type("application/jwk-set+json").json(KeySet { keys })
}

fn jwk(key: &KeyEntry) -> Jwk {
    let (x, y) = key.public_key.coordinates();
    // RFC 7518 §6.2, RFC 8037 §2, RFC 8812 §3.
    let (kty, crv, alg) = match key.algorithm() {
        Algorithm::P256 => ("EC", "P-256", "ES256"),
        Algorithm::Ed25519 => ("OKP", "Ed25519", "EdDSA"),
        Algorithm::Secp256k1 => ("EC", "secp256k1", "ES256K"),
    };
    Jwk {
        kty,
        crv,
        x: URL_SAFE_NO_PAD.encode(x),
        alg,
        r#use: "sig",
        kid: key.id.clone(),
        y: y.map(|y| URL_SAFE_NO_PAD.encode(y)),
    }
}
