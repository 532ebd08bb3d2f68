//! The listeners: the API on its wires, and the metrics on a port of their own.

use std::{
    future::{Ready, ready},
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer, Resource, Route,
    dev::{Handler, Server, ServerHandle},
    guard,
    http::Method,
    middleware::from_fn,
    web,
};

use super::proxy::Proxies;
use super::{
    Config, MetricsConfig, Pulse, TlsConfig, abuse, access, activity, admission, approvals, attestations, audit,
    authn::gated,
    blocks, body,
    connections::{self, Doorman},
    console,
    expiry::Expiry,
    exposition, health, index, jwks, keys, lifecycle, maintenance, me, nonces, opaque, openapi, problem, request,
    rotations, signer,
    tls::Tls,
    unix_socket,
};
use crate::{authn::Authn, service::Service};

/// Longest time that a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);

/// Most connections to the metrics: of one address, and in all.
const METRICS_CONNECTIONS: [usize; 2] = [64, 256];

/// Why there is nothing to serve on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen: {key} {place}: {source}; name another address, or stop whatever listens there")]
    Place { key: &'static str, place: String, source: io::Error },
    #[error("{0}")]
    Material(String),
    #[error("cannot listen: {0}")]
    Other(#[from] io::Error),
}

impl BindError {
    fn at(key: &'static str, place: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Place { key, place: place.to_string(), source }
    }

    /// True when starting again cannot help before somebody changes something.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Material(_) => true,
            // An address may appear, and a port become free.
            Self::Place { source, .. } | Self::Other(source) => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
            }
        }
    }
}

/// Both servers, bound and not yet running.
pub struct Servers {
    api: Server,
    metrics: Server,
    api_address: SocketAddr,
    metrics_address: SocketAddr,
    reloader: Reloader,
    pulse: Pulse,
    drain: Duration,
}

/// What of the configuration is about listening.
pub struct Wires<'a> {
    pub http: &'a Config,
    pub tls: Option<&'a TlsConfig>,
    pub metrics: &'a MetricsConfig,
}

/// Reads again what may change while the program runs: certificates, and the keys of callers.
#[derive(Clone)]
pub struct Reloader {
    tls: Option<Arc<Tls>>,
    authn: Arc<Authn>,
}

impl Reloader {
    /// Says what changed, and what could not be read and stays as it was. Blocks.
    #[must_use]
    pub fn refresh(&self, forced: bool) -> Vec<Result<String, String>> {
        let tls = self.tls.as_ref().and_then(|tls| tls.refresh(forced));
        tls.into_iter().chain(self.authn.refresh(forced)).collect()
    }

    /// The same of what comes over the network.
    #[must_use]
    pub fn fetch(&self, forced: bool) -> Vec<Result<String, String>> {
        self.authn.fetch(forced).into_iter().collect()
    }

    /// When the files of `[tls]` that are in use end.
    #[must_use]
    pub fn expiries(&self) -> Vec<Expiry> {
        self.tls.as_ref().map_or_else(Vec::new, |tls| tls.expiries())
    }
}

/// Stops both servers.
#[derive(Clone)]
pub struct StopHandle(ServerHandle, ServerHandle);

