//! filelists.xml: every path of every package. Large, so it is read only when a path outside primary's
//! selection is asked for.

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Context, Result};

use super::RepoPackage;
use super::xml::{Node, walk};
use crate::digest::Digest;

/// Replaces the files of `packages` by the full lists of filelists.xml, compressed or not, of at most `limit`
/// decompressed bytes. Packages are matched by their digest (`pkgid`); what does not match stays as it is.
pub fn load(input: impl Read + 'static, limit: u64, packages: &mut [RepoPackage]) -> Result<()> {
    let index: HashMap<Digest, usize> =
        packages.iter().enumerate().filter_map(|(i, p)| Some((p.sha256?, i))).collect();
    let mut current = None;
    walk(input, "filelists", limit, |node| {
        match node {
            Node::Open(element) if element.name() == "package" => {
                let id = Digest::from_hex(&element.require("pkgid")?).context("reading a pkgid")?;
                current = index.get(&id).copied();
                if let Some(i) = current {
                    packages[i].files.clear();
                }
            }
            Node::Close("file", path) => {
                if let Some(i) = current {
                    packages[i].files.push(path.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn replaces_primarys_selection() {
        let [a, b, c] = ["a", "b", "c"].map(Digest::of);
        let package = |d| RepoPackage { sha256: Some(d), files: vec!["/etc/x".into()], ..Default::default() };
        let mut packages = [package(a), package(b)];
        let text = format!(
            "<filelists><package pkgid='{}'><file>/usr/share/x</file><file type='dir'>/etc</file></package>
             <package pkgid='{}'><file>/elsewhere</file></package></filelists>",
            b.hex(),
            c.hex()
        );
        load(Cursor::new(text), 10_000, &mut packages).unwrap();
        assert_eq!(packages[0].files, ["/etc/x"]);
        assert_eq!(packages[1].files, ["/usr/share/x", "/etc"]);
    }
}
