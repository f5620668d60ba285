#!/bin/bash
# Times `strata build` of three layers against dnf and buildah making the same three, interleaved.
#
#   compose.sh CORPUS [SIZE] [RUNS]      (peers.sh)
#
# What is measured, RUNS times each:
#
#   strata    three images from lockfiles; every run starts from a store with RPMs only
#   install   dnf --installroot, three times on the same root: no images
#   images    dnf into the container of each layer, buildah commit, buildah push to an OCI layout
#
# Prints the medians, and lines `bench compose-PEER-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh"

clean() {
    "$strata" -q gc --all > "$work/log"
    end
    rm -rf "$work/root" "$work/peer"
}

"$strata" -q lock corpus > "$work/log"
"$strata" -q fetch corpus > "$work/log"

run_strata() { "$strata" -q build --offline corpus > "$work/log"; }

run_install() {
    local layer
    for layer in bootc coreos node; do
        install_layer "$layer" "$work/root"
    done
}

run_images() {
    local below=scratch layer container root
    for layer in bootc coreos node; do
        container=$(storage from "$below")
        root=$(storage mount "$container")
        install_layer "$layer" "$root"
        storage umount "$container" > "$work/log"
        storage commit --quiet --rm "$container" "bench-$layer" > "$work/log"
        storage push --quiet "bench-$layer" "oci:$work/peer:$layer"
        below=bench-$layer
    done
}

measure() {
    clean
    rest
    "$here/benches/bench.py" run "$work/results" "$1" bash -euo pipefail -c "run_$1"
}

export -f run_strata run_install run_images
for _ in $(seq "$runs"); do
    for what in strata install images; do
        measure $what
    done
done

"$here/benches/bench.py" report "$work/results" compose-install=strata:install compose-images=strata:images
