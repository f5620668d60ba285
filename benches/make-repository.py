#!/usr/bin/env python3
"""Writes a snapshot of repositories that has no packages, only metadata: for measuring how metadata are read and solved.

    make-repository.py SNAPSHOT PACKAGES

SNAPSHOT becomes what snapshot-stream.sh takes: the repositories baseos, appstream and ose, and
layers/{bootc,coreos,node}.packages. PACKAGES counts the packages of all three; the same count gives the same bytes.

The shape is an estimate of RHEL's, not a count: a source makes six binary packages, libraries for two architectures;
four versions of each are kept; of 30,000 packages each has 16 provides and requires together, and 37 paths in
filelists.xml; sources use those below them, the lower the more often.
"""
import gzip
import hashlib
import os
import random
import sys
from xml.sax.saxutils import quoteattr

VERSIONS = 4
PER_VERSION = 6  # packages of a source
EPOCH = 1738540800  # 2025-02-03, UTC seconds
REPOS = (("baseos", 0.2), ("appstream", 0.9), ("ose", 1.0))  # up to which share of the sources


def entry(name, evr=None, flag="EQ", pre=False):
    version = ""
    if evr:
        version = f' flags="{flag}" epoch="0" ver="{evr[0]}"' + (f' rel="{evr[1]}"' if evr[1] else "")
    first = ' pre="1"' if pre else ""
    return f"      <rpm:entry name={quoteattr(name)}{version}{first}/>\n"


class Source:
    """A source package: what its binary packages of one version are."""

    def __init__(self, number, draw):
        self.number = number
        self.name = f"{draw.choice(WORDS)}{number}"
        self.soname = f"lib{self.name}.so.{draw.randint(0, 9)}"
        # most use what everybody uses
        self.uses = sorted({int(number * draw.random() ** 4) for _ in range(draw.randint(4, 24))} - {number})
        self.files = draw.randint(5, 60)
        self.changes = draw.random()

    def packages(self, version, sources):
        evr = (f"{1 + self.number % 7}.{version}", f"{1 + version}.el9")
        for arch, bits in (("x86_64", "()(64bit)"), ("i686", "")):
            yield self.library(evr, arch, bits, sources)
            yield self.devel(evr, arch, bits)
        yield self.program(evr, sources)
        yield self.documentation(evr)

    def package(self, name, evr, arch, provides=(), requires=(), weak="", files=(), more=()):
        isa = {"x86_64": "(x86-64)", "i686": "(x86-32)", "noarch": None}[arch]
        own = [entry(name, evr)] + ([entry(name + isa, evr)] if isa else [])
        return dict(name=name, evr=evr, arch=arch, source=f"{self.name}-{evr[0]}-{evr[1]}.src.rpm",
                    provides=own + list(provides), requires=list(requires), weak=weak, files=list(files), more=list(more))

    def library(self, evr, arch, bits, sources):
        libdir = "/usr/lib64" if arch == "x86_64" else "/usr/lib"
        symbols = [f"{self.name.upper()}_{evr[0].split('.')[0]}.{minor}" for minor in range(1 + self.number % 4)]
        versioned = lambda symbol: f"{self.soname}({symbol})" + bits[2:]
        requires = [entry(f"libc.so.6(GLIBC_2.34){bits[2:]}"), entry("rtld(GNU_HASH)")]
        for used in self.uses:
            requires.append(entry(sources[used].soname + bits))
            requires.append(entry(f"{sources[used].soname}({sources[used].name.upper()}_{1 + used % 7}.0){bits[2:]}"))
        if self.number == 0:
            requires = []
        own = [f"{libdir}/{self.soname}", f"{libdir}/{self.soname}.{evr[0]}", f"/usr/share/licenses/{self.name}-libs/COPYING"]
        provides = [entry(self.soname + bits)] + [entry(versioned(symbol)) for symbol in symbols]
        if self.number == 0:  # this one is the C library and the shell
            provides += [entry("libc.so.6" + bits), entry(f"libc.so.6(GLIBC_2.34){bits[2:]}"), entry("rtld(GNU_HASH)")]
        return self.package(f"{self.name}-libs", evr, arch, provides, requires, files=[],
                            more=own + [f"/usr/share/locale/{n}/LC_MESSAGES/{self.name}.mo" for n in range(self.files)])

    def devel(self, evr, arch, bits):
        isa = "(x86-64)" if arch == "x86_64" else "(x86-32)"
        return self.package(
            f"{self.name}-devel", evr, arch, [entry(f"pkgconfig({self.name})", (evr[0], ""))],
            [entry(f"{self.name}-libs{isa}", evr), entry("/usr/bin/pkg-config0"), entry(self.soname + bits)],
            files=[f"/usr/bin/{self.name}-config"],
            more=[f"/usr/include/{self.name}/{n}.h" for n in range(self.files)])

    def program(self, evr, sources):
        requires = [entry(f"{self.name}-libs(x86-64)", evr), entry("/bin/sh", pre=True), entry("libc.so.6(GLIBC_2.34)(64bit)"),
                    entry("rtld(GNU_HASH)"), entry(self.soname + "()(64bit)")]
        requires += [entry(sources[used].soname + "()(64bit)") for used in self.uses]
        if self.uses:
            requires += [entry(sources[self.uses[-1]].name, (f"{1 + self.uses[-1] % 7}.0", ""), "GE")]
        if self.number % 40 == 7:
            requires.append(entry(f"/usr/share/{sources[self.number // 2].name}/data/1"))  # not in primary
        if self.number % 25 == 3 and self.uses:
            requires.append(entry(f"({self.name}-doc if {sources[self.uses[0]].name}-doc)"))
        weak = f"    <rpm:recommends>\n{entry(f'{self.name}-doc')}    </rpm:recommends>\n" if self.number % 10 == 1 else ""
        if self.number % 20 == 9:
            weak += f"    <rpm:obsoletes>\n{entry(f'old-{self.name}', (evr[0], ''), 'LT')}    </rpm:obsoletes>\n"
        if self.number % 30 == 11:
            weak += f"    <rpm:conflicts>\n{entry(f'{self.name}-libs', (evr[0], ''), 'LT')}    </rpm:conflicts>\n"
        provides = [entry(f"config({self.name})", evr)]
        files = [f"/usr/bin/{self.name}", f"/etc/{self.name}.conf", f"/etc/{self.name}.d"]
        if self.number == 0:
            files += ["/bin/sh", "/usr/bin/sh", "/usr/bin/pkg-config0"]
            provides.append(entry("/bin/sh"))
        return self.package(self.name, evr, "x86_64", provides, requires, weak, files,
                            [f"/usr/share/{self.name}/data/{n}" for n in range(self.files)])

    def documentation(self, evr):
        return self.package(f"{self.name}-doc", evr, "noarch", files=[],
                            more=[f"/usr/share/doc/{self.name}/chapter-{n}.html" for n in range(self.files)])


