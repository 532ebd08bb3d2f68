//! The door itself: whoever is blocked or asks too much gets no further. Answers say how much is
//! left (RateLimit headers, draft-ietf-httpapi-ratelimit-headers).

use std::time::Duration;

use actix_web::{
    Error, HttpMessage, HttpRequest, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
};

use super::{problem::Problem, request};
use crate::{
    authn::Known,
    client::Client,
    limits::Left,
    service::{self, Service},
};

/// How long a refusal at the door is held back: whoever floods us over a connection then costs us ten
/// answers a second, not thousands, and others get their turn.
pub(super) const REFUSAL_TAKES: Duration = Duration::from_millis(100);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit");

/// Admits requests to the API by their address. Health, keys for verifiers and explanations are for
/// everyone.
pub async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if is_for_everyone(request.path()) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let service = request::shared::<Service>(request.request());
    if let Err(refused) = service.admit_address(&request::client(request.request(), None)).await {
        return Ok(request.into_response(held_back(refused).await.error_response()));
    }
    let mut response = next.call(request).await?.map_into_boxed_body();
    if is_stray(response.status()) {
        let known = response.request().extensions().get::<Option<Known>>().cloned().flatten();
        service.note_stray_request(&request::client(response.request(), known.as_ref())).await;
    }
    let left = response.request().extensions().get::<Left>().copied();
    if let Some(left) = left.filter(|_| !response.headers().contains_key(&REMAINING)) {
        say(response.headers_mut(), left);
    }
    Ok(response)
}

/// Admits a client, once it is known who it is.
pub(super) async fn admit_client(service: &Service, request: &HttpRequest, client: &Client) -> Result<(), Problem> {
    match service.admit_client(client).await {
        Ok(left) => {
            if let Some(left) = left {
                request.extensions_mut().insert(left);
            }
            Ok(())
        }
        Err(refused) => Err(held_back(refused).await),
    }
}

async fn held_back(refused: service::Error) -> Problem {
    tokio::time::sleep(REFUSAL_TAKES).await;
    refused.into()
}

/// Only these very spellings: a path is matched when its escapes are decoded, so whatever is written
/// otherwise (`/%61pi/…`) is looked at here like the rest.
fn is_for_everyone(path: &str) -> bool {
    matches!(path, "/" | "/healthz" | "/livez" | "/readyz" | "/docs" | "/problems" | "/.well-known/jwks.json")
        || path.strip_prefix("/problems/").is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
}

/// What only those get who do not know the interface.
fn is_stray(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
    )
}

fn say(headers: &mut HeaderMap, left: Left) {
    let Left { requests, burst, per_second } = left;
    let window = burst.div_ceil(per_second);
    for (name, text) in [
        (POLICY, format!("\"client\";q={burst};w={window}")),
        (REMAINING, format!("\"client\";r={requests};t={}", burst.saturating_sub(requests).div_ceil(per_second))),
    ] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}
