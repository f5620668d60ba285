#!/bin/sh
# Makes the databases beside it; see README.md.
#
#   make.sh DEMO-SNAPSHOT        target/demo/2025-02-03 of `cargo run --example demo-repos -- target/demo`
#
# RPM names an rpm that writes NDB (Fedora's and SUSE's do, Debian's does not), LOAD the db_load of Berkeley DB.
set -eu
demo=$(realpath "$1")
rpm=${RPM:-rpm}
load=${LOAD:-db5.3_load}
cd "$(dirname "$(readlink -f "$0")")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=1700000000

# a header longer than any page
cat > "$work/many.spec" <<'EOF'
Name: many
Version: 1
Release: 1
Summary: A header longer than any page
License: MIT
BuildArch: noarch
%description
Many.
%install
mkdir -p %{buildroot}/usr/share/many
for n in $(seq 200); do echo $n > %{buildroot}/usr/share/many/file-$n; done
%files
/usr/share/many
EOF
rpmbuild -bb --quiet --define "_topdir $work" --define '_buildhost localhost' \
    --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' "$work/many.spec"

# What tests compare: number, identity, digest of the header, install time.
line='%{DBINSTANCE} %{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} %{ARCH} %{SHA1HEADER} %{INSTALLTIME}\n'

# The same packages by a backend: six in, one out, one in again, and a key, which has no architecture.
fill() {
    db="--define=_db_backend $1"
    install="-i --justdb --nodeps --noscripts --notriggers --nosignature --ignorearch --force --ignoresize"
    for name in basesystem tzdata bash systemd ca-certificates; do
        # shellcheck disable=SC2086 # options
        "$rpm" "$db" --dbpath "$work/$1" $install "$demo"/baseos/Packages/?/"$name"-[0-9]*.[nx]*.rpm
    done
    # shellcheck disable=SC2086 # options
    "$rpm" "$db" --dbpath "$work/$1" $install "$work"/RPMS/noarch/many-1-1.noarch.rpm
    "$rpm" "$db" --dbpath "$work/$1" -e --justdb --nodeps --noscripts --notriggers tzdata
    # shellcheck disable=SC2086 # options
    "$rpm" "$db" --dbpath "$work/$1" $install "$demo"/appstream/Packages/n/nano-[0-9]*.x86_64.rpm
    "$rpm"keys "$db" --dbpath "$work/$1" --import "$demo/../RPM-GPG-KEY-demo"
    "$rpm" "$db" --dbpath "$work/$1" -qa --qf "$line" | sort -n > "$work/$1.txt"
}
fill sqlite
fill ndb
cmp "$work/sqlite.txt" "$work/ndb.txt"
mv "$work/ndb.txt" packages.txt
mv "$work/ndb/Packages.db" Packages.db

# The rows of the SQLite database as a Berkeley DB: byte order (1234 or 4321), page size in bytes.
bdb() {
    python3 - "$work/sqlite/rpmdb.sqlite" "$1" "$2" <<'EOF' | "$load" "$3"
import sqlite3, sys
path, order, size = sys.argv[1:]
rows = [(0, None)] + list(sqlite3.connect(path).execute("SELECT hnum, blob FROM Packages"))
key = lambda n: n.to_bytes(4, "little" if order == "1234" else "big")
print(f"VERSION=3\nformat=bytevalue\ntype=hash\ndb_lorder={order}\ndb_pagesize={size}\nHEADER=END")
for n, blob in rows:
    print(" " + key(n).hex())
    print(" " + (blob if blob is not None else key(rows[-1][0])).hex())
print("DATA=END")
EOF
    # rpm reads it as what it was made of
    mkdir "$work/$3"
    cp "$3" "$work/$3/Packages"
    "$rpm" --define '_db_backend bdb_ro' --dbpath "$work/$3" -qa --qf "$line" 2>/dev/null | sort -n | cmp - packages.txt
}
rm -f Packages.*-endian-*
bdb 1234 4096 Packages.little-endian-4096
bdb 1234 16384 Packages.little-endian-16384
bdb 4321 512 Packages.big-endian-512
