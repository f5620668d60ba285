# What the benchmarks against dnf, rpm, buildah and chunkah share. Sourced with CORPUS [SIZE] [RUNS]; needs root.
#
# CORPUS holds SIZE/2025-02-03, a snapshot as snapshot-stream.sh takes it, and keys/RPM-GPG-KEY-strata-test.
# SIZE is `full`, RUNS 3 if not given. Where dracut is among the packages, both sides make an initramfs.
# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source it use them
snapshot=$(realpath "${1:?a corpus, see the head of benches/peers.sh}/${2:-full}/2025-02-03")
key=$(realpath "$1/keys/RPM-GPG-KEY-strata-test")
runs=${3:-3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
strata=${STRATA:-$here/target/release/strata}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-bench.XXXXXX")
export STRATA_MANIFESTS=$work/manifests STRATA_LOCKFILES=$work/lockfiles STRATA_STORE=$work/store
trap 'end; rm -rf "$work"' EXIT

# buildah with a storage of its own.
storage() { buildah --root "$work/containers" --runroot "$work/run" --storage-driver overlay "$@"; }

# Brings an image of the store there, under the name `below`.
storage_pull() {
    skopeo copy --quiet "oci:$STRATA_STORE/images:$1" "containers-storage:[overlay@$work/containers+$work/run]localhost/below"
}

# An ext4 without journal gives out no inode for a minute after it was deleted, and looks at each in vain: whoever comes
# next would pay for what was removed before.
rest() {
    sync
    sleep 61
}

end() {
    storage rm --all > "$work/log"
    storage rmi --all --force > "$work/log"
}

"$here/benches/snapshot-stream.sh" "$snapshot" "$key" "$STRATA_MANIFESTS"
if grep -qx dracut "$snapshot/layers/bootc.packages"; then
    printf '\n[kernel]\ninitramfs = true\ninitramfs-args = ["--add", "ostree"]\n' >> "$STRATA_MANIFESTS/corpus/bootc.toml"
fi

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

# Runs a command with the API file systems that container builds have below the root.
with_api() {
    local root=$1
    shift
    mkdir -p "$root/proc" "$root/dev"
    # shellcheck disable=SC2016 # the inner shell expands
    HOME=$work/home LANG=C.UTF-8 unshare --mount --pid --fork sh -ec '
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        shift
        exec "$@"
    ' sh "$root" "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}

# The files of the packages that the lockfile of a layer names.
locked() {
    awk -v snapshot="$snapshot" -F'"' '
        /^repo = / { repo = $2 }
        /^location = / { location = $2 }
        /^sha256 = / { print snapshot "/" repo "/" location }
    ' "$STRATA_LOCKFILES/corpus/$1.$(uname -m).toml"
}

# Installs the packages of a layer into a root.
install_packages() {
    local layer=$1 root=$2 specs
    mapfile -t specs < "$snapshot/layers/$layer.packages"
    with_api "$root" dnf -q -y -c "$work/dnf.conf" --installroot="$root" --releasever=9 --noplugins install "${specs[@]}"
}

# The same; in the lowest layer with dracut, also makes the initramfs.
install_layer() {
    local layer=$1 root=$2 kernel
    install_packages "$layer" "$root"
    rm -rf "$root/var/cache/dnf"
    if [ "$layer" = bootc ] && [ -x "$root/usr/bin/dracut" ]; then
        kernel=$(ls "$root/usr/lib/modules")
        with_api "$root" chroot "$root" dracut --reproducible --no-hostonly --force --add ostree --kver "$kernel" \
            "/usr/lib/modules/$kernel/initramfs.img"
    fi
}
export -f storage with_api install_packages install_layer
export work snapshot strata here
