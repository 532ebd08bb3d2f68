//! Request bodies: JSON of exactly the expected shape, at most 64 KiB, read only when it says that
//! it is JSON; certificates as PEM. A refusal names the field.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    error::{PayloadError, QueryPayloadError},
    http::header::{self, ContentEncoding},
    web,
};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, schema::SchemaType},
};

use super::problem::{BODY_TOO_LARGE, BODY_TOO_SLOW, INVALID_JSON, Problem, UNSUPPORTED_MEDIA_TYPE};
use crate::{attestation::strict::Object, service::batch::MAX_BATCH};

/// Largest body that is read.
pub const MAX_BODY_BYTES: usize = 65_536;

/// The same of a batch.
pub const MAX_BATCH_BYTES: usize = 1_048_576;

/// Longest time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);

/// A parsed body.
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for StrictJson<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if let Err(problem) = says_json(request) {
            return Box::pin(std::future::ready(Err(problem)));
        }
        let body = whole(request, payload);
        Box::pin(async move { parse(&body.await?).map(Self) })
    }
}

/// Members of a batch, each parsed by itself: one that is not acceptable is nothing to the others.
pub struct Batch<T>(pub Vec<Result<T, Problem>>);

impl<T: DeserializeOwned + 'static> FromRequest for Batch<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if let Err(problem) = says_json(request) {
            return Box::pin(std::future::ready(Err(problem)));
        }
        let body = whole(request, payload);
        Box::pin(async move { members(&body.await?).map(Self) })
    }
}

/// The list of a batch, in the description: what is wrong with a member is said in its place of the answer.
pub struct Members;

impl PartialSchema for Members {
    fn schema() -> RefOr<Schema> {
        let member = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        ArrayBuilder::new().items(member).min_items(Some(1)).max_items(Some(MAX_BATCH)).into()
    }
}

impl ToSchema for Members {}

fn members<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<Result<T, Problem>>, Problem> {
    let members: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            Problem::field("(body)", "expected a list")
        } else {
            Problem::new(&INVALID_JSON, sentence(&error))
        }
    })?;
    if !(1..=MAX_BATCH).contains(&members.len()) {
        return Err(Problem::field("(body)", format!("expected 1 to {MAX_BATCH} members")));
    }
    let member = |raw: &&RawValue| match raw.get().len() {
        0..=MAX_BODY_BYTES => parse(raw.get().as_bytes()),
        _ => Err(Problem::new(&BODY_TOO_LARGE, "")),
    };
    Ok(members.iter().map(member).collect())
}

/// A parsed body that may be left out whole: then it is the default.
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalJson<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let has_none = request.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0")
            && !request.headers().contains_key(header::TRANSFER_ENCODING);
        if has_none {
            return Box::pin(std::future::ready(Ok(Self(T::default()))));
        }
        let body = StrictJson::from_request(request, payload);
        Box::pin(async move { body.await.map(|StrictJson(value)| Self(value)) })
    }
}

/// A PEM body.
pub struct Pem(pub web::Bytes);

impl FromRequest for Pem {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let accepted = ["application/x-pem-file", "application/pem-certificate-chain"];
        if !accepted.contains(&request.content_type()) {
            let problem =
                Problem::new(&UNSUPPORTED_MEDIA_TYPE, format!("Certificates are sent as {}.", accepted.join(" or ")));
            return Box::pin(std::future::ready(Err(problem)));
        }
        let body = whole(request, payload);
        Box::pin(async move { body.await.map(Self) })
    }
}

/// How much of a batch is read.
pub(super) fn of_batches() -> web::PayloadConfig {
    web::PayloadConfig::new(MAX_BATCH_BYTES)
}

/// How a query string that does not parse is refused.
pub(super) fn queries() -> web::QueryConfig {
    web::QueryConfig::default().error_handler(|error, _| {
        let detail = match &error {
            QueryPayloadError::Deserialize(error) => bounded(&error.to_string()),
            // actix-web's own, open list.
            _ => "the query string cannot be read".to_owned(),
        };
        Problem::field("(query)", detail).into()
    })
}

fn says_json(request: &HttpRequest) -> Result<(), Problem> {
    let refused = |what: String| Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, what));
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding.as_bytes() != ContentEncoding::Identity.as_str().as_bytes()
    {
        return refused("The body has a content encoding.".into());
    }
    match request.content_type() {
        kind if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        "" => refused("The request has no content type.".into()),
        kind => refused(format!("The content type is {:?}.", kind.chars().take(100).collect::<String>())),
    }
}

