"""Prints how dnf understands a .repo file, one value a line: dnf-repos.py DIRECTORY"""
import sys

import dnf

base = dnf.Base()
base.conf.reposdir = [sys.argv[1]]
base.conf.substitutions.update(releasever="9.6", basearch="x86_64", arch="x86_64", snapshot="today")
base.read_all_repos()
for repo in base.repos.values():
    for key in ("enabled", "gpgcheck", "repo_gpgcheck", "module_hotfixes", "sslverify"):
        print(repo.id, key, str(bool(getattr(repo, key))).lower())
    for key in ("baseurl", "gpgkey", "includepkgs", "excludepkgs"):
        for value in getattr(repo, key):
            print(repo.id, key, value.rstrip("/"))
    for key in ("mirrorlist", "metalink", "priority", "cost", "sslclientcert", "sslclientkey", "sslcacert", "proxy"):
        if getattr(repo, key) not in (None, ""):
            print(repo.id, key, getattr(repo, key))
