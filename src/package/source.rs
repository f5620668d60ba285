//! File names of source packages, `NAME-VERSION-RELEASE.src.rpm`: all that a package tells of what it was built from.

use super::Evr;

/// `NAME`.
pub fn source_name(file: &str) -> &str {
    file.rsplitn(3, '-').nth(2).unwrap_or(file)
}

/// `VERSION-RELEASE`, with the epoch that the file name does not tell.
pub fn source_evr(file: &str, epoch: u32) -> Evr {
    let stem = [".src.rpm", ".nosrc.rpm"].iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
    let mut parts = stem.rsplitn(3, '-');
    let release = parts.next().unwrap_or_default();
    Evr::new(epoch, parts.next().unwrap_or_default(), release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_name() {
        assert_eq!(source_name("cri-o-1.32.1-3.el9.src.rpm"), "cri-o");
        assert_eq!(source_evr("cri-o-1.32.1-3.el9.src.rpm", 2).to_string(), "2:1.32.1-3.el9");
        assert_eq!(source_evr("firmware-1-2.nosrc.rpm", 0).to_string(), "1-2");
    }
}
