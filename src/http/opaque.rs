//! `/api/v1/sign`, `/api/v1/verify`, `/api/v1/sign/test`: data that means nothing to us.

use actix_web::{HttpResponse, web};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::Text,
    key::{Algorithm, KeyId, KeyState, Signature},
    service::{
        Service,
        opaque::{OpaqueOrder, payload_type},
    },
};

/// Body of `POST /api/v1/sign`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a signing request object")]
pub struct SignRequest {
    /// Standard base64.
    #[schema(content_encoding = "base64")]
    data: String,
    #[serde(default)]
    key_id: Option<String>,
    #[schema(pattern = "^[a-z0-9._-]{1,64}$")]
    purpose: String,
    #[serde(default)]
    request_id: Text<128>,
}

/// Body of `POST /api/v1/verify`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a verification request object")]
pub struct VerifyRequest {
    /// Standard base64.
    #[schema(content_encoding = "base64")]
    data: String,
    /// Standard base64 of 64 bytes.
    #[schema(content_encoding = "base64")]
    signature: String,
    #[serde(default)]
    key_id: Option<String>,
    #[schema(pattern = "^[a-z0-9._-]{1,64}$")]
    purpose: String,
    #[serde(default)]
    request_id: Text<128>,
}

/// A signature over opaque data.
#[derive(Serialize, utoipa::ToSchema)]
struct SignedView {
    key_id: KeyId,
    algorithm: Algorithm,
    /// Standard base64.
    signature: String,
    payload_type: String,
    purpose: String,
    #[serde(skip_serializing_if = "Text::is_empty")]
    #[schema(required = false)]
    request_id: Text<128>,
}

/// What was found of a signature over opaque data.
#[derive(Serialize, utoipa::ToSchema)]
struct VerdictView {
    valid: bool,
    key_id: KeyId,
    key_state: KeyState,
    algorithm: Algorithm,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Text::is_empty")]
    #[schema(required = false)]
    request_id: Text<128>,
}

/// A canary was signed and verified.
#[derive(Serialize, utoipa::ToSchema)]
struct TestView {
    success: bool,
    key_id: KeyId,
    algorithm: Algorithm,
    signed: bool,
    verified: bool,
}

fn base64(field: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|_| Problem::field(field, "expected standard base64 with padding (RFC 4648 §4)"))
}

fn order(data: &str, purpose: &str) -> Result<OpaqueOrder, Problem> {
    OpaqueOrder::new(purpose, &base64("data", data)?).map_err(|error| Problem::field(error.field, error.detail))
}

/// `POST /api/v1/sign`. What is signed is the DSSE v1 PAE of the data under `payload_type`.
#[utoipa::path(
    post,
    path = "/api/v1/sign",
    operation_id = "opaque_sign",
    tag = "opaque",
    request_body(content = SignRequest),
    responses(
        (status = 200, description = "Signed", body = SignedView, headers(("audit-sequence" = u64, description = "The place of its record in the audit trail"))),
    )
)]
pub async fn sign(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<SignRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let order = order(&request.data, &request.purpose)?;
    let (purpose, key_id) = (request.purpose.clone(), request.key_id);
    let signed = to_the_end(&service, |service| async move {
        service.sign_opaque(&caller.0, &order, key_id.as_deref(), &purpose).await
    })
    .await?;
    let answer = SignedView {
        key_id: signed.key.id.clone(),
        algorithm: signed.key.algorithm(),
        signature: STANDARD.encode(signed.signature.as_bytes()),
        payload_type: payload_type(&request.purpose),
        purpose: request.purpose,
        request_id: request.request_id,
    };
    Ok(HttpResponse::Ok().insert_header(("audit-sequence", signed.audit_sequence)).json(answer))
}

/// `POST /api/v1/verify`: 200 whether or not it is valid.
#[utoipa::path(
    post,
    path = "/api/v1/verify",
    operation_id = "opaque_verify",
    tag = "opaque",
    request_body(content = VerifyRequest),
    responses(
        (status = 200, description = "Valid or not", body = VerdictView),
    )
)]
pub async fn verify(service: web::Data<Service>, body: StrictJson<VerifyRequest>) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let order = order(&request.data, &request.purpose)?;
    let bytes = base64("signature", &request.signature)?;
    let signature = Signature::from_slice(&bytes).ok_or_else(|| Problem::field("signature", "expected 64 bytes"))?;
    let verdict = service.verify_opaque(&order, &signature, request.key_id.as_deref())?;
    let answer = VerdictView {
        valid: verdict.reason.is_none(),
        key_id: verdict.key.id.clone(),
        key_state: verdict.state,
        algorithm: verdict.key.algorithm(),
        reason: verdict.reason,
        request_id: request.request_id,
    };
    Ok(HttpResponse::Ok().json(answer))
}

/// `POST /api/v1/sign/test`: signs and verifies a canary; spends no nonce, releases nothing.
#[utoipa::path(
    post,
    path = "/api/v1/sign/test",
    operation_id = "opaque_test",
    tag = "opaque",
    responses(
        (status = 200, description = "Done", body = TestView),
    )
)]
pub async fn test(service: web::Data<Service>, caller: Caller) -> Result<HttpResponse, Problem> {
    let key = service.test_signing(&caller.0).await?;
    let (key_id, algorithm) = (key.id.clone(), key.algorithm());
    Ok(HttpResponse::Ok().json(TestView { success: true, key_id, algorithm, signed: true, verified: true }))
}
