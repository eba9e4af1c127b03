//! Files of passwords.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| podium_ingress::fuzzing::passwords(data));
