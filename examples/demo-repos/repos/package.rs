//! From a [`Release`] to a signed RPM.

use anyhow::{Context, Result};
use rpm::signature::Signing;
use rpm::{
    BuildConfig, CompressionWithLevel, Dependency, DependencyFlags, FileOptions, FileOptionsBuilder,
    FileVerifyFlags, Header, HeaderEntry, IndexData, IndexTag, PackageBuilder, RpmFormat, Scriptlet,
    SignatureHeaderBuilder, Timestamp,
};
use sha2::{Digest, Sha256};

use super::content::{self, Machine};
use super::spec::{Config, File, FileSpec, Payload, Release, Script, Scripts, Trigger, TriggerKind};

/// A package as it lies in a repository.
pub struct Built {
    /// `Packages/b/bash-5.1.8-9.el9.x86_64.rpm`
    pub location: String,
    /// The .rpm file.
    pub bytes: Vec<u8>,
    /// Of the .rpm file, hex.
    pub sha256: String,
    /// Its headers.
    pub metadata: rpm::PackageMetadata,
}

/// Builds and signs one package.
pub fn build(
    release: &Release<'_>,
    machine: &Machine,
    signer: &impl Signing<Signature = Vec<u8>>,
) -> Result<Built> {
    let spec = release.package;
    let (epoch, version, rel) = release.parts();
    let changes = release.changes()?;
    let built = changes[0].time;

    let mut builder = PackageBuilder::new(&spec.name, version, &spec.license, release.arch, &spec.summary);
    builder
        .using_config(
            BuildConfig::v4().compression(compression(spec.payload)).source_date(built).reserved_space(None),
        )
        .release(rel)
        .description(format!("{}.\n\nA stand-in of strata's demo stream.", spec.summary))
        .vendor("strata demo")
        .url("https://strata.invalid/")
        .build_host("build.strata.invalid");
    if let Some(epoch) = epoch {
        builder.epoch(epoch.parse().with_context(|| format!("reading the epoch {epoch:?}"))?);
    }
    for change in &changes {
        let author = format!("Demo Builder <demo@strata.invalid> - {}", change.evr);
        builder.add_changelog_entry(author, format!("- {}", change.text), Timestamp(change.time));
    }
    add_dependencies(&mut builder, release);
    add_scripts(&mut builder, release);
    add_files(&mut builder, release, machine)?;

    let mut package = builder.build()?;
    complete_header(&mut package, release)?;
    sign(&mut package, signer, Timestamp(built))?;

    let mut bytes = Vec::new();
    package.write(&mut bytes)?;
    let initial = spec.name.chars().next().context("a package without a name")?.to_ascii_lowercase();
    Ok(Built {
        location: format!("Packages/{initial}/{}-{version}-{rel}.{}.rpm", spec.name, release.arch),
        sha256: hex::encode(Sha256::digest(&bytes)),
        bytes,
        metadata: package.metadata,
    })
}

/// Fast rather than small: the demo is made anew on every fresh machine.
fn compression(payload: Payload) -> CompressionWithLevel {
    match payload {
        Payload::Zstd => CompressionWithLevel::Zstd(3),
        Payload::Gzip => CompressionWithLevel::Gzip(6),
        Payload::Xz => CompressionWithLevel::Xz(1),
        Payload::Bzip2 => CompressionWithLevel::Bzip2(1),
    }
}

