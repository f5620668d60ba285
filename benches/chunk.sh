#!/bin/bash
# Times making a chunked, compressed image of an installed root: strata's packing against chunkah's, interleaved.
#
#   chunk.sh CORPUS CHUNKAH [SIZE] [RUNS]      (peers.sh)
#
# CHUNKAH is the program, built from https://github.com/coreos/chunkah with `cargo build --release`. What is measured,
# RUNS times each, is the root of all three layers' packages into a new OCI layout of at most 64 layers, gzip at what each
# has by default:
#
#   strata    examples/chunk.rs: chunk plan, tar, digests and compression, as a build does it
#   chunkah   chunkah build --compressed
#
# Prints the medians, lines `bench chunk-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py), and the sizes.
set -euo pipefail
chunkah=$(realpath "${2:?the program chunkah, see the head of this file}")
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh" "$1" "${@:3}"

"$strata" -q lock corpus > "$work/log"
for layer in bootc coreos node; do
    locked $layer > "$work/rpms"
    xargs -a "$work/rpms" "$here/target/release/examples/install" "$work/root" > "$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
done

run_strata() { "$here/target/release/examples/chunk" "$work/root" "$out"; }

# Debian's rpm, which chunkah asks for packages, looks for them where the peers' macros say.
run_chunkah() { HOME=$work/home "$chunkah" build --rootfs "$work/root" --compressed --output "oci:$out"; }

export -f run_strata run_chunkah
export chunkah out
for run in $(seq "$runs"); do
    for what in strata chunkah; do
        out=$work/$what.$run
        sync
        "$here/benches/bench.py" run "$work/results" "$what" bash -euo pipefail -c "run_$what > '$work/log' 2>&1" ||
            { cat "$work/log" >&2; exit 1; }
    done
done

"$here/benches/bench.py" report "$work/results" chunk=strata:chunkah
du -sm "$work/root" "$work/strata.1/blobs" "$work/chunkah.1/blobs" | sed "s,$work/,," | sed 's/^/MiB: /'