WORDS = "acl audit boost cairo dbus expat fuse gtk http icu jansson krb lz mesa nss openssl perl qt ruby sqlite tcl udev xml".split()


def primary(package, pkgid):
    version, release = package["evr"]
    nevra = f"{package['name']}-{version}-{release}.{package['arch']}"
    text = package["name"]
    relations = "".join(f"    <rpm:{kind}>\n{''.join(package[kind])}    </rpm:{kind}>\n"
                        for kind in ("provides", "requires") if package[kind])
    files = "".join(f"    <file>{path}</file>\n" for path in package["files"])
    return f"""<package type="rpm">
  <name>{text}</name>
  <arch>{package['arch']}</arch>
  <version epoch="0" ver="{version}" rel="{release}"/>
  <checksum type="sha256" pkgid="YES">{pkgid}</checksum>
  <summary>What {text} is for, in a line of the usual length</summary>
  <description>{f"{text} does what its name says, and this says so again in other words. " * 4}</description>
  <packager>strata</packager>
  <url>https://example.com/{text}</url>
  <time file="{EPOCH}" build="{EPOCH}"/>
  <size package="{20000 + len(nevra)}" installed="{80000 + len(nevra)}" archive="90000"/>
  <location href="Packages/{text[0]}/{nevra}.rpm"/>
  <format>
    <rpm:license>MIT</rpm:license>
    <rpm:vendor>strata</rpm:vendor>
    <rpm:group>Unspecified</rpm:group>
    <rpm:buildhost>localhost</rpm:buildhost>
    <rpm:sourcerpm>{package['source']}</rpm:sourcerpm>
    <rpm:header-range start="4504" end="21000"/>
{relations}{package['weak']}{files}  </format>
</package>
"""


def filelists(package, pkgid):
    version, release = package["evr"]
    files = "".join(f"  <file>{path}</file>\n" for path in package["files"] + package["more"])
    return (f'<package pkgid="{pkgid}" name="{package["name"]}" arch="{package["arch"]}">\n'
            f'  <version epoch="0" ver="{version}" rel="{release}"/>\n{files}</package>\n')


def write_repository(root, packages):
    os.makedirs(f"{root}/repodata")
    ids = [hashlib.sha256(f"{p['name']}-{p['evr']}-{p['arch']}".encode()).hexdigest() for p in packages]
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    spaces = 'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
    documents = {
        "primary": f'{head}<metadata {spaces} packages="{len(packages)}">\n'
                   + "".join(map(primary, packages, ids)) + "</metadata>\n",
        "filelists": f'{head}<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="{len(packages)}">\n'
                     + "".join(map(filelists, packages, ids)) + "</filelists>\n",
    }
    data = ""
    for kind, text in documents.items():
        plain = text.encode()
        packed = gzip.compress(plain, 6, mtime=0)
        digest, name = hashlib.sha256(packed).hexdigest(), f"repodata/{kind}.xml.gz"
        with open(f"{root}/{name}", "wb") as out:
            out.write(packed)
        data += f"""  <data type="{kind}">
    <checksum type="sha256">{digest}</checksum>
    <open-checksum type="sha256">{hashlib.sha256(plain).hexdigest()}</open-checksum>
    <location href="{name}"/>
    <timestamp>{EPOCH}</timestamp>
    <size>{len(packed)}</size>
    <open-size>{len(plain)}</open-size>
  </data>
"""
    with open(f"{root}/repodata/repomd.xml", "w") as out:
        out.write(f'{head}<repomd xmlns="http://linux.duke.edu/metadata/repo">\n  <revision>{EPOCH}</revision>\n{data}</repomd>\n')


def main():
    snapshot, count = sys.argv[1], int(sys.argv[2])
    draw = random.Random(count)
    sources = []
    for number in range(max(count // (VERSIONS * PER_VERSION), 8)):
        sources.append(Source(number, draw))
    start = 0
    for repo, share in REPOS:
        end = int(len(sources) * share)
        packages = [package for source in sources[start:end] for version in range(VERSIONS)
                    for package in source.packages(version, sources)]
        write_repository(f"{snapshot}/{repo}", packages)
        start = end
    os.makedirs(f"{snapshot}/layers")
    first = 0
    for layer, share, most in (("bootc", 0.4, 134), ("coreos", 0.9, 59), ("node", 1.0, 33)):
        end = int(len(sources) * share)
        asked = draw.sample(sources[first:end], min(most, end - first))
        with open(f"{snapshot}/layers/{layer}.packages", "w") as out:
            out.writelines(f"{name}\n" for name in sorted(source.name for source in asked))
        first = end


main()
