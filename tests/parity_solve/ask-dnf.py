"""What dnf would do: reads {root, arch, modular, repos, installed, requests} on stdin, writes one answer per request.

An answer is null (no solution) or {"install": [nevra...], "remove": [nevra...]}; an upgrade is both. The
packages in `installed` (paths of RPMs) are there before, in the rpmdb only. They stay as they are: each is asked for,
other versions of it are excluded, and what it fulfils is not asked for again. HOME is `root`, whose .rpmmacros moves the rpmdb to /db, out of the way of each
distribution's own idea.
"""

import json
import logging
import os
import sys

import dnf
import dnf.module.module_base
import libdnf
import rpm

logging.disable(logging.CRITICAL)
task = json.load(sys.stdin)
root = task["root"]
os.makedirs(root + "/db", exist_ok=True)
# reading modules again and again adds up
dnf.base.WITH_MODULES = task["modular"]


def record(paths):
    rpm.addMacro("_dbpath", root + "/db")
    ts = rpm.TransactionSet("/")
    ts.setVSFlags(~0)
    ts.setFlags(rpm.RPMTRANS_FLAG_JUSTDB | rpm.RPMTRANS_FLAG_NOSCRIPTS | rpm.RPMTRANS_FLAG_NOTRIGGERS)
    ts.setProbFilter(~0)
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


def open_base(exclude):
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
    conf.excludepkgs = exclude
    for repo in task["repos"]:
        # add_new_repo takes only the first item of lists
        added = base.repos.add_new_repo(repo["id"], conf, baseurl=repo["baseurl"], gpgcheck=False, metadata_expire=-1)
        for key in ("priority", "cost", "includepkgs", "excludepkgs", "module_hotfixes"):
            setattr(added, key, repo[key])
    base.fill_sack(load_system_repo=bool(task["installed"]))
    base.read_comps(arch_filter=True)
    return base


def bases():
    """Gives a base without jobs that excludes what a request says; a sack is filled once, but for modules."""
    base, last = None, None

    def base_for(request):
        nonlocal base, last
        exclude = request["exclude"]
        modular = task["modular"] and (request["modules"] or any(s.startswith("@") for s in request["install"]))
        if base is None or (task["modular"] and exclude != last) or modular:
            base = open_base(exclude)
            last = None if modular else exclude
            return base
        base.reset(goal=True)
        if exclude != last or task["installed"]:
            base.sack.reset_excludes()
            base.sack.reset_includes()
            base.conf.excludepkgs = exclude
            base._setup_excludes_includes()
        last = exclude
        return base

    return base_for


def open_specs(base, specs):
    """Entries that packages below do not fulfil."""
    for spec in specs:
        plain = not spec.startswith("@") and not dnf.util.is_glob_pattern(spec)
        if not (plain and dnf.subject.Subject(spec).get_best_query(base.sack, with_src=False).installed()):
            yield spec


def stay(base):
    installed = base.sack.query().installed()
    for package in installed:
        base._goal.install(package)
    onlies = base.sack.query().available().filterm(provides=base.conf.installonlypkgs)
    for package in installed:
        others = base.sack.query().available().filterm(name=package.name, arch=package.arch)
        base.sack.add_excludes(others.difference(onlies))


def enable(base, streams):
    """Enables streams as `dnf module enable` does, which goes on where defaults stand against them."""
    try:
        dnf.module.module_base.ModuleBase(base).enable(streams)
    except dnf.exceptions.MarkingErrors as error:
        defaults = libdnf.module.ModulePackageContainer.ModuleErrorType_ERROR_IN_DEFAULTS
        problems = error.module_depsolv_errors
        if error.no_match_group_specs or error.error_group_specs or problems[1] != defaults:
            raise


def solve(base, request):
    base.conf.install_weak_deps = request["weak"]
    base.conf.exclude_from_weak = request["no_weak"]
    try:
        if request["modules"]:
            enable(base, request["modules"])
        stay(base)
        base.install_specs(list(open_specs(base, request["install"])))
        base.resolve()
    except (dnf.exceptions.Error, libdnf._error.Error):
        return None
    transaction = base.transaction
    return {
        "install": sorted(str(p) for p in transaction.install_set),
        "remove": sorted(str(p) for p in transaction.remove_set),
    }


if task["installed"]:
    record(task["installed"])
base_for = bases()
json.dump([solve(base_for(request), request) for request in task["requests"]], sys.stdout)
