//! Images judged by other programs: skopeo, umoci, GNU tar, gzip, zstd, sha256sum and the kernel's overlayfs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use strata::digest::Digest;
use strata::image::chunk::{self, Chunk, Rules};
use strata::image::delta::{Delta, delta};
use strata::image::oci::{Image, Layout, Settings};
use strata::image::ostree::{About, encapsulate};
use strata::image::pack::{Compression, pack};
use strata::image::packing::{Packing, Source, Sources};
use strata::image::tar::Tree;
use strata::package::Arch;
use strata::progress::Silent;
use tempfile::TempDir;

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs a program and gives its standard output; it must succeed.
fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("running {program}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn shell(script: &str) -> String {
    run("sh", &["-euc", script])
}

fn write(root: &Path, path: &str, content: &[u8], mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The source package of a path in these tests: the first word of the file name before a dash.
fn owner_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    ["alpha", "beta", "gamma"].into_iter().find(|owner| name.starts_with(owner))
}

fn split(delta: &Delta) -> Vec<Chunk> {
    let rules = Rules {
        owner_of: &owner_of,
        is_ghost: &|_| false,
        rpmdb: Path::new("usr/lib/sysimage/rpm"),
        metadata: Path::new("usr/share/openshift/base/meta.json"),
    };
    let sources: Sources = chunk::sizes(delta, &rules)
        .into_iter()
        .map(|(name, size)| (name, Source { size, ..Source::default() }))
        .collect();
    chunk::split(delta, &rules, &Packing::new(&sources, 10), &sources)
}

fn settings(layer: &str) -> Settings {
    Settings {
        layer: layer.to_owned(),
        arch: Arch::X86_64,
        created: 1_738_540_800,
        labels: [("containers.bootc".to_owned(), "1".to_owned())].into(),
        annotations: BTreeMap::new(),
        env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
        cmd: Some(vec!["/sbin/init".to_owned()]),
    }
}

/// Packs a tree over `lower` as an image called `name`.
fn build(layout: &Layout, parent: Option<&Image>, upper: &Path, lower: &[PathBuf], name: &str) -> Image {
    build_with(layout, parent, upper, lower, name, Compression::Gzip)
}

fn build_with(
    layout: &Layout,
    parent: Option<&Image>,
    upper: &Path,
    lower: &[PathBuf],
    name: &str,
    compression: Compression,
) -> Image {
    let delta = delta(upper, lower, &|_| None).unwrap();
    let layers = pack(layout, &Tree(upper), &split(&delta), compression, &Silent).unwrap();
    let image = layout.write_image(parent, &layers, &settings(name)).unwrap();
    layout.tag(&image, Some(name)).unwrap();
    image
}

/// Everything an image says about a tree, as comparable lines.
fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let owner = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        let content = if meta.is_dir() {
            let mut children: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            // last in first out: the first name of an inode is met first
            children.sort_by(|a, b| b.cmp(a));
            pending.extend(children);
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
        } else {
            let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
            format!("{} {first}", Digest::of_reader(&mut fs::File::open(&path).unwrap()).unwrap().0)
        };
        let xattrs = if meta.is_symlink() { String::new() } else { xattrs(&path) };
        lines.insert(name, format!("{owner} {content} {xattrs}"));
    }
    lines
}

/// `user.*` xattrs and capabilities, by getfattr.
fn xattrs(path: &Path) -> String {
    let all = run(
        "getfattr",
        &[
            "--absolute-names",
            "-h",
            "-d",
            "-e",
            "hex",
            "-m",
            "^(user[.]|security[.]capability)",
            path.to_str().map_or("/dev/null", |p| p),
        ],
    );
    // overlayfs and, run by an ordinary user, umoci keep notes in xattrs
    let noise = ["#", "user.overlay.", "user.rootlesscontainers="];
    let kept = all.lines().filter(|l| !l.is_empty() && !noise.iter().any(|n| l.starts_with(n)));
    kept.collect::<Vec<_>>().join(" ")
}

/// Unpacks an image with umoci, as whoever runs this.
fn unpack(layout: &Layout, name: &str) -> (TempDir, PathBuf) {
    let dir = temp();
    let bundle = dir.path().join("bundle");
    let image = format!("{}:{name}", layout.root().display());
    let mut args = vec!["unpack", "--image", &image];
    if !rustix::process::geteuid().is_root() {
        args.insert(1, "--rootless");
    }
    let target = bundle.to_str().unwrap();
    args.push(target);
    run("umoci", &args);
    let rootfs = bundle.join("rootfs");
    (dir, rootfs)
}

