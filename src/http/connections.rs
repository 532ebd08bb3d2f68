//! Connections: how many one address may hold, and what each shows of whoever is at its other end.

use std::{
    any::Any,
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    body::MessageBody,
    dev::{Extensions, ServiceRequest, ServiceResponse},
    middleware::Next,
    rt::net::{TcpStream, UnixStream},
};
use parking_lot::Mutex;
use rustix::net::{Shutdown, shutdown};
use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::tls::{Material, Tls};
use crate::authn::{Refused, Shown};

/// How long a connection is kept between requests: the server's own default.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What is known of a connection, kept beside it.
pub(super) struct Connection {
    peer: Peer,
    idle: Option<Arc<Idle>>,
    _place: Option<Place>,
}

enum Peer {
    /// Nobody said anything.
    Unknown,
    Certificate(Certified),
    Process {
        uid: u32,
        gid: u32,
    },
}

struct Certified {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<String>,
    not_after: i64,
    /// Under which material it was verified.
    under: Arc<Material>,
    tls: Arc<Tls>,
}

impl Connection {
    /// What it shows now: a certificate may have expired or been revoked since the handshake.
    pub(super) fn shown(&self, now_seconds: i64) -> Result<Shown, Refused> {
        match &self.peer {
            Peer::Unknown => Ok(Shown::Nothing),
            Peer::Process { uid, gid } => Ok(Shown::Process { uid: *uid, gid: *gid }),
            Peer::Certificate(certified) if certified.holds(now_seconds) => {
                Ok(Shown::Certificate(certified.names.clone()))
            }
            Peer::Certificate(_) => Err(Refused::Certificate),
        }
    }
}

impl Certified {
    fn holds(&self, now_seconds: i64) -> bool {
        now_seconds < self.not_after
            && (Arc::ptr_eq(&self.under, &self.tls.current()) || self.tls.still_accepts(&self.chain))
    }
}

/// Looks at each new connection.
#[derive(Clone)]
pub(super) struct Doorman {
    tls: Option<Arc<Tls>>,
    counts: Arc<Counts>,
    patience: Duration,
}

impl Doorman {
    pub(super) fn new(tls: Option<Arc<Tls>>, per_address: usize, head_time: Duration) -> Self {
        let counts = Counts { per_address, held: Mutex::default() };
        Self { tls, counts: Arc::new(counts), patience: KEEP_ALIVE + head_time }
    }

    /// Keeps what there is to know; hangs up on an address that holds too many already.
    pub(super) fn look(&self, io: &dyn Any, kept: &mut Extensions) {
        let (peer, place, idle) = if let Some(plain) = io.downcast_ref::<TcpStream>() {
            (Peer::Unknown, self.place(plain), self.watch(plain))
        } else if let Some(encrypted) = io.downcast_ref::<TlsStream<TcpStream>>() {
            let (socket, session) = encrypted.get_ref();
            (self.certified(session.peer_certificates()), self.place(socket), self.watch(socket))
        } else if let Some(local) = io.downcast_ref::<UnixStream>() {
            (process(local), None, self.watch(local))
        } else {
            (Peer::Unknown, None, None)
        };
        kept.insert(Connection { peer, idle, _place: place });
    }

    /// Hangs up when too long no request is worked on. The server's own time for a head is for the first
    /// one only; the second could be sent letter by letter, and an answer be read so.
    fn watch(&self, socket: &impl AsFd) -> Option<Arc<Idle>> {
        let socket = socket.as_fd().try_clone_to_owned().ok()?;
        let idle = Arc::new(Idle { socket, state: Mutex::new((0, Instant::now())) });
        actix_web::rt::spawn(hang_up_when_idle(Arc::downgrade(&idle), self.patience));
        Some(idle)
    }

    fn place(&self, socket: &TcpStream) -> Option<Place> {
        let address = network(socket.peer_addr().ok()?.ip());
        let place = Counts::enter(&self.counts, address);
        if place.is_none() {
            // The answer would be one more thing to wait for.
            let _ = shutdown(socket, Shutdown::Both);
        }
        place
    }

