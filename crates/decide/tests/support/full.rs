//! Fills in every field of an API type, whatever the type: a deserializer that answers each question with a value.
//!
//! In: a type with `Deserialize`. Out: the value in which every optional field is there, every list has one element and
//! every string is `x`.

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Error, IntoDeserializer, Visitor};

/// `T` with everything set.
pub(crate) fn full<T: for<'de> Deserialize<'de>>() -> T {
    T::deserialize(Everything).unwrap()
}

/// Has an answer of every type.
#[derive(Clone, Copy)]
struct Everything;

impl IntoDeserializer<'_, serde_json::Error> for Everything {
    type Deserializer = Everything;

    fn into_deserializer(self) -> Everything {
        self
    }
}

/// The methods that only hand one fixed value to the visitor.
macro_rules! answers {
    ($($method:ident => $visit:ident($value:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.$visit($value)
        })*
    };
}

/// The methods that no API type calls.
macro_rules! never_asked {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom(stringify!($method)))
        })*
    };
}

impl<'de> serde::Deserializer<'de> for Everything {
    type Error = serde_json::Error;

    answers! {
        deserialize_any => visit_i64(1);
        deserialize_bool => visit_bool(true);
        deserialize_i32 => visit_i32(1);
        deserialize_i64 => visit_i64(1);
        deserialize_u32 => visit_u32(1);
        deserialize_f64 => visit_f64(1.0);
        deserialize_str => visit_str("x");
        deserialize_string => visit_str("x");
        deserialize_option => visit_some(Everything);
        deserialize_seq => visit_seq(SeqDeserializer::new([Everything].into_iter()));
        deserialize_map => visit_map(MapDeserializer::new([("x", Everything)].into_iter()));
    }

    never_asked! {
        deserialize_i8 deserialize_i16 deserialize_u8 deserialize_u16 deserialize_u64 deserialize_f32 deserialize_char
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_map(MapDeserializer::new(fields.iter().map(|field| (*field, Everything))))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match name {
            "Time" | "MicroTime" => visitor.visit_newtype_struct("2026-01-01T00:00:00Z".into_deserializer()),
            _ => visitor.visit_newtype_struct(Everything),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom(name))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("a tuple"))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom(name))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom(name))
    }
}
