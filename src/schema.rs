//! How our own small values look in the description of the interface (OpenAPI 3.1, JSON Schema 2020-12).

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use crate::{
    attestation::{Score, Text},
    key::KeyId,
    nonce_value::NonceValue,
    timestamp::Timestamp,
};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        text().max_length(Some(MAX)).into()
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {
    fn name() -> Cow<'static, str> {
        format!("Text{MAX}").into()
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        // Upper-case T and Z, no leap second, at most nine digits of a fraction: as Go reads it.
        let pattern = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
        text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).pattern(Some(pattern)).into()
    }
}

impl ToSchema for Timestamp {}

impl PartialSchema for NonceValue {
    fn schema() -> RefOr<Schema> {
        let builder = text().pattern(Some("^([0-9a-f]{2}){16,64}$"));
        builder.description(Some("16 to 64 bytes in lower-case hex; not all 00, not all ff")).into()
    }
}

impl ToSchema for NonceValue {}

impl PartialSchema for KeyId {
    fn schema() -> RefOr<Schema> {
        text().pattern(Some("^[a-z0-9.-]{1,63}:[1-9][0-9]*$")).into()
    }
}

impl ToSchema for KeyId {}

impl PartialSchema for Score {
    fn schema() -> RefOr<Schema> {
        let builder = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
        builder.minimum(Some(0)).maximum(Some(100)).into()
    }
}

impl ToSchema for Score {}

/// Metadata: so many texts, by name.
#[must_use]
pub fn metadata() -> Schema {
    let value = text().max_length(Some(1024));
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Object));
    object
        .property_names(Some(text().max_length(Some(128))))
        .max_properties(Some(64))
        .additional_properties(Some(value))
        .into()
}
