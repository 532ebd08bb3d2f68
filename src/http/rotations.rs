//! `/api/v1/rotations`.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::{Deserialize, Serialize};

use super::{
    approvals::ApprovalView,
    body::OptionalJson,
    changes::{Change, Terms, again, carry_out, done},
    problem::Problem,
    request::Caller,
};
use crate::{
    attestation::Text,
    client::Client,
    key::{KeyId, Rotation, RotationStatus},
    service::{
        Service,
        approvals::{Operation, Order},
        lifecycle::{Actor, rotation_id},
    },
    timestamp::Timestamp,
};

/// A rotation as it goes out.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct RotationView {
    rotation_id: String,
    status: RotationStatus,
    /// The token whose keys they are, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    old_key_id: Option<KeyId>,
    new_key_id: KeyId,
    reason: String,
    notes: String,
    initiated_by: String,
    emergency: bool,
    started_at: Timestamp,
    /// Until then the old key is `rotating`.
    overlap_until: Timestamp,
    completed_at: Option<Timestamp>,
    cancelled_at: Option<Timestamp>,
    forced: bool,
}

impl RotationView {
    pub(super) fn new(rotation: &Rotation, service: &Service) -> Self {
        let id = |sequence| KeyId { signer: service.signer.id.clone(), sequence };
        Self {
            rotation_id: rotation_id(rotation),
            status: rotation.status(service.clock.now()),
            token: service.token_name(&rotation.line),
            old_key_id: rotation.from.map(id),
            new_key_id: id(rotation.to),
            reason: rotation.reason.clone(),
            notes: rotation.notes.clone(),
            initiated_by: rotation.initiated_by.clone(),
            emergency: rotation.emergency,
            started_at: rotation.started_at,
            overlap_until: rotation.overlap_until,
            completed_at: rotation.completed_at,
            cancelled_at: rotation.cancelled_at,
            forced: rotation.forced,
        }
    }
}

/// Body of `POST .../complete` and `.../cancel`; may be left out.
#[derive(Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "a rotation command object")]
pub struct Command {
    force: bool,
    initiated_by: Text<128>,
}

/// `GET /api/v1/rotations`: a bare array, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/rotations",
    operation_id = "rotations_list",
    tag = "rotations",
    responses(
        (status = 200, description = "Done", body = Vec<RotationView>),
    )
)]
pub async fn list(service: web::Data<Service>) -> HttpResponse {
    let standing = service.keyring.standing();
    let rotations: Vec<_> = standing.rotations().rev().map(|rotation| RotationView::new(rotation, &service)).collect();
    HttpResponse::Ok().json(rotations)
}

/// `GET /api/v1/rotations/{rotation_id}`
#[utoipa::path(
    get,
    path = "/api/v1/rotations/{rotation_id}",
    operation_id = "rotations_one",
    tag = "rotations",
    params(("rotation_id" = String, Path)),
    responses(
        (status = 200, description = "Done", body = RotationView),
    )
)]
pub async fn one(service: web::Data<Service>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(RotationView::new(&service.rotation(&id)?, &service)))
}

/// `POST /api/v1/rotations/{rotation_id}/complete`
#[utoipa::path(
    post,
    path = "/api/v1/rotations/{rotation_id}/complete",
    operation_id = "rotations_complete",
    tag = "rotations",
    params(("rotation_id" = String, Path), Terms),
    request_body(content = Option<Command>),
    responses(
        (status = 200, description = "Done", body = RotationView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn complete(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    id: web::Path<String>,
    body: OptionalJson<Command>,
) -> Result<HttpResponse, Problem> {
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Complete, &id, &body.0) };
    let actor = actor(&change.caller, &body.0.initiated_by);
    let force = body.0.force;
    carry_out(&service, change, again(), move |service| async move {
        let rotation = service.complete(&id, force, &actor).await?;
        done(StatusCode::OK, None, &RotationView::new(&rotation, &service))
    })
    .await
}

/// `POST /api/v1/rotations/{rotation_id}/cancel`
#[utoipa::path(
    post,
    path = "/api/v1/rotations/{rotation_id}/cancel",
    operation_id = "rotations_cancel",
    tag = "rotations",
    params(("rotation_id" = String, Path), Terms),
    request_body(content = Option<Command>),
    responses(
        (status = 200, description = "Done", body = RotationView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn cancel(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    id: web::Path<String>,
    body: OptionalJson<Command>,
) -> Result<HttpResponse, Problem> {
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Cancel, &id, &body.0) };
    let actor = actor(&change.caller, &body.0.initiated_by);
    carry_out(&service, change, again(), move |service| async move {
        let rotation = service.cancel(&id, &actor).await?;
        done(StatusCode::OK, None, &RotationView::new(&rotation, &service))
    })
    .await
}

/// The caller as an actor; whom the request names besides is recorded, not trusted.
pub(super) fn actor(caller: &Client, initiated_by: &Text<128>) -> Actor {
    let name = caller.identity.to_string();
    let initiated_by = if initiated_by.is_empty() { name.clone() } else { initiated_by.to_string() };
    Actor { name, initiated_by, client: Some(caller.clone()) }
}
