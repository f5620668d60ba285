#!/bin/bash
# Times reading metadata and solving a stream of three layers: strata against dnf, interleaved.
#
#   solve.sh CORPUS [RUNS] [PICTURE]
#
# CORPUS is as peers.sh has it, RUNS is 3 if not given. What is measured, RUNS times each, over the metadata of
# CORPUS/full and over 30,000 packages made by make-repository.py:
#
#   ours cold    strata lock, the store empty          peer cold    dnf --assumeno, once per layer, the cache empty at first
#   ours warm    the same, the store of the run before peer warm    the same, the cache of the run before
#
# dnf solves each layer that asks for anything together with those below: it has nothing installed to stand on. Prints
# what bench.py reports. Then measures how both grow with the repository and with the request, warm, and draws PICTURE
# (docs/solve-growth.svg if not given).
set -euo pipefail
corpus=$(realpath "${1:?a corpus, see the head of this file}")
runs=${2:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
picture=$(realpath "${3:-$here/docs/solve-growth.svg}")
strata=${STRATA:-$here/target/release/strata}
key=$corpus/keys/RPM-GPG-KEY-strata-test
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/home" # nothing of the host's rpm macros

# Makes what both need to solve over a snapshot.
prepare() { # NAME SNAPSHOT
    "$here/benches/snapshot-stream.sh" "$2" "$key" "$work/$1/manifests"
    ln -s "$2" "$work/$1/snapshot"
    {
        printf '[main]\ngpgcheck=1\nbest=1\ninstall_weak_deps=0\nplugins=0\nreposdir=/nonexistent\n'
        printf 'varsdir=/nonexistent\nmodule_platform_id=platform:el9\nzchunk=0\nmetadata_expire=-1\n'
        for repo in baseos appstream ose; do
            printf '[%s]\nname=%s\nbaseurl=file://%s/%s\ngpgkey=file://%s\n' "$repo" "$repo" "$2" "$repo" "$key"
        done
    } > "$work/$1/dnf.conf"
}

run_ours() {
    rm -rf lockfiles
    STRATA_STORE=$PWD/store "$strata" -q lock corpus
}

# dnf says no to itself, which it reports as a failure.
run_peer() {
    local layer specs=()
    for layer in bootc coreos node; do
        [ -s "snapshot/layers/$layer.packages" ] || continue
        mapfile -t -O "${#specs[@]}" specs < "snapshot/layers/$layer.packages"
        HOME=$work/home LANG=C.UTF-8 dnf -c dnf.conf --installroot="$PWD/root" --releasever=9 --noplugins --assumeno \
            install "${specs[@]}" > answer 2>&1 || grep -q '^Operation aborted' answer
    done
}

measure() { # NAME WHO cold|warm
    case "$2 $3" in
        "ours cold") rm -rf "$work/$1/store" ;;
        "peer cold") rm -rf "$work/$1/root" ;;
    esac
    mkdir -p "$work/$1/root"
    (cd "$work/$1" && python3 "$here/benches/bench.py" run "$work/results" "$1-$2-$3" bash -euo pipefail -c "run_$2") \
        > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
    tail -n1 "$work/results"
}

export -f run_ours run_peer
export work strata

generate() { # PACKAGES
    python3 "$here/benches/make-repository.py" "$work/snapshot-$1" "$1"
    prepare "$1" "$work/snapshot-$1"
}

prepare corpus "$corpus/full/2025-02-03"
generate 30000
for _ in $(seq "$runs"); do
    for name in corpus 30000; do
        for temperature in cold warm; do
            measure "$name" ours $temperature
            measure "$name" peer $temperature
        done
    done
done

for size in 1000 3000 10000; do
    generate $size
    for who in ours peer; do
        measure $size $who cold > "$work/log"
        for _ in $(seq "$runs"); do measure $size $who warm; done
    done
done

# Requests of so many names over 30,000 packages, in one layer.
zcat "$work"/snapshot-30000/*/repodata/primary.xml.gz |
    sed -n 's|.*<name>\([a-z0-9]*\)</name>|\1|p' | sort -u | shuf --random-source=<(yes) > "$work/names"
for request in 10 30 100 300; do
    snapshot=$work/request-$request.snapshot
    mkdir -p "$snapshot/layers"
    ln -s "$work"/snapshot-30000/{baseos,appstream,ose} "$snapshot"
    head -n $request "$work/names" > "$snapshot/layers/bootc.packages"
    touch "$snapshot"/layers/{coreos,node}.packages
    prepare request-$request "$snapshot"
    for who in ours peer; do
        measure request-$request $who cold > "$work/log"
        for _ in $(seq "$runs"); do measure request-$request $who warm; done
    done
done

pairs=()
for name in corpus 30000; do
    for temperature in cold warm; do
        pairs+=("solve-$name-$temperature=$name-ours-$temperature:$name-peer-$temperature")
    done
done
python3 "$here/benches/bench.py" report "$work/results" "${pairs[@]}"

python3 - "$work/results" "$picture" <<'PY'
import math, statistics, sys

runs = [line.split() for line in open(sys.argv[1])]
def warm(name, who): # processor seconds
    return statistics.median(float(r[2]) + float(r[3]) for r in runs if r[0] == f"{name}-{who}-warm")

# Both axes logarithmic: a straight line of slope 1 is proportional growth.
LOW, HIGH = 0.01, 10.0
def panel(left, title, points):
    x0, x1, y0, y1 = left + 50, left + 370, 260, 40
    first, last = points[0][0], points[-1][0]
    x = lambda n: x0 + (x1 - x0) * math.log(n / first) / math.log(last / first)
    y = lambda s: y0 + (y1 - y0) * math.log(min(max(s, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    out = [f'<text x="{left + 210}" y="22" text-anchor="middle">{title}</text>',
           f'<path d="M{x0} {y1}V{y0}H{x1}" fill="none" stroke="#444"/>']
    for seconds in (0.01, 0.1, 1, 10):
        out.append(f'<text x="{x0 - 6}" y="{y(seconds) + 4:.0f}" text-anchor="end">{seconds:g}</text>'
                   f'<path d="M{x0} {y(seconds):.0f}H{x1}" stroke="#ddd"/>')
    for n, _, _ in points:
        out.append(f'<text x="{x(n):.0f}" y="{y0 + 18}" text-anchor="middle">{n}</text>')
    for who, color, at in (("strata", "#c0392b", 1), ("dnf", "#2c6fbb", 2)):
        line = " ".join(f"{x(p[0]):.0f},{y(p[at]):.0f}" for p in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>'
                   f'<text x="{x1}" y="{y(points[-1][at]) - 6:.0f}" text-anchor="end" fill="{color}">{who}</text>')
    return out

points = lambda names: [(n, *(warm(name, who) for who in ("ours", "peer"))) for n, name in names]
sizes = points([(n, str(n)) for n in (1000, 3000, 10000, 30000)])
requests = points([(n, f"request-{n}") for n in (10, 30, 100, 300)])
svg = ['<svg xmlns="http://www.w3.org/2000/svg" width="800" height="300" font-family="sans-serif" font-size="12">',
       '<rect width="800" height="300" fill="white"/>']
svg += panel(0, "processor seconds by packages in the repositories (three layers)", sizes)
svg += panel(400, "processor seconds by packages asked for (30,000 packages)", requests)
open(sys.argv[2], "w").write("\n".join(svg + ["</svg>"]) + "\n")
PY
