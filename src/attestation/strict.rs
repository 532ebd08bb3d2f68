//! One spelling for one meaning. serde_json would keep the last value of a repeated key, read an
//! object from a list of its values, and a word from an object with that key; a signer must never
//! choose between two readings of one request.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer},
};

use crate::attestation::Text;

/// `metadata`: at most this many entries.
pub const MAX_METADATA_ENTRIES: usize = 64;

/// Metadata, sorted by the bytes of its keys.
pub type Metadata = BTreeMap<Text<128>, Text<1024>>;

/// Reads an object of texts; a repeated key or too many entries is an error.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    struct Unique;
    impl<'de> de::Visitor<'de> for Unique {
        type Value = Metadata;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Metadata, A::Error> {
            let mut map = Metadata::new();
            while let Some(key) = access.next_key::<Text<128>>()? {
                if map.len() == MAX_METADATA_ENTRIES {
                    return Err(de::Error::custom(format_args!("expected at most {MAX_METADATA_ENTRIES} entries")));
                }
                if map.contains_key(&key) {
                    return Err(de::Error::custom(format_args!("duplicate field `{key}`")));
                }
                let value = access.next_value()?;
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

/// A value that is read from an object only.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// Reads a struct from an object, and not from a list of its values in order.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Fields<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, access: A) -> Result<T, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(access))
        }
    }
    deserializer.deserialize_map(Fields(PhantomData))
}

/// [`object`], of a field that is left out where there is none: null is not nothing.
pub fn some_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

/// Reads one of a closed list of words from a text, and not from an object that has it as its key.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Word<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Word<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            T::deserialize(text.into_deserializer())
        }
    }
    deserializer.deserialize_str(Word(PhantomData))
}

/// [`word`], or null.
pub fn optional_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Word<T>(T);
    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            word(deserializer).map(Self)
        }
    }
    Ok(Option::<Word<T>>::deserialize(deserializer)?.map(|Word(word)| word))
}

/// Reads at most `MAX` objects in a list, or null.
pub fn bounded_list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Bounded<T, MAX> {
        type Value = Option<Vec<T>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} entries, or null")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(Object(item)) = access.next_element()? {
                if list.len() == MAX {
                    return Err(de::Error::custom(format_args!("expected at most {MAX} entries")));
                }
                list.push(item);
            }
            Ok(Some(list))
        }
    }
    deserializer.deserialize_any(Bounded::<T, MAX>(PhantomData))
}
