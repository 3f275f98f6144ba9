//! What messages are made of, for whoever spells them otherwise than protocol buffers do: names, numbers and kinds of fields.
//!
//! A message is written once, as `prost`'s struct within [`described!`], which passes the struct on as it is and reads the table off
//! its attributes. Beside `prost`'s own there are two: `#[json("peerURLs")]`, where etcd spells a name otherwise, and
//! `#[names("PUT", "DELETE")]`, what the numbers of an enumeration are called, from 0 on.

/// The fields of one message, in the order of their numbers.
#[derive(Debug)]
pub struct Schema {
    pub fields: &'static [Field],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub number: u32,
    pub kind: Kind,
    pub is_repeated: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    Int64,
    Uint64,
    Uint32,
    Text,
    Bytes,
    /// What the numbers are called.
    Enum(&'static [&'static str]),
    Message(fn() -> &'static Schema),
    /// One of these, as if each were a field of the message.
    OneOf(fn() -> &'static Schema),
}

/// A message, or what holds some.
pub trait Described {
    fn schema() -> &'static Schema;
}

impl<M: Described> Described for Option<M> {
    fn schema() -> &'static Schema {
        M::schema()
    }
}

impl<M: Described> Described for Vec<M> {
    fn schema() -> &'static Schema {
        M::schema()
    }
}

