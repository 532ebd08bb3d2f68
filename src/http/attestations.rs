//! `/api/v1/attestations`: the main job.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::{Attestation, AttestationRequest, Invalid, Text, document::Flat},
    key::{KeyId, KeyState},
    service::Service,
    timestamp::Timestamp,
};

/// What was found of an attestation.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = AttestationVerdict)]
struct VerdictView {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Invalid>,
    /// Absent when none of this signer's keys is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_state: Option<KeyState>,
    attestation_id: Text<128>,
    expires_at: Timestamp,
}

/// `POST /api/v1/attestations`: the complete attestation, nothing around it.
#[utoipa::path(
    post,
    path = "/api/v1/attestations",
    operation_id = "attestations_sign",
    tag = "attestations",
    request_body(content = AttestationRequest),
    responses(
        (status = 200, description = "The complete attestation", body = Flat, headers(("audit-sequence" = u64, description = "The place of its record in the audit trail"))),
    )
)]
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
#[utoipa::path(
    post,
    path = "/api/v1/attestations/verify",
    operation_id = "attestations_verify",
    tag = "attestations",
    request_body(content = Flat),
    responses(
        (status = 200, description = "Valid or not", body = VerdictView),
    )
)]
pub async fn verify(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<Attestation>,
) -> Result<HttpResponse, Problem> {
    let verdict = service.verify(&caller.0, &body.0).await?;
    let (key_id, key_state) = verdict.key.unzip();
    let answer = VerdictView {
        valid: verdict.invalid.is_none(),
        reason: verdict.invalid,
        key_id,
        key_state,
        attestation_id: body.0.statement.id,
        expires_at: body.0.statement.expires_at.to_utc(),
    };
    Ok(HttpResponse::Ok().json(answer))
}
