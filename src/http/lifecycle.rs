//! `/api/v1/keys/rotate`, `/revoke`, `/emergency`, `/destroy`, and keys generated ahead.

use actix_web::{HttpResponse, http::header, web};
use serde::Deserialize;
use serde_json::json;

use super::{
    authn::require,
    body::{OptionalJson, StrictJson},
    keys::KeyView,
    problem::Problem,
    request::{Caller, to_the_end},
    rotations::{RotationView, actor},
};
use crate::{
    attestation::{Text, strict},
    client::Role,
    key::{Algorithm, RevocationReason},
    service::{
        Service,
        lifecycle::{RotationOrder, rotation_id},
        revoke::RevocationOrder,
    },
    timestamp::Timestamp,
};

/// Body of `POST /api/v1/keys/rotate`.
#[derive(Deserialize)]
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
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/v1/keys/rotate`: 201 with the rotation record; with `dry_run`, 200 with the checklist.
pub async fn rotate(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<RotateRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    if request.emergency {
        require(&service, &caller.0, Role::Security, "A rotation without overlap").await?;
    } else {
        require(&service, &caller.0, Role::Operator, "A rotation").await?;
    }
    let actor = actor(caller, &request.initiated_by);
    let order = RotationOrder {
        reason: request.reason.to_string(),
        notes: request.notes.to_string(),
        emergency: request.emergency,
        overlap_seconds: request.overlap_seconds,
        algorithm: request.algorithm,
    };
    if request.dry_run {
        let checks = service.preflight(&order).await?;
        let would_rotate = checks.iter().all(|check| check.ok);
        return Ok(HttpResponse::Ok().json(json!({ "dry_run": true, "would_rotate": would_rotate, "checks": checks })));
    }
    let rotation = to_the_end(&service, |service| async move { service.rotate(&order, &actor).await }).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/rotations/{}", rotation_id(&rotation))))
        .json(RotationView::new(&rotation, &service)))
}

/// Body of `POST /api/v1/keys/{key_id}/revoke`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a revocation request object")]
pub struct RevokeRequest {
    #[serde(deserialize_with = "strict::word")]
    reason: RevocationReason,
    initiated_by: Text<128>,
    #[serde(default)]
    compromised_at: Option<Timestamp>,
}

/// `POST /api/v1/keys/{key_id}/revoke`: when it answers, no appliance signs with the key.
pub async fn revoke(
    service: web::Data<Service>,
    caller: Caller,
    key_id: web::Path<String>,
    body: StrictJson<RevokeRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let actor = actor(caller, &request.initiated_by);
    let order = RevocationOrder { reason: request.reason, compromised_at: request.compromised_at };
    let done = to_the_end(&service, |service| async move { service.revoke(&key_id, order, &actor).await }).await?;
    Ok(HttpResponse::Ok().json(json!({
        "revoked": true,
        "newly_revoked": done.newly,
        "time_to_safe_seconds": done.time_to_safe.as_secs_f64(),
        "confirmed_by": done.confirmed_by,
        "key": KeyView::new(&done.key, service.clock.now()),
    })))
}

/// Body of `POST /api/v1/keys/emergency`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an emergency request object")]
pub struct EmergencyRequest {
    /// The key to revoke; left out, the active one.
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
pub async fn emergency(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<EmergencyRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let actor = actor(caller, &request.initiated_by);
    let order = RevocationOrder {
        reason: request.reason.unwrap_or(RevocationReason::Compromised),
        compromised_at: request.compromised_at,
    };
    let done = to_the_end(&service, |service| async move {
        service.emergency(request.key_id.as_deref(), order, request.notes.as_str(), &actor).await
    })
    .await?;
    let now = service.clock.now();
    Ok(HttpResponse::Ok().json(json!({
        "revoked_key": KeyView::new(&done.revocation.key, now),
        "newly_revoked": done.revocation.newly,
        "active_key": KeyView::new(&done.active, now),
        "rotation": done.rotation.map(|rotation| RotationView::new(&rotation, &service)),
        "time_to_safe_seconds": done.revocation.time_to_safe.as_secs_f64(),
        "confirmed_by": done.revocation.confirmed_by,
    })))
}

/// Body of `POST /api/v1/keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a key request object")]
pub struct GenerateRequest {
    initiated_by: Text<128>,
    #[serde(default, deserialize_with = "strict::optional_word")]
    algorithm: Option<Algorithm>,
}

/// `POST /api/v1/keys`: generates a successor ahead; 201 with the pending key.
pub async fn generate(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<GenerateRequest>,
) -> Result<HttpResponse, Problem> {
    let actor = actor(caller, &body.0.initiated_by);
    let algorithm = body.0.algorithm;
    let key = to_the_end(&service, |service| async move { service.generate_pending(algorithm, &actor).await }).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/keys/{}", key.id)))
        .json(KeyView::new(&key, service.clock.now())))
}

/// Body of `POST /api/v1/keys/{key_id}/destroy`; may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a destruction request object")]
pub struct DestroyRequest {
    force: bool,
    initiated_by: Text<128>,
}

/// `POST /api/v1/keys/{key_id}/destroy`: the private key of a retired or revoked key, for good.
pub async fn destroy(
    service: web::Data<Service>,
    caller: Caller,
    key_id: web::Path<String>,
    body: OptionalJson<DestroyRequest>,
) -> Result<HttpResponse, Problem> {
    let actor = actor(caller, &body.0.initiated_by);
    let force = body.0.force;
    let key = to_the_end(&service, |service| async move { service.destroy(&key_id, force, &actor).await }).await?;
    Ok(HttpResponse::Ok().json(KeyView::new(&key, service.clock.now())))
}
