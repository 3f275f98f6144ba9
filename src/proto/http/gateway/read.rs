//! JSON to messages, as proto3 maps them and etcd's gateway reads it: names with underscores or capitals, 64-bit numbers as
//! strings or numbers, bytes in base64, enumerations by name or number. What no message has is passed over; null is nothing; of
//! what is said twice the last one counts.
//!
//! It is read in one pass, without a tree in between. Nothing recurses deeper than the parser's own bound of 128 levels.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base::codec::from_base64;
use crate::proto::etcd::schema::{Field, Kind, Schema};

/// Hands over the messages at the front of a body for as long as `take` wants more, and says why if no more could be read.
pub fn messages(
    body: &[u8],
    schema: &'static Schema,
    take: &mut dyn FnMut(Bytes) -> bool,
) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    while json.end().is_err() {
        match Message(schema).deserialize(&mut json) {
            Ok(message) => {
                if !take(message.into()) {
                    break;
                }
            }
            Err(why) if why.is_eof() => return Err("unexpected EOF".to_string()),
            Err(why) => return Err(why.to_string()),
        }
    }
    Ok(())
}

/// A message's encoding.
struct Message(&'static Schema);

impl<'de> DeserializeSeed<'de> for Message {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<u8>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Vec<u8>, A::Error> {
        // In the order of their numbers: of a `oneof` the last one counts, as in etcd.
        let mut fields = BTreeMap::new();
        while let Some(name) = object.next_key::<String>()? {
            let Some(field) = self.0.named(&name) else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            match object.next_value_seed(Value { field, is_element: false })? {
                Some(encoded) => fields.insert(field.number, encoded),
                None => fields.remove(&field.number),
            };
        }
        Ok(fields.into_values().flatten().collect())
    }
}

/// A field's encoding, with its number in front; None for null.
#[derive(Clone, Copy)]
struct Value {
    field: &'static Field,
    /// Of a list.
    is_element: bool,
}

impl Value {
    fn varint<E: Error>(self, number: u64) -> Result<Option<Vec<u8>>, E> {
        let mut out = Vec::new();
        encode_key(self.field.number, WireType::Varint, &mut out);
        encode_varint(number, &mut out);
        Ok(Some(out))
    }

    fn delimited(self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 8);
        encode_key(self.field.number, WireType::LengthDelimited, &mut out);
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    fn is_list(self) -> bool {
        self.field.is_repeated && !self.is_element
    }

    fn unfit<E: Error>(self, what: impl fmt::Display) -> E {
        let Field { name, .. } = self.field;
        E::custom(format_args!("{what} is no value of \"{name}\""))
    }

    /// As many bits as the kind has.
    fn number<E: Error>(self, number: i128) -> Result<Option<Vec<u8>>, E> {
        let fits = !self.is_list()
            && match self.field.kind {
                Kind::Int64 => i64::try_from(number).is_ok(),
                Kind::Uint64 => u64::try_from(number).is_ok(),
                Kind::Uint32 => u32::try_from(number).is_ok(),
                Kind::Enum(_) => i32::try_from(number).is_ok(),
                _ => false,
            };
        // Numbers below zero are sign-extended to 64 bits.
        if fits { self.varint(number as u64) } else { Err(self.unfit(format_args!("the number {number}"))) }
    }

    /// What stands for an element that is null.
    fn nothing(self) -> Vec<u8> {
        match self.field.kind {
            Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::OneOf(_) => self.delimited(&[]),
            Kind::Bool | Kind::Int64 | Kind::Uint64 | Kind::Uint32 | Kind::Enum(_) => {
                let mut out = Vec::new();
                encode_key(self.field.number, WireType::Varint, &mut out);
                out.push(0);
                out
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of \"{}\"", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.field.kind {
            Kind::Bool if !self.is_list() => self.varint(value.into()),
            _ => Err(self.unfit(value)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        self.number(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.number(number.into())
    }

    /// Also what is whole and has a point or an exponent, as in etcd, and what is too long for 64 bits.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Err(self.unfit(format_args!("the number {number}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if self.is_list() {
            return Err(self.unfit("a string"));
        }
        match self.field.kind {
            Kind::Text => Ok(Some(self.delimited(text.as_bytes()))),
            Kind::Bytes => {
                let bytes = from_base64(text).ok_or_else(|| E::custom("illegal base64 data"))?;
                Ok(Some(self.delimited(&bytes)))
            }
            Kind::Int64 | Kind::Uint64 => {
                let number = whole_number(text.trim()).ok_or_else(|| self.unfit("the string"))?;
                self.number(number)
            }
            Kind::Enum(words) => {
                let found = words.iter().position(|word| *word == text);
                let number = found.ok_or_else(|| self.unfit("the string"))?;
                self.varint(number as u64)
            }
            Kind::Bool | Kind::Uint32 | Kind::Message(_) | Kind::OneOf(_) => Err(self.unfit("a string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut out = Vec::new();
        if self.is_list() {
            let element = Value { is_element: true, ..self };
            while let Some(encoded) = list.next_element_seed(element)? {
                out.extend_from_slice(&encoded.unwrap_or_else(|| element.nothing()));
            }
            return Ok(Some(out));
        }
        // Go's reader takes a list of numbers for bytes, too.
        if !matches!(self.field.kind, Kind::Bytes) {
            return Err(self.unfit("a list"));
        }
        while let Some(byte) = list.next_element::<u8>()? {
            out.push(byte);
        }
        Ok(Some(self.delimited(&out)))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        match self.field.kind {
            Kind::Message(schema) if !self.is_list() => {
                Ok(Some(self.delimited(&Message(schema()).visit_map(object)?)))
            }
            _ => Err(self.unfit("an object")),
        }
    }
}

/// Digits, perhaps behind a minus: as a number of JSON that is whole.
fn whole_number(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    // 64 bits have 20 digits at most.
    if is_plain && digits.len() <= 20 { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::etcd::messages as pb;
    use crate::proto::etcd::schema::Described;

    fn read<M: prost::Message + Default + Described>(json: &str) -> Result<M, String> {
        let mut found = M::default();
        messages(json.as_bytes(), M::schema(), &mut |message| {
            found = M::decode(message).expect("it was just encoded");
            false
        })?;
        Ok(found)
    }

    #[test]
    fn fields_of_all_kinds() {
        let asked: pb::RangeRequest = read(
            r#"{"key":"Zm9v","range_end":[0,255],"limit":"-2","revision": 9223372036854775807,"sortOrder":"DESCEND",
                "sort_target":4,"serializable":true,"keys_only":false,"what":{"is":[1,{"this":null}]}}"#,
        )
        .unwrap();
        let expected = pb::RangeRequest {
            key: "foo".into(),
            range_end: Bytes::from_static(&[0, 255]),
            limit: -2,
            revision: i64::MAX,
            sort_order: 2,
            sort_target: 4,
            serializable: true,
            ..Default::default()
        };
        assert_eq!(asked, expected);
        let asked: pb::MemberAddRequest = read(r#"{"peerURLs":["http://ü","b"],"isLearner":true}"#).unwrap();
        assert_eq!(
            asked,
            pb::MemberAddRequest { peer_urls: vec!["http://ü".into(), "b".into()], is_learner: true }
        );
        let id: pb::MemberId = read(r#"{"ID":"18446744073709551615"}"#).unwrap();
        assert_eq!(id.id, u64::MAX);
        let filters: pb::WatchCreateRequest = read(r#"{"filters":["NODELETE",0,null]}"#).unwrap();
        assert_eq!(filters.filters, [1, 0, 0]);
    }

    #[test]
    fn messages_within_messages() {
        let asked: pb::TxnRequest = read(
            r#"{"compare":[{"result":"NOT_EQUAL","target":"VALUE","key":"YQ==","value":"Yg=="}],
                "success":[{"requestPut":{"key":"YQ=="}},{"request_txn":{"failure":[{}, null]}}]}"#,
        )
        .unwrap();
        let compare = pb::Compare {
            result: 3,
            target: 3,
            key: "a".into(),
            target_union: Some(pb::TargetUnion::Value("b".into())),
            range_end: Bytes::new(),
        };
        let put = pb::PutRequest { key: "a".into(), ..Default::default() };
        let inner = pb::TxnRequest { failure: vec![pb::RequestOp::default(); 2], ..Default::default() };
        let op = |union| pb::RequestOp { request: Some(union) };
        let success = vec![op(pb::RequestUnion::Put(put)), op(pb::RequestUnion::Txn(inner))];
        assert_eq!(asked, pb::TxnRequest { compare: vec![compare], success, failure: Vec::new() });
    }

    #[test]
    fn nothing_and_twice() {
        let of = |json: &str| read::<pb::PutRequest>(json).unwrap();
        assert_eq!(of(""), pb::PutRequest::default());
        assert_eq!(of("null"), pb::PutRequest::default());
        assert_eq!(of(r#"{"key":null,"lease":null}"#), pb::PutRequest::default());
        assert_eq!(of(r#"{"key":"YQ==","key":"Yg=="}"#).key, "b");
        assert_eq!(of(r#"{"key":"YQ=="} and so on"#).key, "a");
        assert_eq!(of(r#"{"key":"YW\nE="}"#).key, "aa");
        let op: pb::RequestOp = read(r#"{"request_put":{"lease":1},"request_range":{}}"#).unwrap();
        assert!(matches!(op.request, Some(pb::RequestUnion::Put(put)) if put.lease == 1));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "x",
            "[]",
            "\"a\"",
            "5",
            r#"{"key":"#,
            r#"{"key":"Zm9"}"#,
            r#"{"key":"_-=="}"#,
            r#"{"key":5}"#,
            r#"{"key":{}}"#,
            r#"{"key":[256]}"#,
            r#"{"key":true}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":""}"#,
            r#"{"limit":"+2"}"#,
            r#"{"limit":"02"}"#,
            r#"{"limit":"-"}"#,
            r#"{"limit":1.5}"#,
            r#"{"limit":1.0}"#,
            r#"{"limit":1e3}"#,
            r#"{"limit":9223372036854775808}"#,
            r#"{"limit":"9223372036854775808"}"#,
            r#"{"limit":1000000000000000000000000000000}"#,
            r#"{"limit":true}"#,
            r#"{"limit":[1]}"#,
            r#"{"serializable":"true"}"#,
            r#"{"serializable":1}"#,
            r#"{"sort_order":"descend"}"#,
            r#"{"sort_order":"2"}"#,
            r#"{"sort_order":2147483648}"#,
        ] {
            assert!(read::<pb::RangeRequest>(bad).is_err(), "{bad}");
        }
        assert!(read::<pb::MemberId>(r#"{"ID":-1}"#).is_err());
        assert!(read::<pb::TxnRequest>(r#"{"success":{}}"#).is_err());
        assert_eq!(read::<pb::PutRequest>(r#"{"key""#), Err("unexpected EOF".to_string()));
        let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(100), "1");
        assert!(read::<pb::TxnRequest>(&deep).is_err());
        let ignored = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = read::<pb::TxnRequest>(&ignored);
    }

    #[test]
    fn several_in_one_body() {
        let schema = pb::LeaseId::schema();
        let ids = |json: &str| {
            let mut ids = Vec::new();
            let outcome = messages(json.as_bytes(), schema, &mut |one| {
                ids.push(pb::LeaseId::decode(one).unwrap().id);
                true
            });
            (ids, outcome.is_err())
        };
        assert_eq!(ids(r#"{"ID":1}{"ID":"2"} {} "#), (vec![1, 2, 0], false));
        assert_eq!(ids(r#"{"ID":1} x"#), (vec![1], true));
        assert_eq!(ids(" \n"), (vec![], false));
    }
}
