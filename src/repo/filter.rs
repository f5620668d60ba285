//! `includepkgs` and `excludepkgs` of a repository (dnf.conf(5)).

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Packages;
use crate::package::Nevra;

/// Drops the packages that `include`, if it is not empty, does not match, and those that `exclude` matches.
/// Globs match a name or a longer form of the identity, as dnf's package specs: `NAME`, `NAME.ARCH`,
/// `NAME-[EPOCH:]VERSION[-RELEASE[.ARCH]]`.
pub fn apply(packages: &mut Packages, include: &[String], exclude: &[String]) -> Result<()> {
    let included = globs(include).context("reading includepkgs")?;
    let excluded = globs(exclude).context("reading excludepkgs")?;
    if !included.is_empty() || !excluded.is_empty() {
        packages.retain(|nevra| {
            let forms = forms(nevra);
            let matches = |globs: &GlobSet| forms.iter().any(|form| globs.is_match(form));
            (included.is_empty() || matches(&included)) && !matches(&excluded)
        });
    }
    Ok(())
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).build()?);
    }
    Ok(set.build()?)
}

fn forms(nevra: &Nevra) -> Vec<String> {
    let Nevra { name, evr, arch } = nevra;
    let (epoch, version, release) = (evr.epoch, &evr.version, &evr.release);
    let mut forms = vec![name.clone(), format!("{name}.{arch}")];
    for ev in [version.clone(), format!("{epoch}:{version}")] {
        forms.push(format!("{name}-{ev}"));
        forms.push(format!("{name}-{ev}-{release}"));
        forms.push(format!("{name}-{ev}-{release}.{arch}"));
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::RepoPackage;

    fn left(include: &[&str], exclude: &[&str]) -> Vec<String> {
        let package = |name: &str, evr: &str, arch: &str| RepoPackage {
            nevra: Nevra { name: name.into(), evr: evr.parse().unwrap(), arch: arch.into() },
            ..Default::default()
        };
        let mut packages: Packages = vec![
            package("bash", "5.1-9.el9", "x86_64"),
            package("bash-doc", "5.1-9.el9", "noarch"),
            package("glibc", "1:2.34-1", "i686"),
        ]
        .into();
        let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        apply(&mut packages, &own(include), &own(exclude)).unwrap();
        packages.iter().map(|p| p.nevra.name.clone()).collect()
    }

    #[test]
    fn globs_match_as_dnfs() {
        let none: &[&str] = &[];
        assert_eq!(left(&[], &["*.i686"]), ["bash", "bash-doc"]);
        assert_eq!(left(&["bash"], &[]), ["bash"]);
        assert_eq!(left(&["bash*"], &["*-doc"]), ["bash"]);
        assert_eq!(left(&["glibc-1:2.34-1.i686"], &[]), ["glibc"]);
        assert_eq!(left(&["glibc-2.34"], &[]), ["glibc"]);
        assert_eq!(left(&["bas[ab]"], &[]), none);
        assert_eq!(left(&[], &["*"]), none);
    }

    #[test]
    fn a_bad_glob_is_an_error() {
        assert!(apply(&mut Packages::default(), &["a[".into()], &[]).is_err());
    }
}