/// Unpacks an image with strata.
fn extract(layout: &Layout, name: &str) -> (TempDir, PathBuf) {
    let dir = temp();
    let target = dir.path().join("rootfs");
    let image = layout.image(Some(name), None).unwrap();
    strata::image::extract::extract(layout, &image, &target).unwrap();
    (dir, target)
}

/// Unpacks an image with buildah (containers/storage) and describes the tree.
fn unpack_with_buildah(layout: &Layout, name: &str) -> BTreeMap<String, String> {
    let dir = temp();
    let script = format!(
        // a relative path: buildah names the image after it, in lower case only
        "cd {layouts}
         b='buildah --root {dir}/root --runroot {dir}/run --storage-driver vfs'
         container=$($b from --pull-never oci:layout:{name})
         mkdir {dir}/tree; cp -a $($b mount $container)/. {dir}/tree/
         $b rm -a >/dev/null; chmod -R u+rwX {dir}/root; rm -rf {dir}/root {dir}/run",
        dir = dir.path().display(),
        layouts = layout.root().parent().unwrap().display(),
    );
    if rustix::process::geteuid().is_root() {
        shell(&script);
    } else {
        // there, root is the user, and the user's own id, which all files have, is another
        let script = format!("{script}; chown -hR 0:0 {}/tree", dir.path().display());
        run("buildah", &["unshare", "sh", "-euc", &script]);
    }
    describe(&dir.path().join("tree"))
}

fn base_tree(root: &Path) {
    fs::create_dir_all(root.join("usr/lib/empty")).unwrap();
    write(root, "usr/bin/alpha", b"alpha binary", 0o755);
    write(root, "usr/bin/beta", b"beta binary", 0o4755);
    write(root, "usr/bin/gamma", b"linked", 0o755);
    fs::hard_link(root.join("usr/bin/gamma"), root.join("usr/lib/beta-is-gamma")).unwrap();
    symlink("alpha", root.join("usr/bin/sh")).unwrap();
    symlink("x".repeat(150), root.join("usr/lib/long-target")).unwrap();
    write(root, &format!("usr/lib/{}/{}", "d".repeat(90), "f".repeat(200)), b"long", 0o644);
    write(root, "usr/share/Grüße/日本", "unicode".as_bytes(), 0o600);
    write(root, "usr/lib/zero", b"", 0o644);
    write(root, "usr/lib/big", &vec![7; (1 << 20) + 13], 0o644);
    write(root, "usr/lib/sysimage/rpm/rpmdb.sqlite", b"rpmdb", 0o644);
    write(root, "usr/share/openshift/base/meta.json", b"{}", 0o644);
    write(root, "etc/conf", b"setting = 1\n", 0o640);
    fs::set_permissions(root.join("usr/lib/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    for dir in ["usr/bin", "usr/lib", "usr/share", "usr", "etc", "."] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mark = root.join("usr/bin/alpha");
    run("setfattr", &["-n", "user.component", "-v", "alpha", mark.to_str().unwrap()]);
    if rustix::process::geteuid().is_root() {
        run("setcap", &["cap_net_raw=ep", mark.to_str().unwrap()]);
        run(
            "chown",
            &[
                "-h",
                "12:34",
                root.join("etc/conf").to_str().unwrap(),
                root.join("usr/bin/sh").to_str().unwrap(),
            ],
        );
    }
}

#[test]
fn other_tools_read_what_we_write() {
    let dir = temp();
    let tree = dir.path().join("tree");
    base_tree(&tree);
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    build(&layout, None, &tree, &[], "demo/bootc:9.6.20250203-0");
    build_with(&layout, None, &tree, &[], "demo/bootc-zstd", Compression::Zstd);

    let (_guard, unpacked) = unpack(&layout, "demo/bootc:9.6.20250203-0");
    assert_eq!(describe(&unpacked), describe(&tree));

    for (name, decompress) in [("demo/bootc:9.6.20250203-0", "gzip"), ("demo/bootc-zstd", "zstd")] {
        let reference = format!("oci:{}:{name}", layout.root().display());
        let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &reference])).unwrap();
        assert_eq!(inspected["Labels"]["containers.bootc"], "1");
        assert_eq!(inspected["Created"], "2025-02-03T00:00:00Z");
        let config: Value =
            serde_json::from_str(&run("skopeo", &["inspect", "--config", &reference])).unwrap();
        let blobs = inspected["Layers"].as_array().unwrap();
        let diffs = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(config["history"].as_array().unwrap().len(), blobs.len());
        assert!(blobs.len() >= 5 && blobs.len() == diffs.len());
        for (blob, diff) in blobs.iter().zip(diffs) {
            let hex = blob.as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = layout.root().join("blobs/sha256").join(hex);
            let path = path.display();
            assert!(shell(&format!("sha256sum < {path}")).starts_with(hex));
            let tar = shell(&format!("{decompress} -dc < {path} | sha256sum"));
            assert_eq!(format!("sha256:{}", tar.split(' ').next().unwrap()), diff.as_str().unwrap());
            shell(&format!("{decompress} -dc < {path} | tar -tvf - >/dev/null"));
        }
        let target = dir.path().join("copied");
        run("skopeo", &["copy", &reference, &format!("oci:{}:copy", target.display())]);
        let copied = Layout::open(&target).unwrap().image(Some("copy"), None).unwrap();
        assert_eq!(copied.digest, layout.image(Some(name), None).unwrap().digest);
    }
}

