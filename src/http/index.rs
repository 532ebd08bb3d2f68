//! `GET /`: the paths there are, for a person with curl.

use std::future::{Ready, ready};

use actix_web::HttpResponse;

/// One line a path. A test compares it with the routes.
pub const INDEX: &str = "\
GET  /                                          this list
GET  /healthz                                   everything an operator wants to see at once
GET  /readyz                                    whether requests should be sent here
GET  /livez                                     whether the process turns
GET  /.well-known/jwks.json                     public keys (RFC 7517)
GET  /problems                                  every problem type
GET  /problems/{name}                           what a problem type means
GET  /docs                                      these paths in detail, as a page
GET  /api/v1/openapi.json                       the same for programs (OpenAPI 3.1)
GET  /console                                   these paths as a page for operators
GET  /console/{asset}                           what that page is made of
GET  /api/v1/me                                 who you are here, and what you may do
GET  /api/v1/activity                           counters since the start
GET  /api/v1/signer                             who this signer is, by which rules
GET  /api/v1/keys                               all keys, newest first
POST /api/v1/keys                               generate a successor ahead {initiated_by, algorithm?}
GET  /api/v1/keys/active                        the key that signs
POST /api/v1/keys/rotate                        {reason, initiated_by, notes?, emergency?, overlap_seconds?, algorithm?, dry_run?}
POST /api/v1/keys/emergency                     revoke, generate, activate {initiated_by, key_id?, reason?, compromised_at?, notes?}
GET  /api/v1/keys/{key_id}                      one key
GET  /api/v1/keys/{key_id}/public.pem           its public key
GET  /api/v1/keys/{key_id}/certificate.pem      its certificate, or the chain that a CA issued
PUT  /api/v1/keys/{key_id}/certificate.pem      store such a chain (application/pem-certificate-chain)
GET  /api/v1/keys/{key_id}/csr.pem              a certificate request (PKCS#10)
GET  /api/v1/keys/{key_id}/evidence             what the token says of the key ?challenge=
POST /api/v1/keys/{key_id}/revoke               {reason, initiated_by, compromised_at?}
POST /api/v1/keys/{key_id}/destroy              {force?, initiated_by?}
GET  /api/v1/rotations                          all rotations, newest first
GET  /api/v1/rotations/{rotation_id}            one rotation
POST /api/v1/rotations/{rotation_id}/complete   {force?, initiated_by?}
POST /api/v1/rotations/{rotation_id}/cancel     {initiated_by?}
GET  /api/v1/approvals                          requests that wait for others, newest first
GET  /api/v1/approvals/{approval_id}            one of them
POST /api/v1/approvals/{approval_id}/approve    {digest}
POST /api/v1/approvals/{approval_id}/reject     {reason?}
POST /api/v1/nonces                             {attestation_type, subject_address?, window_seconds?}
POST /api/v1/nonces/batch                       the same with count
GET  /api/v1/nonce/stats                        how full the store is
POST /api/v1/nonce/cleanup                      forget nonces whose window has ended
GET  /api/v1/abuse                              abuse scores, highest first ?limit=
GET  /api/v1/abuse/{identifier}                 one score, factor by factor (client:…, address:…, subject:…)
GET  /api/v1/blocks                             blocks in force, newest first ?all=true
POST /api/v1/blocks                             {address or client or subject, reason, initiated_by, duration_seconds?}
GET  /api/v1/blocks/{block_id}                  one block
DELETE /api/v1/blocks/{block_id}                lift it {initiated_by?}
POST /api/v1/attestations                       the main job ?proof=merkle
POST /api/v1/attestations/batch                 a list of them ?proof=merkle
POST /api/v1/attestations/verify                an attestation, whole
POST /api/v1/sign                               opaque data {data, purpose, key_id?, request_id?}
POST /api/v1/sign/test                          sign and verify a canary
POST /api/v1/verify                             opaque data {data, signature, purpose, key_id?, request_id?}
GET  /api/v1/maintenance                        whether this appliance is out of service
PUT  /api/v1/maintenance                        {on, reason?, initiated_by?}
GET  /api/v1/audit                              ?event_type= actor= resource= key_id= ip= outcome= severity= since= until= limit= order=
GET  /api/v1/audit/checkpoint                   the signed head of the trail (C2SP tlog-checkpoint)
GET  /api/v1/audit/proof                        that a record is in the trail ?seq= size=
GET  /api/v1/audit/consistency                  that the trail has only grown ?from= to=
POST /api/v1/audit/rotate                       close the file and begin a new one
";

/// `GET /`
#[utoipa::path(
    get,
    path = "/",
    operation_id = "index_index",
    tag = "index",
    responses(
        (status = 200, description = "As text", body = String, content_type = "text/plain"),
    )
)]
pub fn index() -> Ready<HttpResponse> {
    ready(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(INDEX))
}
