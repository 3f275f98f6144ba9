#![no_main]

// The other bodies are for the other targets.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/fuzz_bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::gateway_requests(data));
