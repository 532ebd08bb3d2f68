//! `/api/v1/keys/rotate`, `/revoke`, `/emergency`, `/destroy`, and keys generated ahead.

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::{Deserialize, Serialize};

use super::{
    approvals::ApprovalView,
    authn::require,
    body::{OptionalJson, StrictJson},
    changes::{Change, Recover, Terms, again, carry_out, done},
    keys::KeyView,
    problem::Problem,
    request::Caller,
    rotations::{RotationView, actor},
};
use crate::{
    attestation::{Text, strict},
    client::Role,
    key::{Algorithm, RevocationReason, Rotation},
    service::{
        Error, Service,
        approvals::{Operation, Order},
        lifecycle::{Check, RotationOrder, rotation_id},
        once::KeptAnswer,
        revoke::RevocationOrder,
    },
    timestamp::Timestamp,
};

/// Body of `POST /api/v1/keys/rotate`.
#[derive(Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a rotation request object")]
pub struct RotateRequest {
    reason: Text<128>,
    initiated_by: Text<128>,
    #[serde(default)]
    notes: Text<1024>,
    #[serde(default)]
    emergency: bool,
    #[serde(default)]
    overlap_seconds: Option<u64>,
    #[serde(default, deserialize_with = "strict::optional_word")]
    algorithm: Option<Algorithm>,
    /// The token whose key is rotated: `primary`, or a standby with keys of its own. Left out, the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Text<64>>,
    #[serde(default)]
    dry_run: bool,
}

/// The checklist before a rotation.
#[derive(Serialize, utoipa::ToSchema)]
struct DryRunView {
    dry_run: bool,
    would_rotate: bool,
    checks: Vec<Check>,
}

/// A revocation that holds.
#[derive(Serialize, utoipa::ToSchema)]
struct RevokedView {
    revoked: bool,
    /// False when the key was revoked before.
    newly_revoked: bool,
    time_to_safe_seconds: f64,
    confirmed_by: Vec<String>,
    key: KeyView,
}

/// An emergency that is over.
#[derive(Serialize, utoipa::ToSchema)]
struct EmergencyView {
    revoked_key: KeyView,
    newly_revoked: bool,
    active_key: KeyView,
    rotation: Option<RotationView>,
    time_to_safe_seconds: f64,
    confirmed_by: Vec<String>,
}

/// `POST /api/v1/keys/rotate`: 201 with the rotation record; with `dry_run`, 200 with the checklist.
#[utoipa::path(
    post,
    path = "/api/v1/keys/rotate",
    operation_id = "lifecycle_rotate",
    tag = "lifecycle",
    params(Terms),
    request_body(content = RotateRequest),
    responses(
        (status = 201, description = "Rotated", body = RotationView),
        (status = 200, description = "The checklist", body = DryRunView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn rotate(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    body: StrictJson<RotateRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    if request.emergency {
        require(&service, &caller.0, Role::Security, "A rotation without overlap").await?;
    } else {
        require(&service, &caller.0, Role::Operator, "A rotation").await?;
    }
    let target = request.token.as_ref().map(ToString::to_string).unwrap_or_default();
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Rotate, &target, &request) };
    let actor = actor(&change.caller, &request.initiated_by);
    let order = RotationOrder {
        token: request.token.as_ref().map(ToString::to_string),
        reason: request.reason.to_string(),
        notes: request.notes.to_string(),
        emergency: request.emergency,
        overlap_seconds: request.overlap_seconds,
        algorithm: request.algorithm,
    };
    if request.dry_run {
        let checks = service.preflight(&order).await?;
        let would_rotate = checks.iter().all(|check| check.ok);
        return Ok(HttpResponse::Ok().json(DryRunView { dry_run: true, would_rotate, checks }));
    }
    let recover = made_since(order.clone(), actor.initiated_by.clone());
    carry_out(&service, change, recover, move |service| async move {
        let rotation = service.rotate(&order, &actor).await?;
        rotated(&rotation, &service)
    })
    .await
}

fn rotated(rotation: &Rotation, service: &Service) -> Result<KeptAnswer, Error> {
    let location = format!("/api/v1/rotations/{}", rotation_id(rotation));
    done(StatusCode::CREATED, Some(location), &RotationView::new(rotation, service))
}

/// The rotation that this order made, if it made one: a second one is not what a repeated request
/// asks for.
fn made_since(order: RotationOrder, initiated_by: String) -> Recover {
    Box::new(move |service, since| {
        let standing = service.keyring.standing();
        let line = service.line_named(order.token.as_deref()).ok()?;
        let made = standing.rotations().rev().find(|rotation| {
            rotation.started_at >= since
                && rotation.line == line
                && rotation.initiated_by == initiated_by
                && (&rotation.reason, &rotation.notes) == (&order.reason, &order.notes)
                && rotation.emergency == order.emergency
        });
        rotated(made?, service).ok()
    })
}

/// Body of `POST /api/v1/keys/{key_id}/revoke`.
#[derive(Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a revocation request object")]
pub struct RevokeRequest {
    #[serde(deserialize_with = "strict::word")]
    reason: RevocationReason,
    initiated_by: Text<128>,
    #[serde(default)]
    compromised_at: Option<Timestamp>,
}