/// Changes made through a mounted overlay, in a shell.
const CHANGES: &str = "
    echo changed > usr/bin/alpha            # content
    chmod 600 usr/bin/beta                  # mode only
    touch usr/lib/big usr/lib/zero          # nothing
    chmod 700 etc; chmod 755 etc            # nothing, but copied up
    rm usr/share/removed-file
    rm -r usr/share/removed-dir
    rm -r usr/share/opaque; mkdir -p usr/share/opaque/sub; echo new > usr/share/opaque/sub/gamma-new
    echo keep > usr/share/opaque/kept       # as it was
    mv usr/lib/moved usr/lib/beta-moved
    rm usr/lib/file-to-dir; mkdir usr/lib/file-to-dir; echo in > usr/lib/file-to-dir/in
    rm -r usr/lib/dir-to-file; echo now-a-file > usr/lib/dir-to-file
    rm -r usr/lib/dir-to-link; ln -s ../bin usr/lib/dir-to-link
    rm usr/lib/link-to-dir; mkdir usr/lib/link-to-dir; echo x > usr/lib/link-to-dir/alpha-x
    rm usr/bin/sh; ln -s beta usr/bin/sh
    rm usr/bin/gamma                        # one name of two
    echo linked > usr/lib/l1; ln usr/lib/l1 usr/bin/alpha-l2
    echo made-and-gone > usr/lib/gone; rm usr/lib/gone
    mkdir -p opt/new/deep; echo {} > usr/share/openshift/base/meta.json
";

fn add_things_to_change(root: &Path) {
    write(root, "usr/share/removed-file", b"x", 0o644);
    write(root, "usr/share/removed-dir/deep/file", b"x", 0o644);
    write(root, "usr/share/opaque/kept", b"keep\n", 0o644);
    write(root, "usr/share/opaque/hidden", b"x", 0o644);
    write(root, "usr/share/opaque/sub/hidden-too", b"x", 0o644);
    write(root, "usr/share/opaque/hidden-dir/file", b"x", 0o644);
    write(root, "usr/lib/moved", b"moved", 0o644);
    write(root, "usr/lib/file-to-dir", b"x", 0o644);
    write(root, "usr/lib/dir-to-file/a/b", b"x", 0o644);
    write(root, "usr/lib/dir-to-link/a", b"x", 0o644);
    symlink("../bin", root.join("usr/lib/link-to-dir")).unwrap();
}

/// Runs `script` in an overlay of `lower` (top first); leaves its upper directory and a copy of the merged tree.
fn in_overlay(dir: &Path, lower: &[PathBuf], script: &str) -> (PathBuf, PathBuf) {
    let upper = dir.join("upper");
    let merged = dir.join("merged");
    for d in [&upper, &merged, &dir.join("work"), &dir.join("mount")] {
        fs::create_dir_all(d).unwrap();
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).unwrap();
    let lower = lower.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
    let script = format!(
        "cd {dir}; umask 022
         mount -t overlay overlay -o userxattr,lowerdir={lower},upperdir=upper,workdir=work mount
         cd mount; {script}
         cd ..; cp -a mount/. merged/; umount mount",
        dir = dir.display()
    );
    run("unshare", &["--user", "--map-root-user", "--mount", "sh", "-euc", &script]);
    (upper, merged)
}

