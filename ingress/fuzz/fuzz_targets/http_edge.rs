//! Bytes of an HTTP/1 client.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| podium_ingress::fuzzing::http_edge(data));
