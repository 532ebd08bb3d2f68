//! `/api/v1/approvals`: requests that wait for others.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    body::{OptionalJson, StrictJson},
    problem::Problem,
    request::Caller,
};
use crate::{
    attestation::Text,
    client::Role,
    service::{
        Service,
        approvals::{ApprovalRequest, Operation, Status},
    },
    timestamp::Timestamp,
};

/// A request as it goes out.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ApprovalView {
    approval_id: String,
    status: Status,
    operation: Operation,
    /// The key or rotation it is about.
    target: String,
    /// What is asked for, whole.
    content: Value,
    /// SHA-256 over operation, target and content: what an approval is given for.
    digest: String,
    requested_by: String,
    requested_at: Timestamp,
    expires_at: Timestamp,
    approvals: Vec<ApprovalGiven>,
    needed: Needed,
    rejection: Option<RejectionView>,
    used_at: Option<Timestamp>,
}

/// One approval.
#[derive(Serialize, utoipa::ToSchema)]
struct ApprovalGiven {
    by: String,
    at: Timestamp,
}

/// One objection.
#[derive(Serialize, utoipa::ToSchema)]
struct RejectionView {
    by: String,
    at: Timestamp,
    reason: String,
}

/// How many approvals the rule asks for now, and of whom.
#[derive(Serialize, utoipa::ToSchema)]
struct Needed {
    count: usize,
    roles: Vec<Role>,
}

impl ApprovalView {
    pub(super) fn new(request: &ApprovalRequest, service: &Service) -> Self {
        let rule = service.approvals.rule(request.order.operation);
        Self {
            approval_id: request.id.clone(),
            status: request.status(rule, service.clock.now()),
            operation: request.order.operation,
            target: request.order.target.clone(),
            content: request.order.content.clone(),
            digest: request.order.digest(),
            requested_by: request.requested_by.clone(),
            requested_at: request.requested_at,
            expires_at: request.expires_at,
            approvals: request.approvals.iter().map(|one| ApprovalGiven { by: one.by.clone(), at: one.at }).collect(),
            needed: Needed {
                count: rule.map_or(0, |rule| rule.count),
                roles: rule.map_or_else(Vec::new, |rule| rule.roles.clone()),
            },
            rejection: request.rejection.as_ref().map(|rejection| RejectionView {
                by: rejection.by.clone(),
                at: rejection.at,
                reason: rejection.reason.clone(),
            }),
            used_at: request.used_at,
        }
    }
}

/// `GET /api/v1/approvals`: a bare array, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/approvals",
    operation_id = "approvals_list",
    tag = "approvals",
    responses(
        (status = 200, description = "Done", body = Vec<ApprovalView>),
    )
)]
pub async fn list(service: web::Data<Service>) -> HttpResponse {
    let requests = service.approvals.all();
    let views: Vec<_> = requests.iter().map(|request| ApprovalView::new(request, &service)).collect();
    HttpResponse::Ok().json(views)
}

/// `GET /api/v1/approvals/{approval_id}`
#[utoipa::path(
    get,
    path = "/api/v1/approvals/{approval_id}",
    operation_id = "approvals_one",
    tag = "approvals",
    params(("approval_id" = String, Path)),
    responses(
        (status = 200, description = "Done", body = ApprovalView),
    )
)]
pub async fn one(service: web::Data<Service>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(ApprovalView::new(&service.approvals.one(&id)?, &service)))
}

/// Body of `POST /api/v1/approvals/{approval_id}/approve`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an approval object")]
pub struct ApproveRequest {
    /// The digest of what was read: whoever approves says what.
    digest: Text<64>,
}

/// `POST /api/v1/approvals/{approval_id}/approve`
#[utoipa::path(
    post,
    path = "/api/v1/approvals/{approval_id}/approve",
    operation_id = "approvals_approve",
    tag = "approvals",
    params(("approval_id" = String, Path)),
    request_body(content = ApproveRequest),
    responses(
        (status = 200, description = "Done", body = ApprovalView),
    )
)]
pub async fn approve(
    service: web::Data<Service>,
    caller: Caller,
    id: web::Path<String>,
    body: StrictJson<ApproveRequest>,
) -> Result<HttpResponse, Problem> {
    let request = service.approve(&caller.0, &id, body.0.digest.as_str()).await?;
    Ok(HttpResponse::Ok().json(ApprovalView::new(&request, &service)))
}

/// Body of `POST /api/v1/approvals/{approval_id}/reject`; may be left out.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "a rejection object")]
pub struct RejectRequest {
    reason: Text<256>,
}

/// `POST /api/v1/approvals/{approval_id}/reject`
#[utoipa::path(
    post,
    path = "/api/v1/approvals/{approval_id}/reject",
    operation_id = "approvals_reject",
    tag = "approvals",
    params(("approval_id" = String, Path)),
    request_body(content = Option<RejectRequest>),
    responses(
        (status = 200, description = "Done", body = ApprovalView),
    )
)]
pub async fn reject(
    service: web::Data<Service>,
    caller: Caller,
    id: web::Path<String>,
    body: OptionalJson<RejectRequest>,
) -> Result<HttpResponse, Problem> {
    let request = service.reject(&caller.0, &id, body.0.reason.as_str()).await?;
    Ok(HttpResponse::Ok().json(ApprovalView::new(&request, &service)))
}
