//! `[[auth.clients]]`: who there is, how they prove it, and what they may do.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use super::{Known, Refused};
use crate::{
    attestation::AttestationType,
    client::{ACTIVE_KEY, ClientIdentity, Grants, PROGRAM, Role, Scope},
};

/// One client.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The name in nonces, limits and the audit trail.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Alternative names in its client certificate: `dns:NAME`, `uri:URI` or `email:ADDRESS`.
    #[serde(default)]
    pub certificate_names: Vec<String>,
    /// `sub` of its tokens.
    #[serde(default)]
    pub jwt_subjects: Vec<String>,
    /// Users of this machine, on the Unix socket.
    #[serde(default)]
    pub unix_uids: Vec<u32>,
    /// Groups of this machine (a process's own group), on the Unix socket.
    #[serde(default)]
    pub unix_gids: Vec<u32>,
    /// What a producer may have attested; `["*"]` for everything.
    #[serde(default)]
    pub attestation_types: Vec<String>,
    /// What a producer may have opaque data signed for; `["*"]` for everything.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// With which keys; left out, with the active one.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// The clients, found by what they show.
pub(super) struct Clients {
    by_name: HashMap<String, Known>,
    by_certificate: HashMap<String, String>,
    by_subject: HashMap<String, String>,
    by_uid: HashMap<u32, String>,
    by_gid: HashMap<u32, String>,
}

impl Clients {
    /// Two clients of one name, or under one credential, are a mistake.
    pub(super) fn new(configs: &[ClientConfig]) -> Result<Self, String> {
        let mut clients = Self {
            by_name: HashMap::new(),
            by_certificate: HashMap::new(),
            by_subject: HashMap::new(),
            by_uid: HashMap::new(),
            by_gid: HashMap::new(),
        };
        for config in configs {
            clients.add(config).map_err(|why| format!("auth.clients {:?}: {why}", config.name))?;
        }
        Ok(clients)
    }

    fn add(&mut self, config: &ClientConfig) -> Result<(), String> {
        let name = &config.name;
        check_name(name)?;
        let identity = ClientIdentity::from(name.as_str());
        let known = Known { identity, grants: Arc::new(grants(config)?), authenticated: true };
        if self.by_name.insert(name.clone(), known).is_some() {
            return Err("the name is taken".into());
        }
        for certificate_name in &config.certificate_names {
            check_certificate_name(certificate_name)?;
            let key = canonical(certificate_name);
            claim(&mut self.by_certificate, key, name, "certificate_names")?;
        }
        for subject in &config.jwt_subjects {
            claim(&mut self.by_subject, subject.clone(), name, "jwt_subjects")?;
        }
        for uid in &config.unix_uids {
            claim(&mut self.by_uid, *uid, name, "unix_uids")?;
        }
        for gid in &config.unix_gids {
            claim(&mut self.by_gid, *gid, name, "unix_gids")?;
        }
        Ok(())
    }

    pub(super) fn by_name(&self, name: &str) -> Result<Known, Refused> {
        self.by_name.get(name).cloned().ok_or(Refused::UnknownClient)
    }

    pub(super) fn by_subject(&self, subject: &str) -> Result<Known, Refused> {
        self.by_subject.get(subject).ok_or(Refused::UnknownClient).and_then(|name| self.by_name(name))
    }

    /// All names of the certificate must lead to one client: else whoever may have a certificate with
    /// two names issued could choose who to be.
    pub(super) fn by_certificate(&self, names: &[String]) -> Result<Known, Refused> {
        let mut found = names.iter().filter_map(|name| self.by_certificate.get(&canonical(name)));
        let first = found.next().ok_or(Refused::UnknownClient)?;
        if found.any(|other| other != first) {
            return Err(Refused::Ambiguous);
        }
        self.by_name(first)
    }

    /// A user counts more than a group.
    pub(super) fn by_process(&self, uid: u32, gid: u32) -> Option<Known> {
        let name = self.by_uid.get(&uid).or_else(|| self.by_gid.get(&gid))?;
        self.by_name(name).ok()
    }
}

/// Names of hosts and mail domains have no case (RFC 4343).
fn canonical(name: &str) -> String {
    match name.split_once(':') {
        Some(("dns" | "email", _)) => name.to_ascii_lowercase(),
        Some(_) | None => name.to_owned(),
    }
}

fn claim<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, String>,
    key: K,
    name: &str,
    what: &'static str,
) -> Result<(), String> {
    match map.insert(key, name.to_owned()) {
        None => Ok(()),
        Some(other) => Err(format!("an entry of {what} is already that of {other:?}")),
    }
}

/// It ends in logs, nonces and records, and must not look like a name that is given to strangers.
fn check_name(name: &str) -> Result<(), String> {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    if (1..=64).contains(&name.len()) && name.bytes().all(harmless) && !PROGRAM.contains(&name) {
        return Ok(());
    }
    Err(format!(
        "a name is 1 to 64 ASCII letters, digits, or - _ . /, and none of the program's own: {}",
        PROGRAM.join(", ")
    ))
}

