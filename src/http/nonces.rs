//! `/api/v1/nonces` and `/api/v1/nonce/…`.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::{AttestationType, strict},
    nonce::{Issued, ServerStats},
    nonce_value::NonceValue,
    service::{Service, nonces::NonceOrder},
    timestamp::Timestamp,
};

/// Body of `POST /api/v1/nonces`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a nonce request object")]
pub struct OneNonce {
    #[serde(deserialize_with = "strict::word")]
    attestation_type: AttestationType,
    #[serde(default)]
    subject_address: Option<String>,
    #[serde(default)]
    window_seconds: Option<u64>,
}

/// Body of `POST /api/v1/nonces/batch`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a nonce batch request object")]
pub struct ManyNonces {
    #[serde(deserialize_with = "strict::word")]
    attestation_type: AttestationType,
    #[serde(default)]
    subject_address: Option<String>,
    #[serde(default)]
    window_seconds: Option<u64>,
    count: u64,
}

/// A nonce as it goes out.
#[derive(Serialize)]
struct NonceView {
    nonce: NonceValue,
    attestation_type: AttestationType,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_address: Option<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    window_seconds: i64,
}

/// `POST /api/v1/nonces`
pub async fn issue(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<OneNonce>,
) -> Result<HttpResponse, Problem> {
    let OneNonce { attestation_type, subject_address, window_seconds } = body.0;
    let order = NonceOrder { attestation_type, subject_address, window_seconds, count: 1 };
    Ok(HttpResponse::Ok().json(&issued(&service, &caller, order).await?[0]))
}

/// `POST /api/v1/nonces/batch`
pub async fn issue_batch(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<ManyNonces>,
) -> Result<HttpResponse, Problem> {
    let ManyNonces { attestation_type, subject_address, window_seconds, count } = body.0;
    let order = NonceOrder { attestation_type, subject_address, window_seconds, count };
    Ok(HttpResponse::Ok().json(issued(&service, &caller, order).await?))
}

async fn issued(service: &Service, caller: &Caller, order: NonceOrder) -> Result<Vec<NonceView>, Problem> {
    let NonceOrder { attestation_type, subject_address, .. } = order.clone();
    let view = |issued: Issued| NonceView {
        nonce: issued.nonce,
        attestation_type,
        subject_address: subject_address.clone(),
        issued_at: issued.issued_at,
        expires_at: issued.expires_at,
        window_seconds: issued.expires_at.seconds_since(issued.issued_at),
    };
    Ok(service.issue_nonces(&caller.0, order).await?.into_iter().map(view).collect())
}

/// `GET /api/v1/nonce/stats`
pub async fn stats(service: web::Data<Service>) -> Result<HttpResponse, Problem> {
    let stats = service.nonce_stats().await?;
    let per_issuer: Vec<_> = stats
        .per_issuer
        .iter()
        .map(|(issuer, outstanding)| json!({ "issuer": issuer, "outstanding": outstanding }))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "store": service.nonces.describe(),
        "total": stats.size(),
        "by_status": { "outstanding": stats.outstanding, "used": stats.spent, "expired_total": stats.expired_total },
        "issuers": stats.issuers,
        "per_issuer": per_issuer,
        "capacity": stats.capacity,
        "fill": stats.fill(),
        "outstanding_per_issuer": stats.outstanding_per_issuer,
        "last_cleanup": stats.last_cleanup,
        "redis": stats.server.as_ref().map(server_view),
    })))
}

fn server_view(server: &ServerStats) -> serde_json::Value {
    json!({
        "memory_used_bytes": server.memory_used,
        "memory_limit_bytes": server.memory_limit,
        "memory_fill": server.memory_limit.map(|_| server.memory_fill()),
        "eviction_policy": server.eviction_policy,
        "clock_ahead_seconds": server.clock_ahead,
    })
}

/// `POST /api/v1/nonce/cleanup`
pub async fn cleanup(service: web::Data<Service>, caller: Caller) -> Result<HttpResponse, Problem> {
    let (removed, seconds) =
        to_the_end(&service, |service| async move { service.clean_up_nonces_for(&caller.0).await }).await?;
    Ok(HttpResponse::Ok().json(json!({
        "removed": removed.total(),
        "by_status": { "expired": removed.expired, "used": removed.used },
        "batches": removed.batches,
        "duration_seconds": seconds,
    })))
}
