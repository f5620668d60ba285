//! Rules that `bootc container lint` does not have.

use std::collections::BTreeSet;
use std::path::Path;

use super::Level::{Fatal, Warning};
use super::bootc::{MODULES, kernel_directories, words};
use super::{Breach, Linted, Rule, Source::Strata};
use crate::accounts::Accounts;
use crate::build::rules::LEFTOVERS;
use crate::tree::{GROUP, Kind, Node, PASSWD};

/// Ends of names that rpm gives to files it puts aside.
const ASIDE: [&str; 3] = [".rpmnew", ".rpmorig", ".rpmsave"];
/// Directories on which machines mount file systems.
const MOUNTED: [&str; 4] = ["dev", "proc", "sys", "sysroot"];
/// Caches of package managers, and what they remember of the build.
const CACHES: [&str; 4] = ["var/cache/dnf", "var/cache/libdnf5", "var/cache/yum", "var/lib/dnf"];
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;

pub const RULES: [Rule; 8] = [
    Rule {
        name: "initramfs",
        level: Fatal,
        source: Strata,
        description: "an image that machines boot has a kernel, and its initramfs beside it",
        advice: "install a kernel, and write `initramfs = true` below [kernel] in the manifest; or set the label \
                 containers.bootc to \"0\"",
        check: initramfs,
    },
    Rule {
        name: "leftovers",
        level: Warning,
        source: Strata,
        description: "no backups, locks, seeds or caches that tools leave behind while an image is made",
        advice: "remove it, in a [[remove]] of the layer that has it",
        check: leftovers,
    },
    Rule {
        name: "machine-id",
        level: Fatal,
        source: Strata,
        description: "/etc/machine-id is empty or not there, so that each machine gets its own",
        advice: "make it an empty file",
        check: machine_id,
    },
    Rule {
        name: "nonempty-mountpoints",
        level: Warning,
        source: Strata,
        description: "/dev, /proc, /sys and /sysroot are empty",
        advice: "remove it: machines mount other file systems there",
        check: mount_points,
    },
    Rule {
        name: "secrets",
        level: Fatal,
        source: Strata,
        description: "no private key or credential that is not part of a package",
        advice: "remove it from the layer that has it, and take it for known: whoever pulls the image has it",
        check: secrets,
    },
    Rule {
        name: "special-files",
        level: Warning,
        source: Strata,
        description: "only files, directories and links",
        advice: "have tmpfiles.d or systemd make it: ostree takes no others",
        check: special_files,
    },
    Rule {
        name: "unknown-owners",
        level: Warning,
        source: Strata,
        description: "the owner and group of every file are in /etc or /usr/lib passwd and group",
        advice: "declare who owns it, in a manifest as [[user]] or [[group]], or give it to somebody else",
        check: unknown_owners,
    },
    Rule {
        name: "world-writable",
        level: Warning,
        source: Strata,
        description: "nothing is writable by all but directories with the sticky bit",
        advice: "take the right away, or set the sticky bit",
        check: world_writable,
    },
];

fn initramfs(linted: &Linted) -> Vec<Breach> {
    if !linted.bootable {
        return Vec::new();
    }
    let kernels = kernel_directories(&linted.tree);
    if kernels.is_empty() {
        return vec![Breach::new(MODULES, "has no VERSION/vmlinuz")];
    }
    let images = kernels.into_iter().map(|dir| dir.join("initramfs.img"));
    let missing = images.filter(|path| {
        let image = linted.tree.locate(path, true);
        !matches!(image.and_then(|path| linted.tree.get(&path)), Some(Node { kind: Kind::File(_), .. }))
    });
    missing.map(|path| Breach::new(path, "is not there")).collect()
}

fn leftovers(linted: &Linted) -> Vec<Breach> {
    let is_left = |path: &Path, text: &str| {
        LEFTOVERS.iter().any(|left| left[1..] == *text)
            || CACHES.iter().any(|cache| path.starts_with(cache) && path != Path::new(cache))
            || ASIDE.iter().any(|end| text.ends_with(end))
    };
    let unowned = linted.tree.iter().filter(|(path, _)| !linted.owners.contains_key(*path));
    let left = unowned.filter(|(path, _)| path.to_str().is_some_and(|text| is_left(path, text)));
    left.map(|(path, node)| Breach::new(path, format!("is {} of no package", words(&node.kind)))).collect()
}

fn machine_id(linted: &Linted) -> Vec<Breach> {
    // machine-id(5): this word asks for the units of a first boot, too
    let is_set = |text: &[u8]| !matches!(text.trim_ascii(), b"" | b"uninitialized");
    let path = "etc/machine-id";
    let set = linted.tree.text(path).is_some_and(is_set);
    set.then(|| Breach::new(path, "has an id, which all machines would share")).into_iter().collect()
}

fn mount_points(linted: &Linted) -> Vec<Breach> {
    let content = MOUNTED.iter().flat_map(|dir| linted.tree.below(Path::new(dir)).skip(1));
    content.map(|(path, node)| Breach::new(path, format!("is {}", words(&node.kind)))).collect()
}

fn secrets(linted: &Linted) -> Vec<Breach> {
    let breach =
        |secret: &crate::verify::Secret| Breach::new(&secret.path[1..], format!("is {}", secret.what));
    linted.secrets.iter().map(breach).collect()
}

fn special_files(linted: &Linted) -> Vec<Breach> {
    let special =
        |(_, node): &(&Path, &Node)| matches!(node.kind, Kind::Device { .. } | Kind::Fifo | Kind::Socket);
    let found = linted.tree.iter().filter(special);
    found.map(|(path, node)| Breach::new(path, format!("is {}", words(&node.kind)))).collect()
}

fn unknown_owners(linted: &Linted) -> Vec<Breach> {
    let text = |path: &str| String::from_utf8_lossy(linted.tree.text(path).unwrap_or_default()).into_owned();
    let passwd = text(PASSWD) + "\n" + &text("usr/lib/passwd");
    let group = text(GROUP) + "\n" + &text("usr/lib/group");
    let accounts = Accounts::parse(&passwd, &group);
    let uids: BTreeSet<u32> = accounts.users.values().map(|user| user.ids.uid).chain([0]).collect();
    let gids: BTreeSet<u32> = accounts.groups.values().map(|group| group.gid).chain([0]).collect();
    let breach = |(path, node): (&Path, &Node)| {
        let user = (!uids.contains(&node.uid)).then(|| format!("user {}", node.uid));
        let group = (!gids.contains(&node.gid)).then(|| format!("group {}", node.gid));
        let unknown: Vec<String> = user.into_iter().chain(group).collect();
        (!unknown.is_empty())
            .then(|| Breach::new(path, format!("is of {}, who has no name", unknown.join(" and "))))
    };
    linted.tree.iter().filter_map(breach).collect()
}

fn world_writable(linted: &Linted) -> Vec<Breach> {
    let is_open = |(_, node): &(&Path, &Node)| match node.kind {
        Kind::Symlink(_) => false,
        Kind::Directory => node.mode & WRITABLE_BY_ALL != 0 && node.mode & STICKY == 0,
        _ => node.mode & WRITABLE_BY_ALL != 0,
    };
    let open = linted.tree.iter().filter(is_open);
    open.map(|(path, node)| {
        Breach::new(path, format!("is {} with mode {:04o}", words(&node.kind), node.mode))
    })
    .collect()
}
