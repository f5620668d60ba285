//! Manifests nobody would write: whatever is in them, they are refused or accepted, and told about.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use strata::manifest::load;
use strata::package::Arch;

use crate::{Tree, documented};

/// Pieces that are likely to confuse something.
const PIECES: [&str; 24] = [
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "#",
    "$",
    "${",
    "$$",
    "é",
    "\u{1F980}",
    "\u{0}",
    "\u{FEFF}",
    "\r",
    "\"\"\"",
    "''",
    "true",
    "-1",
];

#[test]
fn nothing_panics() {
    let tree = documented();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let files = ["demo/stream.toml", "demo/coreos.toml"];
    let texts = files.map(|file| std::fs::read_to_string(tree.manifests().join(file)).unwrap());
    let mut refused = 0;
    for _ in 0..600 {
        let which = random.gen_range(0..files.len());
        tree.write(files[which], mutate(&texts[which], &mut random));
        refused += usize::from(refuses(&tree));
        tree.write(files[which], &texts[which]);
    }
    assert!(!refuses(&tree), "the manifests are valid again");
    assert!((200..600).contains(&refused), "{refused} of 600 mutations were refused");
}

fn refuses(tree: &Tree) -> bool {
    match load(&tree.manifests(), "demo", Arch::X86_64) {
        Ok(_) => false,
        Err(invalid) => {
            assert!(invalid.render(false).starts_with("error: "));
            assert!(invalid.render(true).contains("error:"));
            true
        }
    }
}

/// Deletes, doubles or replaces a few stretches of the text.
fn mutate(text: &str, random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.gen_range(1..4) {
        let start = random.gen_range(0..bytes.len());
        let end = (start + random.gen_range(0..20)).min(bytes.len());
        let new = match random.gen_range(0..4) {
            0 => Vec::new(),
            1 => bytes[start..end].repeat(2),
            2 => vec![random.r#gen()],
            _ => PIECES[random.gen_range(0..PIECES.len())].into(),
        };
        bytes.splice(start..end, new);
    }
    bytes
}
