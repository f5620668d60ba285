//! Systemd units: enabled, disabled and masked as `systemctl --root` does it, and as presets, so that a
//! `preset-all` on the machine comes to the same answer (systemd.preset(5), systemd.unit(5) "Install").

use anyhow::{Context, Result, bail};

use super::{Applying, UNITS, entry};
use crate::actor::Entry;
use crate::error::hinted;
use crate::plan::{Configuration, Layer, Origin, Sourced};
use crate::rootfs::Rootfs;

const ETC: &str = "/etc/systemd/system";
const VENDOR: &str = "/usr/lib/systemd/system";

/// The `[Install]` section of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

/// What can be done to a unit.
type Change = fn(&Rootfs, &str) -> Result<()>;

/// Applies the `[units]` of `layer`, which has `depth` layers below it.
pub(super) fn apply(rootfs: &Rootfs, layer: &Layer, depth: usize, at: &Applying) -> Result<()> {
    let config = &layer.config;
    for (verb, what, change, units) in steps(config) {
        for unit in units {
            at.entry(unit, &key(verb, unit), what, |unit| change(rootfs, unit))?;
        }
    }
    let lines = |verb: &str, units: &[Sourced<String>]| -> String {
        units.iter().map(|u| format!("{verb} {}\n", u.value)).collect()
    };
    let presets = lines("disable", &config.disable) + &lines("enable", &config.enable);
    let Some(first) = first_preset(config) else { return Ok(()) };
    // the first preset file that names a unit decides, in order of file names: upper layers go first
    let order = 45_usize.saturating_sub(depth);
    rootfs.write(
        &format!("/usr/lib/systemd/system-preset/{order:02}-{}.preset", layer.name),
        presets.as_bytes(),
        0o644,
    )?;
    at.acted(UNITS, first)
}

/// What is done to units, in this order: key in the manifest, what it is called, how it is done, to which.
type Step<'a> = (&'static str, &'static str, Change, &'a [Sourced<String>]);

fn steps(config: &Configuration) -> [Step<'_>; 4] {
    [
        ("disable", "disabling the unit", disable, &config.disable),
        ("enable", "enabling the unit", enable, &config.enable),
        ("mask", "masking the unit", mask, &config.mask),
        ("default-target", "setting the default target", set_default, config.default_target.as_slice()),
    ]
}

fn key(verb: &str, unit: &Sourced<String>) -> String {
    format!("{UNITS} {verb} {}", unit.value)
}

/// The place of the first entry that goes into the presets: it stands for all of them.
fn first_preset(config: &Configuration) -> Option<&Origin> {
    config.disable.iter().chain(&config.enable).map(|unit| &unit.origin).next()
}

/// The entries that make files.
pub(super) fn entries(config: &Configuration) -> impl Iterator<Item = Entry> {
    let presets = first_preset(config).map(|origin| entry(UNITS, origin));
    let of = |(verb, _, _, units): Step<'_>| -> Vec<Entry> {
        units.iter().map(|unit| entry(&key(verb, unit), &unit.origin)).collect()
    };
    steps(config).into_iter().flat_map(of).chain(presets)
}

/// Makes the links that a unit's `[Install]` section asks for, and those of its `Also=` units.
fn enable(rootfs: &Rootfs, unit: &str) -> Result<()> {
    let file = find(rootfs, unit)?;
    if is_mask(rootfs, &file)? {
        return Err(hinted(
            format!("the unit `{unit}` is masked by {file}"),
            "take the link away with [[remove]], or take the unit out of `enable`",
        ));
    }
    let units = with_also(rootfs, unit)?;
    if units.iter().any(|(name, _, install)| name == unit && *install == Install::default()) {
        return Err(hinted(
            format!("{file} has no [Install] section: nothing can enable `{unit}`"),
            "a unit without one is started by other units; take it out of `enable`",
        ));
    }
    units.iter().try_for_each(|(unit, file, install)| link(rootfs, unit, file, install))
}