impl Servers {
    /// Binds all listeners. Signals are the supervisor's, not the servers'.
    pub fn bind(wires: &Wires<'_>, service: &Arc<Service>, authn: &Arc<Authn>) -> Result<Self, BindError> {
        let Wires { http: config, metrics, .. } = wires;
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
        let tls = wires.tls.map(Tls::open).transpose().map_err(BindError::Material)?;
        let doorman = Doorman::new(tls.clone(), config.max_connections_per_address, config.head_time);
        let metrics_doorman = Doorman::new(None, METRICS_CONNECTIONS[0], config.head_time);
        let (api_service, metrics_service) = (Arc::clone(service), Arc::clone(service));
        let proxies = Proxies::from_config(config);
        let has_console = config.console;
        let (api_authn, metrics_authn) = (Arc::clone(authn), Arc::clone(authn));
        let pulse = Pulse::default();
        let (api_pulse, metrics_pulse) = (pulse.clone(), pulse.clone());
        let mut api = HttpServer::new(move || {
            api_pulse.begin();
            App::new()
                .app_data(web::Data::from(Arc::clone(&api_service)))
                .app_data(web::Data::from(Arc::clone(&api_authn)))
                .app_data(web::PayloadConfig::new(body::MAX_BODY_BYTES))
                .app_data(body::queries())
                .app_data(web::Data::new(proxies.clone()))
                .app_data(web::Data::new(console::Offered(has_console)))
                .wrap(from_fn(admission::admit))
                .wrap(from_fn(request::identify))
                .wrap(from_fn(connections::work))
                .configure(routes)
                .default_service(web::to(problem::not_found))
        })
        .disable_signals()
        .shutdown_timeout(config.drain.as_secs())
        .client_request_timeout(config.head_time)
        .tls_handshake_timeout(HANDSHAKE_TIME)
        .max_connections(connections_per_worker(workers))
        .workers(workers)
        .on_connect(move |io, kept| doorman.look(io, kept))
        .bind(config.listen)
        .map_err(BindError::at("http.listen", config.listen))?;
        if let Some(tls) = &tls {
            let (listener, tls) = tls_listener(tls)?;
            api = api.listen_rustls_0_23(listener, tls)?;
        }
        if let Some(path) = &config.unix_socket {
            let mode = config.socket_mode().map_err(BindError::Material)?;
            let socket = unix_socket::bind(path, mode).map_err(BindError::at("http.unix_socket", path.display()))?;
            api = api.listen_uds(socket)?;
        }
        let authenticate = metrics.authenticate;
        let metrics = HttpServer::new(move || {
            metrics_pulse.begin();
            App::new()
                .app_data(web::Data::from(Arc::clone(&metrics_service)))
                .app_data(web::Data::from(Arc::clone(&metrics_authn)))
                .wrap(from_fn(request::identify))
                .wrap(from_fn(connections::work))
                .service(metrics_route(authenticate))
                .default_service(web::to(problem::not_found))
        })
        .disable_signals()
        .client_request_timeout(config.head_time)
        .max_connections(METRICS_CONNECTIONS[1])
        .workers(1)
        .on_connect(move |io, kept| metrics_doorman.look(io, kept))
        .bind(metrics.listen)
        .map_err(BindError::at("metrics.listen", metrics.listen))?;
        let first = |addresses: Vec<SocketAddr>| {
            addresses.first().copied().ok_or_else(|| io::Error::other("nothing was bound"))
        };
        Ok(Self {
            api_address: first(api.addrs())?,
            metrics_address: first(metrics.addrs())?,
            api: api.run(),
            metrics: metrics.run(),
            reloader: Reloader { tls, authn: Arc::clone(authn) },
            pulse,
            drain: config.drain,
        })
    }

    /// What reads certificates and callers' keys again.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Whether the threads that serve turn.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// How long requests in progress may take once it is told to stop.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.drain
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
    // Each has a second descriptor, by which it is cut off.
    (connections / 2 / workers).clamp(16, 10_000)
}

fn tls_listener(tls: &Arc<Tls>) -> Result<(TcpListener, rustls::ServerConfig), BindError> {
    let listener = TcpListener::bind(tls.address()).map_err(BindError::at("tls.listen", tls.address()))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening with TLS");
    Ok((listener, tls.server_config().map_err(|error| BindError::Material(format!("tls: {error}")))?))
}

impl StopHandle {
    /// Lets requests in progress finish, then stops.
    pub async fn stop(self) {
        tokio::join!(self.0.stop(true), self.1.stop(true));
    }
}

