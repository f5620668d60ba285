#!/bin/bash
# Times the installation of one layer's packages: strata's transaction against dnf's and rpm's, interleaved.
#
#   install.sh CORPUS [SIZE] [RUNS]      (peers.sh)
#
# What is measured, RUNS times each, is the bootc layer into an empty root, scriptlets included:
#
#   strata    examples/install.rs: the library's transaction alone, the store empty
#   warm      the same, the payloads kept in the store by the run before
#   dnf       dnf --installroot, which solves and reads its repositories' metadata within its time
#   rpm       rpm --root -U
#
# Prints the medians, and lines `bench install-PEER-STORE-METRIC: ours S s, peer S s, ratio R, peak MiB` (bench.py).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/peers.sh"

"$strata" -q lock corpus bootc > "$work/log"
locked bootc > "$work/rpms"

run_strata() {
    STRATA_STORE=$store xargs -a "$work/rpms" "$here/target/release/examples/install" "$root" > "$work/log"
}

run_warm() { run_strata; }

run_dnf() { install_packages bootc "$root"; }

run_rpm() {
    mapfile -t rpms < "$work/rpms"
    with_api "$root" rpm --root "$root" --nosignature --force-debian -U "${rpms[@]}"
}

measure() {
    # Nothing is removed before the end: an ext4 without journal gives out no inode for a minute after it was
    # deleted, and looks at each in vain; whoever comes next would pay for it.
    root=$(mktemp -d "$work/root.XXXXXX")
    [ "$1" = warm ] || store=$work/store.$(basename "$root")
    sync
    "$here/benches/bench.py" run "$work/results" "$1" bash -euo pipefail -c "run_$1"
}

# Whoever comes first would read them from the disk.
xargs -a "$work/rpms" cat > /dev/null

export -f run_strata run_warm run_dnf run_rpm
export root store
for _ in $(seq "$runs"); do
    for what in strata warm dnf rpm; do
        measure $what
    done
done

"$here/benches/bench.py" report "$work/results" install-dnf-cold=strata:dnf install-dnf-warm=warm:dnf \
    install-rpm-cold=strata:rpm install-rpm-warm=warm:rpm
