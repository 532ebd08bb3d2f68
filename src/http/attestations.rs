//! `/api/v1/attestations`: the main job.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{
    body::{Batch, Members, StrictJson},
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::{Attestation, AttestationRequest, Invalid, Text, document::Flat},
    key::{KeyId, KeyState},
    service::{self, Service, attest::SignedAttestation, merkle::Form},
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

/// What the signature is to be over.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FormQuery {
    /// `merkle`: over the root of a tree in which it is a leaf, shared with others who ask at the same time.
    /// Default: `individual`, over the attestation itself.
    #[serde(default)]
    #[param(inline)]
    proof: Form,
}

/// What became of one member of a batch.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = BatchEntry)]
struct EntryView {
    /// As if it had been asked for alone.
    status: u16,
    /// The place of its record in the audit trail.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    audit_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Flat, nullable = false)]
    attestation: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = super::problem::Body, nullable = false)]
    problem: Option<()>,
}

/// `POST /api/v1/attestations`: the complete attestation, nothing around it.
#[utoipa::path(
    post,
    path = "/api/v1/attestations",
    operation_id = "attestations_sign",
    tag = "attestations",
    params(FormQuery),
    request_body(content = AttestationRequest),
    responses(
        (status = 200, description = "The complete attestation", body = Flat, headers(("audit-sequence" = u64, description = "The place of its record in the audit trail"))),
    )
)]
pub async fn sign(
    service: web::Data<Service>,
    caller: Caller,
    form: web::Query<FormQuery>,
    body: StrictJson<AttestationRequest>,
) -> Result<HttpResponse, Problem> {
    let signed = to_the_end(&service, |service| service.attest(caller.0, body.0, form.proof)).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(("audit-sequence", signed.audit_sequence))
        .body(signed.json))
}

/// `POST /api/v1/attestations/batch`: up to 1000, answered in the same order, each by itself.
#[utoipa::path(
    post,
    path = "/api/v1/attestations/batch",
    operation_id = "attestations_sign_batch",
    tag = "attestations",
    params(FormQuery),
    request_body(content = inline(Members), description = "Each as for POST /api/v1/attestations, and judged by itself"),
    responses(
        (status = 200, description = "What became of each", body = Vec<EntryView>),
    )
)]
pub async fn sign_batch(
    service: web::Data<Service>,
    caller: Caller,
    form: web::Query<FormQuery>,
    body: Batch<AttestationRequest>,
) -> Result<HttpResponse, Problem> {
    service.admit_batch(&caller.0, body.0.len()).await?;
    let (mut places, mut requests) = (Vec::with_capacity(body.0.len()), Vec::with_capacity(body.0.len()));
    for member in body.0 {
        places.push(member.map(|request| requests.push(request)));
    }
    let work = |service: Arc<Service>| async move { Ok(service.attest_batch(caller.0, requests, form.proof).await) };
    let mut answered = to_the_end(&service, work).await?.into_iter();
    let mut json = Vec::with_capacity(places.len() * 1024);
    for place in places {
        json.push(if json.is_empty() { b'[' } else { b',' });
        let lost = || Err(service::Error::Internal("an answer was lost"));
        write_entry(&mut json, place.and_then(|()| Ok(answered.next().unwrap_or_else(lost)?)));
    }
    json.push(b']');
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
}

fn write_entry(json: &mut Vec<u8>, answered: Result<SignedAttestation, Problem>) {
    match answered {
        Ok(SignedAttestation { json: attestation, audit_sequence }) => {
            let head = format!("{{\"status\":200,\"audit_sequence\":{audit_sequence},\"attestation\":");
            json.extend_from_slice(head.as_bytes());
            json.extend_from_slice(&attestation);
        }
        Err(problem) => {
            let status = problem.kind().status.as_u16();
            json.extend_from_slice(format!("{{\"status\":{status},\"problem\":").as_bytes());
            json.extend_from_slice(&problem.to_json());
        }
    }
    json.push(b'}');
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
