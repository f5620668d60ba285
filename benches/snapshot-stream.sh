#!/bin/sh
# Writes a stream of three layers for a snapshot of RPM repositories.
#
#   snapshot-stream.sh SNAPSHOT KEY MANIFESTS
#
# SNAPSHOT holds the repositories baseos, appstream and ose, and layers/{bootc,coreos,node}.packages, the
# package specs of each layer, one per line. KEY is the public key they are signed with. A snapshot whose layers name
# no package kernel or linux-image becomes images that no machine boots.
set -eu
snapshot=$(realpath "$1") key=$(realpath "$2") manifests=$3
stream=$manifests/corpus
mkdir -p "$stream"

{
    printf 'name = "corpus"\nopenshift = "4.19"\narches = ["%s"]\nlayers = ["bootc", "coreos", "node"]\n\n' "$(uname -m)"
    printf '[os]\nid = "rhel"\nname = "Red Hat Enterprise Linux"\nversion = "9.6"\n\n[version]\ndated-by = []\n'
    for repo in baseos appstream ose; do
        printf '\n[repos.%s]\nbaseurl = "file://%s/%s"\ngpgkey = "file://%s"\n' "$repo" "$snapshot" "$repo" "$key"
    done
} > "$stream/stream.toml"

for layer in bootc coreos node; do
    {
        printf 'docs = true\n\n[packages]\ninstall = [\n'
        sed 's/.*/    "&",/' "$snapshot/layers/$layer.packages"
        printf ']\n'
        grep -qE '^(kernel|linux-image)' "$snapshot"/layers/*.packages ||
            printf '\n[image]\nlabels = { "containers.bootc" = "0" }\n'
    } > "$stream/$layer.toml"
done