fn add_dependencies(builder: &mut PackageBuilder, release: &Release<'_>) {
    let spec = release.package;
    let parsed =
        |list: &[String]| list.iter().map(|text| dependency(&release.fill(text))).collect::<Vec<_>>();
    for dep in parsed(&spec.requires) {
        builder.requires(dep);
    }
    for dep in parsed(&spec.provides) {
        builder.provides(dep);
    }
    for dep in parsed(&spec.conflicts) {
        builder.conflicts(dep);
    }
    for dep in parsed(&spec.obsoletes) {
        builder.obsoletes(dep);
    }
    for dep in parsed(&spec.recommends) {
        builder.recommends(dep);
    }
    for dep in parsed(&spec.suggests) {
        builder.suggests(dep);
    }
    for dep in parsed(&spec.supplements) {
        builder.supplements(dep);
    }
    for dep in parsed(&spec.enhances) {
        builder.enhances(dep);
    }
    // What rpmbuild adds and the crate does not.
    match spec.payload {
        Payload::Xz => builder.requires(Dependency::rpmlib("PayloadIsXz", "5.2-1")),
        Payload::Bzip2 => builder.requires(Dependency::rpmlib("PayloadIsBzip2", "3.0.5-1")),
        Payload::Zstd | Payload::Gzip => builder,
    };
}

/// Reads `name`, `name >= evr`, `(rich or dependency)`, each with an optional `pre: ` or `post: ` before it.
fn dependency(text: &str) -> Dependency {
    let (phase, text) = match text.split_once(": ") {
        Some(("pre", rest)) => (DependencyFlags::SCRIPT_PRE, rest),
        Some(("post", rest)) => (DependencyFlags::SCRIPT_POST, rest),
        _ => (DependencyFlags::ANY, text),
    };
    let (name, relation, version) = relation(text);
    Dependency { name: name.to_owned(), flags: phase | relation, version: version.to_owned() }
}

fn relation(text: &str) -> (&str, DependencyFlags, &str) {
    let words: Vec<&str> = text.split(' ').collect();
    let flags = match words[..] {
        [name, ..] if name.starts_with('(') => None,
        [_, "=", _] => Some(DependencyFlags::EQUAL),
        [_, "<", _] => Some(DependencyFlags::LESS),
        [_, "<=", _] => Some(DependencyFlags::LE),
        [_, ">", _] => Some(DependencyFlags::GREATER),
        [_, ">=", _] => Some(DependencyFlags::GE),
        _ => None,
    };
    flags.map_or((text, DependencyFlags::ANY, ""), |flags| (words[0], flags, words[2]))
}

fn add_scripts(builder: &mut PackageBuilder, release: &Release<'_>) {
    let scripts = &release.package.scripts;
    let scriptlet = |script: &Script| scriptlet(release, script);
    if let Some(script) = &scripts.pretrans {
        builder.pre_trans_script(scriptlet(script));
    }
    if let Some(script) = &scripts.pre {
        builder.pre_install_script(scriptlet(script));
    }
    if let Some(script) = &scripts.post {
        builder.post_install_script(scriptlet(script));
    }
    if let Some(script) = &scripts.preun {
        builder.pre_uninstall_script(scriptlet(script));
    }
    if let Some(script) = &scripts.postun {
        builder.post_uninstall_script(scriptlet(script));
    }
    if let Some(script) = &scripts.posttrans {
        builder.post_trans_script(scriptlet(script));
    }
    for trigger in &release.package.triggers {
        add_trigger(builder, trigger, scriptlet(&trigger.script));
    }
    if uses_lua(release) {
        builder.requires(Dependency::rpmlib("BuiltinLuaScripts", "4.2.2-1"));
    }
}

fn add_trigger(builder: &mut PackageBuilder, trigger: &Trigger, script: Scriptlet) {
    let (name, flags, version) = relation(&trigger.on);
    let condition = (!version.is_empty()).then_some((flags, version));
    match trigger.kind {
        TriggerKind::TriggerIn => builder.trigger_in(name, condition, script),
        TriggerKind::TriggerPostUn => builder.trigger_postun(name, condition, script),
        TriggerKind::FileTriggerIn => builder.file_trigger_in(name, condition, script),
        TriggerKind::TransFileTriggerIn => builder.trans_file_trigger_in(name, condition, script),
        TriggerKind::TransFileTriggerPostUn => builder.trans_file_trigger_postun(name, condition, script),
    };
    // The crate adds a scriptlet's interpreter to the requirements, but not a trigger's.
    builder.requires(Dependency::interp(interpreter(&trigger.script)));
}

