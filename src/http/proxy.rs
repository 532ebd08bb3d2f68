//! Whom a proxy asks for. Anybody can write a header: it is believed only when the connection comes
//! from a proxy that the configuration names, and then from its end on, as far as it was written by
//! such proxies. What stands before that is what a caller says of itself.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

use super::{Config, ProxyHeader};

/// The proxies that are believed.
#[derive(Clone, Debug)]
pub(super) struct Proxies {
    trusted: Vec<IpNet>,
    header: ProxyHeader,
}

impl Proxies {
    pub fn from_config(config: &Config) -> Self {
        Self { trusted: config.trusted_proxies.clone(), header: config.proxy_header }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The address of the caller behind `peer`.
    pub fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            return nearest;
        }
        let name = match self.header {
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => FORWARDED,
        };
        // Hop by hop: bytes that are no text in one hop, which may be the caller's own, spoil no other.
        let hops: Vec<_> = headers.get_all(name).flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).collect();
        for hop in hops.into_iter().rev() {
            let hop = std::str::from_utf8(hop).unwrap_or_default();
            // What no proxy of ours can have written ends it: the nearest known address counts.
            let Some(address) = self.address(hop.trim()) else { return nearest };
            nearest = address;
            if !self.trusts(address) {
                return address;
            }
        }
        nearest
    }

    fn address(&self, hop: &str) -> Option<IpAddr> {
        let node = match self.header {
            ProxyHeader::XForwardedFor => hop,
            ProxyHeader::Forwarded => hop.split(';').find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
            })?,
        };
        let plain = node.trim_start_matches('[').trim_end_matches(']');
        let address = plain.parse().or_else(|_| node.parse::<SocketAddr>().map(|address| address.ip()));
        address.ok().map(|address: IpAddr| address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn caller(header: ProxyHeader, peer: &str, lines: &[&'static str]) -> String {
        let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], header };
        let name: HeaderName = match header {
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => FORWARDED,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        proxies.caller(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        for (peer, lines, address) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // The caller wrote the first one itself.
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::1]:4711, 10.0.0.2"], "2001:db8::1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["\u{ff}, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            assert_eq!(caller(ProxyHeader::XForwardedFor, peer, lines), address, "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_as_rfc_7239_has_it() {
        for (lines, address) in [
            (&["for=203.0.113.9;proto=https;by=10.0.0.1"][..], "203.0.113.9"),
            (&["for=198.51.100.1, For=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=203.0.113.9, for=10.0.0.2"], "203.0.113.9"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(caller(ProxyHeader::Forwarded, "10.0.0.1", lines), address, "{lines:?}");
        }
    }
}
