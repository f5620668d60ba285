"""What dnf would do: reads {root, arch, modular, repos, installed, requests} on stdin, writes one answer per request.

An answer is null (no solution) or {"install": [nevra...], "remove": [nevra...]}; an upgrade is both. The packages in
`installed` (paths of RPMs) are there before, in the rpmdb only. A request is

- {install, exclude, weak, no_weak, modules}: what is installed stays as it is; each is asked for, other versions of it
  are excluded, and what it fulfils is not asked for again;
- {security: "eq"} or {security: "gte"}: what `dnf upgrade-minimal --security` or `dnf upgrade --security` would do.

HOME is `root`, whose .rpmmacros moves the rpmdb to /db, out of the way of each distribution's own idea.
"""

import json
import logging
import os
import sys

import dnf
import dnf.module.module_base
import dnf.sack
import hawkey
import libdnf
import rpm

logging.disable(logging.CRITICAL)
task = json.load(sys.stdin)
root = task["root"]
os.makedirs(root + "/db", exist_ok=True)
# reading modules again and again adds up
dnf.base.WITH_MODULES = task["modular"]


def load_repo(sack, repo, build_cache, **options):
    """What a package needs stays in the order of the metadata: dnf's cache would sort it by how often it occurs."""
    hawkey.Sack.load_repo(sack, repo, build_cache=False, **options)


dnf.sack.Sack.load_repo = load_repo


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
        exclude = request.get("exclude", [])
        groups = any(spec.startswith("@") for spec in request.get("install", []))
        modular = task["modular"] and (groups or request["modules"])
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


def is_open(base, spec):
    """Whether packages below do not fulfil an entry; a glob is open as long as it names others, too."""
    if spec.startswith("@"):
        return True
    found = dnf.subject.Subject(spec).get_best_query(base.sack, with_src=False)
    return not found.installed() or bool(dnf.util.is_glob_pattern(spec) and found.available())


def see_all_below(base):
    """What is excluded is not to be added; what is there stays, excluded or not."""
    base.sack.remove_excludes(base.sack.query(flags=hawkey.IGNORE_EXCLUDES).installed())


def despite_defaults(ask, specs):
    """Asks as dnf's commands do, which go on where default streams of modules stand against each other."""
    try:
        ask(specs)
    except dnf.exceptions.MarkingErrors as error:
        defaults = libdnf.module.ModulePackageContainer.ModuleErrorType_ERROR_IN_DEFAULTS
        others = (error.no_match_group_specs, error.error_group_specs, error.no_match_pkg_specs, error.error_pkg_specs)
        if any(others) or error.module_depsolv_errors[1] != defaults:
            raise


def install(base, request):
    base.conf.install_weak_deps = request["weak"]
    base.conf.exclude_from_weak = request["no_weak"]
    if request["modules"]:
        despite_defaults(dnf.module.module_base.ModuleBase(base).enable, request["modules"])
    see_all_below(base)
    despite_defaults(base.install_specs, [spec for spec in request["install"] if is_open(base, spec)])


def upgrade(base, security):
    base.add_security_filters(security, types=["security"])
    base.upgrade_all()


def solve(request):
    base = base_for(request)
    try:
        if "security" in request:
            upgrade(base, request["security"])
        else:
            install(base, request)
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
json.dump([solve(request) for request in task["requests"]], sys.stdout)
