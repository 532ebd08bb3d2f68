//! `/healthz`, `/readyz`, `/livez`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::service::Service;

/// `GET /healthz`: everything an operator wants to see at once; 503 when nothing can be signed.
pub async fn healthz(service: web::Data<Service>) -> HttpResponse {
    let health = service.health().await;
    if health.healthy { HttpResponse::Ok().json(health) } else { HttpResponse::ServiceUnavailable().json(health) }
}

/// `GET /readyz`: whether requests should be sent here.
pub async fn readyz(service: web::Data<Service>) -> HttpResponse {
    let health = service.health().await;
    let body = json!({ "ready": health.healthy, "status": health.status, "reasons": health.reasons() });
    if health.healthy { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// `GET /livez`: whether the process turns; it says nothing about the token.
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "alive": true }))
}
