//! Canonical bytes: compact JSON with the fields in schema order, escaped as Go's `encoding/json`
//! escapes (`<`, `>`, `&`, U+2028 and U+2029 as `\uXXXX`), so that the chain verifies what we sign.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// The canonical encoding of `value`.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    let mut serializer = Serializer::with_formatter(&mut bytes, GoEscapes);
    value.serialize(&mut serializer).expect("schema types have string keys and writing to memory cannot fail");
    bytes
}

/// serde_json's compact form with the extra escapes that Go makes by default.
struct GoEscapes;

impl Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            let mut tail = tail.chars();
            let escaped = tail.next().expect("find returned the start of a character");
            writer.write_all(plain.as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(escaped))?;
            rest = tail.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let short: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::Statement;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let encoded = encode(&"a<b>&c\u{2028}\u{2029}\"\\/\u{0}\u{1f}\u{7f}\n\r\t\u{8}\u{c}é𝄞");
        assert_eq!(
            String::from_utf8(encoded).unwrap(),
            "\"a\\u003cb\\u003e\\u0026c\\u2028\\u2029\\\"\\\\/\\u0000\\u001f\u{7f}\\n\\r\\t\\b\\fé𝄞\""
        );
    }

    #[test]
    fn the_published_vectors_encode_byte_for_byte() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../softhsm-tests/vectors/canonical-vectors.json")).unwrap();
        for vector in vectors.as_array().unwrap() {
            let statement: Statement = serde_json::from_value(vector["attestation"].clone()).unwrap();
            let canonical = statement.canonical_bytes();
            assert_eq!(
                std::str::from_utf8(&canonical).unwrap(),
                vector["canonical"].as_str().unwrap(),
                "{}",
                vector["name"]
            );
        }
    }

    proptest! {
        #[test]
        fn escaping_keeps_the_meaning(text in "\\PC{0,40}|[<>&\u{0}-\u{1f}\u{2028}\u{2029}]{0,20}") {
            let encoded = encode(&text);
            prop_assert_eq!(serde_json::from_slice::<String>(&encoded).unwrap(), text);
            prop_assert!(!encoded.iter().any(|b| matches!(b, b'<' | b'>' | b'&' | 0..=0x1f)));
        }

        #[test]
        fn encoding_is_injective(a in "[a-d<>\\\\u0-9]{0,8}", b in "[a-d<>\\\\u0-9]{0,8}") {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }
}
