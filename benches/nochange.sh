#!/bin/bash
# Times a build for which there is nothing to do, against buildah finding all steps of a Containerfile in its cache.
#
#   nochange.sh CORPUS [SIZE] [RUNS]      (peers.sh)
#
# Prints the medians, and lines `bench nochange-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh"

"$strata" -q lock corpus > "$work/log"
"$strata" -q fetch corpus > "$work/log"
"$strata" -q build --offline corpus > "$work/log"
storage_pull corpus/node
printf 'FROM localhost/below\nLABEL step=1\nLABEL step=2\nLABEL step=3\n' > "$work/Containerfile"

run_strata() { "$strata" -q build --offline corpus > "$work/log"; }

run_buildah() { storage build --quiet --layers --file "$work/Containerfile" "$work/home" > "$work/log"; }

run_buildah
export -f run_strata run_buildah
for _ in $(seq "$runs"); do
    for what in strata buildah; do
        "$here/benches/bench.py" run "$work/results" "$what" bash -euo pipefail -c "run_$what"
    done
done

"$here/benches/bench.py" report "$work/results" nochange=strata:buildah
