#!/bin/sh -e
# Makes head.rpm and the inputs that fuzzing begins with, out of head.spec: fuzz/seeds.sh
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build PAYLOAD: the package with its payload compressed so
build() {
    rpmbuild -bb --quiet --define "_topdir $work" --define '_rpmfilename head.rpm' \
        --define '_build_id_links none' --define 'debug_package %{nil}' --define 'clamp_mtime_to_source_date_epoch 0' \
        --define '_buildhost localhost' --define "_binary_payload $1" head.spec 2>"$work/log" || { cat "$work/log"; exit 1; }
}

# front PACKAGE: the size of lead, signature and header
front() {
    signature=$(section "$1" 96)
    main=$((96 + (signature + 7) / 8 * 8))
    echo $((main + $(section "$1" "$main")))
}

# section PACKAGE OFFSET: the size of the header there
section() {
    # entries of 16 bytes, and data, whose numbers follow eight bytes of magic
    od -An -j $(($2 + 8)) -N 8 -t u4 --endian=big "$1" | { read -r entries data; echo $((16 + entries * 16 + data)); }
}

for target in header package rpmdb repodata image exchange text; do mkdir -p "corpus/$target"; done
for payload in w.ufdio w9.gzdio w9.bzdio w6.xzdio w6.lzdio w3.zstdio; do
    build "$payload"
    rpm=$work/RPMS/head.rpm
    size=$(front "$rpm")
    tail -c +$((size + 1)) "$rpm" > "corpus/package/payload-$payload"
done
head -c "$size" "$rpm" > head.rpm
cp head.rpm corpus/header/head
# the same of format 3: without the region, which is the first entry and the last 16 bytes
python3 - > corpus/header/format3 <<'PYTHON'
import struct, sys
head = open("head.rpm", "rb").read()
main = head.rindex(b"\x8e\xad\xe8\x01")
entries, data = struct.unpack(">II", head[main + 8 : main + 16])
sizes = struct.pack(">II", entries - 1, data - 16)
sys.stdout.buffer.write(head[: main + 8] + sizes + head[main + 32 : -16])
PYTHON
cp "$rpm" corpus/package/whole

mkdir "$work/root"
rpm --root "$work/root" --dbpath /db --define '_db_backend sqlite' -i --nodeps --nosignature --force-debian --justdb "$rpm"
sqlite3 "$work/root/db/rpmdb.sqlite" "SELECT writefile('corpus/rpmdb/blob', blob) FROM Packages" > /dev/null
sqlite3 "$work/root/db/rpmdb.sqlite" "PRAGMA journal_mode = DELETE; VACUUM" > /dev/null
cp "$work/root/db/rpmdb.sqlite" corpus/rpmdb/sqlite

mkdir "$work/repo"
cp "$rpm" "$work/repo"
createrepo_c --quiet --no-database --general-compress-type gz "$work/repo"
for kind in repomd primary filelists; do
    file=$(echo "$work"/repo/repodata/*"$kind".xml*)
    case $file in *.gz) gzip -dc "$file" > "corpus/repodata/$kind"; cp "$file" "corpus/repodata/$kind.gz" ;; *) cp "$file" "corpus/repodata/$kind" ;; esac
done

mkdir -p "$work/tree/usr/share/$(printf %090d 0)"
echo text > "$work/tree/usr/share/$(printf %090d 0)/file"
ln -s file "$work/tree/usr/share/link"
for format in pax gnu ustar; do
    tar --format="$format" --owner 0 --group 0 --mtime @1500000000 -C "$work/tree" -cf "corpus/image/$format" usr
done

# a lock, and what it answers after a NUL
data=../tests/data/exchange
pair() { { cat "$data/$2"; printf '\0'; cat "$data/$3"; } > "corpus/exchange/$1"; }
pair konflux prototype-multi-arch.rpms.lock.yaml prototype-multi-arch.rpms.in.yaml
pair rpm-ostree manifest-lock.x86_64.2023-11-26.json manifest-lock.overrides.2024-08-11.yaml
pair libpkgmanifest packages.manifest.yaml packages.input.yaml
cp "$data/hermeto-modularity.rpms.lock.yaml" corpus/exchange/modules
