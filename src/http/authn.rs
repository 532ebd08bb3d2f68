//! The gate before each route: who is asking, and whether they may. What is denied is recorded; what
//! changes keys, or reads the trail, is recorded when it is let through as well.

use actix_web::{
    Error, HttpMessage, HttpRequest, Route,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::{Next, from_fn},
};

use super::{
    access::{Access, Allowed, Recorded},
    admission::{self, REFUSAL_TAKES},
    connections::Connection,
    foreign::is_foreign,
    problem::{MISSING_ROLE, NOT_AUTHENTICATED, OTHER_SITE, Problem},
    request,
};
use crate::{
    audit::{Event, EventType, Severity},
    authn::{Authn, Known, Refused},
    client::{Client, Role},
    service::Service,
};

/// Puts the gate before a route.
pub(super) fn gated(route: Route, access: &'static Access) -> Route {
    route.wrap(from_fn(move |request, next| pass(access, request, next)))
}

async fn pass<B: MessageBody>(
    access: &'static Access,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match judge(access, request.request()).await {
        Ok(client) => {
            if let Some(client) = client {
                request.extensions_mut().insert(client);
            }
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(problem) => {
            let mut response = problem.to_response();
            if problem.kind() == &NOT_AUTHENTICATED {
                hold_back(request.request()).await;
                let challenge = header::HeaderValue::from_static("Bearer realm=\"verification-signer\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

/// Who is asking, if they may.
async fn judge(access: &'static Access, request: &HttpRequest) -> Result<Option<Client>, Problem> {
    let needed = match access.allowed {
        Allowed::Everybody => return Ok(None),
        Allowed::Guests => None,
        Allowed::Holders(roles) => Some(roles),
    };
    let service = request::shared::<Service>(request);
    if access.method != "GET" && is_foreign(request) {
        deny(&service, &request::client(request, None), "a page of another site asked for it".into()).await;
        return Err(Problem::new(&OTHER_SITE, ""));
    }
    let known = match identify(request, &service) {
        Ok(known) => known,
        Err(refused) => {
            deny(&service, &request::client(request, None), refused.to_string()).await;
            return Err(Problem::new(&NOT_AUTHENTICATED, sentence(&refused.to_string())));
        }
    };
    let client = request::client(request, Some(&known));
    admission::admit_client(&service, request, &client).await?;
    if let Some(roles) = needed.filter(|roles| !known.grants.has_any(roles)) {
        deny(&service, &client, format!("the role {} is missing", one_of(roles))).await;
        return Err(missing(&known, &client, roles));
    }
    if known.authenticated {
        let event = event(EventType::AccessGranted, &client, &service);
        match access.recorded {
            Recorded::Always => service.record_access(event).await?,
            Recorded::OnceAMinute => service.record_reading(event).await,
            Recorded::Never => {}
        }
    }
    Ok(Some(client))
}

/// Whoever guesses credentials is as slow as whoever floods. Addresses that are exempt from limits are
/// exempt from this.
async fn hold_back(request: &HttpRequest) {
    if !request::shared::<Service>(request).limits.is_exempt(request::address(request)) {
        tokio::time::sleep(REFUSAL_TAKES).await;
    }
}

fn identify(request: &HttpRequest, service: &Service) -> Result<Known, Refused> {
    let now = service.clock.now().unix_seconds();
    let connection = request.conn_data::<Connection>();
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let authorization = headers.next().map(header::HeaderValue::as_bytes);
    if headers.next().is_some() {
        return Err(Refused::Malformed);
    }
    let shown = match connection {
        // Judged only where it counts.
        Some(_) if authorization.is_some() => crate::authn::Shown::Nothing,
        Some(connection) => connection.shown(now)?,
        None => crate::authn::Shown::Nothing,
    };
    request::shared::<Authn>(request).identify(request::address(request), &shown, authorization, now)
}

/// 401 for who showed nothing: they may have a credential. 403 for who is known and may not.
fn missing(known: &Known, client: &Client, roles: &[Role]) -> Problem {
    let what = format!("{} {} needs the role {}", client.method, client.endpoint, one_of(roles));
    if known.authenticated {
        Problem::new(&MISSING_ROLE, format!("{what}, which {} does not have", known.identity))
    } else {
        Problem::new(&NOT_AUTHENTICATED, format!("{what}, and no credential of a known client was shown"))
    }
}

/// Whether the caller holds a role that this very request needs.
pub(super) async fn require(service: &Service, client: &Client, role: Role, why: &str) -> Result<(), Problem> {
    if client.grants.has_any(&[role]) {
        return Ok(());
    }
    deny(service, client, format!("the role {role} is missing")).await;
    Err(Problem::new(&MISSING_ROLE, format!("{why} needs the role {role}, which {} does not have", client.identity)))
}

async fn deny(service: &Service, client: &Client, reason: String) {
    service.record_denial(event(EventType::AccessDenied, client, service).failed(Severity::Warning), reason).await;
}

fn event(kind: EventType, client: &Client, service: &Service) -> Event {
    Event::of_client(kind, "access", client.endpoint.as_str(), client, service.clock.now())
}

fn one_of(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ")
}

pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
