//! What a manifest says about the rootfs beyond its packages, applied in a fixed order.
//!
//! Accounts come first so that owners resolve, units after the files that may bring them, scripts and the
//! initramfs last. What systemd's tools would do to an offline root (`systemctl enable`, `mask`,
//! `set-default`) is done here, so that it needs no systemd on the build machine or in the rootfs.

mod accounts;
mod overlay;
mod units;

use std::fs;

use anyhow::{Context, Result, bail};

pub use overlay::{OverlayEntry, OverlayKind, overlay_entries};

use crate::accounts::Accounts;
use crate::actor::{Actor, Entry, Executor, Task};
use crate::error::hinted;
use crate::ledger::Ledger;
use crate::plan::{Configuration, File, FileContent, Kernel, Layer, Origin, Script, Sourced, Symlink};
use crate::progress::{Progress, Unit};
use crate::rootfs::Rootfs;
use crate::sandbox::{Command, SOURCE_DATE_EPOCH};

/// Keys of entries in their manifest. Those that go into one file with others have no name of their own.
const OVERLAY: &str = "overlay";
const SYSUSERS: &str = "sysusers";
const TMPFILES: &str = "tmpfiles";
const UNITS: &str = "[units]";
const KARGS: &str = "kargs";
const KERNEL: &str = "[kernel]";

fn file_key(file: &Sourced<File>) -> String {
    format!("[[file]] {}", file.value.path)
}

fn symlink_key(link: &Sourced<Symlink>) -> String {
    format!("[[symlink]] {}", link.value.path)
}

fn script_key(script: &Sourced<Script>) -> String {
    format!("[[script]] {}", script.value.name)
}

/// The entries that make files.
pub fn entries(config: &Configuration) -> Vec<Entry> {
    let mut all = Vec::new();
    all.extend(accounts::first(config).map(|origin| entry(SYSUSERS, origin)));
    all.extend(config.overlays.iter().map(|tree| entry(OVERLAY, &tree.origin)));
    all.extend(config.files.iter().map(|file| entry(&file_key(file), &file.origin)));
    all.extend(config.symlinks.iter().map(|link| entry(&symlink_key(link), &link.origin)));
    all.extend(config.tmpfiles.first().map(|line| entry(TMPFILES, &line.origin)));
    all.extend(units::entries(config));
    all.extend(config.kargs.first().map(|karg| entry(KARGS, &karg.origin)));
    all.extend(config.scripts.iter().map(|script| entry(&script_key(script), &script.origin)));
    all.extend(config.kernel.as_ref().map(|kernel| entry(KERNEL, &kernel.origin)));
    all
}

/// Applies the configuration of `layer`, which has `depth` layers below it; the accounts it declares get the ids that
/// `ledger` keeps for them.
#[tracing::instrument(level = "info", skip_all)]
pub fn apply(
    rootfs: &Rootfs,
    layer: &Layer,
    depth: usize,
    ledger: &Ledger,
    executor: &dyn Executor,
    progress: &dyn Progress,
) -> Result<()> {
    let config = &layer.config;
    progress.start("configuring", 0, Unit::Items);
    let at = Applying { executor };
    accounts::apply(rootfs, layer, ledger, &at)?;
    for tree in &config.overlays {
        at.entry(tree, OVERLAY, "copying the overlay", |tree| overlay::copy(rootfs, tree))?;
    }
    for file in &config.files {
        at.entry(file, &file_key(file), "writing the file", |file| write_file(rootfs, file))?;
    }
    for link in &config.symlinks {
        at.entry(link, &symlink_key(link), "making the symbolic link", |link| {
            rootfs.symlink(&link.path, &link.target)
        })?;
    }
    for removal in &config.removals {
        at.entry(removal, "[[remove]]", "removing", |pattern| {
            if !remove(rootfs, pattern)? {
                progress.warn(&format!("{}: nothing to remove at {pattern}", removal.origin));
            }
            Ok(())
        })?;
    }
    let tmpfiles = format!("/usr/lib/tmpfiles.d/{}.conf", layer.name);
    at.lines(&config.tmpfiles, TMPFILES, |lines| {
        let text: String = lines.iter().map(|line| line.value.clone() + "\n").collect();
        rootfs.write(&tmpfiles, text.as_bytes(), 0o644)
    })?;
    units::apply(rootfs, layer, depth, &at)?;
    at.lines(&config.kargs, KARGS, |kargs| write_kargs(rootfs, layer, kargs))?;
    for script in &config.scripts {
        let (key, what) = (script_key(script), format!("running the script `{}`", script.value.name));
        at.entry(script, &key, &what, |_| run_script(script, executor))?;
    }
    if let Some(kernel) = config.kernel.as_ref().filter(|kernel| kernel.value.initramfs) {
        at.entry(kernel, KERNEL, "making the initramfs", |_| make_initramfs(rootfs, kernel, executor))?;
    }
    progress.finish("configured");
    Ok(())
}