#[test]
fn a_derived_image_is_what_the_overlay_showed() {
    let dir = temp();
    let base = dir.path().join("base");
    base_tree(&base);
    if rustix::process::geteuid().is_root() {
        // a namespace that maps root alone can't copy up what others own
        run("chown", &["-hR", "0:0", base.to_str().unwrap()]);
    }
    add_things_to_change(&base);
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    let bottom = build(&layout, None, &base, &[], "bottom");

    let one = dir.path().join("one");
    let (upper, merged) = in_overlay(&one, std::slice::from_ref(&base), CHANGES);
    let middle = build(&layout, Some(&bottom), &upper, std::slice::from_ref(&base), "middle");
    let (_guard, unpacked) = unpack(&layout, "middle");
    assert_eq!(describe(&unpacked), describe(&merged));

    // a third layer: removes what the second added, puts back what it removed
    let two = dir.path().join("two");
    let script = "
        rm -r usr/lib/file-to-dir usr/lib/link-to-dir usr/share/opaque/sub; rm usr/lib/dir-to-file
        echo again > usr/share/removed-file; mkdir usr/share/removed-dir; rm -r opt/new; touch opt/beta";
    let (top_upper, merged) = in_overlay(&two, &[upper.clone(), base.clone()], script);
    let top = build(&layout, Some(&middle), &top_upper, &[upper, base], "top");
    let (_guard, unpacked) = unpack(&layout, "top");
    assert_eq!(describe(&unpacked), describe(&merged));
    let (_guard, extracted) = extract(&layout, "top");
    assert_eq!(describe(&extracted), describe(&merged));
    assert_eq!(unpack_with_buildah(&layout, "top"), describe(&merged));

    let below = middle.manifest.layers();
    assert_eq!(&top.manifest.layers()[..below.len()], below);
    assert_eq!(
        top.manifest.annotations().as_ref().unwrap()["org.opencontainers.image.base.digest"],
        middle.digest.to_string()
    );
}

#[test]
fn what_was_only_touched_is_not_shipped() {
    let dir = temp();
    let base = dir.path().join("base");
    write(&base, "usr/lib/a", b"same", 0o644);
    write(&base, "usr/lib/b", b"same", 0o644);
    write(&base, "usr/share/c", b"one", 0o644);
    let script = "touch usr/lib/a; chmod 600 usr/lib/b; chmod 644 usr/lib/b; echo two > usr/share/c; touch .";
    let (upper, _) = in_overlay(&dir.path().join("overlay"), std::slice::from_ref(&base), script);
    assert!(upper.join("usr/lib/b").exists(), "the overlay copies up what is touched");
    let delta = delta(&upper, &[base], &|_| None).unwrap();
    let names = |map: &BTreeMap<PathBuf, _>| map.keys().map(|p| p.display().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&delta.changed), ["usr/share/c"]);
    assert_eq!(names(&delta.parents), ["", "usr", "usr/share"]);
    assert!(delta.removed.is_empty());
}

#[test]
fn a_link_never_points_into_the_layers_below() {
    let dir = temp();
    let base = dir.path().join("base");
    let upper = dir.path().join("upper");
    write(&base, "old", b"same", 0o644);
    write(&upper, "old", b"same", 0o644);
    fs::hard_link(upper.join("old"), upper.join("new")).unwrap();
    let delta = delta(&upper, &[base], &|_| None).unwrap();
    let paths: Vec<_> = delta.changed.keys().map(|p| p.to_str().unwrap()).filter(|p| !p.is_empty()).collect();
    assert_eq!(paths, ["new", "old"]);
}

#[test]
fn the_bytes_do_not_depend_on_order_or_umask() {
    let dir = temp();
    let make = |name: &str, umask: &str, order: &str| {
        let root = dir.path().join(name);
        let script = format!(
            "umask {umask}; mkdir -p {root}/usr/share && cd {root}/usr/share
             for f in {order}; do echo $f > $f; ln $f link-$f; chmod 644 $f; touch -d @$(date +%N) $f; done
             find {root} -type d -exec chmod 755 {{}} +",
            root = root.display()
        );
        shell(&script);
        let layout = Layout::create(&dir.path().join(format!("{name}-layout"))).unwrap();
        build(&layout, None, &root, &[], "image").digest
    };
    assert_eq!(make("a", "022", "alpha beta gamma delta"), make("b", "077", "delta gamma beta alpha"));
}

