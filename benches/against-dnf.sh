#!/bin/bash
# Times `strata build` of three layers against dnf and buildah making the same three, interleaved.
#
#   STRATA_CORPUS=DIR benches/against-dnf.sh [RUNS]
#
# DIR is a snapshot as benches/snapshot-stream.sh takes it, its public key beside it in $STRATA_CORPUS_KEY.
# Packages are fetched and locked before; every run starts from a store with RPMs only. Needs root for dnf
# and buildah. Prints one line per run and the medians with their ratio.
set -euo pipefail
snapshot=$(realpath "${STRATA_CORPUS:?a snapshot of repositories}")
key=$(realpath "${STRATA_CORPUS_KEY:?the public key of the packages}")
runs=${1:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
strata=${STRATA:-$here/target/release/strata}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$here/benches/snapshot-stream.sh" "$snapshot" "$key" "$work/manifests"
export STRATA_MANIFESTS=$work/manifests STRATA_LOCKFILES=$work/lockfiles STRATA_STORE=$work/store
"$strata" -q lock corpus
"$strata" -q fetch corpus

# The peer's configuration and rpm macros: nothing of the host's, the rpmdb where images have it.
mkdir -p "$work/home"
printf '%%_dbpath /usr/lib/sysimage/rpm\n%%_build_id_links none\n%%_db_backend sqlite\n' > "$work/home/.rpmmacros"
{
    printf '[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nkeepcache=0\nplugins=0\nreposdir=/nonexistent\n'
    printf 'varsdir=/nonexistent\nmodule_platform_id=platform:el9\nzchunk=0\n'
    for repo in baseos appstream ose; do
        printf '[%s]\nname=%s\nbaseurl=file://%s/%s\ngpgkey=file://%s\n' "$repo" "$repo" "$snapshot" "$repo" "$key"
    done
} > "$work/dnf.conf"

reset_strata() { "$strata" -q gc --all; }

run_strata() { "$strata" -q build --offline corpus; }

run_dnf() {
    for layer in bootc coreos node; do
        # shellcheck disable=SC2046 # a list of words
        HOME=$work/home dnf -q -y -c "$work/dnf.conf" --installroot="$work/root" --releasever=9 --noplugins \
            install $(cat "$snapshot/layers/$layer.packages") > /dev/null
    done
}

run_images() {
    local below=scratch container
    for layer in bootc coreos node; do
        container=$(buildah from --quiet "$below")
        tar -C "$work/root" -cf "$work/root.tar" .
        buildah add --quiet "$container" "$work/root.tar" / > /dev/null
        buildah commit --quiet "$container" "bench-$layer" > /dev/null
        buildah push --quiet "bench-$layer" "oci:$work/peer:$layer"
        buildah rm "$container" > /dev/null
        below=bench-$layer
    done
}

# Prints wall seconds, user seconds and peak memory in KiB of a function of this script.
measure() {
    local log=$work/time
    export -f run_strata run_dnf run_images
    export work strata snapshot
    /usr/bin/time -f '%e %U %M' -o "$log" bash -ec "$1"
    printf '%s %s\n' "$1" "$(tail -n1 "$log")" | tee -a "$work/results"
}

for _ in $(seq "$runs"); do
    reset_strata
    measure run_strata
    rm -rf "$work/root"
    measure run_dnf
done

python3 - "$work/results" <<'PY'
import statistics, sys
rows = [line.split() for line in open(sys.argv[1])]
median = lambda name, col: statistics.median(float(r[col]) for r in rows if r[0] == name)
for name in ("run_strata", "run_dnf"):
    print(f"{name[4:]:8} wall {median(name, 1):7.2f} s   user {median(name, 2):7.2f} s   peak {median(name, 3) / 1024:6.0f} MiB")
print(f"ratio    wall {median('run_strata', 1) / median('run_dnf', 1):.2f}      user {median('run_strata', 2) / median('run_dnf', 2):.2f}")
PY
