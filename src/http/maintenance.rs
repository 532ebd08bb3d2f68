//! `/api/v1/maintenance`: the switch that takes this appliance out of service and puts it back.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{
    body::StrictJson,
    problem::Problem,
    request::{Caller, to_the_end},
    rotations::actor,
};
use crate::{
    attestation::Text,
    service::{Service, maintenance::Pause},
    timestamp::Timestamp,
};

/// Body of `PUT /api/v1/maintenance`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a maintenance object")]
pub struct Switch {
    on: bool,
    /// Needed to switch it on; whoever is turned away reads it.
    #[serde(default)]
    reason: Text<256>,
    #[serde(default)]
    initiated_by: Text<128>,
}

/// How the switch stands. Only `on` is there while the appliance is in service.
#[derive(Default, Serialize, utoipa::ToSchema)]
struct MaintenanceView {
    on: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
}

impl MaintenanceView {
    fn new(pause: Option<Arc<Pause>>) -> Self {
        let Some(Pause { since, reason, initiated_by, actor }) = pause.map(Arc::unwrap_or_clone) else {
            return Self::default();
        };
        Self {
            on: true,
            since: Some(since),
            reason: Some(reason),
            initiated_by: Some(initiated_by),
            actor: Some(actor),
        }
    }
}

/// `GET /api/v1/maintenance`
#[utoipa::path(
    get,
    path = "/api/v1/maintenance",
    operation_id = "maintenance_show",
    tag = "maintenance",
    responses((status = 200, description = "How the switch stands", body = MaintenanceView))
)]
pub async fn show(service: web::Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(MaintenanceView::new(service.maintenance.pause()))
}

/// `PUT /api/v1/maintenance`: from the answer on no nonce is issued and nothing new is signed, or
/// everything is again.
#[utoipa::path(
    put,
    path = "/api/v1/maintenance",
    operation_id = "maintenance_switch",
    tag = "maintenance",
    request_body(content = Switch),
    responses((status = 200, description = "How the switch stands now", body = MaintenanceView))
)]
pub async fn switch(
    service: web::Data<Service>,
    caller: Caller,
    body: StrictJson<Switch>,
) -> Result<HttpResponse, Problem> {
    let Switch { on, reason, initiated_by } = body.0;
    if on && reason.is_empty() {
        return Err(Problem::field("reason", "expected why the appliance goes out of service"));
    }
    let actor = actor(&caller.0, &initiated_by);
    let pause = to_the_end(&service, move |service| async move {
        if on {
            service.begin_maintenance(reason.to_string(), &actor).await
        } else {
            service.end_maintenance(&actor).await
        }
    })
    .await?;
    Ok(HttpResponse::Ok().json(MaintenanceView::new(pause)))
}
