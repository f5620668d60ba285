#!/bin/sh
# Obtains the packages that rpm and createrepo_c publish for their own tests, of the source packages of
# Debian 12 and of PyPI.
#
#   obtain.sh DIR
set -eu
mkdir -p "$1"
dir=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p lists/partial
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" \
    > sources.list
set -- -q -o Dir::Etc::SourceParts=/dev/null -o "Dir::Etc::SourceList=$work/sources.list" \
    -o "Dir::State::Lists=$work/lists"
apt-get "$@" update
apt-get "$@" source --download-only rpm
tar -xf rpm_*.orig.tar.*

# --no-build-isolation, because nothing is to be built
pip install --quiet --target tools scikit-build-core
PYTHONPATH=$work/tools pip download --quiet --no-deps --no-binary :all: --no-build-isolation createrepo_c==1.2.4.post1
tar -xf createrepo_c-*.tar.gz

find . -name '*.rpm' -type f -exec cp -t "$dir" {} +
