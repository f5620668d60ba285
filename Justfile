# Recipes of strata. `./justw RECIPE` installs what is missing first.

export STRATA_STORE := env("STRATA_STORE", justfile_directory() / "target/store")
strata := "target/release/strata"
demo := "target/demo"

# Tests compare with what rpm and dnf make as root: they run as root, whoever builds them.
sudo := if `id -u` == "0" { "" } else { "sudo -E" }
cargo-test := if sudo == "" { "cargo test" } else { "cargo test --config 'target.\"cfg(all())\".runner=[\"sudo\", \"-E\"]'" }

# Show the recipes
default:
    @just --list --unsorted

# Build the node image of a stream and all below it (the demo stream needs no network)
build-node STREAM="demo": (lock STREAM)
    {{strata}} build {{STREAM}} node
    {{strata}} images

# Build layers of a stream
build STREAM="demo" *LAYERS: (lock STREAM)
    {{strata}} build {{STREAM}} {{LAYERS}}

# Lock the packages of a stream
lock STREAM="demo" *ARGS: program (prepare STREAM)
    {{strata}} lock {{STREAM}} {{ARGS}}

# Show what changed between two images or lockfiles
diff FROM TO *ARGS: program
    {{strata}} diff {{FROM}} {{TO}} {{ARGS}}

# Make the demo's repositories, build the newer snapshot on top of the older, and show the difference
demo: (lock "demo" "--update")
    {{strata}} build demo
    rm -rf target/demo-lockfiles-before
    cp -r lockfiles/demo target/demo-lockfiles-before
    {{strata}} --set snapshot=2025-02-10 --set ose_snapshot=2025-02-10 lock demo --update
    {{strata}} --set snapshot=2025-02-10 --set ose_snapshot=2025-02-10 build demo
    {{strata}} diff target/demo-lockfiles-before/node.$(uname -m).toml lockfiles/demo/node.$(uname -m).toml

# Run every check and test
test: check
    {{cargo-test}}
    {{sudo}} rm -rf target/tmp

# Compare with rpm, rule by rule: `just parity config`, or at random: `just parity --random 1000` (docs/parity.md)
parity *CASES:
    cargo test --quiet --test parity_specs -- {{CASES}}

# Compare with dnf what is solved for: `just parity-solve --help` (docs/parity-solve.md)
parity-solve *ARGS:
    cargo test --quiet --test parity_solve -- {{ARGS}}

# Fuzz what reads untrusted bytes: all targets, or one, for so many seconds each (needs cargo-fuzz and a nightly toolchain)
fuzz TARGET="all" SECONDS="600":
    #!/usr/bin/env bash
    set -euo pipefail
    targets={{TARGET}}
    [ "$targets" != all ] || targets=$(cargo +nightly fuzz list)
    for target in $targets; do
        # what it learns stays in target/; fuzz/corpus has what is worth keeping
        mkdir -p "target/fuzz-corpus/$target"
        cargo +nightly fuzz run --target-dir target/fuzz "$target" "target/fuzz-corpus/$target" "fuzz/corpus/$target" -- \
            -max_total_time={{SECONDS}} -rss_limit_mb=2048 -timeout=20
    done

# Compare with rpm and dnf on a corpus of real packages: CORPUS/SIZE/2025-02-03/{baseos,appstream,ose}
test-corpus CORPUS SIZE="small":
    STRATA_CORPUS={{CORPUS}} STRATA_CORPUS_SIZE={{SIZE}} {{cargo-test}} --test corpus
    STRATA_CORPUS={{CORPUS}} {{cargo-test}} --test fetch -- --ignored
    STRATA_CORPUS={{CORPUS}} {{cargo-test}} --test parity_solve -- --only a
    STRATA_TEST_RPMS={{CORPUS}}/{{SIZE}}/2025-02-03 STRATA_TEST_UPGRADES={{CORPUS}}/{{SIZE}}/2025-02-10 \
        {{cargo-test}} --test rpmdb --test install -- --ignored repository

# Install a file of more than 4 GiB, which takes 5 GB below $TMPDIR, as rpm does
test-large:
    {{cargo-test}} --test install -- --ignored beyond_4_gib

# Boot the node image of a stream that is built, in QEMU from a disk that ostree deploys it to (docs/boot.md)
boot STREAM: program
    {{sudo}} tests/boot/boot.sh {{STREAM}}/node

# Compose a corpus of real packages, and boot it: 5 to 15 minutes (docs/boot.md)
test-boot CORPUS: program
    {{sudo}} tests/boot/corpus.sh {{CORPUS}}

# Kill fifty copies to a registry at any time, and let the next of each complete it
test-kill:
    {{cargo-test}} --test demo -- --ignored fifty_copies

# Import images of the format ostree as machines do, by the crate ostree-ext (docs/ostree.md)
test-ostree: program (prepare "demo")
    cargo build --manifest-path tests/ostree-import/Cargo.toml --target-dir target/ostree-import
    {{sudo}} tests/ostree-import/check.sh target/ostree-import/debug/ostree-import

# Read the packages that rpm and createrepo_c publish for their tests as rpm does (100 MB from Debian and PyPI)
real-packages DIR="target/real-packages":
    tests/real/obtain.sh {{DIR}}
    STRATA_TEST_REAL={{absolute_path(DIR)}} {{cargo-test}} --test rpmdb real -- --ignored

# Kill builds, pushes and deletions at random moments, 200 times
test-crash KILLS="200":
    STRATA_CRASHES={{KILLS}} {{cargo-test}} --test demo -- crashes::

# Format, lint, and document, warnings being errors
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# Measure (docs/benchmarks.md): compose, node, bootc, nochange, install, solve CORPUS [SIZE] [RUNS], chunk CORPUS CHUNKAH
bench NAME *ARGS: program
    cargo build --release --example install --example chunk
    benches/{{NAME}}.sh {{ARGS}}

# Build the program
program:
    cargo build --release

# Make what a stream needs that is made on the spot: the demo's repositories, of which this is the last
[private]
prepare STREAM:
    [ {{STREAM}} != demo ] || [ -e {{demo}}/2025-02-10/ose ] || cargo run --release --example demo-repos -- {{demo}}
