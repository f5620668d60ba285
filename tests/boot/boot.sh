#!/bin/bash
# Boots an image in QEMU from a disk that ostree deploys it to, and asks the booted system what it is (docs/boot.md).
#
#   boot.sh IMAGE [SECONDS]
#
# IMAGE is STREAM/LAYER of the store ($STRATA_STORE), or oci:DIR:NAME. It has SECONDS (900 if not given) to come up
# and report. The machine has no network. Nothing is built, and the image is deployed as it is: what reports is a unit
# in the /etc of the deployment, where administrators put theirs.
#
# Needs root, for a loop device, and jq, ostree, qemu and umoci. The disk takes about 5 GB below $TMPDIR (/var/tmp if
# that is not set). Leaves the console's log in target/boot/console.log.
set -euo pipefail
image=${1:?an image, see the head of this file} seconds=${2:-900}
here=$(cd "$(dirname "$0")/../.." && pwd)
strata=${STRATA:-$here/target/release/strata}
console_log=$here/target/boot/console.log
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-boot.XXXXXX")
root=$work/root
trap 'clean' EXIT

clean() {
    ! mountpoint -q "$root" || umount "$root"
    rm -rf "$work"
}
say() { echo "boot: $*" >&2; }
die() { say "$*"; exit 1; }

# Unpacks the image into the file system $root and makes an ostree deployment of it (ostree: manual, "deployments").
deploy() {
    local layout=${image#oci:} repo=$root/ostree/repo tree=$root/unpacked/rootfs
    [ "$layout" != "$image" ] || layout=${STRATA_STORE:?the store}/images:$image
    umoci --log=error unpack --image "$layout" "$root/unpacked"
    # ostree's trees have their /etc there, and a deployment gets its own copy
    mv "$tree/etc" "$tree/usr/etc"
    ostree admin init-fs --modern "$root"
    ostree admin os-init --sysroot="$root" strata
    ostree --repo="$repo" config set sysroot.bootloader none
    ostree --repo="$repo" commit --branch=image --bootable --consume --tree=dir="$tree"
    rm -rf "$root/unpacked"
    local kargs=(root=LABEL=root rw console=ttyS0 edd=off selinux=0 panic=1)
    ostree admin deploy --sysroot="$root" --os=strata "${kargs[@]/#/--karg=}" image
    report_from "$root"/ostree/deploy/strata/deploy/*.0/etc
}

# Lets the machine with this /etc report through its virtio port once it is up, and go off.
report_from() {
    cat > "$1/strata-report" <<'EOF'
. /etc/os-release
echo "multi-user=$(systemctl is-active multi-user.target)"
echo "version=$OSTREE_VERSION"
echo "packages=$(rpm --dbpath /usr/lib/sysimage/rpm -qa | wc -l)"
echo "deployment=$(ostree admin status | sed -n 's/^\* strata //p')"
echo "uptime=$(cut -d' ' -f1 /proc/uptime)"
echo "failed=$(systemctl --failed --plain --no-legend | cut -d' ' -f1 | xargs)"
EOF
    cat > "$1/systemd/system/strata-report.service" <<'EOF'
[Unit]
Description=Report what was booted
After=multi-user.target

[Service]
Type=oneshot
StandardOutput=file:/dev/virtio-ports/report
ExecStart=/bin/sh /etc/strata-report
ExecStopPost=/usr/bin/systemctl --no-block poweroff
EOF
    mkdir -p "$1/systemd/system/multi-user.target.wants"
    ln -s ../strata-report.service "$1/systemd/system/multi-user.target.wants/"
}

# Runs a machine with the deployment's kernel and this accelerator for so many seconds at most.
machine() {
    timeout "$1" qemu-system-x86_64 -accel "$2" -machine q35 -cpu max -m 2048 -smp 2 -nodefaults -display none -no-reboot \
        -kernel "$work/vmlinuz" "${@:3}"
}

# KVM only where a guest truly runs: without a root the kernel panics, and goes off.
accelerator() {
    if [ -w /dev/kvm ] && machine 20 kvm -append "panic=-1" > "$work/kvm.log" 2>&1; then
        echo kvm
    else
        echo tcg,thread=multi
    fi
}

reported() { sed -n "s/^$1=//p" "$work/report"; }

# What the image says that it is.
"$strata" --format json show "$image" > "$work/image.json"
version=$(jq -er '.labels["org.opencontainers.image.version"]' "$work/image.json")
packages=$(jq -e '.packages | length' "$work/image.json")
arch=$(jq -r .architecture "$work/image.json")
[ "$arch" = amd64 ] || die "$image is for $arch: the machine described here is for amd64"

mkdir "$root"
truncate -s 8G "$work/disk"
mke2fs -q -t ext4 -L root "$work/disk"
mount -o loop "$work/disk" "$root"
begun=$SECONDS
deploy > "$work/log" || { cat "$work/log" >&2; die "$image can't be deployed"; }
commit=$(ostree --repo="$root/ostree/repo" rev-parse image)
entry=$(cat "$root"/boot/loader/entries/*.conf)
field() { sed -n "s/^$1 //p" <<< "$entry"; }
cp "$root/boot$(field linux | sed 's|^/boot||')" "$work/vmlinuz"
cp "$root/boot$(field initrd | sed 's|^/boot||')" "$work/initrd"
umount "$root"
say "$image is deployed, in $((SECONDS - begun)) s"

accelerator=$(accelerator)
mkdir -p "$(dirname "$console_log")"
say "booting it by $accelerator; its console goes to $console_log"
begun=$SECONDS
machine "$seconds" "$accelerator" -initrd "$work/initrd" -append "$(field options)" \
    -drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" \
    -device virtio-serial -chardev "file,id=report,path=$work/report" \
    -device virtserialport,chardev=report,name=report -serial "file:$console_log" || true
[ -s "$work/report" ] || { tail -n 40 "$console_log" >&2; die "it didn't report within $seconds s; its console is above"; }
say "it was up after $(reported uptime) s, and off after $((SECONDS - begun)) s; units that failed: $(reported failed)"

expect() {
    [ "$(reported "$1")" = "$2" ] || die "the booted system's $1 is $(reported "$1"), expected $2"
    echo "$1: $2"
}
expect multi-user active
expect deployment "$commit.0"
expect version "$version"
expect packages "$packages"
