//! Systemd units: enabled, disabled and masked as `systemctl --root` does it, and as presets, so that a
//! `preset-all` on the machine comes to the same answer (systemd.preset(5), systemd.unit(5) "Install").

use anyhow::{Context, Result, bail};

use super::at;
use crate::error::hinted;
use crate::plan::Layer;
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

/// Applies the `[units]` of `layer`, which has `depth` layers below it.
pub fn apply(rootfs: &Rootfs, layer: &Layer, depth: usize) -> Result<()> {
    let config = &layer.config;
    for unit in &config.disable {
        at(unit, "disabling the unit", |unit| disable(rootfs, unit))?;
    }
    for unit in &config.enable {
        at(unit, "enabling the unit", |unit| enable(rootfs, unit, &mut Vec::new()))?;
    }
    for unit in &config.mask {
        at(unit, "masking the unit", |unit| rootfs.symlink(&format!("{ETC}/{unit}"), "/dev/null"))?;
    }
    if let Some(target) = &config.default_target {
        at(target, "setting the default target", |target| {
            find(rootfs, target)?;
            rootfs.symlink(&format!("{ETC}/default.target"), &format!("{VENDOR}/{target}"))
        })?;
    }
    let lines = |verb: &str, units: &[crate::plan::Sourced<String>]| -> String {
        units.iter().map(|u| format!("{verb} {}\n", u.value)).collect()
    };
    let presets = lines("disable", &config.disable) + &lines("enable", &config.enable);
    if presets.is_empty() {
        return Ok(());
    }
    // the first preset file that names a unit decides, in order of file names: upper layers go first
    let order = 45_usize.saturating_sub(depth);
    rootfs.write(
        &format!("/usr/lib/systemd/system-preset/{order:02}-{}.preset", layer.name),
        presets.as_bytes(),
        0o644,
    )
}

/// Makes the links that a unit's `[Install]` section asks for, and those of its `Also=` units.
fn enable(rootfs: &Rootfs, unit: &str, seen: &mut Vec<String>) -> Result<()> {
    if seen.iter().any(|s| s == unit) {
        return Ok(());
    }
    seen.push(unit.to_owned());
    let file = find(rootfs, unit)?;
    let text = rootfs.read(&file)?.with_context(|| format!("{file} is a dangling link"))?;
    let install = Install::parse(&String::from_utf8_lossy(&text));
    if install == Install::default() {
        return Err(hinted(
            format!("{file} has no [Install] section: nothing can enable `{unit}`"),
            "a unit without one is started by other units; take it out of `enable`",
        ));
    }
    let link = match (template(unit), &install.default_instance) {
        (Some(("", _)), None) => bail!("`{unit}` is a template without DefaultInstance=: name an instance"),
        (Some(("", _)), Some(instance)) => unit.replacen('@', &format!("@{instance}"), 1),
        _ => unit.to_owned(),
    };
    let groups =
        [("wants", &install.wanted_by), ("requires", &install.required_by), ("upholds", &install.upheld_by)];
    for (kind, targets) in groups {
        for target in targets {
            rootfs.symlink(&format!("{ETC}/{target}.{kind}/{link}"), &file)?;
        }
    }
    for alias in &install.alias {
        rootfs.symlink(&format!("{ETC}/{alias}"), &file)?;
    }
    for also in &install.also {
        enable(rootfs, also, seen)?;
    }
    Ok(())
}

/// Removes every link in `/etc/systemd/system` that enables the unit, under its name or an alias.
fn disable(rootfs: &Rootfs, unit: &str) -> Result<()> {
    let links = ["", "*.wants/", "*.requires/", "*.upholds/"];
    for place in links {
        for path in rootfs.glob(&format!("{ETC}/{place}*"))? {
            let Some(target) = rootfs.read_link(&path)? else { continue };
            let names_it = path.rsplit('/').next() == Some(unit) && target != "/dev/null";
            if names_it || target.rsplit('/').next() == Some(unit) {
                rootfs.remove_all(&path)?;
            }
        }
    }
    Ok(())
}

/// Where the file of a unit is: its own, or for an instance its template's.
fn find(rootfs: &Rootfs, unit: &str) -> Result<String> {
    let of_template = template(unit).map(|(_, name)| name);
    for name in std::iter::once(unit.to_owned()).chain(of_template) {
        for dir in [ETC, VENDOR] {
            let path = format!("{dir}/{name}");
            if rootfs.lstat(&path)?.is_some() {
                return Ok(path);
            }
        }
    }
    Err(hinted(
        format!("there is no unit `{unit}` in {VENDOR} or {ETC} of the rootfs"),
        "install the package that has it, or correct the name",
    ))
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
}
