//! `pkcs11:` URIs (RFC 7512), as far as they name a token.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The path attributes that name a token. Those that are absent match anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUri {
    pub token: Option<String>,
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
}

/// Why a text does not name a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUri {
    #[error("a token is named by a URI such as pkcs11:token=veid-signer;serial=0123456789abcdef (RFC 7512)")]
    NotPkcs11,
    #[error("the PIN does not belong into the URI: remove {0} and use pin_file or pin_credential")]
    Pin(&'static str),
    #[error("the slot number changes between starts: name the token by label and serial, not by {0:?}")]
    Slot(String),
    #[error("the attribute {0:?} cannot name a token here; known are token, serial, manufacturer and model")]
    UnknownAttribute(String),
    #[error("the attribute {0:?} is given twice")]
    Repeated(String),
    #[error("the value of {0:?} is not valid percent-encoded UTF-8")]
    Encoding(String),
    #[error("name at least the token's label (token=…) or its serial (serial=…)")]
    TooVague,
}

impl TokenUri {
    /// Names one token by label and serial.
    #[must_use]
    pub fn of(token: &str, serial: &str) -> Self {
        Self { token: Some(token.into()), serial: Some(serial.into()), ..Self::default() }
    }

    /// The token's label, where the URI names it.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Reads a URI. Slot numbers, objects, PINs and module paths are refused, each with its reason.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        let rest = text.strip_prefix("pkcs11:").ok_or(InvalidUri::NotPkcs11)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if let Some(attribute) = query.split('&').find(|attribute| !attribute.is_empty()) {
            return Err(match attribute.split('=').next() {
                Some("pin-value") => InvalidUri::Pin("pin-value"),
                Some("pin-source") => InvalidUri::Pin("pin-source"),
                other => InvalidUri::UnknownAttribute(other.unwrap_or_default().into()),
            });
        }
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or(InvalidUri::NotPkcs11)?;
            let place = match name {
                "token" => &mut uri.token,
                "serial" => &mut uri.serial,
                "manufacturer" => &mut uri.manufacturer,
                "model" => &mut uri.model,
                "slot-id" | "slot-description" | "slot-manufacturer" => return Err(InvalidUri::Slot(name.into())),
                _ => return Err(InvalidUri::UnknownAttribute(name.into())),
            };
            let value = decode(value).ok_or_else(|| InvalidUri::Encoding(name.into()))?;
            if place.replace(value).is_some() {
                return Err(InvalidUri::Repeated(name.into()));
            }
        }
        if uri.token.is_none() && uri.serial.is_none() {
            return Err(InvalidUri::TooVague);
        }
        Ok(uri)
    }

    /// True when a token with these fields (as C_GetTokenInfo gives them, padding removed) is meant.
    #[must_use]
    pub fn matches(&self, token: &str, serial: &str, manufacturer: &str, model: &str) -> bool {
        let agrees = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        agrees(&self.token, token)
            && agrees(&self.serial, serial)
            && agrees(&self.manufacturer, manufacturer)
            && agrees(&self.model, model)
    }
}

/// RFC 7512 §2.3: the characters that stand for themselves in a path attribute.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=&".contains(&byte)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(*high)? * 16 + digit(*low)?);
                rest = tail;
            }
            (b'%', _) => return None,
            (byte, tail) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkcs11:")?;
        let attributes = [
            ("token", &self.token),
            ("serial", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        let mut separator = "";
        for (name, value) in attributes.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            write!(f, "{separator}{name}=")?;
            separator = ";";
            for byte in value.bytes() {
                if stands_for_itself(byte) { write!(f, "{}", char::from(byte))? } else { write!(f, "%{byte:02X}")? }
            }
        }
        Ok(())
    }
}

impl Serialize for TokenUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenUri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_named_by_label_and_serial() {
        let uri = TokenUri::parse("pkcs11:token=My%20token;serial=0a1b;manufacturer=SoftHSM%20project").unwrap();
        assert!(uri.matches("My token", "0a1b", "SoftHSM project", "any"));
        assert!(!uri.matches("My token", "0a1c", "SoftHSM project", "any"));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("token=x", InvalidUri::NotPkcs11),
            ("pkcs11:", InvalidUri::TooVague),
            ("pkcs11:model=x", InvalidUri::TooVague),
            ("pkcs11:token=x?pin-value=8642", InvalidUri::Pin("pin-value")),
            ("pkcs11:token=x?pin-source=file:/x", InvalidUri::Pin("pin-source")),
            ("pkcs11:slot-id=0", InvalidUri::Slot("slot-id".into())),
            ("pkcs11:token=x;object=y", InvalidUri::UnknownAttribute("object".into())),
            ("pkcs11:token=x;token=y", InvalidUri::Repeated("token".into())),
            ("pkcs11:token=%4", InvalidUri::Encoding("token".into())),
            ("pkcs11:token=%zz", InvalidUri::Encoding("token".into())),
            ("pkcs11:token=%ff", InvalidUri::Encoding("token".into())),
        ] {
            let error = TokenUri::parse(text).unwrap_err();
            assert_eq!(error, reason, "{text}");
            assert!(!error.to_string().contains("8642"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(token in "\\PC{1,32}", serial in "[ -~]{0,16}") {
            let uri = TokenUri::of(&token, &serial);
            prop_assert_eq!(TokenUri::parse(&uri.to_string()).unwrap(), uri);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(pkcs11:)?\\PC{0,60}") {
            let _ = TokenUri::parse(&text);
        }
    }
}
