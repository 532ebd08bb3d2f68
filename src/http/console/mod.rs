//! `/console`: a page for operators. It is part of the binary, needs no other host, and does nothing but
//! call this API as whoever is signed in: it has no rights of its own.
//!
//! There are no cookies. A bearer key is kept by the page's script alone, in memory: the storage that a
//! browser offers to pages is written to its disk. Client certificates, and addresses where nobody has to
//! sign in, are shown by a browser whoever asks it to; what pages of other sites ask for is refused by
//! [`super::foreign`].

use std::{collections::HashMap, sync::LazyLock};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag, Header, IfNoneMatch},
    web,
};
use sha2::{Digest, Sha256};

use super::problem;

/// Nothing but what comes from here, no script or style within the page, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether the configuration offers it.
pub struct Offered(pub bool);

/// One file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal $content_type:ident,)*) => {
        const ASSETS: &[Asset] = &[
            $(Asset { name: $name, content_type: $content_type, text: include_str!(concat!("assets/", $name)) }),*
        ];
    };
}

assets! {
    "activity.js" SCRIPT,
    "api.js" SCRIPT,
    "approvals.js" SCRIPT,
    "audit.js" SCRIPT,
    "blocks.js" SCRIPT,
    "colours.css" CSS,
    "dialog.js" SCRIPT,
    "dom.js" SCRIPT,
    "health.js" SCRIPT,
    "icon.svg" ICON,
    "index.html" HTML,
    "keys.js" SCRIPT,
    "layout.css" CSS,
    "main.js" SCRIPT,
    "orders.js" SCRIPT,
    "parts.css" CSS,
    "poll.js" SCRIPT,
    "rotations.js" SCRIPT,
    "service.js" SCRIPT,
    "session.js" SCRIPT,
    "spark.js" SCRIPT,
    "time.js" SCRIPT,
    "timeline.js" SCRIPT,
}

const ICON: &str = "image/svg+xml";

/// The files with the tags by which browsers know whether they have them already.
static TAGGED: LazyLock<HashMap<&str, (&Asset, EntityTag)>> = LazyLock::new(|| {
    let tag = |asset: &Asset| EntityTag::new_strong(hex::encode(&Sha256::digest(asset.text)[..16]));
    ASSETS.iter().map(|asset| (asset.name, (asset, tag(asset)))).collect()
});

/// `GET /console`: the page. It shows nothing to whoever has no role.
#[utoipa::path(
    get,
    path = "/console",
    operation_id = "console_page",
    tag = "console",
    responses(
        (status = 200, description = "The operator console", body = String, content_type = "text/html"),
        (status = 304, description = "The browser has it"),
    )
)]
pub async fn page(request: HttpRequest, offered: web::Data<Offered>) -> HttpResponse {
    answer(&request, &offered, "index.html").await
}

/// `GET /console/{asset}`: what the page is made of.
#[utoipa::path(
    get,
    path = "/console/{asset}",
    operation_id = "console_asset",
    tag = "console",
    params(("asset" = String, Path)),
    responses(
        (status = 200, description = "One file of it", content(
            (String = "text/css"),
            (String = "text/javascript"),
            (String = "text/html"),
            (String = "image/svg+xml"),
        )),
        (status = 304, description = "The browser has it"),
    )
)]
pub async fn asset(request: HttpRequest, offered: web::Data<Offered>, name: web::Path<String>) -> HttpResponse {
    answer(&request, &offered, &name).await
}

async fn answer(request: &HttpRequest, offered: &Offered, name: &str) -> HttpResponse {
    match TAGGED.get(name) {
        Some((asset, tag)) if offered.0 => guarded(request, asset, tag),
        Some(_) | None => problem::not_found().await,
    }
}

/// Asked for again each time, and sent only when it has changed: an upgrade takes effect at once.
fn guarded(request: &HttpRequest, asset: &Asset, tag: &EntityTag) -> HttpResponse {
    let mut response = if has(request, tag) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header(header::ETag(tag.clone()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"));
    if has(request, tag) {
        return response.finish();
    }
    response.content_type(asset.content_type).body(asset.text)
}

/// RFC 9110 §13.1.2: compared weakly.
fn has(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}
