//! Addresses and networks in configuration files and requests: `192.0.2.7`, `2001:db8::/48`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

/// Reads an address, or a network; of a network the first address.
#[must_use]
pub fn parse(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(unmapped(network.trunc()))
}

/// An IPv4 network in IPv6 spelling is the IPv4 network: callers are compared in that form.
fn unmapped(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            IpNet::new(address.into(), length).unwrap_or(network)
        }
        _ => network,
    }
}

/// A list of them; the message of a failure names the accepted form.
pub fn deserialize_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        parse(text).ok_or_else(|| {
            de::Error::custom(format_args!(
                "{text:?} is not an address or a network such as \"192.0.2.7\" or \"2001:db8::/48\""
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_in_every_spelling() {
        for (text, read) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), read, "{text}");
        }
        assert_eq!(parse("nowhere"), None);
    }
}
