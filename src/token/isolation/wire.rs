//! What goes between the two processes: values, each behind its length, many to a system call.

use std::fmt;

use postcard::ser_flavors::Flavor;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use zeroize::Zeroize;

use super::super::{
    Error, TokenIdentity,
    pin::RefusedPin,
    verb::{Answer, Request},
};
use crate::{key::Algorithm, telemetry};

/// No frame is longer: the ledger, read whole, is far below it.
const LONGEST: usize = 64 << 20;

/// From the appliance to the process that holds the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// The first frame, once.
    Open(Opening),
    Ask {
        id: u64,
        request: Request,
    },
    /// The answer to [`FromChild::PinWanted`].
    Pin(Result<Pin, Error>),
    /// Answered at once, whatever the module does.
    Beat,
    /// Finalize the module, and end.
    Close,
}

/// What the child is to open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    /// `[token]` in JSON, without where the PIN is.
    pub config: String,
    pub log: telemetry::Config,
    /// The token has shown objects of ours before: when it shows none it is away.
    pub has_objects: bool,
}

/// From the process that holds the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// The token is there, and wants its PIN.
    PinWanted(TokenIdentity),
    PinRefused(RefusedPin),
    Opened(Result<Opened, Error>),
    Answer {
        id: u64,
        answer: Result<Answer, Error>,
    },
    Beat,
    Closed(Result<(), Error>),
}

/// A token that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::token) struct Opened {
    pub identity: TokenIdentity,
    pub algorithms: Vec<Algorithm>,
}

/// A PIN on its way; it is wiped on both sides.
pub(super) struct Pin(pub SecretString);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As long as it must be, so that making it a secret moves it and does not copy it.
        <&str>::deserialize(deserializer).map(|pin| Self(SecretString::from(pin.to_owned())))
    }
}

/// The other side sent what is no frame.
#[derive(Debug, thiserror::Error)]
#[error("what came from the other process cannot be read")]
pub(super) struct Garbled;

/// Appends a value as one frame.
pub(super) fn put<T: Serialize>(message: &T, bytes: &mut Vec<u8>) {
    let begin = bytes.len();
    bytes.extend([0; 4]);
    postcard::serialize_with_flavor(message, Growing(bytes)).expect("memory does not refuse, and lengths are known");
    let length = u32::try_from(bytes.len() - begin - 4).expect("a frame is far below 4 GiB");
    bytes[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
}

/// A vector that grows.
struct Growing<'a>(&'a mut Vec<u8>);

impl Flavor for Growing<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// What was received and not yet read. Everything is wiped once it is read: it may be a PIN.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Up to here it is received, and from here to `read` it is not.
    received: usize,
    read: usize,
}

impl Inbox {
    pub fn new() -> Self {
        Self { bytes: vec![0; 64 << 10], received: 0, read: 0 }
    }

    /// Where to receive into: never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.read == self.received {
            (self.read, self.received) = (0, 0);
        }
        if self.received == self.bytes.len() {
            self.make_room();
        }
        &mut self.bytes[self.received..]
    }

    fn make_room(&mut self) {
        let waiting = self.received - self.read;
        let mut larger = vec![0; (waiting * 2).max(self.bytes.len())];
        larger[..waiting].copy_from_slice(&self.bytes[self.read..self.received]);
        self.bytes.zeroize();
        (self.bytes, self.received, self.read) = (larger, waiting, 0);
    }

    /// So much was received into the room.
    pub fn received(&mut self, count: usize) {
        self.received += count;
    }

    /// The next value, if all of it is here.
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Garbled> {
        let Some((length, rest)) = self.bytes[self.read..self.received].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Garbled)?;
        if length > LONGEST {
            return Err(Garbled);
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let value = postcard::from_bytes(frame).map_err(|_| Garbled);
        let end = self.read + 4 + length;
        self.bytes[self.read..end].zeroize();
        self.read = end;
        value.map(Some)
    }
}
