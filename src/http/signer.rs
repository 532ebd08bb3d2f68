//! `GET /api/v1/signer`: who this signer is, by which rules, with which keys.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::keys::KeyView;
use crate::{audit::checkpoint, nonce::WINDOW_SECONDS, service::Service};

/// The signer, its policy, and its keys.
pub async fn signer(service: web::Data<Service>) -> HttpResponse {
    let now = service.clock.now();
    let standing = service.keyring.standing();
    let issuer = standing.active().map(|key| service.signer.issuer(key));
    let token = service.token.identity();
    let keys: Vec<_> = standing.keys().rev().map(|key| KeyView::new(key, now)).collect();
    HttpResponse::Ok().json(json!({
        "signer_id": service.signer.id.as_str(),
        "name": service.signer.name,
        "issuer": issuer,
        "version": env!("CARGO_PKG_VERSION"),
        "token": {
            "uri": token.uri().to_string(),
            "label": token.label,
            "serial": token.serial,
            "manufacturer": token.manufacturer,
            "model": token.model,
            "algorithms": service.token.algorithms(),
        },
        "policy": {
            "key": {
                "algorithm": service.policy.key.algorithm,
                "maximum_age_seconds": service.policy.key.maximum_age_seconds(),
                "warn_age_seconds": service.policy.key.warn_age_seconds(),
                "overlap_seconds": service.policy.key.overlap_seconds(),
                "minimum_notice_seconds": service.policy.key.minimum_notice_seconds(),
                "maximum_pending": service.policy.key.maximum_pending,
                "retention_seconds": service.policy.key.retention_seconds(),
            },
            "nonce": {
                "window_seconds": service.policy.nonce_window.as_secs(),
                "window_seconds_minimum": WINDOW_SECONDS.start(),
                "window_seconds_maximum": WINDOW_SECONDS.end(),
                "clock_skew_seconds": service.policy.clock_skew_seconds(),
            },
        },
        "audit": {
            "origin": service.checkpoints.origin(),
            "public_key": service.checkpoints.key().map(|key| key.public_key().to_pem()),
            "verifier_key": service
                .checkpoints
                .key()
                .and_then(|key| checkpoint::verifier_key(service.checkpoints.origin(), key.public_key())),
        },
        "keys": keys,
    }))
}