#[test]
fn a_known_archive_is_not_compressed_again() {
    let dir = temp();
    let tree = dir.path().join("tree");
    base_tree(&tree);
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    let first = build(&layout, None, &tree, &[], "first");
    let blob = layout.blob(&first.manifest.layers()[0].digest().to_string().parse().unwrap());
    let inode = || fs::metadata(&blob).unwrap().ino();
    let before = inode();
    write(&tree, "usr/lib/gamma-new", b"new", 0o644);
    let second = build(&layout, None, &tree, &[], "second");
    // its time says when it was used last
    assert_eq!(inode(), before);
    let shared = |layer| first.manifest.layers().contains(layer);
    let new = second.manifest.layers().iter().filter(|l| !shared(l)).count();
    assert_eq!(new, 1, "one package changed: {:#?}", second.layer_history());

    // what says so rots: all is compressed again, and is the same
    for record in fs::read_dir(layout.root().join("packed")).unwrap() {
        let path = record.unwrap().path();
        let record = fs::read_to_string(&path).unwrap();
        let (start, rest) = record.split_once("sha256:").unwrap();
        let digit = if rest.starts_with('0') { "1" } else { "0" };
        fs::write(&path, format!("{start}sha256:{digit}{}", &rest[1..])).unwrap();
    }
    let third = build(&layout, None, &tree, &[], "third");
    assert_eq!(third.manifest.layers(), second.manifest.layers());
    assert_ne!(inode(), before);
}

#[test]
fn copying_brings_missing_blobs_and_refuses_damaged_ones() {
    let dir = temp();
    let tree = dir.path().join("tree");
    base_tree(&tree);
    let from = Layout::create(&dir.path().join("from")).unwrap();
    let image = build(&from, None, &tree, &[], "image");
    let to = Layout::create(&dir.path().join("to")).unwrap();
    to.copy(&from, &image).unwrap();
    to.tag(&image, Some("there")).unwrap();
    let reference = format!("oci:{}:there", to.root().display());
    let digest = run("skopeo", &["inspect", "--format", "{{.Digest}}", &reference]);
    assert_eq!(digest.trim(), image.digest.to_string());

    let layer = &image.manifest.layers()[1];
    let blob = from.blob(&layer.digest().to_string().parse().unwrap());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    let other = Layout::create(&dir.path().join("other")).unwrap();
    let error = format!("{:#}", other.copy(&from, &image).unwrap_err());
    assert!(error.contains("damaged") && error.contains(&layer.digest().to_string()), "{error}");
    assert!(!other.blob(&layer.digest().to_string().parse().unwrap()).exists());
    let left: Vec<_> = fs::read_dir(other.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.as_bytes().starts_with(b".tmp")), "{left:?}");

    fs::write(&blob, &bytes[..10]).unwrap();
    let error = format!("{:#}", from.image(Some("image"), None).unwrap_err());
    assert!(error.contains("10 bytes, expected"), "{error}");
}

#[test]
fn what_an_image_cannot_hold_is_refused_by_name() {
    let refused = |make: &dyn Fn(&Path), says: &str| {
        let dir = temp();
        make(dir.path());
        let error = format!("{:#}", delta(dir.path(), &[], &|_| None).unwrap_err());
        assert!(error.contains(says), "{error}");
    };
    refused(&|d| write(d, "usr/.wh.x", b"", 0o644), "/usr/.wh.x");
    refused(&|d| drop(run("mkfifo", &[d.join("pipe").to_str().unwrap()])), "/pipe: it is a fifo");
    let socket = |d: &Path| drop(std::os::unix::net::UnixListener::bind(d.join("sock")).unwrap());
    refused(&socket, "/sock: it is a socket");
    let redirect = |d: &Path| {
        fs::create_dir(d.join("moved")).unwrap();
        let moved = d.join("moved");
        run("setfattr", &["-n", "user.overlay.redirect", "-v", "/else", moved.to_str().unwrap()]);
    };
    refused(&redirect, "user.overlay.redirect");
}

