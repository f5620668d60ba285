"""Fails unless its reader would take a file: accept.py KIND FILE

What each reader takes, in other words than its own: of hermeto the models of package_managers/rpm/redhat.py, of
rpm-lockfile-prototype rpm_lockfile/schema.py, of libpkgmanifest schemas/*.json, of rpm-ostree rust/src/lockfile.rs. YAML is
read by PyYAML, as hermeto and rpm-lockfile-prototype do.
"""
import json
import re
import sys

import yaml

TEXT, NUMBER, FLAG = (lambda v: isinstance(v, str)), (lambda v: type(v) is int), (lambda v: isinstance(v, bool))


def some(test):
    return lambda v: isinstance(v, list) and all(map(test, v))


def match(pattern):
    return lambda v: TEXT(v) and re.search(pattern, v) is not None


def mapping(key, value):
    return lambda v: isinstance(v, dict) and all(key(k) and value(x) for k, x in v.items())


def either(*tests):
    return lambda v: any(test(v) for test in tests)


def table(needed, optional={}, closed=True):
    known = {**needed, **optional}
    return lambda v: (
        isinstance(v, dict)
        and set(needed) <= set(v)
        and (not closed or set(v) <= set(known))
        and all(known[key](x) for key, x in v.items() if key in known)
    )


def one_of(*values):
    return lambda v: v in values and type(v) is type(values[0])


CHECKSUM = match(r"^sha256:[0-9a-f]{64}$")
EVR = match(r"^(\d+:)?(.+)-(.+)$")
PACKAGE = table({"url": match("^(https?|file)://"), "repoid": TEXT, "checksum": CHECKSUM, "size": NUMBER},
                {"name": TEXT, "evr": EVR, "sourcerpm": match(r"\.src\.rpm$")})
NAMES = either(TEXT, some(TEXT))
SPEC = either(TEXT, table({"name": TEXT}, {"arches": either(table({"only": NAMES}), table({"not": NAMES}))}))
ORIGIN = either(*(table({"repoid": TEXT, place: TEXT}, closed=False) for place in ("baseurl", "metalink", "mirrorlist")))
REPOSITORY = either(*(table({"id": TEXT, place: TEXT}, closed=False) for place in ("baseurl", "metalink", "mirrorlist")))
TIME = match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
ABOUT = table({}, closed=False)

KINDS = {
    "hermeto": table({
        "lockfileVersion": one_of(1),
        "lockfileVendor": one_of("redhat"),
        "arches": some(table({"arch": TEXT},
                             {"packages": some(PACKAGE), "source": some(PACKAGE), "module_metadata": some(PACKAGE)})),
    }),
    "rpms-in": table({"contentOrigin": table({}, {"repos": some(ORIGIN)})}, {
        "packages": some(SPEC), "upgradePackages": some(SPEC), "arches": some(TEXT), "installWeakDeps": FLAG,
        "context": either(table({"image": TEXT}), table({"bare": FLAG})),
    }),
    "manifest": table({
        "document": one_of("rpm-package-manifest"),
        "version": match(r"^\d+\.\d+\.\d+$"),
        "data": table({
            "repositories": some(REPOSITORY),
            "packages": mapping(match("^[a-z0-9_]+$"), some(table(
                {"name": TEXT, "repo_id": TEXT, "checksum": CHECKSUM, "size": lambda v: NUMBER(v) and v > 0, "evr": EVR},
                {"location": TEXT, # the schema has [a-z0-9], to which NetworkManager is no package
                 "srpm": match(r"^([A-Za-z0-9].*)-(?:\d+:)?(.+)-(.+)\.(.+)$"), "parent_archs": some(TEXT)}))),
        }),
    }),
    "input": table({
        "document": one_of("rpm-package-input"),
        "version": match(r"^\d+\.\d+\.\d+$"),
        "repositories": some(REPOSITORY),
        "packages": table({"install": some(TEXT)}),
        "archs": lambda v: v and some(match("^[a-z0-9_]+$"))(v),
    }),
    "rpm-ostree": table({"packages": mapping(TEXT, either(
        table({"evra": match(r"\.[a-z0-9_]+$")}, {"digest": CHECKSUM, "metadata": ABOUT}),
        table({"evr": EVR}, {"digest": CHECKSUM, "metadata": ABOUT}),
    ))}, {"metadata": table({"generated": TIME, "rpmmd_repos": mapping(TEXT, table({"generated": TIME}))})}),
}

kind, path = sys.argv[1:]
with open(path) as file:
    document = yaml.safe_load(file)
if not KINDS[kind](document):
    sys.exit(f"{path} is not for {kind}: {json.dumps(document)[:4000]}")
