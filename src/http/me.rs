//! `GET /api/v1/me`: who the caller is to this signer, and what they may do: so that a program for people
//! offers that, and nothing else.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{
    access::{Allowed, TABLE},
    request::Caller,
};
use crate::{
    authn::Authn,
    client::{Grants, Role},
};

/// The caller, as the configuration knows them.
#[derive(Serialize, utoipa::ToSchema)]
struct MeView {
    /// As it stands in the audit trail.
    identity: String,
    roles: Vec<Role>,
    /// Routes that one of the roles opens, as `POST /api/v1/keys/rotate`.
    may: Vec<String>,
    /// Whether callers have to say who they are here.
    authentication_required: bool,
}

/// The caller: without a credential, nobody.
#[utoipa::path(
    get,
    path = "/api/v1/me",
    operation_id = "me_me",
    tag = "console",
    responses((status = 200, description = "Done", body = MeView))
)]
pub async fn me(caller: Caller, authn: web::Data<Authn>) -> HttpResponse {
    let client = caller.0;
    HttpResponse::Ok().json(MeView {
        identity: client.identity.to_string(),
        roles: client.grants.roles.iter().copied().collect(),
        may: open_to(&client.grants),
        authentication_required: authn.is_required(),
    })
}

fn open_to(grants: &Grants) -> Vec<String> {
    let open = TABLE.iter().filter(|row| match row.allowed {
        Allowed::Everybody | Allowed::Guests => false,
        Allowed::Holders(roles) => grants.has_any(roles),
    });
    open.map(|row| format!("{} {}", row.method, row.path)).collect()
}