    fn certified(&self, chain: Option<&[CertificateDer<'static>]>) -> Peer {
        let (Some(tls), Some(chain)) = (&self.tls, chain) else { return Peer::Unknown };
        let Some((names, not_after)) = chain.first().and_then(|first| names_of(first)) else { return Peer::Unknown };
        let (under, tls) = (tls.current(), Arc::clone(tls));
        Peer::Certificate(Certified { chain: chain.to_vec(), names, not_after, under, tls })
    }
}

/// How long no request has been worked on.
struct Idle {
    socket: OwnedFd,
    /// Requests that are worked on, and when the last one ended.
    state: Mutex<(usize, Instant)>,
}

impl Idle {
    /// How long it may still be so.
    fn left(&self, patience: Duration) -> Duration {
        let (requests, ended) = *self.state.lock();
        if requests > 0 { patience } else { patience.saturating_sub(ended.elapsed()) }
    }
}

async fn hang_up_when_idle(idle: Weak<Idle>, patience: Duration) {
    while let Some(left) = idle.upgrade().map(|idle| idle.left(patience)) {
        if left.is_zero() {
            if let Some(idle) = idle.upgrade() {
                // It may have ended by itself meanwhile.
                let _ = shutdown(&idle.socket, Shutdown::Both);
            }
            return;
        }
        actix_web::rt::time::sleep(left).await;
    }
}

/// One request that is worked on.
struct Working(Arc<Idle>);

impl Working {
    fn on(idle: Arc<Idle>) -> Self {
        idle.state.lock().0 += 1;
        Self(idle)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        *state = (state.0 - 1, Instant::now());
    }
}

/// Says of a connection that a request of it is worked on.
pub(super) async fn work<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let idle = request.conn_data::<Connection>().and_then(|connection| connection.idle.clone());
    let _working = idle.map(Working::on);
    next.call(request).await
}

/// `SO_PEERCRED`: who opened the other end.
fn process(socket: &UnixStream) -> Peer {
    socket.peer_cred().map_or(Peer::Unknown, |peer| Peer::Process { uid: peer.uid(), gid: peer.gid() })
}

/// The alternative names of a certificate (RFC 5280 §4.2.1.6), and its end. Its common name is a text for people.
fn names_of(der: &CertificateDer<'_>) -> Option<(Vec<String>, i64)> {
    let certificate = Certificate::from_der(der).ok()?;
    let tbs = certificate.tbs_certificate();
    let not_after = i64::try_from(tbs.validity().not_after.to_unix_duration().as_secs()).ok()?;
    let names = match tbs.get_extension::<SubjectAltName>().ok()? {
        Some((_, SubjectAltName(names))) => names.iter().filter_map(name).collect(),
        None => Vec::new(),
    };
    Some((names, not_after))
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(format!("dns:{name}")),
        GeneralName::UniformResourceIdentifier(name) => Some(format!("uri:{name}")),
        GeneralName::Rfc822Name(name) => Some(format!("email:{name}")),
        // Names of other kinds are nobody's here.
        _ => None,
    }
}

/// Who holds how many.
struct Counts {
    per_address: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; left when it ends.
struct Place {
    counts: Arc<Counts>,
    address: IpAddr,
}

impl Counts {
    fn enter(counts: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut held = counts.held.lock();
        let count = held.entry(address).or_default();
        if *count >= counts.per_address {
            return None;
        }
        *count += 1;
        Some(Place { counts: Arc::clone(counts), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.counts.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// What one party is sure to have: an IPv4 address, an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_so_many_and_gets_its_places_back() {
        let counts = Arc::new(Counts { per_address: 2, held: Mutex::default() });
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let held = (Counts::enter(&counts, one), Counts::enter(&counts, one));
        assert!(held.0.is_some() && held.1.is_some());
        assert!(Counts::enter(&counts, one).is_none() && Counts::enter(&counts, other).is_some());
        drop(held.0);
        let again = Counts::enter(&counts, one);
        assert!(again.is_some() && Counts::enter(&counts, one).is_none());
        drop((held.1, again));
        assert!(counts.held.lock().is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_party() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
