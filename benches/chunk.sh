#!/bin/bash
# Times making a chunked, compressed image of an installed root: strata's packing against chunkah's, interleaved. Then
# makes that of the later snapshot with each, and counts what a machine that has the first image fetches.
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
# Prints the medians, lines `bench chunk-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py), the sizes, and lines
# `bench chunk-update: TOOL, N of N blobs are new, KIB KiB`, which count manifest and configuration.
#
# The later root is installed from nothing, as the first is. strata has the first image's chunk plan, as in builds.
# chunkah knows no plan, and places most packages by hash of their names; both of its images have one SOURCE_DATE_EPOCH, so
# that files of no package do not change for their times alone.
set -euo pipefail
chunkah=$(realpath "${2:?the program chunkah, see the head of this file}")
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh" "$1" "${@:3}"

install_root() {
    local layer
    "$strata" -q lock corpus --update > "$work/log"
    for layer in bootc coreos node; do
        locked $layer > "$work/rpms"
        xargs -a "$work/rpms" "$here/target/release/examples/install" "$root" > "$work/log" 2>&1 ||
            { cat "$work/log" >&2; exit 1; }
    done
    # what account tools and ldconfig leave behind holds times, and builds remove it
    rm -f "$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$root/var/cache/ldconfig/aux-cache"
}

run_strata() { "$here/target/release/examples/chunk" "$root" "$out" gzip "$packing"; }

# Debian's rpm, which chunkah asks for packages, looks for them where the peers' macros say.
run_chunkah() {
    HOME=$work/home SOURCE_DATE_EPOCH=1739145600 "$chunkah" build --rootfs "$root" --compressed --output "oci:$out"
}

blobs() { find "$1/blobs" -type f -printf '%f %s\n' | sort; }

export -f run_strata run_chunkah
export chunkah out root packing
root=$work/root
install_root
for run in $(seq "$runs"); do
    packing=$work/packing.$run
    for what in strata chunkah; do
        out=$work/$what.$run
        sync
        "$here/benches/bench.py" run "$work/results" "$what" bash -euo pipefail -c "run_$what > '$work/log' 2>&1" ||
            { cat "$work/log" >&2; exit 1; }
    done
done

"$here/benches/bench.py" report "$work/results" chunk=strata:chunkah
du -sm "$root" "$work/strata.1/blobs" "$work/chunkah.1/blobs" | sed "s,$work/,," | sed 's/^/MiB: /'

snapshot=$(realpath "$snapshot/../2025-02-10")
"$here/benches/snapshot-stream.sh" "$snapshot" "$key" "$STRATA_MANIFESTS"
root=$work/later
install_root
packing=$work/packing.1
for what in strata chunkah; do
    out=$work/$what.later
    "run_$what" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    blobs "$out" | join -a 1 -o 1.2,2.2 - <(blobs "$work/$what.1") | awk -v what=$what '
        !$2 { count++; sum += $1 }
        END { printf "bench chunk-update: %s, %d of %d blobs are new, %d KiB\n", what, count, NR, sum / 1024 }'
done
