//! The two listeners: the API, and the metrics on a port of their own.

use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer, Resource,
    dev::{Handler, Server, ServerHandle},
    guard,
    middleware::from_fn,
    web,
};

use super::{
    Config, MetricsConfig, attestations, audit, body, exposition, health, index, jwks, keys, lifecycle, nonces, opaque,
    problem, request, rotations, signer,
};
use crate::service::Service;

/// Both servers, bound and not yet running.
pub struct Servers {
    api: Server,
    metrics: Server,
    api_address: SocketAddr,
    metrics_address: SocketAddr,
}

/// Stops both servers.
#[derive(Clone)]
pub struct StopHandle(ServerHandle, ServerHandle);

impl Servers {
    /// Binds both listeners. Signals are the supervisor's, not the servers'.
    pub fn bind(config: &Config, metrics: &MetricsConfig, service: &Arc<Service>) -> io::Result<Self> {
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
        let (api_service, metrics_service) = (Arc::clone(service), Arc::clone(service));
        let api = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(Arc::clone(&api_service)))
                .app_data(web::PayloadConfig::new(body::MAX_BODY_BYTES))
                .app_data(body::queries())
                .wrap(from_fn(request::identify))
                .configure(routes)
                .default_service(web::to(problem::not_found))
        })
        .disable_signals()
        .shutdown_timeout(config.drain.as_secs())
        .client_request_timeout(Duration::from_secs(5))
        .max_connections(connections_per_worker(workers))
        .workers(workers)
        .bind(config.listen)
        .map_err(|error| named("http.listen", config.listen, &error))?;
        let metrics = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(Arc::clone(&metrics_service)))
                .wrap(from_fn(request::identify))
                .service(get("/metrics", exposition::metrics))
                .default_service(web::to(problem::not_found))
        })
        .disable_signals()
        .workers(1)
        .bind(metrics.listen)
        .map_err(|error| named("metrics.listen", metrics.listen, &error))?;
        let first = |addresses: Vec<SocketAddr>| {
            addresses.first().copied().ok_or_else(|| io::Error::other("nothing was bound"))
        };
        Ok(Self {
            api_address: first(api.addrs())?,
            metrics_address: first(metrics.addrs())?,
            api: api.run(),
            metrics: metrics.run(),
        })
    }

    /// Where the API listens: the port that was chosen when 0 was asked for.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Where the metrics listen.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Stops both when told to.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.api.handle(), self.metrics.handle())
    }

    /// Serves until stopped.
    pub async fn run(self) -> io::Result<()> {
        tokio::try_join!(self.api, self.metrics).map(|_| ())
    }
}

/// As many as the limit on open files allows, with room for the token's files, Redis and the trail:
/// a token that cannot open its files looks empty.
fn connections_per_worker(workers: usize) -> usize {
    const RESERVED: u64 = 256;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65_536);
    let connections = usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(65_536);
    (connections / workers).clamp(16, 10_000)
}

fn named(key: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{key} {address}: {error}"))
}

impl StopHandle {
    /// Lets requests in progress finish, then stops.
    pub async fn stop(self) {
        tokio::join!(self.0.stop(true), self.1.stop(true));
    }
}

/// The API, path by path.
fn routes(app: &mut web::ServiceConfig) {
    app.service(get("/", index::index))
        .service(get("/healthz", health::healthz))
        .service(get("/livez", health::livez))
        .service(get("/readyz", health::readyz))
        .service(get("/.well-known/jwks.json", jwks::jwks))
        .service(get("/problems/{name}", problem::explain))
        .service(get("/api/v1/signer", signer::signer))
        .service(get_and_post("/api/v1/keys", keys::list, lifecycle::generate))
        .service(get("/api/v1/keys/active", keys::active))
        .service(post("/api/v1/keys/rotate", lifecycle::rotate))
        .service(post("/api/v1/keys/emergency", lifecycle::emergency))
        .service(get("/api/v1/keys/{key_id}", keys::one))
        .service(get("/api/v1/keys/{key_id}/public.pem", keys::public_pem))
        .service(get_and_put("/api/v1/keys/{key_id}/certificate.pem", keys::certificate_pem, keys::install_chain))
        .service(get("/api/v1/keys/{key_id}/csr.pem", keys::csr_pem))
        .service(get("/api/v1/keys/{key_id}/evidence", keys::evidence))
        .service(post("/api/v1/keys/{key_id}/revoke", lifecycle::revoke))
        .service(post("/api/v1/keys/{key_id}/destroy", lifecycle::destroy))
        .service(get("/api/v1/rotations", rotations::list))
        .service(get("/api/v1/rotations/{rotation_id}", rotations::one))
        .service(post("/api/v1/rotations/{rotation_id}/complete", rotations::complete))
        .service(post("/api/v1/rotations/{rotation_id}/cancel", rotations::cancel))
        .service(post("/api/v1/nonces", nonces::issue))
        .service(post("/api/v1/nonces/batch", nonces::issue_batch))
        .service(get("/api/v1/nonce/stats", nonces::stats))
        .service(post("/api/v1/nonce/cleanup", nonces::cleanup))
        .service(post("/api/v1/attestations", attestations::sign))
        .service(post("/api/v1/attestations/verify", attestations::verify))
        .service(post("/api/v1/sign", opaque::sign))
        .service(post("/api/v1/sign/test", opaque::test))
        .service(post("/api/v1/verify", opaque::verify))
        .service(get("/api/v1/audit", audit::search))
        .service(get("/api/v1/audit/checkpoint", audit::checkpoint))
        .service(get("/api/v1/audit/proof", audit::proof))
        .service(get("/api/v1/audit/consistency", audit::consistency))
        .service(post("/api/v1/audit/rotate", audit::rotate));
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    let get_or_head = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path.to_owned())
        .route(web::route().guard(get_or_head).to(handler))
        .default_service(web::to(|| refuse("GET, HEAD")))
}

fn get_and_post<G, GArgs, P, PArgs>(path: &str, getter: G, poster: P) -> Resource
where
    G: Handler<GArgs>,
    GArgs: actix_web::FromRequest + 'static,
    G::Output: actix_web::Responder + 'static,
    P: Handler<PArgs>,
    PArgs: actix_web::FromRequest + 'static,
    P::Output: actix_web::Responder + 'static,
{
    get(path, getter).route(web::post().to(poster)).default_service(web::to(|| refuse("GET, HEAD, POST")))
}

fn get_and_put<G, GArgs, P, PArgs>(path: &str, getter: G, putter: P) -> Resource
where
    G: Handler<GArgs>,
    GArgs: actix_web::FromRequest + 'static,
    G::Output: actix_web::Responder + 'static,
    P: Handler<PArgs>,
    PArgs: actix_web::FromRequest + 'static,
    P::Output: actix_web::Responder + 'static,
{
    get(path, getter).route(web::put().to(putter)).default_service(web::to(|| refuse("GET, HEAD, PUT")))
}

fn post<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path.to_owned()).route(web::post().to(handler)).default_service(web::to(|| refuse("POST")))
}

fn refuse(allow: &'static str) -> Ready<HttpResponse> {
    ready(problem::method_not_allowed(allow))
}