/// Applies entries of manifests one by one, and says so to who watches.
struct Applying<'a> {
    executor: &'a dyn Executor,
}

impl Applying<'_> {
    /// Runs `apply` on an entry, which is `key` in its manifest; its error says which entry of which manifest.
    fn entry<T>(
        &self,
        entry: &Sourced<T>,
        key: &str,
        what: &str,
        apply: impl FnOnce(&T) -> Result<()>,
    ) -> Result<()> {
        tracing::info!(origin = %entry.origin, "{what}");
        apply(&entry.value).with_context(|| format!("{what} of {}", entry.origin))?;
        self.acted(key, &entry.origin)
    }

    /// Runs `apply` on entries that go into one file, if there are any; the first one stands for them.
    fn lines<T>(
        &self,
        entries: &[Sourced<T>],
        key: &str,
        apply: impl FnOnce(&[Sourced<T>]) -> Result<()>,
    ) -> Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        apply(entries)?;
        self.acted(key, &first.origin)
    }

    /// The entry `key` at `origin` made all changes since the last one.
    fn acted(&self, key: &str, origin: &Origin) -> Result<()> {
        self.executor.acted(Actor::Entry(entry(key, origin)))
    }
}

fn entry(key: &str, origin: &Origin) -> Entry {
    Entry { key: key.to_owned(), origin: origin.clone() }
}

fn write_file(rootfs: &Rootfs, file: &File) -> Result<()> {
    let bytes = match &file.content {
        FileContent::Text(text) => text.clone().into_bytes(),
        FileContent::Source(path) => fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        FileContent::Append(text) => {
            let old = rootfs.read(&file.path)?;
            let mut bytes =
                old.with_context(|| format!("{} does not exist: nothing to append to", file.path))?;
            bytes.extend_from_slice(text.as_bytes());
            return rootfs.rewrite(&file.path, &bytes);
        }
    };
    let ids = Accounts::read(rootfs)?.ids(&file.user, &file.group)?;
    rootfs.write(&file.path, &bytes, file.mode)?;
    rootfs.set_owner_mode(&file.path, ids.uid, ids.gid, file.mode)
}

fn remove(rootfs: &Rootfs, pattern: &str) -> Result<bool> {
    let mut any = false;
    for path in rootfs.glob(pattern)? {
        any |= rootfs.remove_all(&path)?;
    }
    Ok(any)
}

/// Kernel arguments as bootc reads them (bootc: `docs/src/building/kernel-arguments.md`).
fn write_kargs(rootfs: &Rootfs, layer: &Layer, kargs: &[Sourced<String>]) -> Result<()> {
    let kargs: Vec<&str> = kargs.iter().map(|k| k.value.as_str()).collect();
    let text = toml::to_string(&toml::Table::from_iter([("kargs".to_owned(), kargs.into())]))?;
    rootfs.write(&format!("/usr/lib/bootc/kargs.d/{}.toml", layer.name), text.as_bytes(), 0o644)
}

fn run_script(script: &Sourced<Script>, executor: &dyn Executor) -> Result<()> {
    let Script { interpreter, body, .. } = &script.value;
    let task = Task {
        actor: Actor::Entry(entry(&script_key(script), &script.origin)),
        interpreter: interpreter.clone(),
        arguments: Vec::new(),
    };
    let text = Some((interpreter.len(), body.clone()));
    run(executor, &task, &Command { argv: interpreter.clone(), script: text, ..Command::default() })
}

