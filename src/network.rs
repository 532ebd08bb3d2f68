//! Addresses and networks in configuration files and requests: `192.0.2.7`, `2001:db8::/48`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

/// Reads an address, or a network; of a network the first address.
#[must_use]
pub fn parse(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc())
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
