//! Who is asking. A client is a name in the configuration with roles; it proves that name by a
//! client certificate, a bearer key, a token of an identity provider, or by being a certain user of
//! this machine. Nothing here knows HTTP.

mod bearer;
mod clients;
mod jwks;
mod jwt;
mod key_file;
mod ring_jwt;
mod watched;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use serde::Deserialize;

pub use clients::ClientConfig;
pub use jwt::JwtConfig;
pub use key_file::{KeyFileError, KeyRow, Keys, NewKey};
pub use watched::{Stamp, Watched};

use self::{bearer::BearerKey, clients::Clients, jwt::Tokens, key_file::KeyFile};
use crate::client::{ClientIdentity, Grants, Role};

/// `[auth]` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Salted hashes of bearer keys, written by `verification-signer key`.
    #[serde(default)]
    pub keys_file: Option<PathBuf>,
    /// Tokens of an identity provider.
    #[serde(default)]
    pub jwt: Option<JwtConfig>,
    /// Who there is.
    #[serde(default)]
    pub clients: Vec<ClientConfig>,
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.clients.is_empty() {
            return Err("auth.clients names nobody: nobody could do anything. Add [[auth.clients]]".into());
        }
        Clients::new(&self.clients)?;
        let by_token = self.clients.iter().find(|client| !client.jwt_subjects.is_empty());
        match (&self.jwt, by_token) {
            (None, Some(client)) => {
                Err(format!("auth.clients {:?} has jwt_subjects, but [auth.jwt] is missing", client.name))
            }
            (Some(jwt), _) => jwt.check(),
            (None, None) => Ok(()),
        }
    }

    /// How many clients hold one of these roles.
    #[must_use]
    pub fn holders(&self, roles: &[Role]) -> usize {
        self.clients.iter().filter(|client| client.roles.iter().any(|role| roles.contains(role))).count()
    }
}

/// What a caller showed, as far as its wire tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// The alternative names of a client certificate that was verified: `dns:…`, `uri:…`, `email:…`.
    Certificate(Vec<String>),
    /// Which user of this machine is at the other end of the socket.
    Process { uid: u32, gid: u32 },
}

/// A caller with a name, and what it may do.
#[derive(Clone, Debug)]
pub struct Known {
    pub identity: ClientIdentity,
    pub grants: Arc<Grants>,
    /// False where nobody proved anything.
    pub authenticated: bool,
}

/// Why a credential is not taken. The caller learns that it is not taken; the log and the trail why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the Authorization header is not of the form `Bearer <key or token>`")]
    Malformed,
    #[error("bearer keys are not in use here")]
    NoKeys,
    #[error("tokens are not in use here")]
    NoTokens,
    #[error("the bearer key is unknown or revoked")]
    UnknownKey,
    #[error("the bearer key has expired")]
    ExpiredKey,
    #[error("the token is not valid: {0}")]
    Token(&'static str),
    #[error("nobody is configured under this credential")]
    UnknownClient,
    #[error("the certificate is expired or revoked by now")]
    Certificate,
    #[error("the certificate names more than one client")]
    Ambiguous,
}

/// The judge of credentials.
pub struct Authn {
    mode: Mode,
}

enum Mode {
    /// No `[auth]`: everybody may do everything.
    Open,
    Closed(Box<Closed>),
}

struct Closed {
    clients: Clients,
    keys: Option<Watched<KeyFile>>,
    tokens: Option<Tokens>,
}

/// Why authentication cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error("auth.jwt: {0}")]
    Jwks(String),
}

impl Authn {
    /// Reads what the configuration names. Without `[auth]` nobody is authenticated.
    pub fn open(config: Option<&Config>) -> Result<Self, OpenError> {
        let Some(config) = config else { return Ok(Self { mode: Mode::Open }) };
        let clients = Clients::new(&config.clients).map_err(OpenError::Config)?;
        let keys = config.keys_file.clone().map(|path| Watched::open(vec![path], KeyFile::load)).transpose()?;
        let tokens = config.jwt.as_ref().map(Tokens::open).transpose().map_err(OpenError::Jwks)?;
        Ok(Self { mode: Mode::Closed(Box::new(Closed { clients, keys, tokens })) })
    }

    /// Whether callers have to say who they are.
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self.mode, Mode::Closed(_))
    }

    /// Who this is. An `Authorization` header is judged alone, whatever else was shown: who sends one
    /// has said who they want to be, and is not quietly taken for somebody else when it fails.
    pub fn identify(
        &self,
        address: IpAddr,
        shown: &Shown,
        authorization: Option<&[u8]>,
        now_seconds: i64,
    ) -> Result<Known, Refused> {
        let Mode::Closed(closed) = &self.mode else { return Ok(everybody(address, shown)) };
        if let Some(header) = authorization {
            return closed.by_header(header, now_seconds);
        }
        match shown {
            Shown::Nothing => Ok(nobody(ClientIdentity::anonymous(address))),
            Shown::Certificate(names) => closed.clients.by_certificate(names),
            Shown::Process { uid, gid } => {
                Ok(closed.clients.by_process(*uid, *gid).unwrap_or_else(|| nobody(user(*uid))))
            }
        }
    }

    /// Looks for changed files (`forced`: reads them again anyhow). Says what changed and what could not
    /// be read; what was read before then stays in use. Blocks.
    #[must_use]
    pub fn refresh(&self, forced: bool) -> Vec<Result<String, String>> {
        let Mode::Closed(closed) = &self.mode else { return Vec::new() };
        let keys = closed.keys.as_ref().and_then(|keys| keys.refresh(forced, KeyFile::load, "bearer keys"));
        let tokens = closed.tokens.as_ref().and_then(|tokens| tokens.refresh(forced));
        keys.into_iter().chain(tokens).collect()
    }

    /// The same for what is fetched over the network when it is due: a provider that is slow to answer
    /// keeps no file waiting.
    #[must_use]
    pub fn fetch(&self, forced: bool) -> Option<Result<String, String>> {
        match &self.mode {
            Mode::Open => None,
            Mode::Closed(closed) => closed.tokens.as_ref().and_then(|tokens| tokens.fetch(forced)),
        }
    }
}

impl Closed {
    fn by_header(&self, header: &[u8], now_seconds: i64) -> Result<Known, Refused> {
        let text = std::str::from_utf8(header).map_err(|_| Refused::Malformed)?;
        let (scheme, credential) = text.split_once(' ').ok_or(Refused::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refused::Malformed);
        }
        let client = match BearerKey::parse(credential) {
            Some(key) => self.keys.as_ref().ok_or(Refused::NoKeys)?.current().client_of(&key, now_seconds)?,
            None => {
                let subject = self.tokens.as_ref().ok_or(Refused::NoTokens)?.subject_of(credential)?;
                return self.clients.by_subject(&subject);
            }
        };
        self.clients.by_name(&client)
    }
}

fn everybody(address: IpAddr, shown: &Shown) -> Known {
    let identity = match shown {
        Shown::Process { uid, .. } => user(*uid),
        Shown::Nothing | Shown::Certificate(_) => ClientIdentity::anonymous(address),
    };
    Known { identity, grants: Arc::new(Grants::everything()), authenticated: false }
}

fn nobody(identity: ClientIdentity) -> Known {
    Known { identity, grants: Arc::new(Grants::nothing()), authenticated: false }
}

fn user(uid: u32) -> ClientIdentity {
    ClientIdentity::from(format!("uid:{uid}").as_str())
}