/// As a tree has it under a name that an ordinary user may set.
#[test]
fn ima_signatures_go_out_and_in() {
    let (dir, value) = (temp(), "0x030204abcdef");
    let tree = dir.path().join("tree");
    write(&tree, "usr/bin/signed", b"signed", 0o755);
    let attribute = ["-n", "user.strata.ima", "-v", value];
    run("setfattr", &[&attribute[..], &[tree.join("usr/bin/signed").to_str().unwrap()]].concat());
    let archive = dir.path().join("layer.tar");
    let entries: Vec<_> = delta(&tree, &[], &|_| None).unwrap().changed.into_values().collect();
    strata::image::tar::write(&Tree(&tree), &entries, &mut fs::File::create(&archive).unwrap()).unwrap();
    let python =
        "import sys, tarfile; print(tarfile.open(sys.argv[1]).getmember('usr/bin/signed').pax_headers)";
    let headers = run("python3", &["-c", python, archive.to_str().unwrap()]);
    assert!(
        headers.contains("'SCHILY.xattr.security.ima': ") && !headers.contains("user.strata"),
        "{headers}"
    );

    let (_guard, extracted) = extract(&foreign_image(dir.path(), &[archive]), "image");
    assert_eq!(xattrs(&extracted.join("usr/bin/signed")), format!("user.strata.ima={value}"));
}

