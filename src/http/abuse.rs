//! `/api/v1/abuse`.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::problem::Problem;
use crate::{quota::Principal, service::Service};

/// Query of `GET /api/v1/abuse`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HowMany {
    limit: usize,
}

impl Default for HowMany {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// `GET /api/v1/abuse`: a bare array of scores above zero, highest first.
pub async fn list(service: web::Data<Service>, how_many: web::Query<HowMany>) -> HttpResponse {
    HttpResponse::Ok().json(service.highest_scores(how_many.limit.min(1000)))
}

/// `GET /api/v1/abuse/{identifier}`: one score, factor by factor.
pub async fn explain(service: web::Data<Service>, identifier: web::Path<String>) -> Result<HttpResponse, Problem> {
    let principal = Principal::parse(&identifier).ok_or_else(|| {
        Problem::field("identifier", "expected client:<name>, address:<address> or subject:<account address>")
    })?;
    Ok(HttpResponse::Ok().json(service.score(&principal)))
}
