//! What fuzzing began with and found goes through the parsers again, as fuzz targets do it.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

#[test]
fn corpora_come_to_an_end() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let inputs: Vec<_> = std::fs::read_dir(corpora.join(name)).unwrap().collect();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            let bytes = std::fs::read(input.unwrap().path()).unwrap();
            target(&bytes);
            // and a few damaged ones, as a fuzzer would try first
            for cut in [bytes.len() / 3, bytes.len() - 1] {
                target(&bytes[..cut]);
            }
        }
    }
}
