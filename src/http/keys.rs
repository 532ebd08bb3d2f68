//! `/api/v1/keys`: what there is, in which state, and the public halves in the forms people use.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use x509_cert::der::pem::{LineEnding, encode_string};

use super::{
    body::Pem,
    problem::{NO_SUCH_ACTIVE_KEY, Problem},
    request::Caller,
};
use crate::{
    key::{Algorithm, KeyEntry, KeyId, KeyState},
    service::{Error, Service, evidence::Evidence},
    timestamp::Timestamp,
};

/// A key as it goes out.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct KeyView {
    key_id: KeyId,
    sequence: u32,
    state: KeyState,
    algorithm: Algorithm,
    fingerprint: String,
    generated_at: Timestamp,
    activated_at: Option<Timestamp>,
    not_before: Timestamp,
    expires_at: Timestamp,
    /// Seconds since activation.
    age_seconds: Option<i64>,
    /// End of the overlap, for a key that was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<RevocationView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key_destroyed_at: Option<Timestamp>,
    token: TokenView,
}

/// Why a key is revoked.
#[derive(Serialize, utoipa::ToSchema)]
struct RevocationView {
    revoked_at: Timestamp,
    reason: String,
    initiated_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    compromised_at: Option<Timestamp>,
}

/// Where the key object stands, in the words of pkcs11-tool.
#[derive(Serialize, utoipa::ToSchema)]
struct TokenView {
    serial: String,
    object_label: String,
    object_id: String,
    /// Parts of the strict template that this token refuses.
    omitted: Vec<String>,
}

impl KeyView {
    pub(super) fn new(key: &KeyEntry, now: Timestamp) -> Self {
        Self {
            key_id: key.id.clone(),
            sequence: key.id.sequence,
            state: key.state(now),
            algorithm: key.algorithm(),
            fingerprint: key.public_key.fingerprint(),
            generated_at: key.generated_at,
            activated_at: key.activated_at,
            not_before: key.not_before,
            expires_at: key.not_after,
            age_seconds: key.activated_at.map(|activated| now.seconds_since(activated)),
            overlap_until: key.overlap_until,
            retired_at: key.retired_at.or(key.overlap_until.filter(|until| now >= *until)),
            revocation: key.revoked.as_ref().map(|revoked| RevocationView {
                revoked_at: revoked.at,
                reason: revoked.reason.clone(),
                initiated_by: revoked.initiated_by.clone(),
                compromised_at: revoked.compromised_at,
            }),
            private_key_destroyed_at: key.destroyed_at,
            token: TokenView {
                serial: key.token_serial.clone(),
                object_label: key.label.clone(),
                object_id: hex::encode(&key.object_id),
                omitted: key.omitted.clone(),
            },
        }
    }
}

/// `GET /api/v1/keys`: a bare array, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    operation_id = "keys_list",
    tag = "keys",
    responses(
        (status = 200, description = "Done", body = Vec<KeyView>),
    )
)]
pub async fn list(service: web::Data<Service>) -> HttpResponse {
    let now = service.clock.now();
    let keys: Vec<_> = service.keyring.standing().keys().rev().map(|key| KeyView::new(key, now)).collect();
    HttpResponse::Ok().json(keys)
}

/// `GET /api/v1/keys/active`: of several tokens' keys, the one that signs now.
#[utoipa::path(
    get,
    path = "/api/v1/keys/active",
    operation_id = "keys_active",
    tag = "keys",
    responses(
        (status = 200, description = "Done", body = KeyView),
    )
)]
pub async fn active(service: web::Data<Service>) -> Result<HttpResponse, Problem> {
    service.keyring.freshen().await?;
    let now = service.clock.now();
    match service.signing_key() {
        Ok(key) => Ok(HttpResponse::Ok().json(KeyView::new(&key, now))),
        Err(error) => Err(Problem::new(&NO_SUCH_ACTIVE_KEY, format!("{error}."))),
    }
}