/// `POST /api/v1/keys/{key_id}/revoke`: when it answers, no appliance signs with the key.
#[utoipa::path(
    post,
    path = "/api/v1/keys/{key_id}/revoke",
    operation_id = "lifecycle_revoke",
    tag = "lifecycle",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`"), Terms),
    request_body(content = RevokeRequest),
    responses(
        (status = 200, description = "Done", body = RevokedView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn revoke(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    key_id: web::Path<String>,
    body: StrictJson<RevokeRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Revoke, &key_id, &request) };
    let actor = actor(&change.caller, &request.initiated_by);
    let order = RevocationOrder { reason: request.reason, compromised_at: request.compromised_at };
    carry_out(&service, change, again(), move |service| async move {
        let revoked = service.revoke(&key_id, order, &actor).await?;
        let body = RevokedView {
            revoked: true,
            newly_revoked: revoked.newly,
            time_to_safe_seconds: revoked.time_to_safe.as_secs_f64(),
            confirmed_by: revoked.confirmed_by,
            key: KeyView::new(&revoked.key, service.clock.now()),
        };
        done(StatusCode::OK, None, &body)
    })
    .await
}

/// Body of `POST /api/v1/keys/emergency`.
#[derive(Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an emergency request object")]
pub struct EmergencyRequest {
    /// The key to revoke; left out, the primary's active one. Its successor is made on the same token.
    #[serde(default)]
    key_id: Option<String>,
    #[serde(default, deserialize_with = "strict::optional_word")]
    reason: Option<RevocationReason>,
    initiated_by: Text<128>,
    #[serde(default)]
    compromised_at: Option<Timestamp>,
    #[serde(default)]
    notes: Text<1024>,
}

/// `POST /api/v1/keys/emergency`: revokes, generates, activates. Safe to repeat.
#[utoipa::path(
    post,
    path = "/api/v1/keys/emergency",
    operation_id = "lifecycle_emergency",
    tag = "lifecycle",
    params(Terms),
    request_body(content = EmergencyRequest),
    responses(
        (status = 200, description = "Done", body = EmergencyView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn emergency(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    body: StrictJson<EmergencyRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let target = request.key_id.clone().unwrap_or_default();
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Emergency, &target, &request) };
    let actor = actor(&change.caller, &request.initiated_by);
    let order = RevocationOrder {
        reason: request.reason.unwrap_or(RevocationReason::Compromised),
        compromised_at: request.compromised_at,
    };
    carry_out(&service, change, again(), move |service| async move {
        let ended = service.emergency(request.key_id.as_deref(), order, request.notes.as_str(), &actor).await?;
        let now = service.clock.now();
        let body = EmergencyView {
            revoked_key: KeyView::new(&ended.revocation.key, now),
            newly_revoked: ended.revocation.newly,
            active_key: KeyView::new(&ended.active, now),
            rotation: ended.rotation.map(|rotation| RotationView::new(&rotation, &service)),
            time_to_safe_seconds: ended.revocation.time_to_safe.as_secs_f64(),
            confirmed_by: ended.revocation.confirmed_by,
        };
        done(StatusCode::OK, None, &body)
    })
    .await
}

/// Body of `POST /api/v1/keys`.
#[derive(Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a key request object")]
pub struct GenerateRequest {
    initiated_by: Text<128>,
    #[serde(default, deserialize_with = "strict::optional_word")]
    algorithm: Option<Algorithm>,
    /// The token on which it is generated: `primary`, or a standby with keys of its own. Left out, the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Text<64>>,
}

/// `POST /api/v1/keys`: generates a successor ahead; 201 with the pending key.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    operation_id = "lifecycle_generate",
    tag = "lifecycle",
    params(Terms),
    request_body(content = GenerateRequest),
    responses(
        (status = 201, description = "Generated", body = KeyView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn generate(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    body: StrictJson<GenerateRequest>,
) -> Result<HttpResponse, Problem> {
    let token = body.0.token.as_ref().map(ToString::to_string);
    let target = token.clone().unwrap_or_default();
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Generate, &target, &body.0) };
    let actor = actor(&change.caller, &body.0.initiated_by);
    let algorithm = body.0.algorithm;
    carry_out(&service, change, again(), move |service| async move {
        let key = service.generate_pending(token.as_deref(), algorithm, &actor).await?;
        let location = format!("/api/v1/keys/{}", key.id);
        done(StatusCode::CREATED, Some(location), &KeyView::new(&key, service.clock.now()))
    })
    .await
}

/// Body of `POST /api/v1/keys/{key_id}/destroy`; may be left out.
#[derive(Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "a destruction request object")]
pub struct DestroyRequest {
    force: bool,
    initiated_by: Text<128>,
}

/// `POST /api/v1/keys/{key_id}/destroy`: the private key of a retired or revoked key, for good.
#[utoipa::path(
    post,
    path = "/api/v1/keys/{key_id}/destroy",
    operation_id = "lifecycle_destroy",
    tag = "lifecycle",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`"), Terms),
    request_body(content = Option<DestroyRequest>),
    responses(
        (status = 200, description = "Done", body = KeyView),
        (status = 202, description = "It waits for the approval of others", body = ApprovalView),
    )
)]
pub async fn destroy(
    service: web::Data<Service>,
    caller: Caller,
    terms: Terms,
    key_id: web::Path<String>,
    body: OptionalJson<DestroyRequest>,
) -> Result<HttpResponse, Problem> {
    let change = Change { caller: caller.0, terms, order: Order::new(Operation::Destroy, &key_id, &body.0) };
    let actor = actor(&change.caller, &body.0.initiated_by);
    let force = body.0.force;
    carry_out(&service, change, again(), move |service| async move {
        let key = service.destroy(&key_id, force, &actor).await?;
        done(StatusCode::OK, None, &KeyView::new(&key, service.clock.now()))
    })
    .await
}