/// Name of rpm's built-in interpreter.
const LUA: &str = "<lua>";

fn interpreter(script: &Script) -> &str {
    match script {
        Script::Shell(_) => "/bin/sh",
        Script::Lua { .. } => LUA,
        Script::Program { program } => program,
    }
}

fn scriptlet(release: &Release<'_>, script: &Script) -> Scriptlet {
    let body = match script {
        Script::Shell(body) | Script::Lua { lua: body } => release.fill(body),
        Script::Program { .. } => String::new(),
    };
    Scriptlet::new(body).prog(vec![interpreter(script)])
}

fn uses_lua(release: &Release<'_>) -> bool {
    let Scripts { pretrans, pre, post, preun, postun, posttrans } = &release.package.scripts;
    let scripts = [pretrans, pre, post, preun, postun, posttrans].into_iter().flatten();
    let triggers = release.package.triggers.iter().map(|trigger| &trigger.script);
    scripts.chain(triggers).any(|script| interpreter(script) == LUA)
}

fn add_files(builder: &mut PackageBuilder, release: &Release<'_>, machine: &Machine) -> Result<()> {
    let spec = release.package;
    for dir in spec.dirs.split_whitespace() {
        builder.with_dir_entry(FileOptions::dir(release.fill(dir)))?;
    }
    for command in spec.bin.split_whitespace() {
        builder.with_symlink(FileOptions::symlink(format!("/usr/bin/{command}"), "busybox"))?;
    }
    for command in spec.sbin.split_whitespace() {
        builder.with_symlink(FileOptions::symlink(format!("/usr/sbin/{command}"), "../bin/busybox"))?;
    }
    for (path, file) in &spec.files {
        let path = release.fill(path);
        match file {
            FileSpec::Text(text) => builder.with_file_contents(release.fill(text), FileOptions::new(&path)),
            FileSpec::Full(file) => add_file(builder, release, machine, &path, file),
        }
        .with_context(|| format!("packaging {path}"))?;
    }
    Ok(())
}

fn add_file<'b>(
    builder: &'b mut PackageBuilder,
    release: &Release<'_>,
    machine: &Machine,
    path: &str,
    file: &File,
) -> Result<&'b mut PackageBuilder, rpm::Error> {
    // Not the whole path, which may have the version in it.
    let content_name = file.hardlink.as_deref().or(path.rsplit('/').next()).unwrap_or(path);
    let seed = format!("{}/{content_name}", release.package.name);
    let bulk = content::bulk(&seed, release.evr, machine.weight(release.arch, file.bulk));
    let executable = || attributes(FileOptions::new(path).permissions(0o755), file);
    if let Some(target) = &file.link {
        builder.with_symlink(attributes(FileOptions::symlink(path, release.fill(target)), file)?)
    } else if file.ghost {
        builder.with_ghost(attributes(FileOptions::ghost(path), file)?)
    } else if file.dir {
        builder.with_dir_entry(attributes(FileOptions::dir(path), file)?)
    } else if file.busybox {
        builder.with_file_contents(machine.busybox(release.arch), executable()?)
    } else if let Some(message) = &file.program {
        builder.with_file_contents(content::program(&release.fill(message), &bulk), executable()?)
    } else if let Some(script) = &file.script {
        builder.with_file_contents(release.fill(script), executable()?)
    } else {
        let bytes = file.text.as_ref().map_or(bulk, |text| release.fill(text).into_bytes());
        builder.with_file_contents(bytes, attributes(FileOptions::new(path), file)?)
    }
}

