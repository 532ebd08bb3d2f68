//! `/healthz`, `/readyz`, `/livez`.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::service::{Service, readiness::Health};

/// The body of `GET /readyz`.
#[derive(Serialize, utoipa::ToSchema)]
struct Ready {
    ready: bool,
    status: &'static str,
    /// Why not.
    reasons: Vec<String>,
}

/// The body of `GET /livez`.
#[derive(Serialize, utoipa::ToSchema)]
struct Alive {
    alive: bool,
}

/// `GET /healthz`: everything an operator wants to see at once; 503 when nothing can be signed.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "health_healthz",
    tag = "health",
    responses(
        (status = 200, description = "It can sign", body = Health),
        (status = 503, description = "It cannot", body = Health),
    )
)]
pub async fn healthz(service: web::Data<Service>) -> HttpResponse {
    let health = service.health().await;
    if health.healthy { HttpResponse::Ok().json(health) } else { HttpResponse::ServiceUnavailable().json(health) }
}

/// `GET /readyz`: whether requests should be sent here.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "health_readyz",
    tag = "health",
    responses(
        (status = 200, description = "Send requests", body = Ready),
        (status = 503, description = "Send none", body = Ready),
    )
)]
pub async fn readyz(service: web::Data<Service>) -> HttpResponse {
    let health = service.health().await;
    let leaving = service.leaving.load(Ordering::Relaxed);
    let mut reasons = health.reasons();
    reasons.extend(leaving.then(|| "the process was told to stop".to_owned()));
    let paused = service.maintenance.pause();
    reasons.extend(paused.as_ref().map(ToString::to_string));
    let ready = health.healthy && !leaving && paused.is_none();
    let body = Ready { ready, status: health.status, reasons };
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// `GET /livez`: whether the process turns; it says nothing about the token.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "health_livez",
    tag = "health",
    responses(
        (status = 200, description = "Done", body = Alive),
    )
)]
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Alive { alive: true })
}
