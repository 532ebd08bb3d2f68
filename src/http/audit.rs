//! `/api/v1/audit`: search, proofs, and closing the file.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    problem::{NO_CHECKPOINT, Problem},
    request::Caller,
};
use crate::{
    audit::{EventType, Filter, Outcome, Query, Severity},
    service::Service,
    timestamp::Timestamp,
};

/// Records on a page that asks for no number.
const USUAL_LIMIT: usize = 100;

/// Most records on a page.
const MAX_LIMIT: usize = 10_000;

/// The filters.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SearchQuery {
    event_type: Option<EventType>,
    actor: Option<String>,
    resource: Option<String>,
    key_id: Option<String>,
    ip: Option<String>,
    outcome: Option<Outcome>,
    severity: Option<Severity>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    order: Option<Order>,
    /// The last record of the page before; from the `Link` header.
    cursor: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Desc,
    Asc,
}

/// `GET /api/v1/audit`: a bare array of records as they stand in the file, newest first unless asked.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    operation_id = "audit_search",
    tag = "audit",
    params(SearchQuery),
    responses((status = 200, description = "Records, as they stand in the file", body = Vec<Object>))
)]
pub async fn search(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<SearchQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let limit = query.limit.unwrap_or(USUAL_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::field("limit", format!("expected 1 to {MAX_LIMIT}")));
    }
    if query.cursor.is_some_and(|cursor| i64::try_from(cursor).is_err()) {
        return Err(Problem::field("cursor", "expected the number from a Link header"));
    }
    let page = service
        .search_trail(Query {
            filter: Filter {
                event_type: query.event_type,
                actor: query.actor,
                resource: query.resource,
                key_id: query.key_id,
                ip: query.ip,
                outcome: query.outcome,
                severity: query.severity,
                since: query.since,
                until: query.until,
            },
            limit,
            newest_first: query.order != Some(Order::Asc),
            cursor: query.cursor,
        })
        .await?;
    let mut response = HttpResponse::Ok();
    response.content_type("application/json");
    if let Some(next) = page.next
        && let Ok(link) = HeaderValue::from_str(&next_link(request.query_string(), next))
    {
        response.insert_header((header::LINK, link));
    }
    Ok(response.body([b"[", &page.records.join(&b","[..])[..], b"]"].concat()))
}

/// RFC 8288: the same search, after the last record of this page.
fn next_link(query: &str, cursor: u64) -> String {
    let kept = query.split('&').filter(|part| !part.is_empty() && !part.starts_with("cursor="));
    let parts: Vec<_> = kept.map(ToOwned::to_owned).chain([format!("cursor={cursor}")]).collect();
    format!("</api/v1/audit?{}>; rel=\"next\"", parts.join("&"))
}

/// `GET /api/v1/audit/checkpoint`: the last signed head of the trail (C2SP tlog-checkpoint).
#[utoipa::path(
    get,
    path = "/api/v1/audit/checkpoint",
    operation_id = "audit_checkpoint",
    tag = "audit",
    responses((status = 200, description = "A signed note", body = String, content_type = "text/plain"))
)]
pub async fn checkpoint(service: web::Data<Service>) -> Result<HttpResponse, Problem> {
    let note = service.last_checkpoint().await?.ok_or_else(|| Problem::new(&NO_CHECKPOINT, ""))?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(note))
}

/// `?seq=` and, when another tree than that of the last checkpoint is meant, `?size=`.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ProofQuery {
    #[param(minimum = 1)]
    seq: u64,
    size: Option<u64>,
}

/// `GET /api/v1/audit/proof`: that a record is in the trail (RFC 6962 §2.1.1).
#[utoipa::path(
    get,
    path = "/api/v1/audit/proof",
    operation_id = "audit_proof",
    tag = "audit",
    params(ProofQuery),
    responses((status = 200, description = "Done", body = InclusionView))
)]
pub async fn proof(service: web::Data<Service>, query: web::Query<ProofQuery>) -> Result<HttpResponse, Problem> {
    let proof = service.prove_inclusion(query.seq, query.size).await?;
    let path: Vec<_> = proof.path.iter().map(|hash| STANDARD.encode(hash)).collect();
    Ok(HttpResponse::Ok().json(InclusionView {
        sequence: query.seq,
        leaf_index: query.seq - 1,
        record: String::from_utf8_lossy(&proof.record).into_owned(),
        leaf_hash: STANDARD.encode(proof.leaf),
        tree_size: proof.size,
        root_hash: STANDARD.encode(proof.root),
        path,
        checkpoint: proof.checkpoint,
    }))
}

/// That a record is in the trail. Hashes are in standard base64.
#[derive(Serialize, utoipa::ToSchema)]
struct InclusionView {
    sequence: u64,
    leaf_index: u64,
    /// The line of the file, of which the leaf is the hash.
    record: String,
    leaf_hash: String,
    tree_size: u64,
    root_hash: String,
    path: Vec<String>,
    /// The signed head of this very tree, where there is one.
    checkpoint: Option<String>,
}

/// `?from=&to=`
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    from: u64,
    to: u64,
}

/// `GET /api/v1/audit/consistency`: that the trail of `to` records continues that of `from` (RFC 6962 §2.1.2).
#[utoipa::path(
    get,
    path = "/api/v1/audit/consistency",
    operation_id = "audit_consistency",
    tag = "audit",
    params(ConsistencyQuery),
    responses((status = 200, description = "Done", body = ConsistencyView))
)]
pub async fn consistency(
    service: web::Data<Service>,
    query: web::Query<ConsistencyQuery>,
) -> Result<HttpResponse, Problem> {
    let proof = service.prove_consistency(query.from, query.to).await?;
    let path: Vec<_> = proof.path.iter().map(|hash| STANDARD.encode(hash)).collect();
    Ok(HttpResponse::Ok().json(ConsistencyView {
        from: query.from,
        from_root_hash: STANDARD.encode(proof.from_root),
        to: query.to,
        to_root_hash: STANDARD.encode(proof.to_root),
        path,
    }))
}

/// That one tree continues another. Hashes are in standard base64.
#[derive(Serialize, utoipa::ToSchema)]
struct ConsistencyView {
    from: u64,
    from_root_hash: String,
    to: u64,
    to_root_hash: String,
    path: Vec<String>,
}

/// The file that was closed; null when another request has closed it in the same moment.
#[derive(Serialize, utoipa::ToSchema)]
struct Closed {
    closed: Option<String>,
}

/// `POST /api/v1/audit/rotate`: closes the file and begins a new one.
#[utoipa::path(
    post,
    path = "/api/v1/audit/rotate",
    operation_id = "audit_rotate",
    tag = "audit",
    responses((status = 200, description = "Done", body = Closed))
)]
pub async fn rotate(service: web::Data<Service>, caller: Caller) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(Closed { closed: service.rotate_trail(&caller.0).await? }))
}
