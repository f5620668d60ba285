#!/bin/sh
# Composes a corpus of real packages into three images with a kernel and an initramfs, and boots the topmost.
#
#   corpus.sh CORPUS
#
# CORPUS holds full/2025-02-03, a snapshot as benches/snapshot-stream.sh takes it, and keys/RPM-GPG-KEY-strata-test.
set -eu
corpus=$(realpath "${1:?a corpus, see the head of this file}")
here=$(cd "$(dirname "$0")/../.." && pwd)
strata=${STRATA:-$here/target/release/strata}
export STRATA_MANIFESTS="$here/target/boot/manifests" STRATA_LOCKFILES="$here/target/boot/lockfiles"
stream=$STRATA_MANIFESTS/corpus

"$here/benches/snapshot-stream.sh" "$corpus/full/2025-02-03" "$corpus/keys/RPM-GPG-KEY-strata-test" "$STRATA_MANIFESTS"
# images that say their version, which is that of the corpus's release package
sed -i -e '/^dated-by/d' -e 's/^version = "9.6"/version = "9.4"/' "$stream/stream.toml"
printf '\n[kernel]\ninitramfs = true\ninitramfs-args = ["--add", "ostree"]\n' >> "$stream/bootc.toml"

"$strata" lock corpus
"$strata" build corpus
exec "$here/tests/boot/boot.sh" corpus/node
