//! The matcher of paths against a naive one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| podium_ingress::fuzzing::matcher(data));
