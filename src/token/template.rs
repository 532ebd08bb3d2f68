//! The attributes of our key objects: what is asked for, and what must be true afterwards.
//!
//! Every use but signing is switched off by name, because modules differ in what an absent flag
//! means (SoftHSM2 takes an absent CKA_DECRYPT and CKA_UNWRAP of a private key as true).

use cryptoki::{object::Attribute, types::Date};
use serde::{Deserialize, Serialize};

use super::mechanism;
use crate::{key::Algorithm, timestamp::Timestamp};

/// Parts of the strict template that some modules refuse. Leaving one out is said in the
/// configuration and recorded in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OptionalAttribute {
    #[serde(rename = "CKA_ALLOWED_MECHANISMS")]
    AllowedMechanisms,
    #[serde(rename = "CKA_COPYABLE")]
    Copyable,
    #[serde(rename = "CKA_DECRYPT")]
    Decrypt,
    /// Of the public key.
    #[serde(rename = "CKA_ENCRYPT")]
    Encrypt,
    #[serde(rename = "CKA_MODIFIABLE")]
    Modifiable,
    /// Of the public key, which others may then not see without a login.
    #[serde(rename = "CKA_PRIVATE")]
    Private,
    #[serde(rename = "CKA_SIGN_RECOVER")]
    SignRecover,
    #[serde(rename = "CKA_START_DATE")]
    Dates,
    #[serde(rename = "CKA_UNWRAP")]
    Unwrap,
    /// Of the public key.
    #[serde(rename = "CKA_WRAP")]
    Wrap,
}

impl OptionalAttribute {
    /// The attribute's name in the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllowedMechanisms => "CKA_ALLOWED_MECHANISMS",
            Self::Copyable => "CKA_COPYABLE",
            Self::Decrypt => "CKA_DECRYPT",
            Self::Encrypt => "CKA_ENCRYPT",
            Self::Modifiable => "CKA_MODIFIABLE",
            Self::Private => "CKA_PRIVATE",
            Self::SignRecover => "CKA_SIGN_RECOVER",
            Self::Dates => "CKA_START_DATE",
            Self::Unwrap => "CKA_UNWRAP",
            Self::Wrap => "CKA_WRAP",
        }
    }
}

/// What identifies a new pair.
pub(super) struct Naming<'a> {
    pub id: &'a [u8],
    pub label: &'a str,
    pub algorithm: Algorithm,
}

/// The public key object. The validity dates stand here and not on the private key, whose dates
/// SoftHSM2 stores but cannot read back.
pub(super) fn public_key(
    naming: &Naming<'_>,
    validity: (Timestamp, Timestamp),
    omit: &[OptionalAttribute],
) -> Vec<Attribute> {
    let mut template = undated_public_key(naming, omit);
    if !omit.contains(&OptionalAttribute::Dates) {
        template.push(Attribute::StartDate(date(validity.0)));
        template.push(Attribute::EndDate(date(validity.1)));
    }
    template
}

/// The same for a key without an end.
pub(super) fn undated_public_key(naming: &Naming<'_>, omit: &[OptionalAttribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Verify(true),
        Attribute::Derive(false),
        Attribute::EcParams(mechanism::ec_params(naming.algorithm)),
        Attribute::Id(naming.id.to_vec()),
        Attribute::Label(naming.label.as_bytes().to_vec()),
    ];
    template.extend(wanted(
        omit,
        [
            (OptionalAttribute::Private, Attribute::Private(false)),
            (OptionalAttribute::Encrypt, Attribute::Encrypt(false)),
            (OptionalAttribute::Wrap, Attribute::Wrap(false)),
            (OptionalAttribute::Modifiable, Attribute::Modifiable(false)),
        ],
    ));
    template
}

/// The private key object: made on the token, never leaves it, signs with one mechanism.
pub(super) fn private_key(naming: &Naming<'_>, omit: &[OptionalAttribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Derive(false),
        Attribute::Id(naming.id.to_vec()),
        Attribute::Label(naming.label.as_bytes().to_vec()),
    ];
    let mechanisms = vec![mechanism::allowed(naming.algorithm)];
    template.extend(wanted(
        omit,
        [
            (OptionalAttribute::SignRecover, Attribute::SignRecover(false)),
            (OptionalAttribute::Unwrap, Attribute::Unwrap(false)),
            (OptionalAttribute::Decrypt, Attribute::Decrypt(false)),
            (OptionalAttribute::Modifiable, Attribute::Modifiable(false)),
            (OptionalAttribute::Copyable, Attribute::Copyable(false)),
            (OptionalAttribute::AllowedMechanisms, Attribute::AllowedMechanisms(mechanisms)),
        ],
    ));
    template
}

/// What the profile does not leave out.
fn wanted<const N: usize>(
    omit: &[OptionalAttribute],
    parts: [(OptionalAttribute, Attribute); N],
) -> impl Iterator<Item = Attribute> {
    parts.into_iter().filter_map(|(part, attribute)| (!omit.contains(&part)).then_some(attribute))
}

