//! `/api/v1/sign`, `/api/v1/verify`, `/api/v1/sign/test`: data that means nothing to us.

use actix_web::{HttpResponse, web};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
};
use crate::{
    attestation::Text,
    key::Signature,
    service::{
        Service,
        opaque::{OpaqueOrder, payload_type},
    },
};

/// Body of `POST /api/v1/sign`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a signing request object")]
pub struct SignRequest {
    /// Standard base64.
    data: String,
    #[serde(default)]
    key_id: Option<String>,
    purpose: String,
    #[serde(default)]
    request_id: Text<128>,
}

/// Body of `POST /api/v1/verify`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a verification request object")]
pub struct VerifyRequest {
    data: String,
    signature: String,
    #[serde(default)]
    key_id: Option<String>,
    purpose: String,
    #[serde(default)]
    request_id: Text<128>,
}

fn base64(field: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|_| Problem::field(field, "expected standard base64 with padding (RFC 4648 §4)"))
}

fn order(data: &str, purpose: &str) -> Result<OpaqueOrder, Problem> {
    OpaqueOrder::new(purpose, &base64("data", data)?).map_err(|error| Problem::field(error.field, error.detail))
}

/// `POST /api/v1/sign`. What is signed is the DSSE v1 PAE of the data under `payload_type`.
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
    let mut answer = json!({
        "key_id": signed.key.id,
        "algorithm": signed.key.algorithm(),
        "signature": STANDARD.encode(signed.signature.as_bytes()),
        "payload_type": payload_type(&request.purpose),
        "purpose": request.purpose,
    });
    if !request.request_id.is_empty() {
        answer["request_id"] = json!(request.request_id);
    }
    Ok(HttpResponse::Ok().insert_header(("audit-sequence", signed.audit_sequence)).json(answer))
}

/// `POST /api/v1/verify`: 200 whether or not it is valid.
pub async fn verify(service: web::Data<Service>, body: StrictJson<VerifyRequest>) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let order = order(&request.data, &request.purpose)?;
    let bytes = base64("signature", &request.signature)?;
    let signature = Signature::from_slice(&bytes).ok_or_else(|| Problem::field("signature", "expected 64 bytes"))?;
    let verdict = service.verify_opaque(&order, &signature, request.key_id.as_deref())?;
    let mut answer = json!({
        "valid": verdict.reason.is_none(),
        "key_id": verdict.key.id,
        "key_state": verdict.state,
        "algorithm": verdict.key.algorithm(),
    });
    if let Some(reason) = verdict.reason {
        answer["reason"] = json!(reason);
    }
    if !request.request_id.is_empty() {
        answer["request_id"] = json!(request.request_id);
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// `POST /api/v1/sign/test`: signs and verifies a canary; spends no nonce, releases nothing.
pub async fn test(service: web::Data<Service>, caller: Caller) -> Result<HttpResponse, Problem> {
    let key = service.test_signing(&caller.0).await?;
    Ok(HttpResponse::Ok().json(json!({
        "success": true,
        "key_id": key.id,
        "algorithm": key.algorithm(),
        "signed": true,
        "verified": true,
    })))
}
