#!/usr/bin/env python3
"""Measures commands, and compares what it measured.

    bench.py run RESULTS NAME COMMAND...
    bench.py report RESULTS TITLE=OURS:PEER...

`run` appends a line `NAME WALL USER SYSTEM PEAK` to the file RESULTS and prints it: seconds, and the KiB of the largest
process. All processes count, those too that are left by whoever started them: bwrap does not wait for what it started
in a pid namespace, so that time(1) sees nothing of scriptlets.

`report` prints the medians of each NAME, and for each pair of names a line
`bench TITLE-METRIC: ours S s, peer S s, ratio R, peak MiB` for wall and for processor time; the ratio is the peer's
time by ours, the peak that of our largest process.
"""

import ctypes
import os
import resource
import statistics
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def run(results, name, *command):
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    start = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    wall = status = None
    while True:
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            break
        if pid == child:
            wall, status = time.monotonic() - start, os.waitstatus_to_exitcode(ended)
    if status:
        sys.exit(f"{name}: exit status {status}")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = f"{name} {wall:.3f} {usage.ru_utime:.3f} {usage.ru_stime:.3f} {usage.ru_maxrss}"
    with open(results, "a") as file:
        print(line, file=file)
    print(line, flush=True)


def report(results, *pairs):
    with open(results) as file:
        runs = [line.split() for line in file]

    def medians(name):
        wall, user, system, peak = (statistics.median(float(r[i]) for r in runs if r[0] == name) for i in range(1, 5))
        return wall, user, system, peak / 1024

    for name in dict.fromkeys(r[0] for r in runs):
        print("%-8s wall %6.1f s   user %6.1f s   system %6.1f s   peak %5.0f MiB" % (name, *medians(name)))
    for pair in pairs:
        title, _, names = pair.partition("=")
        ours, peer = (medians(name) for name in names.split(":"))
        for metric, of in (("wall", lambda m: m[0]), ("cpu", lambda m: m[1] + m[2])):
            print(f"bench {title}-{metric}: ours {of(ours):.2f} s, peer {of(peer):.2f} s, "
                  f"ratio {of(peer) / of(ours):.1f}, peak {ours[3]:.0f} MiB")


{"run": run, "report": report}[sys.argv[1]](*sys.argv[2:])
