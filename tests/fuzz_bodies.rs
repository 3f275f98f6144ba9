//! What the fuzz targets do, as plain functions: `fuzz/fuzz_targets/` gives them inputs that libFuzzer makes
//! up, and the test below replays `fuzz/corpus/`. A target panics where a promise is broken; refusing the
//! input is never a failure.

#[path = "fuzz_bodies/files.rs"]
mod files;
#[path = "fuzz_bodies/gateway.rs"]
mod gateway;
#[path = "fuzz_bodies/grpc.rs"]
mod grpc;
#[path = "fuzz_bodies/http.rs"]
mod http;
#[path = "fuzz_bodies/line.rs"]
mod line;
#[path = "fuzz_bodies/peer.rs"]
mod peer;
#[path = "fuzz_bodies/tree_model.rs"]
mod tree_model;

#[path = "fake_node.rs"]
pub mod fake_node;

use bytes::{Bytes, BytesMut};
use pawl::api::command;

pub use files::{tree_open, wal_recover};
pub use gateway::gateway_requests;
pub use grpc::{grpc_frames, grpc_messages, grpc_stream};
pub use http::http_requests;
#[cfg(test)]
pub use line::{array, server_info};
pub use line::{line_chunks, line_decode};
pub use peer::peer_frame;
pub use tree_model::tree_ops;

/// Logged commands: what decodes encodes to something that decodes to the same.
pub fn command_decode(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let Ok((origin, decoded)) = command::decode(payload) else { return };
    assert_eq!(command::origin(data), Some(origin));
    let mut again = BytesMut::new();
    command::encode(origin, &decoded, &mut again);
    assert_eq!(command::decode(again.freeze()), Ok((origin, decoded)));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: &[Target] = &[
        ("command_decode", super::command_decode),
        ("gateway_requests", super::gateway_requests),
        ("grpc_frames", super::grpc_frames),
        ("grpc_messages", super::grpc_messages),
        ("grpc_stream", super::grpc_stream),
        ("http_requests", super::http_requests),
        ("line_chunks", super::line_chunks),
        ("line_decode", super::line_decode),
        ("peer_frame", super::peer_frame),
        ("tree_open", super::tree_open),
        ("tree_ops", super::tree_ops),
        ("wal_recover", super::wal_recover),
    ];

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the corpus is not one of the product's files")]
    fn the_corpus_passes() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let mut names: Vec<String> = std::fs::read_dir(fuzz.join("corpus"))
            .expect("a corpus")
            .map(|entry| entry.expect("a directory").file_name().into_string().expect("a plain name"))
            .collect();
        names.sort();
        assert_eq!(names, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, target) in TARGETS {
            target(&[]);
            let mut files: Vec<_> = std::fs::read_dir(fuzz.join("corpus").join(name))
                .expect("a directory for each target")
                .map(|entry| entry.expect("a file").path())
                .collect();
            files.sort();
            assert!(!files.is_empty(), "{name} has seeds");
            for file in files {
                // A failing input is named by the captured output.
                println!("{}", file.display());
                target(&std::fs::read(file).expect("a corpus file"));
            }
        }
    }
}
