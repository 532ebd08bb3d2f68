//! `/api/v1/nonces` and `/api/v1/nonce/…`.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{body::StrictJson, problem::Problem, request::Caller};
use crate::{
    attestation::{AttestationType, strict},
    nonce::Issued,
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
    per_issuer: Vec<IssuerStats>,
    capacity: u64,
    /// Share of the capacity that is taken.
    fill: f64,
    last_cleanup: Option<Timestamp>,
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
    let total = stats.outstanding + stats.spent;
    #[expect(clippy::cast_precision_loss, reason = "a share, shown to people")]
    let fill = total as f64 / stats.capacity.max(1) as f64;
    let by_status = ByStatus { outstanding: stats.outstanding, used: stats.spent, expired_total: stats.expired_total };
    let issuer = |(issuer, outstanding)| IssuerStats { issuer, outstanding };
    Ok(HttpResponse::Ok().json(StatsView {
        store: service.nonces.describe(),
        total,
        by_status,
        per_issuer: stats.per_issuer.into_iter().map(issuer).collect(),
        capacity: stats.capacity,
        fill,
        last_cleanup: stats.last_cleanup,
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
pub async fn cleanup(service: web::Data<Service>) -> Result<HttpResponse, Problem> {
    let removed = service.clean_up_nonces().await?;
    Ok(HttpResponse::Ok().json(Removed { removed }))
}
