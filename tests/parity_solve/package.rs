//! Imaginary packages, built for real by the `rpm` crate.

use std::path::{Path, PathBuf};

use rpm::{BuildConfig, Dependency, DependencyFlags, FileOptions, PackageBuilder};

/// Builds in `dir` what a line says: `NAME [EPOCH:]VERSION-RELEASE [ARCH]; needs A >= 1, /b; pre K; provides C = 2;
/// conflicts D; obsoletes E < 3; recommends F; suggests G; supplements H; enhances I; file /path; vendor J`.
pub fn build(dir: &Path, text: &str) -> PathBuf {
    let mut parts = text.split("; ").map(str::trim);
    let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
    let (name, evr, arch) = (words[0], words[1], *words.get(2).unwrap_or(&"x86_64"));
    let (epoch, vr) = evr.split_once(':').unwrap_or(("0", evr));
    let (version, release) = vr.split_once('-').unwrap();
    let mut builder = PackageBuilder::new(name, version, "MIT", arch, "imaginary");
    builder.using_config(BuildConfig::v4().compression(rpm::CompressionType::None)).release(release);
    if epoch != "0" {
        builder.epoch(epoch.parse().unwrap());
    }
    for (kind, items) in parts.map(|part| part.split_once(' ').unwrap_or_else(|| panic!("{text}: {part}"))) {
        items.split(", ").for_each(|item| add(&mut builder, kind, item));
    }
    let file = dir.join(format!("{name}-{epoch}-{vr}.{arch}.rpm"));
    builder.build().unwrap().write_file(&file).unwrap();
    file
}

fn add(builder: &mut PackageBuilder, kind: &str, item: &str) {
    match kind {
        "file" => builder.with_file_contents("", FileOptions::new(item)).unwrap(),
        "vendor" => builder.vendor(item),
        "needs" => builder.requires(dependency(item)),
        "pre" => {
            let Dependency { name, flags, version } = dependency(item);
            builder.requires(Dependency { name, flags: flags | DependencyFlags::SCRIPT_PRE, version })
        }
        "provides" => builder.provides(dependency(item)),
        "conflicts" => builder.conflicts(dependency(item)),
        "obsoletes" => builder.obsoletes(dependency(item)),
        "recommends" => builder.recommends(dependency(item)),
        "suggests" => builder.suggests(dependency(item)),
        "supplements" => builder.supplements(dependency(item)),
        "enhances" => builder.enhances(dependency(item)),
        other => panic!("{other}"),
    };
}

fn dependency(text: &str) -> Dependency {
    let words: Vec<&str> = if text.starts_with('(') { vec![text] } else { text.split(' ').collect() };
    match words[..] {
        [name] => Dependency::any(name),
        [name, "<", version] => Dependency::less(name, version),
        [name, "<=", version] => Dependency::less_eq(name, version),
        [name, "=", version] => Dependency::eq(name, version),
        [name, ">=", version] => Dependency::greater_eq(name, version),
        [name, ">", version] => Dependency::greater(name, version),
        _ => panic!("{text}"),
    }
}
