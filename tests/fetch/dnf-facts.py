"""Prints what dnf knows of the packages of a repository, one fact a line: dnf-facts.py URL WORKDIR"""
import sys

import dnf

base = dnf.Base()
conf, url, work = base.conf, sys.argv[1], sys.argv[2]
conf.cachedir, conf.persistdir, conf.installroot = work + "/cache", work + "/persist", work + "/root"
conf.substitutions["releasever"] = "9"
conf.excludepkgs = []
base.repos.add_new_repo("r", conf, baseurl=[url])
base.fill_sack(load_system_repo=False)
for p in base.sack.query():
    me = f"{p.name}-{p.epoch}:{p.version}-{p.release}.{p.arch}"
    print(me, p.location, p.downloadsize, p.installsize, p.buildtime, p.sourcerpm, p.vendor or "", p.chksum[1].hex())
    for kind in ("provides requires conflicts obsoletes recommends suggests supplements enhances").split():
        for dependency in getattr(p, kind):
            print(me, kind, dependency)
    for dependency in p.requires_pre:
        print(me, "pre", dependency)
    for path in p.files:
        print(me, "file", path)
for p in base.sack.query().filterm(latest=False):
    for a in p.get_advisories(dnf.hawkey.EQ) if hasattr(dnf, "hawkey") else []:
        print("advisory", a.id, p, *sorted(r.id for r in a.references if r.type == 2))