/// CK_DATE of a timestamp's day in UTC.
fn date(time: Timestamp) -> Date {
    let day = time.to_utc().as_offset_date_time().date();
    let text = format!("{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day());
    let digits: [u8; 8] = text.as_bytes().try_into().expect("a year up to 9999, a month and a day");
    let [y1, y2, y3, y4, m1, m2, d1, d2] = digits;
    Date::new([y1, y2, y3, y4], [m1, m2], [d1, d2])
}

/// What the token reports of a private key. `None` where it does not know the attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyAttributes {
    pub local: Option<bool>,
    pub sensitive: Option<bool>,
    pub always_sensitive: Option<bool>,
    pub extractable: Option<bool>,
    pub never_extractable: Option<bool>,
    pub modifiable: Option<bool>,
    pub sign: Option<bool>,
    pub decrypt: Option<bool>,
    pub unwrap: Option<bool>,
    pub derive: Option<bool>,
    /// CKA_KEY_GEN_MECHANISM, as the standard writes it.
    pub key_gen_mechanism: Option<String>,
}

impl KeyAttributes {
    pub(super) fn from_token(attributes: &[Attribute]) -> Self {
        let mut found = Self::default();
        for attribute in attributes {
            match attribute {
                Attribute::Local(value) => found.local = Some(*value),
                Attribute::Sensitive(value) => found.sensitive = Some(*value),
                Attribute::AlwaysSensitive(value) => found.always_sensitive = Some(*value),
                Attribute::Extractable(value) => found.extractable = Some(*value),
                Attribute::NeverExtractable(value) => found.never_extractable = Some(*value),
                Attribute::Modifiable(value) => found.modifiable = Some(*value),
                Attribute::Sign(value) => found.sign = Some(*value),
                Attribute::Decrypt(value) => found.decrypt = Some(*value),
                Attribute::Unwrap(value) => found.unwrap = Some(*value),
                Attribute::Derive(value) => found.derive = Some(*value),
                // cryptoki's own, open list: what was not asked for cannot be here.
                _ => {}
            }
        }
        found
    }

    /// Whether the key may be ours: it was never outside the token, and can do nothing but sign.
    pub fn check(&self, omit: &[OptionalAttribute], reports_local: bool) -> Result<(), String> {
        let wanted = |part| !omit.contains(&part);
        let rules = [
            ("CKA_SENSITIVE", self.sensitive == Some(true)),
            ("CKA_ALWAYS_SENSITIVE", self.always_sensitive == Some(true)),
            ("CKA_EXTRACTABLE", self.extractable == Some(false)),
            ("CKA_NEVER_EXTRACTABLE", self.never_extractable == Some(true)),
            ("CKA_LOCAL", !reports_local || self.local == Some(true)),
            ("CKA_SIGN", self.sign == Some(true)),
            ("CKA_DERIVE", self.derive != Some(true)),
            ("CKA_UNWRAP", self.unwrap != Some(true)),
            ("CKA_DECRYPT", !wanted(OptionalAttribute::Decrypt) || self.decrypt != Some(true)),
            ("CKA_MODIFIABLE", !wanted(OptionalAttribute::Modifiable) || self.modifiable == Some(false)),
        ];
        let broken: Vec<_> = rules.into_iter().filter_map(|(name, holds)| (!holds).then_some(name)).collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(format!("the token reports a forbidden value of {}", broken.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> KeyAttributes {
        KeyAttributes {
            local: Some(true),
            sensitive: Some(true),
            always_sensitive: Some(true),
            extractable: Some(false),
            never_extractable: Some(true),
            modifiable: Some(false),
            sign: Some(true),
            decrypt: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            key_gen_mechanism: None,
        }
    }

    #[test]
    fn a_key_that_was_or_could_get_outside_is_refused() {
        assert_eq!(good().check(&[], true), Ok(()));
        for (broken, name) in [
            (KeyAttributes { local: Some(false), ..good() }, "CKA_LOCAL"),
            (KeyAttributes { local: None, ..good() }, "CKA_LOCAL"),
            (KeyAttributes { sensitive: Some(false), ..good() }, "CKA_SENSITIVE"),
            (KeyAttributes { always_sensitive: None, ..good() }, "CKA_ALWAYS_SENSITIVE"),
            (KeyAttributes { extractable: Some(true), ..good() }, "CKA_EXTRACTABLE"),
            (KeyAttributes { never_extractable: Some(false), ..good() }, "CKA_NEVER_EXTRACTABLE"),
            (KeyAttributes { modifiable: Some(true), ..good() }, "CKA_MODIFIABLE"),
            (KeyAttributes { sign: Some(false), ..good() }, "CKA_SIGN"),
            (KeyAttributes { decrypt: Some(true), ..good() }, "CKA_DECRYPT"),
            (KeyAttributes { unwrap: Some(true), ..good() }, "CKA_UNWRAP"),
            (KeyAttributes { derive: Some(true), ..good() }, "CKA_DERIVE"),
        ] {
            assert!(broken.check(&[], true).unwrap_err().contains(name));
        }
    }

    #[test]
    fn a_profile_can_say_what_a_module_does_not_report() {
        assert!(KeyAttributes { local: Some(false), ..good() }.check(&[], false).is_ok());
        assert!(KeyAttributes { decrypt: Some(true), ..good() }.check(&[OptionalAttribute::Decrypt], true).is_ok());
    }
}
