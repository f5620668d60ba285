#!/bin/bash
# Times building a layer again of which one package changed, against dnf and buildah doing it on the same image below.
#
#   rebuild.sh LAYER REPO PACKAGE CORPUS [SIZE] [RUNS]      (peers.sh)
#
# PACKAGE is one of REPO's that the snapshot 2025-02-10 has in another build: each run changes it to the build that it was
# not before. What is measured, RUNS times each:
#
#   strata    the image of the layer, from its lockfile
#   build     dnf of the layer's packages into a container of the image below, buildah commit
#   push      and buildah push to a registry on this machine, to which it is new
#
# Prints the medians, lines `bench LAYER-PEER-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py), and the sizes of
# what is new.
set -euo pipefail
layer=$1 repo=$2 package=$3
shift 3
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh"
later=$(realpath "$snapshot/../2025-02-10")

# The repository, with one build of the package, the first or the second.
publish() {
    local from=$snapshot
    [ "$1" = 1 ] || from=$later
    [ -e "$work/$repo" ] || { mkdir "$work/$repo"; cp -rl "$snapshot/$repo/Packages" "$work/$repo"; }
    find "$work/$repo" -name "$package-[0-9]*.rpm" -delete
    find "$from/$repo" -name "$package-[0-9]*.rpm" | sort -V | tail -n 1 | xargs -I{} cp -l {} "$work/$repo/Packages"
    createrepo_c -q --revision "$2" "$work/$repo"
}

sed -i "s,$snapshot/$repo\",$work/$repo\"," "$STRATA_MANIFESTS/corpus/stream.toml"
sed -i "s,$snapshot/$repo$,$work/$repo," "$work/dnf.conf"
revision=1739145600
publish 1 $revision
"$strata" -q lock corpus > "$work/log"
"$strata" -q fetch corpus > "$work/log"
"$strata" -q build --offline corpus > "$work/log"
declare -A below=([coreos]=bootc [node]=coreos)
from=scratch
if [ "$layer" != bootc ]; then
    from=localhost/below
    storage_pull "corpus/${below[$layer]}"
fi

mkdir "$work/registry"
port=$((20000 + RANDOM % 20000))
printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' \
    "$work/registry" $port > "$work/registry.yaml"
docker-registry serve "$work/registry.yaml" > "$work/registry.log" 2>&1 &
registry=$!
trap 'kill $registry; end; rm -rf "$work"' EXIT

run_strata() { "$strata" -q build --offline corpus "$layer" > "$work/log"; }

run_build() {
    local container root
    container=$(storage from "$from")
    root=$(storage mount "$container")
    install_layer "$layer" "$root"
    storage umount "$container" > "$work/log"
    storage commit --quiet --rm "$container" "bench-$layer" > "$work/log"
}

run_push() { storage push --quiet --tls-verify=false "bench-$layer" "docker://127.0.0.1:$port/run-$run:latest"; }

blobs() { find "$STRATA_STORE/images/blobs/sha256" -type f -printf '%f %s\n' | sort; }

measure() {
    rest
    "$here/benches/bench.py" run "$work/results" "$1" bash -euo pipefail -c "run_$1"
}

export -f run_strata run_build run_push
export layer from port
for run in $(seq "$runs"); do
    export run
    revision=$((revision + 1))
    publish $((1 + run % 2)) $revision
    "$strata" -q lock corpus "$layer" --update-package "$package" > "$work/log"
    "$strata" -q fetch corpus > "$work/log"
    blobs > "$work/before"
    measure strata
    blobs | join -v 1 - "$work/before" | awk '{ sum += $2 } END { printf "new blobs: %d, %d KiB\n", NR, sum / 1024 }'
    measure build
    measure push
    # the next run finds none of what this one made of the package
    "$strata" -q gc --keep 1 > "$work/log"
done

"$here/benches/bench.py" report "$work/results" "$layer-build=strata:build" "$layer-push=strata:push"
