//! `GET /api/v1/signer`: who this signer is, by which rules, with which keys.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::keys::KeyView;
use crate::{
    attestation::{Issuer, Text},
    audit::checkpoint,
    key::Algorithm,
    nonce::WINDOW_SECONDS,
    service::Service,
};

/// Who this signer is.
#[derive(Serialize, utoipa::ToSchema)]
struct SignerView {
    signer_id: String,
    name: Text<128>,
    /// As attestations name it; none while no key is active.
    issuer: Option<Issuer>,
    version: &'static str,
    token: SignerToken,
    policy: PolicyView,
    audit: TrailView,
    keys: Vec<KeyView>,
}

/// The audit trail's log.
#[derive(Serialize, utoipa::ToSchema)]
struct TrailView {
    /// Its name.
    origin: String,
    /// Verifies its checkpoints (PEM).
    public_key: Option<String>,
    /// The same as readers of signed notes take it.
    verifier_key: Option<String>,
}

/// The token under the signer.
#[derive(Serialize, utoipa::ToSchema)]
struct SignerToken {
    uri: String,
    label: String,
    serial: String,
    manufacturer: String,
    model: String,
    algorithms: Vec<Algorithm>,
}

/// The rules that it keeps.
#[derive(Serialize, utoipa::ToSchema)]
struct PolicyView {
    key: KeyPolicyView,
    nonce: NoncePolicyView,
}

/// The rules for keys.
#[derive(Serialize, utoipa::ToSchema)]
struct KeyPolicyView {
    algorithm: Algorithm,
    maximum_age_seconds: i64,
    warn_age_seconds: i64,
    overlap_seconds: i64,
    minimum_notice_seconds: i64,
    maximum_pending: usize,
    retention_seconds: i64,
}

/// The rules for nonces.
#[derive(Serialize, utoipa::ToSchema)]
struct NoncePolicyView {
    window_seconds: u64,
    window_seconds_minimum: u64,
    window_seconds_maximum: u64,
    clock_skew_seconds: i64,
    /// Null where only nonces that were issued here are taken.
    client_nonces: Option<ClientNoncesView>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ClientNoncesView {
    window_seconds: u64,
}

/// The signer, its policy, and its keys.
#[utoipa::path(
    get,
    path = "/api/v1/signer",
    operation_id = "signer_signer",
    tag = "signer",
    responses(
        (status = 200, description = "Done", body = SignerView),
    )
)]
pub async fn signer(service: web::Data<Service>) -> HttpResponse {
    let now = service.clock.now();
    let standing = service.keyring.standing();
    let signing = service.signing_key().ok().or_else(|| standing.active(service.tokens.line()).cloned());
    let issuer = signing.map(|key| service.signer.issuer(&key));
    let token = service.token.identity();
    let keys: Vec<_> = standing.keys().rev().map(|key| KeyView::new(key, now)).collect();
    let (key, policy) = (&service.policy.key, &service.policy);
    HttpResponse::Ok().json(SignerView {
        signer_id: service.signer.id.to_string(),
        name: service.signer.name.clone(),
        issuer,
        version: env!("CARGO_PKG_VERSION"),
        token: SignerToken {
            uri: token.uri().to_string(),
            label: token.label.clone(),
            serial: token.serial.clone(),
            manufacturer: token.manufacturer.clone(),
            model: token.model.clone(),
            algorithms: service.token.algorithms().to_vec(),
        },
        policy: PolicyView {
            key: KeyPolicyView {
                algorithm: key.algorithm,
                maximum_age_seconds: key.maximum_age_seconds(),
                warn_age_seconds: key.warn_age_seconds(),
                overlap_seconds: key.overlap_seconds(),
                minimum_notice_seconds: key.minimum_notice_seconds(),
                maximum_pending: key.maximum_pending,
                retention_seconds: key.retention_seconds(),
            },
            nonce: NoncePolicyView {
                window_seconds: policy.nonce_window.as_secs(),
                window_seconds_minimum: *WINDOW_SECONDS.start(),
                window_seconds_maximum: *WINDOW_SECONDS.end(),
                clock_skew_seconds: policy.clock_skew_seconds(),
                client_nonces: policy
                    .client_nonce_window
                    .map(|window| ClientNoncesView { window_seconds: window.as_secs() }),
            },
        },
        audit: TrailView {
            origin: service.checkpoints.origin().to_owned(),
            public_key: service.checkpoints.key().map(|key| key.public_key().to_pem()),
            verifier_key: service
                .checkpoints
                .key()
                .and_then(|key| checkpoint::verifier_key(service.checkpoints.origin(), key.public_key())),
        },
        keys,
    })
}
