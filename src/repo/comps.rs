//! comps.xml: groups of packages, and environments, which are groups of groups (libcomps).

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::xml::{Element, Node, walk};
use crate::package::Arch;

/// The groups and environments of a repository, in document order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comps {
    /// Groups.
    pub groups: Vec<Group>,
    /// Environments.
    pub environments: Vec<Environment>,
}

/// A group of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// `core`
    pub id: String,
    /// `Core`; translations are left out.
    pub name: String,
    /// Its packages.
    pub packages: Vec<GroupPackage>,
}

/// A package of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupPackage {
    /// Package name.
    pub name: String,
    /// Whether the group wants it without being asked.
    pub kind: Kind,
    /// Only together with a package of this name.
    pub requires: Option<String>,
    /// Only of the architecture of the system, no older one that it runs.
    pub basearchonly: bool,
    /// Architectures it is listed for; all when empty.
    pub arches: Vec<String>,
}

impl GroupPackage {
    /// Whether it is listed for an architecture.
    pub fn is_for(&self, arch: Arch) -> bool {
        self.arches.is_empty() || self.arches.iter().any(|own| own == arch.rpm())
    }
}

/// How much a group wants a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// It is no such group without it.
    Mandatory,
    /// Unless somebody takes it out.
    Default,
    /// Only if somebody asks for it.
    Optional,
    /// Together with another package.
    Conditional,
}

impl Kind {
    /// Parses the `type` of a `<packagereq>`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "mandatory" => Self::Mandatory,
            "default" => Self::Default,
            "optional" => Self::Optional,
            "conditional" => Self::Conditional,
            _ => return None,
        })
    }
}

/// A group of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `minimal-environment`
    pub id: String,
    /// `Minimal Install`; translations are left out.
    pub name: String,
    /// Ids of its groups, without those that are optional.
    pub groups: Vec<String>,
}

impl Comps {
    /// Parses comps.xml, compressed or not, of at most `limit` decompressed bytes.
    pub fn parse(input: impl Read + 'static, limit: u64) -> Result<Self> {
        let mut parser = Parser::default();
        walk(input, "comps", limit, |node| match node {
            Node::Open(element) => parser.open(element),
            Node::Close(name, text) => {
                parser.close(name, text);
                Ok(())
            }
        })?;
        Ok(parser.comps)
    }

    /// The ids of groups and environments.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let environments = self.environments.iter().map(|environment| environment.id.as_str());
        self.groups.iter().map(|group| group.id.as_str()).chain(environments)
    }
}

#[derive(Default)]
struct Parser {
    comps: Comps,
    /// Of the element that was begun, whichever it is.
    id: String,
    name: String,
    packages: Vec<GroupPackage>,
    groups: Vec<String>,
    package: Option<GroupPackage>,
    /// Whether the `<groupid>`s that follow are an environment's options.
    optional: bool,
    /// Whether a `<name>` is in another language.
    translated: bool,
}

impl Parser {
    fn open(&mut self, element: &Element<'_>) -> Result<()> {
        match element.name() {
            "group" | "environment" => {
                self.packages.clear();
                self.groups.clear();
            }
            "optionlist" => self.optional = true,
            "name" => self.translated = element.get("xml:lang")?.is_some(),
            "packagereq" => {
                let package = package(element);
                self.package = Some(package.with_context(|| format!("reading group {}", self.id))?);
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, element: &str, text: &str) {
        match element {
            "id" => self.id = text.to_owned(),
            "name" if !self.translated => self.name = text.to_owned(),
            "groupid" if !self.optional => self.groups.push(text.to_owned()),
            "optionlist" => self.optional = false,
            "packagereq" => {
                let named =
                    self.package.take().map(|package| GroupPackage { name: text.to_owned(), ..package });
                self.packages.extend(named);
            }
            "group" => {
                let packages = std::mem::take(&mut self.packages);
                self.comps.groups.push(Group { id: self.id.clone(), name: self.name.clone(), packages });
            }
            "environment" => {
                let groups = std::mem::take(&mut self.groups);
                let environment = Environment { id: self.id.clone(), name: self.name.clone(), groups };
                self.comps.environments.push(environment);
            }
            _ => {}
        }
    }
}

fn package(element: &Element<'_>) -> Result<GroupPackage> {
    let kind = match element.get("type")?.as_deref() {
        // what libcomps takes it for
        None => Kind::Mandatory,
        Some(text) => match Kind::parse(text) {
            Some(kind) => kind,
            None => bail!(
                "a package has unknown type `{text}`: expected mandatory, default, optional or conditional"
            ),
        },
    };
    let arches = element.get("arch")?.unwrap_or_default();
    let separators = [',', ' '];
    Ok(GroupPackage {
        name: String::new(),
        kind,
        requires: element.get("requires")?.map(|text| text.into_owned()),
        basearchonly: element.get("basearchonly")?.as_deref() == Some("true"),
        arches: arches.split(separators).filter(|arch| !arch.is_empty()).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn parse(body: &str) -> Result<Comps> {
        Comps::parse(Cursor::new(format!("<comps>{body}</comps>")), 1 << 20)
    }

    #[test]
    fn reads_groups_and_environments() {
        let comps = parse(
            "<group><id>core</id><name>Core</name><name xml:lang='de'>Kern</name><packagelist>
            <packagereq type='mandatory'>bash</packagereq><packagereq type='default' arch='x86_64,s390x'>less</packagereq>
            <packagereq type='conditional' requires='sshd' basearchonly='true'>ssh</packagereq></packagelist></group>
            <category><id>apps</id><name>Apps</name><grouplist><groupid>core</groupid></grouplist></category>
            <environment><id>min</id><name>Minimal</name><grouplist><groupid>core</groupid></grouplist>
            <optionlist><groupid>extra</groupid></optionlist></environment>
            <group><id>empty</id><name>Empty</name><packagelist/></group>",
        )
        .unwrap();
        let [core, empty] = &comps.groups[..] else { panic!("{comps:?}") };
        assert_eq!((core.id.as_str(), core.name.as_str()), ("core", "Core"));
        let [bash, less, ssh] = &core.packages[..] else { panic!("{core:?}") };
        assert_eq!((bash.name.as_str(), bash.kind), ("bash", Kind::Mandatory));
        assert!(less.is_for(Arch::X86_64) && !less.is_for(Arch::Aarch64) && bash.is_for(Arch::Aarch64));
        assert_eq!(
            (ssh.kind, ssh.requires.as_deref(), ssh.basearchonly),
            (Kind::Conditional, Some("sshd"), true)
        );
        assert_eq!((empty.id.as_str(), empty.packages.len()), ("empty", 0));
        let environment =
            Environment { id: "min".into(), name: "Minimal".into(), groups: vec!["core".into()] };
        assert_eq!(comps.environments, [environment]);
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        let group =
            "<group><id>g</id><packagelist><packagereq type='wanted'>a</packagereq></packagelist></group>";
        let error = format!("{:#}", parse(group).unwrap_err());
        assert!(error.contains("reading group g") && error.contains("`wanted`"), "{error}");
    }
}
