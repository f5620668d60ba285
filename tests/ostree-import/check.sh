#!/bin/bash
# Imports the demo's images of the format `ostree` into a fresh repository as machines do, by ostree-ext, and compares
# what comes out with the plain images of the same stream as umoci unpacks them (docs/ostree.md).
#
#   check.sh IMPORTER
#
# IMPORTER is the program in this directory, built. Needs root, for owners and attributes, and attr, ostree, skopeo and
# umoci.
set -euo pipefail
importer=$(realpath "${1:?the program, see the head of this file}")
here=$(cd "$(dirname "$0")/../.." && pwd)
strata=${STRATA:-$here/target/release/strata}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-ostree.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# Builds the demo stream below a directory, in a format; unless the demo's repositories are there, makes them.
build() {
    mkdir -p "$1/target"
    cp -R "$here/manifests" "$1"
    cp -R "$here/target/demo" "$1/target"
    printf '\n[image]\nformat = "%s"\n' "$2" >> "$1/manifests/demo/stream.toml"
    (cd "$1" && export STRATA_STORE=$PWD/store && "$strata" -q lock demo && "$strata" -q build demo) > "$1.log"
}

# Modes, owners, targets, contents and attributes of a tree. Labels are the importer's own, made of the image's policy.
# Before 2024.3 libostree has the /var of derived layers elsewhere.
describe() {
    (
        cd "$1"
        find . -printf '%p %y %m %U:%G %l\n'
        find . -type f -exec sha256sum {} +
        getfattr --no-dereference --recursive --dump --match=- --encoding=hex . | paste -sd ' ' | sed 's/ *# file: /\n/g' |
            sed 's/ security.selinux=[0-9a-fx]*//; s/ *$//' | grep '=' || true
    ) | sed -e 's,\./usr/share/factory/var,./var,' -e '\,^\./usr/share/factory d,d' | sort -u
}

build plain bootc
build encapsulated ostree
ostree init --repo=repository --mode=bare
layers="bootc coreos node"
# shellcheck disable=SC2046,SC2086 # a list of words
"$importer" repository $(printf "$work/encapsulated/store/images:demo/%s " $layers) > commits
for layer in $layers; do
    read -r base commit
    umoci --log=error unpack --image "plain/store/images:demo/$layer" "unpacked-$layer"
    mv "unpacked-$layer/rootfs/etc" "unpacked-$layer/rootfs/usr/etc"
    ostree checkout --repo=repository "$commit" "checked-out-$layer"
    diff <(describe "unpacked-$layer/rootfs") <(describe "checked-out-$layer")
    echo "$layer: commit $commit on $base is the tree of the plain image"
done < commits