fn link(rootfs: &Rootfs, unit: &str, file: &str, install: &Install) -> Result<()> {
    let unit = match (template(unit), &install.default_instance) {
        (Some(("", _)), None) => bail!("`{unit}` is a template without DefaultInstance=: name an instance"),
        (Some(("", _)), Some(instance)) => unit.replacen('@', &format!("@{instance}"), 1),
        _ => unit.to_owned(),
    };
    let groups =
        [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)];
    for (kind, targets) in groups {
        for target in targets {
            let target = expand(target, &unit)?;
            rootfs.symlink(&format!("{ETC}/{target}.{kind}/{unit}"), file)?;
        }
    }
    for alias in &install.alias {
        rootfs.symlink(&format!("{ETC}/{}", expand(alias, &unit)?), file)?;
    }
    Ok(())
}

/// Removes every link in `/etc/systemd/system` that enables the unit or its `Also=` units, under their names
/// or aliases. A unit that is not there has none.
fn disable(rootfs: &Rootfs, unit: &str) -> Result<()> {
    let also = with_also(rootfs, unit)?.into_iter().map(|(also, ..)| also);
    let units: Vec<String> = also.chain([unit.to_owned()]).collect();
    for place in ["", "*.wants/", "*.requires/", "*.upholds/"] {
        for path in rootfs.glob(&format!("{ETC}/{place}*"))? {
            let Some(target) = rootfs.read_link(&path)?.filter(|target| target != "/dev/null") else {
                continue;
            };
            let [name, target] = [&path, &target].map(|path| path.rsplit('/').next().unwrap_or_default());
            let is_of = |unit: &String| {
                unit == name
                    || unit == target
                    || template(name).is_some_and(|(_, template)| template == *unit)
            };
            if units.iter().any(is_of) {
                rootfs.remove_all(&path)?;
            }
        }
    }
    Ok(())
}

fn mask(rootfs: &Rootfs, unit: &str) -> Result<()> {
    let path = format!("{ETC}/{unit}");
    if rootfs.lstat(&path)?.is_some() && rootfs.read_link(&path)?.is_none() {
        return Err(hinted(
            format!("{path} is a file, which a mask would replace"),
            "remove it with [[remove]] in this layer, or the package that has it",
        ));
    }
    rootfs.symlink(&path, "/dev/null")
}

fn set_default(rootfs: &Rootfs, target: &str) -> Result<()> {
    rootfs.symlink(&format!("{ETC}/default.target"), &find(rootfs, target)?)
}

/// The unit and those it names in `Also=`, and theirs: name, file, and `[Install]` section. As for systemctl,
/// those that are absent or masked do not count.
fn with_also(rootfs: &Rootfs, unit: &str) -> Result<Vec<(String, String, Install)>> {
    let mut found: Vec<(String, String, Install)> = Vec::new();
    let mut waiting = vec![unit.to_owned()];
    while let Some(unit) = waiting.pop() {
        let Some(file) = locate(rootfs, &unit)? else { continue };
        if found.iter().any(|(name, ..)| *name == unit) || is_mask(rootfs, &file)? {
            continue;
        }
        let text = rootfs.read(&file)?.with_context(|| format!("{file} is a dangling link"))?;
        let install = Install::parse(&String::from_utf8_lossy(&text));
        for also in &install.also {
            waiting.push(expand(also, &unit)?);
        }
        found.push((unit, file, install));
    }
    Ok(found)
}

fn is_mask(rootfs: &Rootfs, file: &str) -> Result<bool> {
    Ok(rootfs.read_link(file)?.as_deref() == Some("/dev/null"))
}

