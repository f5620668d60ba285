//! modules.yaml: streams of modules, which are alternative sets of packages, and which stream is the default
//! (libmodulemd's `modulemd-v2` and `modulemd-defaults`).

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use anyhow::{Context, Result};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::xml;

/// More YAML events than any list of modules has: EL8's, the longest, has about 400 thousand.
const MAX_EVENTS: usize = 20_000_000;

/// The modules of a repository, in document order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// Builds of streams.
    pub streams: Vec<Stream>,
    /// Defaults, one for a module.
    pub defaults: Vec<Defaults>,
}

/// One build of a stream of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// `nodejs`
    pub name: String,
    /// `18`
    pub stream: String,
    /// Of several builds of a stream the one with the highest version counts.
    pub version: u64,
    /// Tells builds apart that need different streams of other modules.
    pub context: String,
    /// Whether people chose the context, so that it stays from version to version.
    pub static_context: bool,
    /// Empty where the metadata do not say.
    pub arch: String,
    /// The modules it needs, and which of their streams will do. `-STREAM` is one that will not; all will when
    /// nothing is said.
    pub requires: Vec<(String, Vec<String>)>,
    /// The names of packages of each profile.
    pub profiles: BTreeMap<String, Vec<String>>,
    /// Its packages, `NAME-EPOCH:VERSION-RELEASE.ARCH`, sources among them.
    pub artifacts: Vec<String>,
    /// Names of packages that were once in the module, and may come from elsewhere now.
    pub demodularized: Vec<String>,
}

/// What is taken of a module when nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// Its name.
    pub module: String,
    /// Its default stream, if it has one.
    pub stream: Option<String>,
    /// The default profiles of each stream.
    pub profiles: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Parses modules.yaml, compressed or not, of at most `limit` decompressed bytes. Documents of other kinds
    /// (translations, obsoletes) are left out.
    pub fn parse(input: impl Read + 'static, limit: u64) -> Result<Self> {
        let mut input = xml::bounded(input, limit)?;
        let budget = serde_saphyr::budget! { max_events: MAX_EVENTS, max_reader_input_bytes: None };
        let mut modules = Self::default();
        let documents =
            serde_saphyr::read_with_options(&mut input, serde_saphyr::options! { budget: budget });
        for (index, document) in documents.enumerate() {
            let Document { document, data } =
                document.with_context(|| format!("reading document number {}", index + 1))?;
            match document.as_str() {
                "modulemd" => modules.streams.push(data.stream()),
                "modulemd-defaults" => modules.defaults.push(data.defaults()),
                _ => {}
            }
        }
        Ok(modules)
    }
}

#[derive(Deserialize)]
struct Document {
    document: String,
    #[serde(default)]
    data: Data,
}

/// The keys of every kind of document.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    name: String,
    module: String,
    stream: Option<String>,
    version: u64,
    context: String,
    static_context: bool,
    arch: String,
    dependencies: Vec<Dependencies>,
    profiles: BTreeMap<String, Profile>,
    artifacts: Rpms,
    demodularized: Rpms,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Dependencies {
    requires: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rpms {
    rpms: Vec<String>,
}

impl Data {
    fn profiles(self) -> BTreeMap<String, Vec<String>> {
        self.profiles.into_iter().map(|(name, profile)| (name, profile.0)).collect()
    }

    fn defaults(self) -> Defaults {
        Defaults { module: self.module.clone(), stream: self.stream.clone(), profiles: self.profiles() }
    }

    fn stream(mut self) -> Stream {
        let dependencies = std::mem::take(&mut self.dependencies);
        Stream {
            name: std::mem::take(&mut self.name),
            stream: self.stream.take().unwrap_or_default(),
            version: self.version,
            context: std::mem::take(&mut self.context),
            static_context: self.static_context,
            arch: std::mem::take(&mut self.arch),
            requires: dependencies.into_iter().flat_map(|d| d.requires).collect(),
            artifacts: std::mem::take(&mut self.artifacts.rpms),
            demodularized: std::mem::take(&mut self.demodularized.rpms),
            profiles: self.profiles(),
        }
    }
}

/// Names: of packages, in the mapping of a stream's profile; of profiles, as the list of a stream's defaults.
struct Profile(Vec<String>);

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Profile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names, or a mapping with `rpms`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Profile, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(Profile)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Profile, A::Error> {
                Rpms::deserialize(MapAccessDeserializer::new(map)).map(|rpms| Profile(rpms.rpms))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// As RHEL writes it, and with scalars that YAML would take for numbers.
    const TEXT: &str = "---
document: modulemd
version: 2
data:
  name: perl
  stream: 5.30
  version: 8040020200923213406
  context: 466ea64f
  arch: x86_64
  summary: Practical Extraction and Report Language
  dependencies:
  - buildrequires:
      platform: [el8]
    requires:
      platform: [el8]
      other: []
  profiles:
    common:
      description: >-
        Interpreter
      rpms:
      - perl
  artifacts:
    rpms:
    - perl-4:5.30.1-452.x86_64
    - perl-4:5.30.1-452.src
...
---
document: modulemd-defaults
version: 1
data:
  module: perl
  stream: 5.30
  profiles:
    5.30: [common]
    '5.32': []
...
---
document: modulemd-translations
version: 1
data:
  module: perl
  stream: \"5.30\"
  modified: 202009232134
  translations: {de: {summary: Sprache}}
...
";

    #[test]
    fn reads_streams_and_defaults() {
        let modules = Modules::parse(Cursor::new(TEXT), 1 << 20).unwrap();
        let [stream] = &modules.streams[..] else { panic!("{modules:?}") };
        assert_eq!((stream.name.as_str(), stream.stream.as_str()), ("perl", "5.30"));
        assert_eq!((stream.version, stream.context.as_str()), (8_040_020_200_923_213_406, "466ea64f"));
        assert_eq!(stream.requires, [("other".into(), vec![]), ("platform".into(), vec!["el8".into()])]);
        assert_eq!(stream.profiles["common"], ["perl"]);
        assert_eq!(stream.artifacts, ["perl-4:5.30.1-452.x86_64", "perl-4:5.30.1-452.src"]);
        let [defaults] = &modules.defaults[..] else { panic!("{modules:?}") };
        assert_eq!((defaults.module.as_str(), defaults.stream.as_deref()), ("perl", Some("5.30")));
        assert_eq!(
            (&defaults.profiles["5.30"], defaults.profiles["5.32"].len()),
            (&vec!["common".to_owned()], 0)
        );
    }

    #[test]
    fn refuses_what_is_wrong_or_too_much() {
        for (text, message) in [
            (&TEXT.replace("version: 8040020200923213406", "version: new"), "document number 1"),
            (&TEXT.replace("rpms:\n      - perl", "rpms: {}"), "document number 1"),
        ] {
            let error = format!("{:#}", Modules::parse(Cursor::new(text.clone()), 1 << 20).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
        assert!(Modules::parse(Cursor::new(TEXT), 100).is_err());
    }
}
