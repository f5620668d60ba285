#!/bin/bash
# Times the installation of one layer's packages: strata's transaction against dnf's and rpm's, interleaved.
#
#   install.sh CORPUS [SIZE] [RUNS]
#
# CORPUS and SIZE are as peers.sh has them, RUNS is 3 if not given. Needs root, for dnf and rpm. What is
# measured, RUNS times each, is the bootc layer into an empty root, scriptlets included:
#
#   strata    examples/install.rs: the library's transaction alone, the store empty
#   warm      the same, the payloads kept in the store by the run before
#   dnf       dnf --installroot, which solves and reads its repositories' metadata within its time
#   rpm       rpm --root -U
#
# Prints the medians, and lines `bench install-PEER-STORE-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py).
set -euo pipefail
snapshot=$(realpath "${1:?a corpus, see the head of this file}/${2:-full}/2025-02-03")
key=$(realpath "$1/keys/RPM-GPG-KEY-strata-test")
runs=${3:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The packages that the lockfile of the layer names.
"$here/benches/snapshot-stream.sh" "$snapshot" "$key" "$work/manifests"
(cd "$work" && STRATA_STORE=$work/lock "$here/target/release/strata" -q lock corpus bootc)
awk -v snapshot="$snapshot" -F'"' '
    /^repo = / { repo = $2 }
    /^location = / { location = $2 }
    /^sha256 = / { print snapshot "/" repo "/" location }
' "$work/lockfiles/corpus/bootc.$(uname -m).toml" > "$work/rpms"

# The peers' configuration and rpm macros: nothing of the host's, the rpmdb where images have it.
mkdir "$work/home"
printf '%%_dbpath /usr/lib/sysimage/rpm\n%%_build_id_links none\n%%_db_backend sqlite\n' > "$work/home/.rpmmacros"
{
    printf '[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nkeepcache=0\nplugins=0\nreposdir=/nonexistent\n'
    printf 'varsdir=/nonexistent\nmodule_platform_id=platform:el9\nzchunk=0\n'
    for repo in baseos appstream ose; do
        printf '[%s]\nname=%s\nbaseurl=file://%s/%s\ngpgkey=file://%s\n' "$repo" "$repo" "$snapshot" "$repo" "$key"
    done
} > "$work/dnf.conf"

# Runs a command with the API file systems that container builds have below the root.
with_api() {
    mkdir -p "$root/proc" "$root/dev"
    # shellcheck disable=SC2016 # the inner shell expands
    HOME=$work/home LANG=C.UTF-8 unshare --mount --pid --fork sh -ec '
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        shift
        exec "$@"
    ' sh "$root" "$@"
}

run_strata() {
    STRATA_STORE=$store xargs -a "$work/rpms" "$here/target/release/examples/install" "$root"
}

run_warm() { run_strata; }

run_dnf() {
    mapfile -t specs < "$snapshot/layers/bootc.packages"
    with_api dnf -q -y -c "$work/dnf.conf" --installroot="$root" --releasever=9 --noplugins install "${specs[@]}"
}

run_rpm() {
    mapfile -t rpms < "$work/rpms"
    with_api rpm --root "$root" --nosignature --force-debian -U "${rpms[@]}"
}

measure() {
    # Nothing is removed before the end: an ext4 without journal gives out no inode for a minute after it was
    # deleted, and looks at each in vain; whoever comes next would pay for it.
    root=$(mktemp -d "$work/root.XXXXXX")
    [ "$1" = warm ] || store=$work/store.$(basename "$root")
    sync
    "$here/benches/bench.py" run "$work/results" "$1" bash -euo pipefail -c "run_$1 > '$work/log' 2>&1" ||
        { cat "$work/log" >&2; return 1; }
}

# Whoever comes first would read them from the disk.
xargs -a "$work/rpms" cat > /dev/null

export -f run_strata run_warm run_dnf run_rpm with_api
export work snapshot here root store
for _ in $(seq "$runs"); do
    for what in strata warm dnf rpm; do
        measure $what
    done
done

"$here/benches/bench.py" report "$work/results" install-dnf-cold=strata:dnf install-dnf-warm=warm:dnf \
    install-rpm-cold=strata:rpm install-rpm-warm=warm:rpm