fn run(executor: &dyn Executor, task: &Task, command: &Command) -> Result<()> {
    let outcome = executor.run(task, command)?;
    if outcome.status == 0 {
        return Ok(());
    }
    let output = if outcome.output.trim().is_empty() { "nothing" } else { outcome.output.trim_end() };
    let program = command.argv.first().map_or("", String::as_str);
    bail!("{program} exited with status {}; it printed: {output}", outcome.status)
}

/// Makes `/usr/lib/modules/KVER/initramfs.img` for the one kernel of the rootfs (bootc: `filesystem.md`).
fn make_initramfs(rootfs: &Rootfs, kernel: &Sourced<Kernel>, executor: &dyn Executor) -> Result<()> {
    let images = rootfs.glob("/usr/lib/modules/*/vmlinuz")?;
    let [image] = images.as_slice() else {
        return Err(hinted(
            format!("found {} kernels at /usr/lib/modules/*/vmlinuz, expected one", images.len()),
            "install exactly one kernel package, or set `initramfs = false`",
        ));
    };
    let dir = image.trim_end_matches("/vmlinuz");
    let kver = dir.trim_start_matches("/usr/lib/modules/");
    let target = format!("{dir}/initramfs.img");
    let fixed = ["--reproducible", "--no-hostonly", "--force", "--kver", kver].map(str::to_owned);
    let own = kernel.value.initramfs_args.iter().cloned();
    let task = Task {
        actor: Actor::Entry(entry(KERNEL, &kernel.origin)),
        interpreter: vec!["/usr/bin/dracut".to_owned()],
        arguments: fixed.into_iter().chain(own).chain([target.clone()]).collect(),
    };
    let argv = [task.interpreter.clone(), task.arguments.clone()].concat();
    // dracut would replace that of a layer below, which is no input of it
    rootfs.remove_all(&target)?;
    let dated = rootfs.lstat(image)?.map_or(0, |stat| stat.mtime);
    let env = vec![
        // extended attributes of the build's file system must not decide what is in the archive
        ("DRACUT_NO_XATTR".to_owned(), "1".to_owned()),
        // nor must the day: as old as its kernel, whatever else is published since
        (SOURCE_DATE_EPOCH.to_owned(), dated.to_string()),
    ];
    run(executor, &task, &Command { argv, env, ..Command::default() })?;
    rootfs.set_owner_mode(&target, 0, 0, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: FileContent, user: &str) -> File {
        File { path: path.into(), content, mode: 0o600, user: user.into(), group: user.into() }
    }

    #[test]
    fn files_land_where_links_of_the_rootfs_lead() {
        let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rootfs = Rootfs::open(dir.path()).unwrap();
        rootfs.create_dir_all("/usr/bin").unwrap();
        rootfs.symlink("/bin", "/usr/bin").unwrap();
        fs::create_dir(tree.path().join("bin")).unwrap();
        fs::write(tree.path().join("bin/tool"), "from the overlay").unwrap();
        overlay::copy(&rootfs, tree.path()).unwrap();
        // a number needs no account
        let me = rustix::process::getuid().as_raw().to_string();
        write_file(&rootfs, &file("/bin/other", FileContent::Text("a".into()), &me)).unwrap();
        write_file(&rootfs, &file("/bin/other", FileContent::Append("b".into()), "ignored")).unwrap();
        assert!(rootfs.read_link("/bin").unwrap().is_some());
        assert_eq!(fs::read(dir.path().join("usr/bin/tool")).unwrap(), b"from the overlay");
        assert_eq!(fs::read(dir.path().join("usr/bin/other")).unwrap(), b"ab");
        assert_eq!(rootfs.lstat("/usr/bin/other").unwrap().unwrap().mode & 0o7777, 0o600);
        assert!(remove(&rootfs, "/usr/b*").unwrap());
        assert!(!remove(&rootfs, "/usr/b*").unwrap());
        assert_eq!(rootfs.list("/usr").unwrap().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_cannot_be_as_declared_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let refused = [
            (FileContent::Append("x".into()), "root", "/etc/motd does not exist: nothing to append to"),
            (FileContent::Text("x".into()), "nobody", "no user `nobody` in the rootfs: declare it"),
            (FileContent::Source("/absent".into()), "root", "reading /absent"),
        ];
        for (content, user, expected) in refused {
            let error = write_file(&rootfs, &file("/etc/motd", content, user)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(rootfs.lstat("/etc/motd").unwrap().is_none());
        }
    }
}