/// Mode, owner, capabilities and flags.
fn attributes(mut options: FileOptionsBuilder, file: &File) -> Result<FileOptionsBuilder, rpm::Error> {
    if let Some(mode) = &file.mode {
        let bits = u16::from_str_radix(mode, 8).expect("the catalogues' modes are octal");
        options = options.permissions(bits);
    }
    if let Some(user) = &file.user {
        options = options.user(user);
    }
    if let Some(group) = &file.group {
        options = options.group(group);
    }
    if let Some(caps) = &file.caps {
        options = options.caps(caps)?;
    }
    if let Some(set) = &file.hardlink {
        options = options.hardlink(set);
    }
    options = match file.config {
        Some(Config::Replace) => options.config(),
        Some(Config::Noreplace) => options.config().noreplace(),
        Some(Config::Missingok) => options.config().noreplace().missingok(),
        None => options,
    };
    if file.doc {
        options = options.doc();
    }
    if file.license {
        options = options.license();
    }
    if file.volatile {
        let content = FileVerifyFlags::FILEDIGEST | FileVerifyFlags::FILESIZE | FileVerifyFlags::MTIME;
        options = options.verify(FileVerifyFlags::all() - content);
    }
    Ok(options)
}

/// Sets what the builder can't: the source package, trigger priorities, programs run without a script; and
/// takes away what rpmbuild wouldn't write: requirements of `<lua>` and repeated ones.
fn complete_header(package: &mut rpm::Package, release: &Release<'_>) -> Result<()> {
    let header = &package.metadata.header;
    let mut requires = package.metadata.get_requires()?;
    requires.retain(|dep| dep.name != LUA);
    requires.dedup();
    let file_triggers = |kinds: &[TriggerKind]| {
        let of_kind = release.package.triggers.iter().filter(|trigger| kinds.contains(&trigger.kind));
        IndexData::Int32(of_kind.map(|trigger| trigger.priority).collect())
    };

    let mut entries = Vec::new();
    for (number, data) in header.get_all_entries()? {
        let data = match number {
            tag::IMMUTABLE => continue,
            tag::PREIN | tag::POSTIN if data == IndexData::StringTag(String::new()) => continue,
            tag::SOURCERPM => IndexData::StringTag(release.source_rpm()),
            tag::REQUIRENAME => IndexData::StringArray(requires.iter().map(|dep| dep.name.clone()).collect()),
            tag::REQUIREVERSION => {
                IndexData::StringArray(requires.iter().map(|dep| dep.version.clone()).collect())
            }
            tag::REQUIREFLAGS => IndexData::Int32(requires.iter().map(|dep| dep.flags.bits()).collect()),
            tag::FILETRIGGERPRIORITIES => file_triggers(&[TriggerKind::FileTriggerIn]),
            tag::TRANSFILETRIGGERPRIORITIES => {
                file_triggers(&[TriggerKind::TransFileTriggerIn, TriggerKind::TransFileTriggerPostUn])
            }
            _ => data,
        };
        entries.push(HeaderEntry::new(number, data));
    }
    package.metadata.header = Header::from_entries(entries, IndexTag::RPMTAG_HEADERIMMUTABLE);
    Ok(())
}

/// Header tags (rpm's `rpmtag.h`).
mod tag {
    pub const IMMUTABLE: u32 = 63;
    pub const PREIN: u32 = 1023;
    pub const POSTIN: u32 = 1024;
    pub const SOURCERPM: u32 = 1044;
    pub const REQUIREFLAGS: u32 = 1048;
    pub const REQUIRENAME: u32 = 1049;
    pub const REQUIREVERSION: u32 = 1050;
    pub const FILETRIGGERPRIORITIES: u32 = 5084;
    pub const TRANSFILETRIGGERPRIORITIES: u32 = 5085;
}

/// Makes the signature header for the header as it is now.
fn sign(
    package: &mut rpm::Package,
    signer: &impl Signing<Signature = Vec<u8>>,
    time: Timestamp,
) -> Result<()> {
    let header = package.header_bytes()?;
    let length = header.len() + package.payload.len();
    package.metadata.signature = SignatureHeaderBuilder::new()
        .format(RpmFormat::V4)
        .reserved_space(None)
        .set_content_length(length as u64)
        .calculate_digests(&header)
        .add_openpgp_signature(signer.sign(header.as_slice(), time)?)
        .build()?;
    Ok(())
}
