//! The circumstances of a request: its id, and who sent it.

use std::{
    future::{Ready, ready},
    net::IpAddr,
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderName, HeaderValue},
    middleware::Next,
    web,
};

use tracing::Instrument;

use super::{
    problem::{INTERNAL, Problem},
    proxy::Proxies,
    trace::{CURRENT, Circumstances, Trace},
};
use crate::{
    authn::Known,
    client::{Client, ClientIdentity, Grants},
    service::{Error, Service},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Gives every request an id, and every response that id and the headers that keep browsers and
/// caches from doing anything with it.
pub async fn identify(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|value| is_request_id(value))
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), ToOwned::to_owned);
    let trace = request.headers().get(&TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(Trace::parse);
    let circumstances = Circumstances { request_id: id, trace };
    request.extensions_mut().insert(circumstances.clone());
    let Circumstances { request_id: id, .. } = circumstances.clone();
    let span = tracing::info_span!("request", request_id = id, trace_id = trace.map(tracing::field::display));
    let mut response = CURRENT.scope(circumstances, next.call(request)).instrument(span).await?;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    let answer = trace.and_then(|trace| trace.answer());
    if let Some(value) = answer.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(TRACEPARENT, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The console's own say more.
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(response)
}

/// What a caller may choose as a request id: it ends in logs and records.
fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Does work in a task of its own: a caller that hangs up must not stop it half-way, with a nonce
/// spent or a change made and no outcome on record.
pub async fn to_the_end<T, F>(service: &web::Data<Service>, work: impl FnOnce(Arc<Service>) -> F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let work = work(Arc::clone(service));
    let done = tokio::spawn(work.in_current_span()).await.map_err(|_| Problem::new(&INTERNAL, ""))?;
    Ok(done?)
}

/// The caller of this request, as the gate has found it.
pub struct Caller(pub Client);

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(caller(request))))
    }
}

/// Who the gate has found to be asking; nobody it knows where there is no gate.
pub(super) fn caller(request: &HttpRequest) -> Client {
    let found = request.extensions().get::<Client>().cloned();
    found.unwrap_or_else(|| client(request, None))
}

/// What every server is built with.
pub(super) fn shared<T: 'static>(request: &HttpRequest) -> Arc<T> {
    let data = request.app_data::<web::Data<T>>().expect("every server is built with it");
    Arc::clone(data)
}

/// Where a request comes from. A connection without a peer address is a Unix socket: somebody on
/// this machine.
pub(super) fn address(request: &HttpRequest) -> IpAddr {
    // No proxy stands before a Unix socket: nobody there speaks for other addresses.
    let Some(peer) = request.peer_addr().map(|peer| peer.ip()) else { return IpAddr::from([127, 0, 0, 1]) };
    let proxies = request.app_data::<web::Data<Proxies>>();
    proxies.map_or(peer, |proxies| proxies.caller(peer, request.headers()))
}

/// A request's circumstances; whoever is not known may do nothing.
pub(super) fn client(request: &HttpRequest, known: Option<&Known>) -> Client {
    let address = address(request);
    let (request_id, trace) = match request.extensions().get::<Circumstances>().cloned() {
        Some(Circumstances { request_id, trace }) => (request_id, trace),
        None => (String::new(), None),
    };
    let user_agent = request
        .headers()
        .get(header::USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).chars().take(256).collect());
    Client {
        identity: known.map_or_else(|| ClientIdentity::anonymous(address), |known| known.identity.clone()),
        grants: known.map_or_else(|| Arc::new(Grants::nothing()), |known| Arc::clone(&known.grants)),
        request_id,
        trace_id: trace.map(|trace| trace.id()),
        address,
        user_agent,
        method: request.method().to_string(),
        endpoint: request.path().chars().take(256).collect(),
    }
}
