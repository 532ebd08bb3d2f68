//! `/api/v1/abuse`.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::problem::Problem;
use crate::{limits::abuse::Score, quota::Principal, service::Service};

/// Query of `GET /api/v1/abuse`.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
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
#[utoipa::path(
    get,
    path = "/api/v1/abuse",
    operation_id = "abuse_list",
    tag = "limits",
    params(HowMany),
    responses(
        (status = 200, description = "Done", body = Vec<Score>),
    )
)]
pub async fn list(service: web::Data<Service>, how_many: web::Query<HowMany>) -> HttpResponse {
    HttpResponse::Ok().json(service.highest_scores(how_many.limit.min(1000)))
}

/// `GET /api/v1/abuse/{identifier}`: one score, factor by factor.
#[utoipa::path(
    get,
    path = "/api/v1/abuse/{identifier}",
    operation_id = "abuse_explain",
    tag = "limits",
    params(("identifier" = String, Path, description = "`client:<name>`, `address:<address>` or `subject:<account address>`")),
    responses(
        (status = 200, description = "Done", body = Score),
    )
)]
pub async fn explain(service: web::Data<Service>, identifier: web::Path<String>) -> Result<HttpResponse, Problem> {
    let principal = Principal::parse(&identifier).ok_or_else(|| {
        Problem::field("identifier", "expected client:<name>, address:<address> or subject:<account address>")
    })?;
    Ok(HttpResponse::Ok().json(service.score(&principal)))
}
