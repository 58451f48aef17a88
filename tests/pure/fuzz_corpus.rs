//! The corpora of `fuzz/`, and every input that a fuzzer found something with, run through the targets without a fuzzer.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.flatten().map(|e| (e.path(), fs::read(e.path()).expect("it can be read"))).collect()
}

#[test]
fn every_input_of_the_corpora_keeps_every_promise() {
    for (name, target) in targets::ALL {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for (path, bytes) in inputs {
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_input_of_the_corpora_cut_anywhere_and_with_any_byte_flipped_keeps_every_promise() {
    for (name, target) in targets::ALL {
        for (path, bytes) in corpus(name) {
            println!("{}", path.display());
            // The long ones are real logs: every byte of their lines is looked at in `log_damage.rs`.
            let stride = 1 + bytes.len() / 512;
            for at in (0..bytes.len()).step_by(stride) {
                target(&bytes[..at]);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                target(&flipped);
            }
        }
    }
}

#[test]
fn each_kind_of_record_reaches_the_decoder() {
    use jin_txn::internals::Body;
    use jin_txn::internals::codec::decode;
    let mut kinds = 0;
    for (path, bytes) in corpus("record_decode") {
        let line = [format!("{:08x} ", crc32c::crc32c(&bytes)).as_bytes(), &bytes].concat();
        kinds += usize::from(decode(&line).is_ok_and(|r| !matches!(r.body, Body::Unknown { .. })));
        println!("{}", path.display());
    }
    assert!(kinds >= 7, "only {kinds} inputs are records that this version knows");
}