/// The API, path by path.
fn routes(app: &mut web::ServiceConfig) {
    // In this order they are looked through: what is asked most often comes first.
    app.service(post("/api/v1/attestations", attestations::sign))
        .service(post("/api/v1/attestations/batch", attestations::sign_batch).app_data(body::of_batches()))
        .service(post("/api/v1/nonces", nonces::issue))
        .service(post("/api/v1/nonces/batch", nonces::issue_batch))
        .service(get("/", index::index))
        .service(get("/healthz", health::healthz))
        .service(get("/livez", health::livez))
        .service(get("/readyz", health::readyz))
        .service(get("/.well-known/jwks.json", jwks::jwks))
        .service(get("/problems", problem::list))
        .service(get("/problems/{name}", problem::explain))
        .service(get("/docs", openapi::page))
        .service(get("/api/v1/openapi.json", openapi::document))
        .service(get("/console", console::page))
        .service(get("/console/{asset}", console::asset))
        .service(get("/api/v1/me", me::me))
        .service(get("/api/v1/activity", activity::activity))
        .service(get("/api/v1/signer", signer::signer))
        .service(get_and(Method::POST, "/api/v1/keys", keys::list, lifecycle::generate))
        .service(get("/api/v1/keys/active", keys::active))
        .service(post("/api/v1/keys/rotate", lifecycle::rotate))
        .service(post("/api/v1/keys/emergency", lifecycle::emergency))
        .service(get("/api/v1/keys/{key_id}", keys::one))
        .service(get("/api/v1/keys/{key_id}/public.pem", keys::public_pem))
        .service(get_and(
            Method::PUT,
            "/api/v1/keys/{key_id}/certificate.pem",
            keys::certificate_pem,
            keys::install_chain,
        ))
        .service(get("/api/v1/keys/{key_id}/csr.pem", keys::csr_pem))
        .service(get("/api/v1/keys/{key_id}/evidence", keys::evidence))
        .service(post("/api/v1/keys/{key_id}/revoke", lifecycle::revoke))
        .service(post("/api/v1/keys/{key_id}/destroy", lifecycle::destroy))
        .service(get("/api/v1/rotations", rotations::list))
        .service(get("/api/v1/rotations/{rotation_id}", rotations::one))
        .service(post("/api/v1/rotations/{rotation_id}/complete", rotations::complete))
        .service(post("/api/v1/rotations/{rotation_id}/cancel", rotations::cancel))
        .service(get("/api/v1/approvals", approvals::list))
        .service(get("/api/v1/approvals/{approval_id}", approvals::one))
        .service(post("/api/v1/approvals/{approval_id}/approve", approvals::approve))
        .service(post("/api/v1/approvals/{approval_id}/reject", approvals::reject))
        .service(get("/api/v1/nonce/stats", nonces::stats))
        .service(post("/api/v1/nonce/cleanup", nonces::cleanup))
        .service(get("/api/v1/abuse", abuse::list))
        .service(get("/api/v1/abuse/{identifier}", abuse::explain))
        .service(get_and(Method::POST, "/api/v1/blocks", blocks::list, blocks::add))
        .service(get_and(Method::DELETE, "/api/v1/blocks/{block_id}", blocks::one, blocks::remove))
        .service(post("/api/v1/attestations/verify", attestations::verify))
        .service(post("/api/v1/sign", opaque::sign))
        .service(post("/api/v1/sign/test", opaque::test))
        .service(post("/api/v1/verify", opaque::verify))
        .service(get_and(Method::PUT, "/api/v1/maintenance", maintenance::show, maintenance::switch))
        .service(get("/api/v1/audit", audit::search))
        .service(get("/api/v1/audit/checkpoint", audit::checkpoint))
        .service(get("/api/v1/audit/proof", audit::proof))
        .service(get("/api/v1/audit/consistency", audit::consistency))
        .service(post("/api/v1/audit/rotate", audit::rotate));
}

fn metrics_route(authenticate: bool) -> Resource {
    let route = || get_or_head().to(exposition::metrics);
    let route = if authenticate { gated(route(), &access::METRICS) } else { route() };
    web::resource("/metrics").route(route).default_service(web::to(|| refuse("GET, HEAD")))
}

fn get_or_head() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path.to_owned())
        .route(gated(get_or_head().to(handler), access::of("GET", path)))
        .default_service(web::to(|| refuse("GET, HEAD")))
}

/// A path that is read, and changed by another method.
fn get_and<G, GArgs, C, CArgs>(method: Method, path: &str, getter: G, changer: C) -> Resource
where
    G: Handler<GArgs>,
    GArgs: actix_web::FromRequest + 'static,
    G::Output: actix_web::Responder + 'static,
    C: Handler<CArgs>,
    CArgs: actix_web::FromRequest + 'static,
    C::Output: actix_web::Responder + 'static,
{
    let access = access::of(method.as_str(), path);
    let allow = format!("GET, HEAD, {method}");
    get(path, getter)
        .route(gated(web::method(method).to(changer), access))
        .default_service(web::to(move || refuse(&allow)))
}

fn post<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path.to_owned())
        .route(gated(web::post().to(handler), access::of("POST", path)))
        .default_service(web::to(|| refuse("POST")))
}

fn refuse(allow: &str) -> Ready<HttpResponse> {
    ready(problem::method_not_allowed(allow))
}
