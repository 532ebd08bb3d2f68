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
    PinWanted {
        token: TokenIdentity,
        after_wrong: bool,
    },
    /// The login has ended: the token has taken the PIN, or not.
    PinAnswered {
        token: TokenIdentity,
        taken: bool,
    },
    PinRefused(RefusedPin),
    /// Half as many calls hang as may, or the module has run out of memory: time for another process.
    Weary,
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

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use cryptoki::{
        context::Function,
        error::{Error as CryptokiError, RvError},
    };

    use super::{
        super::super::{CallError, Config, PinProblem, TokenUri},
        *,
    };

    fn there_and_back<T: Serialize + DeserializeOwned>(value: &T) -> T {
        let (mut bytes, mut inbox) = (Vec::new(), Inbox::new());
        put(value, &mut bytes);
        let mut left = &bytes[..];
        // Whatever pieces it comes in.
        while !left.is_empty() {
            assert!(inbox.next::<T>().unwrap().is_none());
            let count = left.len().min(7).min(inbox.room().len());
            inbox.room()[..count].copy_from_slice(&left[..count]);
            inbox.received(count);
            left = &left[count..];
        }
        inbox.next().unwrap().expect("all of it is there")
    }

    #[test]
    fn every_error_says_and_asks_for_the_same_on_the_other_side() {
        let uri = TokenUri::of("a token", "0a1b");
        let call = |code| CallError::from(CryptokiError::Pkcs11(code, Function::SignInit));
        let errors = [
            Error::Module { path: "/m".into(), source: call(RvError::GeneralError) },
            Error::Initialize { path: "/m".into(), source: call(RvError::DeviceRemoved) },
            Error::NoToken { uri: uri.clone(), present: "none".into() },
            Error::AmbiguousToken { uri, count: 2 },
            Error::Pin(PinProblem::Incorrect),
            Error::Pin(PinProblem::Refused),
            Error::Pin(PinProblem::NotInitialised),
            Error::Worker(io::Error::from_raw_os_error(11)),
            Error::KeyMissing { object_id: vec![1, 2] },
            Error::KeyPolicy("a reason".into()),
            Error::Sandbox("a reason".into()),
            Error::Busy,
            Error::Deadline(Duration::from_secs(2)),
            Error::BadSignature,
            Error::Unanswered,
            Error::lost("away"),
            Error::PinSource("unreadable".into()),
            Error::Login(call(RvError::FunctionFailed)),
            Error::Login(call(RvError::MechanismInvalid)),
            Error::Call(call(RvError::SessionHandleInvalid)),
            Error::Call(CallError::nonsense("nonsense")),
        ];
        for error in errors {
            let seen =
                |error: &Error| (error.to_string(), error.remedy(), error.is_configuration(), error.leaves_it_open());
            let before = seen(&error);
            match there_and_back(&FromChild::Answer { id: 7, answer: Err(error) }) {
                FromChild::Answer { id: 7, answer: Err(error) } => assert_eq!(seen(&error), before),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_process_gets_the_configuration_without_where_the_pin_is() {
        let file = include_str!("../../../hsm-config/softhsm2.toml");
        let whole: toml::Table = file.parse().unwrap();
        let config: Config = whole["token"].clone().try_into().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(!json.contains("pin"), "{json}");
        let back: Config = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        assert_eq!(back.call_deadline, config.call_deadline);
    }

    #[test]
    fn a_pin_is_wiped_when_it_was_read_and_never_printed() {
        let mut inbox = Inbox::new();
        let mut bytes = Vec::new();
        put(&ToChild::Pin(Ok(Pin(SecretString::from("4917-8253".to_owned())))), &mut bytes);
        inbox.room()[..bytes.len()].copy_from_slice(&bytes);
        inbox.received(bytes.len());
        let read = inbox.next::<ToChild>().unwrap().unwrap();
        assert!(!format!("{read:?}").contains("4917"));
        assert!(matches!(&read, ToChild::Pin(Ok(Pin(pin))) if pin.expose_secret() == "4917-8253"));
        assert!(!inbox.bytes.windows(4).any(|window| window == b"4917"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&[0xff; 8][..], &[1, 0, 0, 0, 0xee]] {
            let mut inbox = Inbox::new();
            inbox.room()[..bytes.len()].copy_from_slice(bytes);
            inbox.received(bytes.len());
            assert!(inbox.next::<ToChild>().is_err());
        }
    }
}