fn check_certificate_name(name: &str) -> Result<(), String> {
    match name.split_once(':') {
        Some(("dns" | "uri" | "email", rest)) if !rest.is_empty() && !rest.contains('*') => Ok(()),
        Some(_) | None => Err(format!("{name:?} is not of the form dns:NAME, uri:URI or email:ADDRESS")),
    }
}

fn grants(config: &ClientConfig) -> Result<Grants, String> {
    if config.roles.is_empty() {
        return Err("has no role".into());
    }
    let is_producer = config.roles.contains(&Role::Producer);
    let scoped = !config.attestation_types.is_empty() || !config.purposes.is_empty();
    match (is_producer, scoped || !config.keys.is_empty()) {
        (true, _) if !scoped => return Err("is a producer of nothing: name attestation_types or purposes".into()),
        (false, true) => return Err("attestation_types, purposes and keys are for producers".into()),
        _ => {}
    }
    let active_only = [ACTIVE_KEY.to_owned()];
    let keys = if config.keys.is_empty() { &active_only[..] } else { &config.keys };
    Ok(Grants {
        roles: config.roles.iter().copied().collect(),
        attestation_types: scope(&config.attestation_types, attestation_type)?,
        purposes: scope(&config.purposes, |word| Ok(word.to_owned()))?,
        keys: scope(keys, |word| Ok(word.to_owned()))?,
    })
}

fn scope<T: Ord>(words: &[String], read: impl Fn(&str) -> Result<T, String>) -> Result<Scope<T>, String> {
    match words {
        [only] if only == "*" => Ok(Scope::All),
        words if words.iter().any(|word| word == "*") => Err("\"*\" stands alone".into()),
        words => words.iter().map(|word| read(word)).collect::<Result<_, _>>().map(Scope::Only),
    }
}

fn attestation_type(word: &str) -> Result<AttestationType, String> {
    AttestationType::ALL
        .into_iter()
        .find(|kind| kind.as_str() == word)
        .ok_or_else(|| format!("{word:?} is no attestation type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientConfig {
        toml::from_str(text).unwrap()
    }

    fn refusal(texts: &[&str]) -> String {
        let configs: Vec<_> = texts.iter().map(|text| client(text)).collect();
        Clients::new(&configs).map(|_| ()).unwrap_err()
    }

    #[test]
    fn mistakes_are_refused() {
        let operator = "name = \"a\"\nroles = [\"operator\"]\n";
        for (texts, says) in [
            (&[operator, operator][..], "the name is taken"),
            (&["name = \"a b\"\nroles = [\"operator\"]"], "a name is"),
            (&["name = \"anonymous@127.0.0.1\"\nroles = [\"operator\"]"], "a name is"),
            (&["name = \"a\"\nroles = []"], "has no role"),
            (&["name = \"a\"\nroles = [\"producer\"]"], "producer of nothing"),
            (&["name = \"a\"\nroles = [\"producer\"]\nkeys = [\"*\"]"], "producer of nothing"),
            (&["name = \"a\"\nroles = [\"operator\"]\npurposes = [\"x\"]"], "are for producers"),
            (&["name = \"a\"\nroles = [\"producer\"]\npurposes = [\"x\", \"*\"]"], "stands alone"),
            (&["name = \"a\"\nroles = [\"producer\"]\nattestation_types = [\"x\"]"], "no attestation type"),
            (&["name = \"a\"\nroles = [\"operator\"]\ncertificate_names = [\"a.example\"]"], "dns:NAME"),
            (&["name = \"a\"\nroles = [\"operator\"]\ncertificate_names = [\"dns:*.example\"]"], "dns:NAME"),
            (
                &[
                    "name = \"a\"\nroles = [\"operator\"]\nunix_uids = [1]",
                    "name = \"b\"\nroles = [\"auditor\"]\nunix_uids = [1]",
                ],
                "already that of \"a\"",
            ),
        ] {
            let message = refusal(texts);
            assert!(message.contains(says), "{texts:?}: {message}");
        }
    }

    #[test]
    fn a_certificate_with_names_of_two_clients_is_nobodys() {
        let clients = Clients::new(&[
            client(
                "name = \"a\"\nroles = [\"operator\"]\ncertificate_names = [\"dns:a.example\", \"uri:spiffe://x/a\"]",
            ),
            client("name = \"b\"\nroles = [\"auditor\"]\ncertificate_names = [\"dns:b.example\"]"),
        ])
        .unwrap();
        let name = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            clients.by_certificate(&names).map(|known| known.identity.to_string())
        };
        assert_eq!(name(&["dns:A.example", "dns:other.example"]).unwrap(), "a");
        assert_eq!(name(&["dns:a.example", "uri:spiffe://x/a"]).unwrap(), "a");
        assert_eq!(name(&["dns:a.example", "dns:b.example"]).unwrap_err(), Refused::Ambiguous);
        assert_eq!(name(&["uri:spiffe://X/a"]).unwrap_err(), Refused::UnknownClient);
        assert_eq!(name(&[]).unwrap_err(), Refused::UnknownClient);
    }
}