/// `GET /api/v1/keys/{key_id}`
#[utoipa::path(
    get,
    path = "/api/v1/keys/{key_id}",
    operation_id = "keys_one",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`")),
    responses(
        (status = 200, description = "Done", body = KeyView),
    )
)]
pub async fn one(service: web::Data<Service>, key_id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let key = service.keyring.find_by_text(&key_id)?;
    Ok(HttpResponse::Ok().json(KeyView::new(&key, service.clock.now())))
}

/// `GET /api/v1/keys/{key_id}/public.pem`
#[utoipa::path(
    get,
    path = "/api/v1/keys/{key_id}/public.pem",
    operation_id = "keys_public_pem",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`")),
    responses(
        (status = 200, description = "As text", body = String, content_type = "application/x-pem-file"),
    )
)]
pub async fn public_pem(service: web::Data<Service>, key_id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let key = service.keyring.find_by_text(&key_id)?;
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(key.public_key.to_pem()))
}

/// `GET /api/v1/keys/{key_id}/certificate.pem`
#[utoipa::path(
    get,
    path = "/api/v1/keys/{key_id}/certificate.pem",
    operation_id = "keys_certificate_pem",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`")),
    responses(
        (status = 200, description = "As text", body = String, content_type = "application/x-pem-file"),
    )
)]
pub async fn certificate_pem(service: web::Data<Service>, key_id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let key = service.keyring.find_by_text(&key_id)?;
    let token = service.token_with(&key.line)?;
    let chain = token.certificates(key.object_id.clone()).await.map_err(Error::from)?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(key.id.clone()).into());
    }
    let pem: Result<String, _> = chain.iter().map(|der| encode_string("CERTIFICATE", LineEnding::LF, der)).collect();
    let pem = pem.map_err(|_| Error::Internal("a certificate that has no PEM form"))?;
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(pem))
}

/// `PUT /api/v1/keys/{key_id}/certificate.pem`: the chain that a CA has issued for the key, the
/// key's own certificate first.
#[utoipa::path(
    put,
    path = "/api/v1/keys/{key_id}/certificate.pem",
    operation_id = "keys_install_chain",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`")),
    request_body(content = String, content_type = "application/pem-certificate-chain"),
    responses(
        (status = 200, description = "As text", body = String, content_type = "application/x-pem-file"),
    )
)]
pub async fn install_chain(
    service: web::Data<Service>,
    caller: Caller,
    key_id: web::Path<String>,
    body: Pem,
) -> Result<HttpResponse, Problem> {
    service.install_chain(&caller.0, &key_id, &body.0).await?;
    certificate_pem(service, key_id).await
}

/// `GET /api/v1/keys/{key_id}/csr.pem`: a PKCS#10 request, signed in the token.
#[utoipa::path(
    get,
    path = "/api/v1/keys/{key_id}/csr.pem",
    operation_id = "keys_csr_pem",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`")),
    responses(
        (status = 200, description = "As text", body = String, content_type = "application/x-pem-file"),
    )
)]
pub async fn csr_pem(
    service: web::Data<Service>,
    caller: Caller,
    key_id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let der = service.certificate_request(&caller.0, &key_id).await?;
    let pem = encode_string("CERTIFICATE REQUEST", LineEnding::LF, &der)
        .map_err(|_| Error::Internal("a request that has no PEM form"))?;
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(pem))
}

/// `?challenge=` of the evidence.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EvidenceQuery {
    #[serde(default)]
    #[param(pattern = "^[A-Za-z0-9]{16,128}$")]
    challenge: Option<String>,
}

/// `GET /api/v1/keys/{key_id}/evidence`: what the token says of the key, and a fresh proof.
#[utoipa::path(
    get,
    path = "/api/v1/keys/{key_id}/evidence",
    operation_id = "keys_evidence",
    tag = "keys",
    params(("key_id" = String, Path, description = "`<signer_id>:<sequence>`"), EvidenceQuery),
    responses(
        (status = 200, description = "Done", body = Evidence),
    )
)]
pub async fn evidence(
    service: web::Data<Service>,
    caller: Caller,
    key_id: web::Path<String>,
    query: web::Query<EvidenceQuery>,
) -> Result<HttpResponse, Problem> {
    let evidence = service.evidence(&caller.0, &key_id, query.into_inner().challenge.as_deref()).await?;
    Ok(HttpResponse::Ok().json(evidence))
}
