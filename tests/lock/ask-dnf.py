"""What dnf would upgrade for security: reads {root, arch, baseurl, installed, security} on stdin, writes
{"install": [nevra...], "remove": [nevra...]}; an upgrade is both.

`security` "eq" is `dnf upgrade-minimal --security`, "gte" is `dnf upgrade --security`. The packages in `installed`
(paths of RPMs) are there before, in the rpmdb only. HOME is `root`, whose .rpmmacros moves the rpmdb to /db, out of
the way of each distribution's own idea.
"""

import json
import os
import sys

import dnf
import rpm

task = json.load(sys.stdin)
root = task["root"]
os.makedirs(root + "/db", exist_ok=True)


def record(paths):
    rpm.addMacro("_dbpath", root + "/db")
    ts = rpm.TransactionSet("/")
    ts.setVSFlags(~0)
    ts.setFlags(rpm.RPMTRANS_FLAG_JUSTDB | rpm.RPMTRANS_FLAG_NOSCRIPTS | rpm.RPMTRANS_FLAG_NOTRIGGERS)
    opened = {}
    for path in paths:
        with open(path) as file:
            ts.addInstall(ts.hdrFromFdno(file.fileno()), path, "i")

    def callback(what, amount, total, key, data):
        if what == rpm.RPMCALLBACK_INST_OPEN_FILE:
            opened[key] = open(key)
            return opened[key].fileno()
        if what == rpm.RPMCALLBACK_INST_CLOSE_FILE:
            opened.pop(key).close()

    if problems := ts.run(callback, ""):
        sys.exit(f"recording {paths}: {problems}")
    ts.closeDB()
    rpm.delMacro("_dbpath")


def upgrade():
    base = dnf.Base()
    conf = base.conf
    conf.installroot = root
    conf.cachedir = root + "/cache"
    conf.persistdir = root + "/persist"
    conf.logdir = root
    conf.reposdir = []
    conf.pluginconfpath = []
    conf.substitutions.update(arch=task["arch"], basearch=task["arch"], releasever="9")
    conf.module_platform_id = "platform:el9"
    conf.best = True
    base.repos.add_new_repo("os", conf, baseurl=[task["baseurl"]], gpgcheck=False, metadata_expire=-1)
    base.fill_sack(load_system_repo=True)
    base.add_security_filters(task["security"], types=["security"])
    base.upgrade_all()
    base.resolve()
    return base.transaction


record(task["installed"])
transaction = upgrade()
answer = {
    "install": sorted(str(p) for p in transaction.install_set),
    "remove": sorted(str(p) for p in transaction.remove_set),
}
json.dump(answer, sys.stdout)
