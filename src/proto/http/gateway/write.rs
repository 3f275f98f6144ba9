//! Messages to JSON, as proto3 maps them and etcd's gateway writes it: names as in etcd's files, 64-bit numbers as strings,
//! bytes in base64, enumerations by name; what is zero is left out, because protocol buffers leave it out.
//!
//! A message can be a hundred megabytes long, so it is written in pieces, with what is open kept on a stack.

use std::fmt::Write;

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::base::codec::{base64, json_string};
use crate::proto::etcd::schema::{Field, Kind, Schema};

/// Writes one message, which this process has encoded itself.
pub struct Writer {
    rest: Bytes,
    open: Vec<Level>,
}

/// A message whose brace is open.
struct Level {
    schema: &'static Schema,
    /// It is whole when so many bytes are left.
    left_behind: usize,
    /// The number of the field whose bracket is open.
    list: Option<u32>,
    is_empty: bool,
}

const WELL_FORMED: &str = "what was encoded here can be read";

impl Writer {
    pub fn new(message: Bytes, schema: &'static Schema, out: &mut String) -> Writer {
        let mut writer = Writer { rest: message, open: Vec::new() };
        writer.begin(schema, 0, out);
        writer
    }

    /// Of the message.
    pub fn left_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Goes on until so much is in `out`, or everything: true.
    pub fn write(&mut self, out: &mut String, bytes_max: usize) -> bool {
        while out.len() < bytes_max
            && let Some(level) = self.open.last()
        {
            if self.rest.len() == level.left_behind {
                let is_in_list = level.list.is_some();
                out.push_str(if is_in_list { "]}" } else { "}" });
                self.open.pop();
            } else {
                self.write_field(out);
            }
        }
        self.open.is_empty()
    }

    fn begin(&mut self, schema: &'static Schema, bytes_behind: usize, out: &mut String) {
        out.push('{');
        self.open.push(Level { schema, left_behind: bytes_behind, list: None, is_empty: true });
    }

    fn write_field(&mut self, out: &mut String) {
        let (number, wire) = decode_key(&mut self.rest).expect(WELL_FORMED);
        let level = self.open.last_mut().expect("a field is in a message");
        let Some(field) = level.schema.numbered(number) else {
            // etcd's answer has no such field.
            return skip_field(wire, number, &mut self.rest, DecodeContext::default()).expect(WELL_FORMED);
        };
        level.name(field, out);
        if wire == WireType::Varint {
            let value = decode_varint(&mut self.rest).expect(WELL_FORMED);
            return write_number(field.kind, value, out);
        }
        assert!(wire == WireType::LengthDelimited, "answers have no other fields");
        let length = usize::try_from(decode_varint(&mut self.rest).expect(WELL_FORMED)).expect(WELL_FORMED);
        match field.kind {
            Kind::Message(schema) => {
                let behind = self.rest.len() - length;
                self.begin(schema(), behind, out);
            }
            Kind::Text => out.push_str(&json_string(&String::from_utf8_lossy(&self.rest[..length]))),
            Kind::Bytes => {
                let _ = write!(out, "\"{}\"", base64(&self.rest[..length]));
            }
            kind => unreachable!("{kind:?} has no length"),
        }
        if !matches!(field.kind, Kind::Message(_)) {
            self.rest.advance(length);
        }
    }
}

impl Level {
    /// What stands in front of a value.
    fn name(&mut self, field: &'static Field, out: &mut String) {
        if self.list == Some(field.number) {
            return out.push(',');
        }
        if self.list.take().is_some() {
            out.push(']');
        }
        if !std::mem::replace(&mut self.is_empty, false) {
            out.push(',');
        }
        let _ = write!(out, "\"{}\":", field.name);
        if field.is_repeated {
            self.list = Some(field.number);
            out.push('[');
        }
    }
}

fn write_number(kind: Kind, value: u64, out: &mut String) {
    let _ = match kind {
        Kind::Bool => write!(out, "{}", value != 0),
        Kind::Int64 => write!(out, "\"{}\"", value as i64),
        Kind::Uint64 => write!(out, "\"{value}\""),
        Kind::Uint32 => write!(out, "{value}"),
        Kind::Enum(words) => match usize::try_from(value).ok().and_then(|value| words.get(value)) {
            Some(word) => write!(out, "\"{word}\""),
            // Sign-extended, if it is below zero.
            None => write!(out, "{}", value as i32),
        },
        kind => unreachable!("{kind:?} is no number"),
    };
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::etcd::messages as pb;
    use crate::proto::etcd::schema::Described;

    /// The same in pieces of any size.
    fn written<M: Message + Described>(message: &M) -> String {
        let by = |piece: usize| {
            let mut out = String::new();
            let mut writer = Writer::new(message.encode_to_vec().into(), M::schema(), &mut out);
            let mut bytes_max = piece;
            while !writer.write(&mut out, bytes_max) {
                bytes_max = out.len() + piece;
            }
            assert_eq!(writer.left_bytes(), 0);
            out
        };
        let at_once = by(usize::MAX / 2);
        for piece in 1..at_once.len() {
            assert_eq!(by(piece), at_once);
        }
        at_once
    }

    #[test]
    fn what_is_there_is_written_as_etcd_does() {
        assert_eq!(written(&pb::Empty {}), "{}");
        let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 0, revision: -1, raft_term: 2 };
        let kv = pb::KeyValue { key: "foo".into(), lease: -7, version: 1, ..Default::default() };
        let found = pb::RangeResponse {
            header: Some(header),
            kvs: vec![kv.clone(), pb::KeyValue::default()],
            more: true,
            count: 9,
        };
        assert_eq!(
            written(&found),
            r#"{"header":{"cluster_id":"18446744073709551615","revision":"-1","raft_term":"2"},"kvs":[{"key":"Zm9v","version":"1","lease":"-7"},{}],"more":true,"count":"9"}"#
        );
        let event = |kind| pb::Event { kind, kv: Some(kv.clone()), prev_kv: None };
        let told = pb::WatchResponse {
            watch_id: -1,
            events: vec![event(0), event(1), event(-9)],
            ..Default::default()
        };
        assert_eq!(
            written(&told),
            r#"{"watch_id":"-1","events":[{"kv":{"key":"Zm9v","version":"1","lease":"-7"}},{"type":"DELETE","kv":{"key":"Zm9v","version":"1","lease":"-7"}},{"type":-9,"kv":{"key":"Zm9v","version":"1","lease":"-7"}}]}"#
        );
        let member = pb::Member {
            id: 1,
            name: "a\"".into(),
            peer_urls: vec!["b".into(), String::new()],
            ..Default::default()
        };
        assert_eq!(written(&member), r#"{"ID":"1","name":"a\"","peerURLs":["b",""]}"#);
        let op = pb::ResponseOp { response: Some(pb::ResponseUnion::Put(pb::PutResponse::default())) };
        let txn = pb::TxnResponse { header: None, succeeded: true, responses: vec![op] };
        assert_eq!(written(&txn), r#"{"succeeded":true,"responses":[{"response_put":{}}]}"#);
    }

    #[test]
    fn fields_that_the_schema_has_not_are_left_out() {
        let header = Some(pb::ResponseHeader { revision: 5, ..Default::default() });
        let encoded = pb::HeaderOnly { header }.encode_to_vec();
        let mut out = String::new();
        assert!(Writer::new(encoded.into(), pb::Empty::schema(), &mut out).write(&mut out, 99));
        assert_eq!(out, "{}");
    }
}
