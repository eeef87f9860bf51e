//! Any bytes, in any chunking.
#![no_main]

mod check;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, Vec<u8>, &[u8])| {
    let (chosen, how, sizes, data) = input;
    check::check(&data[..data.len().min(1024)], &sizes, chosen, how);
});