impl Schema {
    /// The field with this number.
    pub fn numbered(&'static self, number: u32) -> Option<&'static Field> {
        self.find(&|field| field.number == number)
    }

    /// The field with this name, as it stands in etcd's files or with a capital where an underscore was.
    pub fn named(&'static self, name: &str) -> Option<&'static Field> {
        self.find(&|field| field.name == name || is_camel_case_of(name, field.name))
    }

    fn find(&'static self, is_it: &dyn Fn(&Field) -> bool) -> Option<&'static Field> {
        self.fields.iter().find_map(|field| match field.kind {
            Kind::OneOf(fields) => fields().find(is_it),
            _ => is_it(field).then_some(field),
        })
    }
}

/// `rangeEnd` is `range_end`.
fn is_camel_case_of(camel: &str, name: &str) -> bool {
    let mut rest = camel.chars();
    let mut begins_word = false;
    for c in name.chars() {
        if c == '_' {
            begins_word = true;
            continue;
        }
        let wanted = if begins_word { c.to_ascii_uppercase() } else { c };
        begins_word = false;
        if rest.next() != Some(wanted) {
            return false;
        }
    }
    rest.next().is_none()
}

/// A tag as `prost`'s attribute has it.
pub const fn number(digits: &str) -> u32 {
    let (bytes, mut at, mut number) = (digits.as_bytes(), 0, 0);
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "a tag is a number");
        number = number * 10 + (bytes[at] - b'0') as u32;
        at += 1;
    }
    number
}

/// Passes messages on, and tells what they are made of.
macro_rules! described {
    ($(
        $(#[doc = $doc:expr])*
        #[derive($($derived:ident),*)]
        pub struct $name:ident {
            $(
                $(#[doc = $field_doc:expr])*
                $(#[json($json:literal)])?
                $(#[names($($word:literal),*)])?
                #[prost($($attribute:tt)*)]
                pub $field:ident: $kind:ty,
            )*
        }
    )*) => { $(
        $(#[doc = $doc])*
        #[derive($($derived),*)]
        pub struct $name {
            $(
                $(#[doc = $field_doc])*
                #[prost($($attribute)*)]
                pub $field: $kind,
            )*
        }

        impl crate::proto::etcd::schema::Described for $name {
            fn schema() -> &'static crate::proto::etcd::schema::Schema {
                static SCHEMA: crate::proto::etcd::schema::Schema = crate::proto::etcd::schema::Schema {
                    fields: &[$(
                        crate::proto::etcd::schema::field!(
                            [$($json)? stringify!($field)] [$($($word),*)?] $kind: $($attribute)*
                        ),
                    )*],
                };
                &SCHEMA
            }
        }
    )* };
}

/// The same of a `oneof`.
macro_rules! described_one_of {
    (
        $(#[doc = $doc:expr])*
        #[derive($($derived:ident),*)]
        pub enum $name:ident {
            $(
                #[json($json:literal)]
                #[prost($($attribute:tt)*)]
                $variant:ident($kind:ty),
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive($($derived),*)]
        pub enum $name {
            $(
                #[prost($($attribute)*)]
                $variant($kind),
            )*
        }

        impl crate::proto::etcd::schema::Described for $name {
            fn schema() -> &'static crate::proto::etcd::schema::Schema {
                static SCHEMA: crate::proto::etcd::schema::Schema = crate::proto::etcd::schema::Schema {
                    fields: &[$(crate::proto::etcd::schema::field!([$json] [] $kind: $($attribute)*),)*],
                };
                &SCHEMA
            }
        }
    };
}

/// One row: the name, the words of an enumeration, the type, and `prost`'s attribute.
macro_rules! field {
    // The name for JSON counts, where there is one.
    ([$json:literal stringify!($field:ident)] $($rest:tt)*) => { crate::proto::etcd::schema::field!([$json] $($rest)*) };
    ($name:tt [] $kind:ty: bytes = "bytes", $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Bytes; $($rest)*) };
    ($name:tt [] $kind:ty: string, $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Text; $($rest)*) };
    ($name:tt [] $kind:ty: bool, $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Bool; $($rest)*) };
    ($name:tt [] $kind:ty: int64, $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Int64; $($rest)*) };
    ($name:tt [] $kind:ty: uint64, $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Uint64; $($rest)*) };
    ($name:tt [] $kind:ty: uint32, $($rest:tt)*) => { crate::proto::etcd::schema::field!(@row $name Uint32; $($rest)*) };
    ($name:tt [$($word:literal),+] $kind:ty: int32, $($rest:tt)*) => {
        crate::proto::etcd::schema::field!(@row $name Enum(&[$($word),+]); $($rest)*)
    };
    ($name:tt [] $kind:ty: message, $($rest:tt)*) => {
        crate::proto::etcd::schema::field!(@row $name Message(<$kind as crate::proto::etcd::schema::Described>::schema); $($rest)*)
    };
    ($name:tt [] $kind:ty: oneof = $of:literal, tags = $tags:literal) => {
        crate::proto::etcd::schema::field!(
            @row $name OneOf(<$kind as crate::proto::etcd::schema::Described>::schema); tag = "0"
        )
    };
    (@row $name:tt $kind:ident $(($inside:expr))?; repeated, tag = $tag:literal) => {
        crate::proto::etcd::schema::field!(@made $name $kind $(($inside))?, $tag, true)
    };
    (@row $name:tt $kind:ident $(($inside:expr))?; $(optional,)? tag = $tag:literal) => {
        crate::proto::etcd::schema::field!(@made $name $kind $(($inside))?, $tag, false)
    };
    (@made [$name:expr] $kind:ident $(($inside:expr))?, $tag:literal, $is_repeated:literal) => {
        crate::proto::etcd::schema::Field {
            name: $name,
            number: crate::proto::etcd::schema::number($tag),
            kind: crate::proto::etcd::schema::Kind::$kind $(($inside))?,
            is_repeated: $is_repeated,
        }
    };
}

pub(crate) use {described, described_one_of, field};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcd::messages as pb;

    #[test]
    fn fields_have_their_names_and_numbers() {
        let put = pb::PutRequest::schema();
        assert_eq!(put.named("ignore_lease").map(|field| field.number), Some(6));
        assert_eq!(put.named("ignoreLease").map(|field| field.number), Some(6));
        for none in ["ignorelease", "Ignore_lease", "ignore_Lease", "ignoreLeases", "", "IgnoreLease"] {
            assert!(put.named(none).is_none(), "{none}");
        }
        let member = pb::Member::schema();
        assert_eq!(member.named("peerURLs").map(|field| (field.number, field.is_repeated)), Some((3, true)));
        assert!(member.named("peer_urls").is_none() && member.named("id").is_none());
        assert_eq!(pb::Compare::schema().named("range_end").map(|field| field.number), Some(64));
        assert_eq!(pb::Compare::schema().numbered(7).map(|field| field.name), Some("value"));
        assert_eq!(pb::RequestOp::schema().named("requestDeleteRange").map(|field| field.number), Some(3));
    }
}
