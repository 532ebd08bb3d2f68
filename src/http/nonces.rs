//! `/api/v1/nonces` and `/api/v1/nonce/…`.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

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
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a nonce request object")]
pub struct OneNonce {
    #[serde(deserialize_with = "strict::word")]
    attestation_type: AttestationType,
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9._:-]+$", max_length = 128)]
    subject_address: Option<String>,
    #[serde(default)]
    #[schema(minimum = 300, maximum = 86_400)]
    window_seconds: Option<u64>,
}

/// Body of `POST /api/v1/nonces/batch`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a nonce batch request object")]
pub struct ManyNonces {
    #[serde(deserialize_with = "strict::word")]
    attestation_type: AttestationType,
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9._:-]+$", max_length = 128)]
    subject_address: Option<String>,
    #[serde(default)]
    #[schema(minimum = 300, maximum = 86_400)]
    window_seconds: Option<u64>,
    #[schema(minimum = 1, maximum = 1000)]
    count: u64,
}

/// A nonce as it goes out.
#[derive(Serialize, utoipa::ToSchema)]
struct NonceView {
    nonce: NonceValue,
    attestation_type: AttestationType,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_address: Option<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    window_seconds: i64,
}

/// How full the nonce store is.
#[derive(Serialize, utoipa::ToSchema)]
struct StatsView {
    store: String,
    total: u64,
    by_status: ByStatus,
    /// Clients that hold unspent nonces.
    issuers: u64,
    /// Those that hold most.
    per_issuer: Vec<IssuerStats>,
    capacity: u64,
    /// Share of the capacity that is taken.
    fill: f64,
    outstanding_per_issuer: u64,
    last_cleanup: Option<Timestamp>,
    /// Null where nonces are kept in the process.
    redis: Option<RedisView>,
}

/// The Redis that nonces are kept in.
#[derive(Serialize, utoipa::ToSchema)]
struct RedisView {
    memory_used_bytes: u64,
    memory_limit_bytes: Option<u64>,
    memory_fill: Option<f64>,
    eviction_policy: String,
    clock_ahead_seconds: f64,
}

impl RedisView {
    fn new(server: &ServerStats) -> Self {
        Self {
            memory_used_bytes: server.memory_used,
            memory_limit_bytes: server.memory_limit,
            memory_fill: server.memory_limit.map(|_| server.memory_fill()),
            eviction_policy: server.eviction_policy.clone(),
            clock_ahead_seconds: server.clock_ahead,
        }
    }
}

/// Nonces by what became of them.
#[derive(Serialize, utoipa::ToSchema)]
struct ByStatus {
    outstanding: u64,
    used: u64,
    expired_total: u64,
}

/// Nonces that one client holds.
#[derive(Serialize, utoipa::ToSchema)]
struct IssuerStats {
    issuer: String,
    outstanding: u64,
}

/// What a cleanup did.
#[derive(Serialize, utoipa::ToSchema)]
struct Removed {
    removed: u64,
    by_status: RemovedByStatus,
    batches: u64,
    duration_seconds: f64,
}

/// Nonces that were forgotten.
#[derive(Serialize, utoipa::ToSchema)]
struct RemovedByStatus {
    expired: u64,
    used: u64,
}

/// `POST /api/v1/nonces`
#[utoipa::path(
    post,
    path = "/api/v1/nonces",
    operation_id = "nonces_issue",
    tag = "nonces",
    request_body(content = OneNonce),
    responses(
        (status = 200, description = "Done", body = NonceView),
    )
)]
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
#[utoipa::path(
    post,
    path = "/api/v1/nonces/batch",
    operation_id = "nonces_issue_batch",
    tag = "nonces",
    request_body(content = ManyNonces),
    responses(
        (status = 200, description = "Done", body = Vec<NonceView>),
    )
)]
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
#[utoipa::path(
    get,
    path = "/api/v1/nonce/stats",
    operation_id = "nonces_stats",
    tag = "nonces",
    responses(
        (status = 200, description = "Done", body = StatsView),
    )
)]
pub async fn stats(service: web::Data<Service>) -> Result<HttpResponse, Problem> {
    let stats = service.nonce_stats().await?;
    let by_status = ByStatus { outstanding: stats.outstanding, used: stats.spent, expired_total: stats.expired_total };
    let issuer = |(issuer, outstanding)| IssuerStats { issuer, outstanding };
    Ok(HttpResponse::Ok().json(StatsView {
        store: service.nonces.describe(),
        total: stats.size(),
        by_status,
        issuers: stats.issuers,
        capacity: stats.capacity,
        fill: stats.fill(),
        outstanding_per_issuer: stats.outstanding_per_issuer,
        last_cleanup: stats.last_cleanup,
        redis: stats.server.as_ref().map(RedisView::new),
        per_issuer: stats.per_issuer.into_iter().map(issuer).collect(),
    }))
}

/// `POST /api/v1/nonce/cleanup`
#[utoipa::path(
    post,
    path = "/api/v1/nonce/cleanup",
    operation_id = "nonces_cleanup",
    tag = "nonces",
    responses(
        (status = 200, description = "Done", body = Removed),
    )
)]
pub async fn cleanup(service: web::Data<Service>, caller: Caller) -> Result<HttpResponse, Problem> {
    let (removed, seconds) =
        to_the_end(&service, |service| async move { service.clean_up_nonces_for(&caller.0).await }).await?;
    Ok(HttpResponse::Ok().json(Removed {
        removed: removed.total(),
        by_status: RemovedByStatus { expired: removed.expired, used: removed.used },
        batches: removed.batches,
        duration_seconds: seconds,
    }))
}
