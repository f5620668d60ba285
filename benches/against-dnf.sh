#!/bin/bash
# Times `strata build` of three layers against dnf and buildah making the same three, interleaved.
#
#   against-dnf.sh CORPUS [SIZE] [RUNS]
#
# CORPUS holds SIZE/2025-02-03, a snapshot as snapshot-stream.sh takes it, and keys/RPM-GPG-KEY-strata-test.
# SIZE is `full`, RUNS 3 if not given. Needs root, for dnf and buildah. What is measured, RUNS times each:
#
#   strata    three images from lockfiles; every run starts from a store with RPMs only
#   install   dnf --installroot, three times on the same root: no images
#   images    dnf into the container of each layer, buildah commit, buildah push to an OCI layout
#
# Prints the medians, and lines `bench PEER-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py).
set -euo pipefail
snapshot=$(realpath "${1:?a corpus, see the head of this file}/${2:-full}/2025-02-03")
key=$(realpath "$1/keys/RPM-GPG-KEY-strata-test")
runs=${3:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
strata=${STRATA:-$here/target/release/strata}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-bench.XXXXXX")
export STRATA_MANIFESTS=$work/manifests STRATA_LOCKFILES=$work/lockfiles STRATA_STORE=$work/store
trap 'clean; rm -rf "$work"' EXIT

# buildah with a storage of its own.
storage() { buildah --root "$work/containers" --runroot "$work/run" --storage-driver overlay "$@"; }

clean() {
    "$strata" -q gc --all
    storage rm --all > "$work/log"
    storage rmi --all --force > "$work/log"
    rm -rf "$work/root" "$work/peer"
}

"$here/benches/snapshot-stream.sh" "$snapshot" "$key" "$work/manifests"
"$strata" -q lock corpus > "$work/log"
"$strata" -q fetch corpus > "$work/log"

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

# Installs the packages of a layer into a root, with the API file systems that container builds have.
install_layer() {
    mkdir -p "$2/proc" "$2/dev"
    # shellcheck disable=SC2016 # the inner shell expands
    HOME=$work/home LANG=C.UTF-8 xargs -d '\n' -a "$snapshot/layers/$1.packages" unshare --mount --pid --fork sh -ec '
        root=$1 config=$2; shift 2
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec dnf -q -y -c "$config" --installroot="$root" --releasever=9 --noplugins install "$@"
    ' sh "$2" "$work/dnf.conf" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}

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
        rm -rf "$root/var/cache/dnf"
        storage umount "$container" > "$work/log"
        storage commit --quiet --rm "$container" "bench-$layer" > "$work/log"
        storage push --quiet "bench-$layer" "oci:$work/peer:$layer"
        below=bench-$layer
    done
}

measure() {
    clean
    # an ext4 without journal gives out no inode for a minute after it was deleted, and looks at each in vain:
    # whoever comes next would pay for what was removed before
    sync
    sleep 61
    "$here/benches/bench.py" run "$work/results" "$1" bash -euo pipefail -c "run_$1"
}

export -f storage install_layer run_strata run_install run_images
export work snapshot strata
for _ in $(seq "$runs"); do
    for what in strata install images; do
        measure $what
    done
done

"$here/benches/bench.py" report "$work/results" install=strata:install images=strata:images
