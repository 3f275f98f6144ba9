//! What gRPC answers to a request of a load, read as it comes: the messages are counted, and looked at as far as it must be
//! known whether they say what they should. No byte of them is kept.

use crate::Result;
use crate::load::Kind;

/// What is looked at in a message. Only fields of the outermost level count.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    /// Bytes of a value that are still to come.
    skip: u64,
    /// The tag whose value or length comes.
    tag: Option<u64>,
    /// The varint that is being read, and its bits so far.
    number: u64,
    bits: u32,
    /// Fields number 2 with a length: a range's keys.
    seconds: u64,
    /// The last number in field 2, and in field 3.
    second: u64,
    third: u64,
}

impl Fields {
    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = bytes.len().min(usize::try_from(self.skip)?);
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            if self.bits > 63 {
                return Err("a number of more than ten bytes in an answer".into());
            }
            self.number |= u64::from(byte & 0x7f) << self.bits;
            self.bits += 7;
            if byte & 0x80 == 0 {
                self.bits = 0;
                let number = std::mem::take(&mut self.number);
                self.take_number(number)?;
            }
        }
        Ok(())
    }

    fn take_number(&mut self, number: u64) -> Result<()> {
        let Some(tag) = self.tag.take() else {
            match number & 7 {
                0 | 2 => self.tag = Some(number),
                1 => self.skip = 8,
                5 => self.skip = 4,
                other => return Err(format!("a field of wire type {other} in an answer").into()),
            }
            return Ok(());
        };
        match (tag >> 3, tag & 7) {
            (2, 2) => self.seconds += 1,
            (2, _) => self.second = number,
            (3, 0) => self.third = number,
            _ => {}
        }
        if tag & 7 == 2 {
            self.skip = number;
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.skip == 0 && self.tag.is_none() && self.bits == 0
    }
}

/// What has come in answer to one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Before each message: whether it is compressed, and its length.
    prefix: [u8; 5],
    prefix_bytes: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Those that have come whole.
    pub messages: u32,
    fields: Fields,
}

impl Answer {
    /// The bytes that come next.
    pub fn take(&mut self, mut bytes: &[u8], kind: Kind) -> Result<()> {
        let looked_at = matches!(kind, Kind::Range(_) | Kind::Txn | Kind::Puts(_) | Kind::KeepAlive);
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (part, behind) = bytes.split_at(bytes.len().min(self.left));
                if looked_at {
                    self.fields.take(part)?;
                }
                self.left -= part.len();
                bytes = behind;
            } else {
                self.prefix[self.prefix_bytes] = *byte;
                self.prefix_bytes += 1;
                bytes = rest;
                if self.prefix_bytes < self.prefix.len() {
                    continue;
                }
                let [compressed, length @ ..] = self.prefix;
                if compressed != 0 {
                    return Err("a compressed message, where none was allowed".into());
                }
                (self.prefix_bytes, self.left) = (0, u32::from_be_bytes(length) as usize);
            }
            self.messages += u32::from(self.left == 0);
        }
        Ok(())
    }

    /// Whether it is one message, and says what it should.
    pub fn judge(&self, kind: Kind) -> Result<()> {
        let cut = self.prefix_bytes > 0 || self.left > 0;
        if self.messages == 0 && !cut {
            return Err("the call failed; its grpc-status, which is not decoded, says why".into());
        }
        if self.messages != 1 || cut || !self.fields.is_whole() {
            let cut = if cut { " and a part of one" } else { "" };
            return Err(format!("an answer of {} messages{cut}, instead of one", self.messages).into());
        }
        let Fields { seconds, second, third, .. } = self.fields;
        match kind {
            Kind::Range(length) if seconds != length => Err(format!("{seconds} keys of {length}").into()),
            Kind::Txn | Kind::Puts(_) if second != 1 => Err("a compare that holds failed".into()),
            Kind::KeepAlive if third as i64 <= 0 => Err(format!("lease {} is gone", second as i64).into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::etcd::{Header, KeyValue, RangeResponse};
    use prost::Message;

    /// Two keys, in the way of whose count a header, the total and a value that looks like keys lie.
    pub fn range() -> Vec<u8> {
        let kv = KeyValue { key: b"key".to_vec(), value: vec![0x12; 300] };
        let header = Some(Header { member_id: u64::MAX, revision: 7 });
        RangeResponse { header, kvs: vec![kv.clone(), kv], count: 2 }.encode_to_vec()
    }

    #[test]
    fn keys_are_counted_however_the_answer_is_cut() {
        let message = range();
        for cut in 0..message.len() {
            let mut fields = Fields::default();
            fields.take(&message[..cut]).unwrap();
            fields.take(&message[cut..]).unwrap();
            assert_eq!((fields.seconds, fields.is_whole()), (2, true), "cut at {cut}");
        }
        assert!(Fields::default().take(&[0xff; 11]).is_err());
        assert!(Fields::default().take(&[0x0f]).is_err());
    }
}
