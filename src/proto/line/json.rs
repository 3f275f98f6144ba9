//! An event as one line of JSON, for clients that know messages and no structure.

use std::fmt::Write;

use crate::api::{Event, EventKind, KeyValue};
use crate::base::codec::{base64, json_string};

/// Keys and values that are text are strings; others are in base64, under another name.
pub fn event(event: &Event) -> String {
    let kind = match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    };
    let KeyValue { key, value, create_revision, mod_revision, version, lease } = &event.kv;
    let mut out = format!("{{\"type\":\"{kind}\"");
    bytes("key", key, &mut out);
    if event.kind == EventKind::Put {
        bytes("value", value, &mut out);
        let _ = write!(out, ",\"create_revision\":{create_revision}");
    }
    let _ = write!(out, ",\"mod_revision\":{mod_revision}");
    if event.kind == EventKind::Put {
        let _ = write!(out, ",\"version\":{version}");
    }
    if *lease != 0 {
        let _ = write!(out, ",\"lease\":{lease}");
    }
    out + "}"
}

fn bytes(name: &str, bytes: &[u8], out: &mut String) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let _ = write!(out, ",\"{name}_base64\":\"{}\"", base64(bytes));
        return;
    };
    let _ = write!(out, ",\"{name}\":{}", json_string(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_json() {
        let kv = KeyValue {
            key: "a\"b".into(),
            value: "line\nline\u{1f}é".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: -7,
        };
        assert_eq!(
            event(&Event::new(EventKind::Put, kv, None)),
            r#"{"type":"PUT","key":"a\"b","value":"line\nline\u001fé","create_revision":2,"mod_revision":3,"version":2,"lease":-7}"#
        );
        let gone = KeyValue { key: vec![0xff, 0].into(), mod_revision: 4, ..KeyValue::default() };
        assert_eq!(
            event(&Event::new(EventKind::Delete, gone, None)),
            r#"{"type":"DELETE","key_base64":"/wA=","mod_revision":4}"#
        );
    }
}