/// Replaces the specifiers that an `[Install]` section may have and that don't depend on the machine
/// (systemd.unit(5), "Specifiers").
fn expand(text: &str, unit: &str) -> Result<String> {
    let (name, suffix) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    let mut expanded = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match if c == '%' { chars.next() } else { None } {
            None => expanded.push(c),
            Some('%') => expanded.push('%'),
            Some('i') => expanded += instance,
            Some('j') => expanded += prefix.rsplit('-').next().unwrap_or(prefix),
            Some('n') => expanded += &format!("{name}.{suffix}"),
            Some('N') => expanded += name,
            Some('p') => expanded += prefix,
            Some(other) => {
                bail!("`{text}` in the [Install] section of `{unit}`: %{other} is the machine's own")
            }
        }
    }
    Ok(expanded)
}

/// Where the file of a unit is: its own, or for an instance its template's.
fn locate(rootfs: &Rootfs, unit: &str) -> Result<Option<String>> {
    let of_template = template(unit).map(|(_, name)| name);
    for name in std::iter::once(unit.to_owned()).chain(of_template) {
        for dir in [ETC, VENDOR] {
            let path = format!("{dir}/{name}");
            if rootfs.lstat(&path)?.is_some() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// The file of a unit that must be there.
fn find(rootfs: &Rootfs, unit: &str) -> Result<String> {
    locate(rootfs, unit)?.ok_or_else(|| {
        hinted(
            format!("there is no unit `{unit}` in {VENDOR} or {ETC} of the rootfs"),
            "install the package that has it, or correct the name",
        )
    })
}

/// The instance and the template of `name@instance.suffix`; the instance is empty for the template itself.
fn template(unit: &str) -> Option<(&str, String)> {
    let (name, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    Some((instance, format!("{name}@.{suffix}")))
}

impl Install {
    /// Reads the `[Install]` section (systemd.syntax(7): continuation lines, empty assignment resets).
    fn parse(text: &str) -> Self {
        let mut install = Self::default();
        let mut inside = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';']))
            else {
                continue;
            };
            let list = match key.trim() {
                "WantedBy" => &mut install.wanted_by,
                "RequiredBy" => &mut install.required_by,
                "UpheldBy" => &mut install.upheld_by,
                "Alias" => &mut install.alias,
                "Also" => &mut install.also,
                "DefaultInstance" => {
                    install.default_instance = Some(value.trim().to_owned());
                    continue;
                }
                _ => continue,
            };
            if value.trim().is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(str::to_owned));
        }
        install
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_sections_parse() {
        let install = Install::parse(
            "[Unit]\nWantedBy=no.target\n[Install]\n# WantedBy=no.target\nWantedBy=a.target \\\n  b.target\n\
             Alias=\nAlias=x.service\nDefaultInstance=tty1\n",
        );
        assert_eq!(install.wanted_by, ["a.target", "b.target"]);
        assert_eq!(install.alias, ["x.service"]);
        assert_eq!(install.default_instance.as_deref(), Some("tty1"));
    }

    #[test]
    fn templates_are_told_from_instances() {
        assert_eq!(template("getty@tty1.service"), Some(("tty1", "getty@.service".to_owned())));
        assert_eq!(template("getty@.service"), Some(("", "getty@.service".to_owned())));
        assert_eq!(template("sshd.service"), None);
    }

    /// Units as packages ship them, one for every way that `[Install]` is used.
    const UNITS: [(&str, &str); 10] = [
        (
            "crio.service",
            "[Install]\nWantedBy=multi-user.target other.target\nRequiredBy=kubelet.service\n\
             Alias=cri.service\nAlias=container-runtime.service\nAlso=crio.socket\n",
        ),
        ("crio.socket", "[Install]\nWantedBy=sockets.target\nAlso=crio.service\n"),
        ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
        ("net@.service", "[Install]\nWantedBy=dev-%i.device %p.target\nAlias=all@%i.service\n"),
        ("plain.service", "[Install]\nWantedBy=multi-user.target\nAlias=%N-%p.service\n"),
        ("bare@.service", "[Install]\nWantedBy=multi-user.target\n"),
        ("helped.service", "[Install]\nWantedBy=multi-user.target\nAlso=static.service absent.service\n"),
        ("multi-user.target", "[Unit]\n"),
        ("graphical.target", "[Install]\nAlias=default.target\n"),
        ("static.service", "[Unit]\n"),
    ];

    fn rootfs() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        for (name, text) in UNITS {
            rootfs.write(&format!("{VENDOR}/{name}"), text.as_bytes(), 0o644).unwrap();
        }
        rootfs.write(&format!("{ETC}/local.service"), UNITS[4].1.as_bytes(), 0o644).unwrap();
        (dir, rootfs)
    }

    fn change(rootfs: &Rootfs, verb: &str, unit: &str) -> Result<()> {
        match verb {
            "enable" => enable(rootfs, unit),
            "disable" => disable(rootfs, unit),
            "mask" => mask(rootfs, unit),
            _ => set_default(rootfs, unit),
        }
    }

    /// Symbolic links below `/etc/systemd/system`, and where they lead.
    fn links(rootfs: &Rootfs) -> Vec<(String, String)> {
        let paths = ["*", "*/*"].map(|depth| rootfs.glob(&format!("{ETC}/{depth}")).unwrap()).concat();
        paths.into_iter().filter_map(|path| Some((rootfs.read_link(&path).unwrap()?, path))).collect()
    }

    #[test]
    fn links_are_those_of_systemctl() {
        for steps in [
            &[("enable", "crio.service")][..],
            &[("enable", "crio.service"), ("disable", "crio.service")],
            &[("enable", "crio.service"), ("disable", "crio.socket")],
            &[("enable", "getty@.service")],
            &[("enable", "getty@tty2.service"), ("enable", "net@eth0.service")],
            &[
                ("enable", "net@eth0.service"),
                ("enable", "net@eth1.service"),
                ("disable", "net@eth0.service"),
            ],
            &[("enable", "net@eth0.service"), ("enable", "net@eth1.service"), ("disable", "net@.service")],
            &[("enable", "plain.service"), ("enable", "local.service")],
            &[("enable", "local.service"), ("disable", "local.service")],
            &[("enable", "helped.service")],
            &[("disable", "plain.service"), ("mask", "plain.service"), ("mask", "absent.service")],
            &[("enable", "plain.service"), ("mask", "plain.service")],
            &[("set-default", "multi-user.target"), ("set-default", "graphical.target")],
            &[("set-default", "graphical.target"), ("disable", "graphical.target")],
        ] {
            let ((_ours, ours), (dir, theirs)) = (rootfs(), rootfs());
            for (verb, unit) in steps {
                change(&ours, verb, unit).unwrap();
                let mut systemctl = std::process::Command::new("systemctl");
                let output = systemctl.arg("--root").arg(dir.path()).args([verb, unit]).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{verb} {unit}: {said}");
            }
            assert_eq!(links(&ours), links(&theirs), "{steps:?}");
        }
    }

    #[test]
    fn what_systemctl_refuses_is_refused() {
        for (verb, unit, expected) in [
            ("enable", "absent.service", "there is no unit `absent.service`"),
            ("enable", "bare@.service", "name an instance"),
            ("enable", "masked.service", "masked"),
            ("mask", "local.service", "is a file"),
            ("set-default", "absent.target", "there is no unit `absent.target`"),
        ] {
            let (dir, rootfs) = rootfs();
            rootfs.symlink(&format!("{ETC}/masked.service"), "/dev/null").unwrap();
            let error = format!("{:#}", change(&rootfs, verb, unit).unwrap_err());
            assert!(error.contains(expected), "{error}");
            let mut systemctl = std::process::Command::new("systemctl");
            let output = systemctl.arg("--root").arg(dir.path()).args([verb, unit]).output().unwrap();
            assert!(!output.status.success(), "{verb} {unit}");
        }
    }
}
