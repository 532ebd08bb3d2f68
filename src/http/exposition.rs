//! `GET :9090/metrics`.

use actix_web::{HttpResponse, web};

use crate::service::Service;

/// The text exposition format, gauges brought up to date first.
pub async fn metrics(service: web::Data<Service>) -> HttpResponse {
    service.health().await;
    // Gauges of a store that does not answer keep their last value; service_health says so.
    let _ = service.nonce_stats().await;
    match service.metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be rendered");
            HttpResponse::InternalServerError().finish()
        }
    }
}
