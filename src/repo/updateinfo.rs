//! updateinfo.xml: advisories, for reports.

use std::io::Read;

use anyhow::{Context, Result};

use super::Advisory;
use super::xml::{Element, Node, walk};
use crate::package::{Evr, Nevra};

/// Parses updateinfo.xml, compressed or not, of at most `limit` decompressed bytes.
pub fn parse(input: impl Read + 'static, limit: u64) -> Result<Vec<Advisory>> {
    let mut advisories = Vec::new();
    let mut advisory = Advisory::default();
    walk(input, "updates", limit, |node| {
        match node {
            Node::Open(element) => match element.name() {
                "update" => {
                    let kind = element.get("type")?.unwrap_or_default().into_owned();
                    advisory = Advisory { kind, ..Advisory::default() };
                }
                "reference" if element.get("type")?.as_deref() == Some("cve") => {
                    advisory.cves.push(element.require("id")?);
                }
                "package" => advisory
                    .packages
                    .push(nevra(element).with_context(|| format!("reading advisory {}", advisory.id))?),
                _ => {}
            },
            Node::Close(name, text) => match name {
                "id" => advisory.id = text.trim().to_owned(),
                "title" => advisory.title = text.trim().to_owned(),
                "severity" => advisory.severity = text.trim().to_owned(),
                "update" => {
                    let mut advisory = std::mem::take(&mut advisory);
                    advisory.cves.sort_unstable();
                    advisory.cves.dedup();
                    advisories.push(advisory);
                }
                _ => {}
            },
        }
        Ok(())
    })?;
    Ok(advisories)
}

/// Unlike elsewhere, `version` and `release` are spelled out.
fn nevra(package: &Element<'_>) -> Result<Nevra> {
    let epoch = u32::try_from(package.number("epoch")?).context("reading an epoch")?;
    let evr = Evr::new(epoch, package.require("version")?, package.require("release")?);
    Ok(Nevra { name: package.require("name")?, evr, arch: package.require("arch")? })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn reads_an_advisory() {
        let text = "<updates><update from='x' status='final' type='security' version='2'><id>RHSA-2025:1</id>
            <title>zoo update</title><severity>Important</severity><references>
            <reference href='h' id='CVE-2025-2' type='cve'/><reference href='h' id='12' type='bugzilla'/>
            <reference href='h' id='CVE-2025-1' type='cve'/></references>
            <pkglist><collection short='c'><name>coll</name>
            <package name='zoo' version='1.0' release='2.el9' epoch='1' arch='x86_64' src='zoo.src.rpm'>
            <filename>zoo.rpm</filename></package></collection></pkglist></update></updates>";
        let zoo = Nevra { name: "zoo".into(), evr: Evr::new(1, "1.0", "2.el9"), arch: "x86_64".into() };
        let expected = Advisory {
            id: "RHSA-2025:1".into(),
            kind: "security".into(),
            severity: "Important".into(),
            title: "zoo update".into(),
            cves: vec!["CVE-2025-1".into(), "CVE-2025-2".into()],
            packages: vec![zoo],
        };
        assert_eq!(parse(Cursor::new(text), 10_000).unwrap(), [expected]);
    }
}