/// The body, read to its end in time: whoever sends it drop by drop keeps others waiting.
fn whole(request: &HttpRequest, payload: &mut Payload) -> impl Future<Output = Result<web::Bytes, Problem>> + use<> {
    let body = web::Bytes::from_request(request, payload);
    async move {
        match tokio::time::timeout(BODY_TIME, body).await {
            Ok(body) => body.map_err(|error| unreadable(&error)),
            Err(_) => Err(Problem::new(&BODY_TOO_SLOW, "")),
        }
    }
}

fn unreadable(error: &actix_web::Error) -> Problem {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => Problem::new(&BODY_TOO_LARGE, ""),
        _ => Problem::new(&INVALID_JSON, "The body could not be read to its end."),
    }
}

/// Parses once; only a refused body is parsed again, to find out where it went wrong.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map(|Object(value)| value).map_err(|error| explain::<Object<T>>(body, &error))
}

fn explain<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::new(&INVALID_JSON, sentence(error));
    }
    let deserializer = &mut serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        Err(located) => Problem::field(field_name(&located), sentence(located.inner())),
        Ok(_) => Problem::new(&INVALID_JSON, sentence(error)),
    }
}

/// The field's path. For a missing or repeated field serde gives the object; its message the name.
fn field_name(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let message = error.inner().to_string();
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix)?.split('`').next());
    match (path.as_str(), named) {
        (".", Some(name)) => bounded(name),
        (path, Some(name)) if path.rsplit('.').next() != Some(name) => bounded(&format!("{path}.{name}")),
        (".", None) => "(body)".into(),
        (path, _) => bounded(path),
    }
}

/// serde's message in the caller's words, bounded: it may quote the caller's value.
fn sentence(error: &serde_json::Error) -> String {
    let words = [
        ("expected u64", "expected a whole number, 0 or more"),
        ("a boolean", "true or false"),
        ("a Option", "a value or null"),
        ("unknown variant", "not one of the known words:"),
    ];
    let plain = words.iter().fold(error.to_string(), |text, (rust, plain)| text.replace(rust, plain));
    // The field is named; where it stands helps only when the body is not JSON.
    let plain = match plain.rsplit_once(" at line ") {
        Some((plain, _)) if error.is_data() => plain,
        Some(_) | None => &plain,
    };
    if plain.starts_with("missing field") { "is required".into() } else { bounded(plain) }
}

fn bounded(text: &str) -> String {
    const MAX: usize = 400;
    if text.chars().count() <= MAX { text.to_owned() } else { text.chars().take(MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::AttestationRequest;

    const GOOD: &str = r#"{"type":"email_verification","subject":{"account_address":"a"},"nonce":"00112233445566778899aabbccddeeff","score":5,"confidence":6,"validity_seconds":60}"#;

    fn refusal(body: &str) -> String {
        parse::<AttestationRequest>(body.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_field() {
        assert!(parse::<AttestationRequest>(GOOD.as_bytes()).is_ok());
        for (from, to, field) in [
            ("\"score\":5", "\"score\":101", "score"),
            ("\"score\":5", "\"score\":\"5\"", "score"),
            ("\"score\":5,", "", "score"),
            ("\"score\":5", "\"score\":5,\"score\":5", "score"),
            ("\"score\":5", "\"score\":5,\"extra\":1", "extra"),
            ("\"account_address\":\"a\"", "\"id\":\"a\"", "subject.id"),
            ("\"account_address\":\"a\"", "", "subject.account_address"),
            ("60", "-1", "validity_seconds"),
            ("60", "1e3", "validity_seconds"),
            ("60}", "60,\"metadata\":{\"a\":\"1\",\"a\":\"2\"}}", "metadata.a"),
            ("60}", "60,\"verification_proofs\":[{\"proof_type\":1}]}", "verification_proofs[0].proof_type"),
            ("email_verification", "email", "type"),
            ("\"email_verification\"", "5", "type"),
            ("\"email_verification\"", "{\"email_verification\":null}", "type"),
            ("{\"account_address\":\"a\"}", "[\"a\"]", "subject"),
            ("00112233445566778899aabbccddeeff", "0011", "nonce"),
        ] {
            let message = refusal(&GOOD.replace(from, to));
            assert!(message.starts_with(&format!("invalid-field: {field}:")), "{to}: {message}");
            assert!(!message.contains("u64") && !message.contains("struct"), "{message}");
        }
        assert!(refusal("[]").starts_with("invalid-field: "), "{}", refusal("[]"));
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for body in ["", "{", "{} {}", "\u{feff}{}", "nul", &format!("{GOOD}x")] {
            assert!(
                refusal(body).starts_with("invalid-json: ") || refusal(body).starts_with("invalid-field: "),
                "{body}: {}",
                refusal(body)
            );
        }
    }

    #[test]
    fn a_long_value_is_not_echoed_whole() {
        assert!(refusal(&format!("{{\"type\":\"{}\"}}", "x".repeat(60_000))).len() < 1000);
    }
}