#[test]
fn gnu_tar_reads_names_that_are_not_text() {
    let dir = temp();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"latin-\xe9");
    fs::write(tree.join(name), b"x").unwrap();
    let delta = delta(&tree, &[], &|_| Some(1_700_000_000)).unwrap();
    let mut archive = fs::File::create(dir.path().join("layer.tar")).unwrap();
    let entries: Vec<_> = delta.changed.into_values().collect();
    strata::image::tar::write(&Tree(&tree), &entries, &mut archive).unwrap();
    archive.flush().unwrap();
    let mut list = Command::new("tar");
    list.args(["--quoting-style=escape", "-tvf"])
        .arg(dir.path().join("layer.tar"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    let output = list.stderr(Stdio::inherit()).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    assert!(listing.contains("2023-11-14 22:13 latin-\\351"), "{listing}");
}

/// A layout with an image of these tars, made by umoci.
fn foreign_image(dir: &Path, tars: &[PathBuf]) -> Layout {
    let path = dir.join("foreign");
    let image = format!("{}:image", path.display());
    run("umoci", &["init", "--layout", path.to_str().unwrap()]);
    run("umoci", &["new", "--image", &image]);
    for tar in tars {
        run("umoci", &["raw", "add-layer", "--image", &image, tar.to_str().unwrap()]);
    }
    Layout::open(&path).unwrap()
}

#[test]
fn images_of_other_tools_unpack_as_umoci_unpacks_them() {
    let dir = temp();
    let at = |name: &str| dir.path().join(name);
    base_tree(&at("one"));
    add_things_to_change(&at("one"));
    write(&at("two"), "usr/share/opaque/.wh..wh..opq", b"", 0o644);
    write(&at("two"), "usr/share/opaque/sub/new", b"new", 0o644);
    write(&at("two"), "usr/share/.wh.removed-dir", b"", 0o644);
    write(&at("two"), "usr/share/.wh.removed-file", b"", 0o644);
    write(&at("two"), "usr/share/.wh.never-was", b"", 0o644);
    write(&at("two"), "usr/lib/dir-to-file", b"file", 0o644);
    write(&at("two"), "usr/lib/file-to-dir/x", b"x", 0o644);
    symlink("usr/lib", at("two/lib")).unwrap();
    fs::set_permissions(at("two"), fs::Permissions::from_mode(0o755)).unwrap();
    // usr/lib, reached through the link of the layer before
    write(&at("three"), "lib/through-the-link", b"inside", 0o644);
    let tar = |name: &str, options: &str, what: &str| {
        let archive = at(&format!("{name}.tar"));
        shell(&format!(
            "tar -C {} --numeric-owner {options} -cf {} {what}",
            at(name).display(),
            archive.display()
        ));
        archive
    };
    let tars = [
        tar("one", "--format=gnu", "."),
        tar("two", "--format=pax --xattrs", "./usr lib"),
        tar("three", "--format=ustar", "lib/through-the-link"),
    ];
    let layout = foreign_image(dir.path(), &tars[..2]);
    let (_guard, expected) = unpack(&layout, "image");
    let (_guard, extracted) = extract(&layout, "image");
    assert_eq!(describe(&extracted), describe(&expected));

    run(
        "umoci",
        &[
            "raw",
            "add-layer",
            "--image",
            &format!("{}:image", layout.root().display()),
            tars[2].to_str().unwrap(),
        ],
    );
    let (_guard, extracted) = extract(&layout, "image");
    assert_eq!(fs::read(extracted.join("usr/lib/through-the-link")).unwrap(), b"inside");
}

/// A tar of members as hostile as wanted: the names go into the headers unchecked.
fn hostile_tar(path: &Path, members: &[(&str, tar::EntryType, &str)]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, kind, target) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let meta = fs::metadata(path).unwrap();
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        let content: &[u8] = if kind.is_file() { b"hostile" } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn nothing_is_unpacked_outside_of_the_target() {
    use tar::EntryType::{Link, Regular, Symlink};
    let outside = temp();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().to_str().unwrap();
    let refused: [&[(&str, tar::EntryType, &str)]; 5] = [
        &[("../escaped", Regular, "")],
        &[("usr/../../escaped", Regular, "")],
        &[("stolen", Link, &format!("{out}/secret"))],
        &[("stolen", Link, "../../secret")],
        &[("loop", Symlink, "loop"), ("loop/escaped", Regular, "")],
    ];
    for members in refused {
        let dir = temp();
        hostile_tar(&dir.path().join("layer.tar"), members);
        let layout = foreign_image(dir.path(), &[dir.path().join("layer.tar")]);
        let image = layout.image(Some("image"), None).unwrap();
        let target = dir.path().join("rootfs");
        let error = format!("{:#}", strata::image::extract::extract(&layout, &image, &target).unwrap_err());
        let last = members.last().unwrap().0;
        assert!(error.contains(&format!("unpacking {last}")), "{error}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "only the tar and the layout: {left:?}");
    }

    // links on the way are followed, but inside: /up/top is /top
    let dir = temp();
    hostile_tar(&dir.path().join("layer.tar"), &[("up", Symlink, "../../.."), ("up/top", Regular, "")]);
    let layout = foreign_image(dir.path(), &[dir.path().join("layer.tar")]);
    let image = layout.image(Some("image"), None).unwrap();
    let target = dir.path().join("rootfs");
    strata::image::extract::extract(&layout, &image, &target).unwrap();
    assert!(target.join("top").exists());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_layer_that_is_not_what_its_config_says_is_refused() {
    let dir = temp();
    let tree = dir.path().join("tree");
    write(&tree, "usr/lib/x", b"x", 0o644);
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    build(&layout, None, &tree, &[], "image");
    let mut image = layout.image(Some("image"), None).unwrap();
    let lie = Digest::of("something else").to_string();
    *image.config.rootfs_mut().diff_ids_mut() = vec![lie.clone()];
    let target = dir.path().join("rootfs");
    let error = format!("{:#}", strata::image::extract::extract(&layout, &image, &target).unwrap_err());
    assert!(error.contains(&format!("expected {lie}")), "{error}");
    assert!(!target.exists());
}

#[test]
fn show_and_images_tell_what_the_store_holds() {
    let dir = temp();
    let tree = dir.path().join("tree");
    base_tree(&tree);
    let layout = Layout::create(&dir.path().join("store/images")).unwrap();
    let image = build(&layout, None, &tree, &[], "demo/bootc:9.6.20250203-0");
    let strata = |args: &[&str]| {
        let store = dir.path().join("store");
        let mut all = vec!["--store", store.to_str().unwrap()];
        all.extend(args);
        run(env!("CARGO_BIN_EXE_strata"), &all)
    };
    let text = strata(&["images"]);
    assert!(text.contains("demo/bootc:9.6.20250203-0") && text.contains(&image.digest.to_string()), "{text}");
    let text = strata(&["show", "demo/bootc:9.6.20250203-0"]);
    assert!(
        text.contains("containers.bootc = 1") && text.contains("strata: demo/bootc:9.6.20250203-0: rpmdb"),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&strata(&["--format", "json", "show", "demo/bootc:9.6.20250203-0"])).unwrap();
    assert_eq!(json["digest"], image.digest.to_string());
    assert_eq!(json["layers"].as_array().unwrap().len(), image.manifest.layers().len());
    let json: Value = serde_json::from_str(&strata(&["--format", "json", "images"])).unwrap();
    assert_eq!(json[0]["size"], image.layers_size());

    let reference = format!("oci:{}:absent", layout.root().display());
    let output = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["show", &reference])
        .env("XDG_CACHE_HOME", dir.path())
        .output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        stderr.contains("absent in")
            && stderr.contains("0 images match")
            && stderr.contains("hint: it has demo/bootc:9.6.20250203-0"),
        "{stderr}"
    );
}

/// Every path of an ostree commit: modes, owners, sizes, checksums, attributes, targets of links.
fn commit_of(repository: &Path, commit: &str) -> String {
    let repository = format!("--repo={}", repository.display());
    run("ostree", &[&repository, "ls", "-R", "-C", "-X", commit])
}

#[test]
fn an_encapsulated_tree_is_the_commit_that_ostree_makes_of_it() {
    let dir = temp();
    let tree = dir.path().join("tree");
    base_tree(&tree);
    write(&tree, "usr/lib/modules/6.1/vmlinuz", b"kernel", 0o755);
    // so many that their checksums, and where each ends, take more than two bytes to count
    for number in 0..2000 {
        write(&tree, &format!("usr/share/many/{number:08}"), b"of the same content", 0o644);
    }
    let chunks = split(&delta(&tree, &[], &|_| None).unwrap());
    let about = About {
        version: "9.6.20250203-0".to_owned(),
        created: 1_738_540_800,
        bootable: true,
        contexts: None,
    };
    let encapsulated = encapsulate(&tree, &chunks, &about).unwrap();
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    let layers = pack(&layout, &encapsulated, &encapsulated.chunks, Compression::Gzip, &Silent).unwrap();
    let labels = encapsulated.labels(layers.last().unwrap().diff_id);
    // of an architecture that this machine doesn't have
    let settings = Settings { arch: Arch::Aarch64, labels: labels.clone(), ..settings("bootc") };
    let image = layout.write_image(None, &layers, &settings).unwrap();
    layout.tag(&image, Some("bootc")).unwrap();
    assert_eq!(image.config.architecture().to_string(), "arm64");

    let (_guard, rootfs) = unpack(&layout, "bootc");
    let repository = rootfs.join("sysroot/ostree/repo");
    let arguments = format!("--repo={}", repository.display());
    let checked = run("ostree", &[&arguments, "fsck"]);
    assert!(checked.contains("object fsck of 1 commits completed successfully"), "{checked}");
    let found = commit_of(&repository, &labels["ostree.commit"]);
    fs::rename(tree.join("etc"), tree.join("usr/etc")).unwrap();
    let theirs = dir.path().join("repository");
    shell(&format!(
        "ostree init --mode=bare-user --repo={0}; ostree --repo={0} commit --branch=theirs --tree=dir={1}",
        theirs.display(),
        tree.display()
    ));
    assert_eq!(found, commit_of(&theirs, "theirs"));
    assert!(found.lines().count() > 2000);
    let said = run("ostree", &[&arguments, "show", "--raw", &labels["ostree.commit"]]);
    let meta = "({'ostree.bootable': <true>, 'ostree.linux': <'6.1'>, 'version': <'9.6.20250203-0'>}";
    assert!(said.contains(meta) && said.contains("uint64 1738540800"), "{said}");
    // and where the layers are put together, paths are those of the tree
    fs::remove_dir_all(rootfs.join("sysroot")).unwrap();
    fs::rename(tree.join("usr/etc"), tree.join("etc")).unwrap();
    let plain = |root: &Path| -> Vec<String> {
        let listed = shell(&format!(
            "cd {}; find . ! -path './sysroot*' -printf '%p %y %m %U:%G %l\n' | sort",
            root.display()
        ));
        listed.lines().map(str::to_owned).collect()
    };
    assert_eq!(plain(&rootfs), plain(&tree));
}

#[test]
fn what_ostree_cannot_keep_is_refused() {
    let refused = [
        (&b"usr/etc/conf"[..], "/usr/etc: that is where ostree keeps the image's /etc"),
        (b"usr/caf\xe9", "its name or its target is not UTF-8"),
    ];
    for (path, expected) in refused {
        let dir = temp();
        let path = dir.path().join(std::ffi::OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        let chunks = split(&delta(dir.path(), &[], &|_| None).unwrap());
        let about = About { version: "1".to_owned(), created: 0, bootable: false, contexts: None };
        let error = encapsulate(dir.path(), &chunks, &about).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
