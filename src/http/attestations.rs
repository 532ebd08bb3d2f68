//! `/api/v1/attestations`: the main job.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::{Attestation, AttestationRequest},
    service::Service,
};

/// `POST /api/v1/attestations`: the complete attestation, nothing around it.
pub async fn sign(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<AttestationRequest>,
) -> Result<HttpResponse, Problem> {
    let signed = to_the_end(&service, |service| service.attest(caller.0, body.0)).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(("audit-sequence", signed.audit_sequence))
        .body(signed.attestation.to_json()))
}

/// `POST /api/v1/attestations/verify`: 200 whether or not it is valid.
pub async fn verify(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<Attestation>,
) -> Result<HttpResponse, Problem> {
    let verdict = service.verify(&caller.0, &body.0).await?;
    let mut answer = json!({ "valid": verdict.invalid.is_none() });
    if let Some(reason) = verdict.invalid {
        answer["reason"] = json!(reason);
    }
    if let Some((id, state)) = verdict.key {
        answer["key_id"] = json!(id);
        answer["key_state"] = json!(state);
    }
    answer["attestation_id"] = json!(body.0.statement.id);
    answer["expires_at"] = json!(body.0.statement.expires_at.to_utc());
    Ok(HttpResponse::Ok().json(answer))
}
