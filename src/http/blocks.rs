//! `/api/v1/blocks`.

use actix_web::{HttpResponse, http::header, web};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    body::{OptionalJson, StrictJson},
    problem::Problem,
    request::{Caller, to_the_end},
    rotations::actor,
};
use crate::{
    attestation::Text,
    limits::{Block, Target},
    network,
    service::{Service, blocks::BlockOrder},
    timestamp::Timestamp,
};

/// Body of `POST /api/v1/blocks`: exactly one of `address`, `client` and `subject`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a block request object")]
pub struct BlockRequest {
    /// An address, or a network such as `192.0.2.0/24`.
    #[serde(default)]
    address: Option<Text<64>>,
    #[serde(default)]
    client: Option<Text<256>>,
    #[serde(default)]
    subject: Option<Text<128>>,
    reason: Text<256>,
    initiated_by: Text<128>,
    /// Left out: until it is lifted.
    #[serde(default)]
    duration_seconds: Option<u64>,
}

impl BlockRequest {
    fn target(&self) -> Result<Target, Problem> {
        match (&self.address, &self.client, &self.subject) {
            (Some(address), None, None) => network(address.as_str()).map(Target::Address),
            (None, Some(client), None) if !client.is_empty() => Ok(Target::Client(client.to_string())),
            (None, None, Some(subject)) if !subject.is_empty() => Ok(Target::Subject(subject.to_string())),
            _ => Err(Problem::field("(body)", "exactly one of address, client and subject is named")),
        }
    }
}

fn network(text: &str) -> Result<IpNet, Problem> {
    network::parse(text).ok_or_else(|| {
        Problem::field("address", "expected an address or a network, such as 192.0.2.7 or 2001:db8::/48")
    })
}

/// Body of `DELETE /api/v1/blocks/{id}`; may be left out.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "an object")]
pub struct Lift {
    initiated_by: Text<128>,
}

/// Query of `GET /api/v1/blocks`.
#[derive(Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    /// Also those that are over.
    all: bool,
}

/// A block as it goes out.
#[derive(Serialize, utoipa::ToSchema)]
struct BlockView {
    id: String,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    reason: String,
    initiated_by: String,
    actor: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    removed_at: Option<Timestamp>,
    removed_by: Option<String>,
}

impl BlockView {
    fn new(block: Block, now: Timestamp) -> Self {
        let in_force = block.is_in_force(now);
        let (mut address, mut client, mut subject) = (None, None, None);
        match block.target {
            Target::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                address = Some(network.addr().to_string());
            }
            Target::Address(network) => address = Some(network.to_string()),
            Target::Client(name) => client = Some(name),
            Target::Subject(name) => subject = Some(name),
        }
        Self {
            id: block.id.to_string(),
            in_force,
            address,
            client,
            subject,
            reason: block.reason,
            initiated_by: block.initiated_by,
            actor: block.actor,
            created_at: block.created_at,
            expires_at: block.expires_at,
            removed_at: block.removed_at,
            removed_by: block.removed_by,
        }
    }
}

/// `GET /api/v1/blocks`: a bare array of those in force, newest first; `?all=true` also of those of
/// the last 30 days that are over.
#[utoipa::path(
    get,
    path = "/api/v1/blocks",
    operation_id = "blocks_list",
    tag = "limits",
    params(Which),
    responses(
        (status = 200, description = "Done", body = Vec<BlockView>),
    )
)]
pub async fn list(service: web::Data<Service>, which: web::Query<Which>) -> HttpResponse {
    let now = service.clock.now();
    let blocks = service.limits.blocks.all().into_iter().filter(|block| which.all || block.is_in_force(now));
    HttpResponse::Ok().json(blocks.map(|block| BlockView::new(block, now)).collect::<Vec<_>>())
}

/// `POST /api/v1/blocks`: 201 with the block.
#[utoipa::path(
    post,
    path = "/api/v1/blocks",
    operation_id = "blocks_add",
    tag = "limits",
    request_body(content = BlockRequest),
    responses(
        (status = 201, description = "Done", body = BlockView),
    )
)]
pub async fn add(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<BlockRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.0;
    let order = BlockOrder {
        target: request.target()?,
        reason: request.reason.to_string(),
        duration_seconds: request.duration_seconds,
    };
    let actor = actor(&caller.0, &request.initiated_by);
    let block = to_the_end(&service, |service| async move { service.block(order, &actor).await }).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/blocks/{}", block.id)))
        .json(BlockView::new(block, service.clock.now())))
}

/// `GET /api/v1/blocks/{id}`
#[utoipa::path(
    get,
    path = "/api/v1/blocks/{block_id}",
    operation_id = "blocks_one",
    tag = "limits",
    params(("block_id" = String, Path)),
    responses(
        (status = 200, description = "Done", body = BlockView),
    )
)]
pub async fn one(service: web::Data<Service>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let block = service.find_block(&id)?;
    Ok(HttpResponse::Ok().json(BlockView::new(block, service.clock.now())))
}

/// `DELETE /api/v1/blocks/{id}`: 200 with the block as it ended.
#[utoipa::path(
    delete,
    path = "/api/v1/blocks/{block_id}",
    operation_id = "blocks_remove",
    tag = "limits",
    params(("block_id" = String, Path)),
    request_body(content = Option<Lift>),
    responses(
        (status = 200, description = "Done", body = BlockView),
    )
)]
pub async fn remove(
    service: web::Data<Service>,
    caller: Caller,
    id: web::Path<String>,
    body: OptionalJson<Lift>,
) -> Result<HttpResponse, Problem> {
    let actor = actor(&caller.0, &body.0.initiated_by);
    let block = to_the_end(&service, |service| async move { service.unblock(&id, &actor).await }).await?;
    Ok(HttpResponse::Ok().json(BlockView::new(block, service.clock.now())))
}
