"""Prints how two repodata directories differ in what they say of packages: same-repodata.py OURS THEIRS

Left out is what may differ: the time of an .rpm file. The order of packages is theirs, the order within a package counts.
"""
import gzip
import lzma
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

REPO = "{http://linux.duke.edu/metadata/repo}"


def content(path):
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".xz":
        return lzma.decompress(data)
    return subprocess.run(["zstd", "-dc", path], check=True, stdout=subprocess.PIPE).stdout


def said(element):
    attributes = {key: value for key, value in element.attrib.items() if (element.tag[-4:], key) != ("time", "file")}
    return element.tag, attributes, (element.text or "").strip(), [said(child) for child in element]


def packages(repodata, kind):
    for data in xml.parse(repodata / "repomd.xml").getroot().iter(REPO + "data"):
        if data.get("type") == kind:
            href = data.find(REPO + "location").get("href")
            root = xml.fromstring(content(repodata.parent / href))
            listed = [said(package) for package in root]
            assert root.get("packages") == str(len(listed)), f"{href} claims {root.get('packages')} packages"
            return {key(package): package for package in listed}
    sys.exit(f"{repodata} has no {kind}")


def key(package):
    checksums = [text for tag, _, text, _ in package[3] if tag.endswith("checksum")]
    return package[1].get("pkgid") or checksums[0]


def lines(package, indent=0):
    tag, attributes, text, children = package
    yield f"{'  ' * indent}{tag} {attributes} {text!r}"
    for child in children:
        yield from lines(child, indent + 1)


ours, theirs = (Path(path) for path in sys.argv[1:])
count = 0
for kind in ("primary", "filelists", "other"):
    a, b = packages(ours, kind), packages(theirs, kind)
    count = len(a)
    for missing in a.keys() ^ b.keys():
        print(kind, "of one only:", missing)
    for pkgid in a.keys() & b.keys():
        if a[pkgid] != b[pkgid]:
            ours_said, theirs_said = list(lines(a[pkgid])), list(lines(b[pkgid]))
            print(kind, pkgid)
            print("\n".join(f"  ours   {line}" for line in ours_said if line not in theirs_said))
            print("\n".join(f"  theirs {line}" for line in theirs_said if line not in ours_said))
            if sorted(ours_said) == sorted(theirs_said):
                print("  only the order differs")
print(count, "packages compared")
