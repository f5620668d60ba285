//! Makes the compact form.

use anyhow::Result;
use rustc_hash::FxHashMap;

use super::{COMPARISONS, KIND, LISTS, List, PACKAGE, PRE, SECTIONS, Section, hash, sealed};
use crate::digest::Digest;
use crate::package::Dependency;
use crate::repo::RepoPackage;

/// The lists of a package by number, in the order of [`List`]; see [`Writer::dependency`] and [`Writer::name`].
pub type Lists = [Vec<u32>; LISTS];

/// Takes packages one after the other.
pub struct Writer {
    texts: String,
    text_ends: Vec<u32>,
    /// Texts so far, but for those that hardly ever come again.
    known: FxHashMap<Box<str>, u32>,
    /// The text of each name, and their numbers.
    names: Vec<u32>,
    named: FxHashMap<Box<str>, u32>,
    dependencies: Vec<[u32; super::DEPENDENCY]>,
    depended: FxHashMap<[u32; super::DEPENDENCY], u32>,
    packages: Vec<[u32; PACKAGE]>,
    lists: Vec<u32>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            texts: String::new(),
            text_ends: vec![0],
            known: [(Box::default(), 0)].into_iter().collect(),
            names: Vec::new(),
            named: FxHashMap::default(),
            dependencies: Vec::new(),
            depended: FxHashMap::default(),
            packages: Vec::new(),
            lists: Vec::new(),
        }
    }
}

impl Writer {
    /// How many packages there are so far.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    // Numbers do not overflow: each stands for a byte at least of less than 4 GiB, which `finish` makes sure of.

    fn new_text(&mut self, text: &str) -> u32 {
        self.texts.push_str(text);
        self.text_ends.push(self.texts.len() as u32);
        self.text_ends.len() as u32 - 1
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let number = self.new_text(text);
        self.known.insert(text.into(), number);
        number
    }

    /// The number of a name.
    pub fn name(&mut self, name: &str) -> u32 {
        if let Some(known) = self.named.get(name) {
            return *known;
        }
        let text = self.new_text(name);
        self.names.push(text);
        let number = self.names.len() as u32 - 1;
        self.named.insert(name.into(), number);
        number
    }

    /// The number of a dependency.
    pub fn dependency(&mut self, dependency: &Dependency) -> u32 {
        let comparison = dependency.version.as_ref().map(|(comparison, _)| *comparison);
        let kind = COMPARISONS.iter().position(|known| *known == comparison).unwrap_or(0) as u32;
        let [epoch, version, release] = match &dependency.version {
            Some((_, evr)) => [evr.epoch, self.text(&evr.version), self.text(&evr.release)],
            None => [0; 3],
        };
        let kind = kind + if dependency.pre { PRE } else { 0 };
        let fields = [self.name(&dependency.name), kind, epoch, version, release];
        *self.depended.entry(fields).or_insert_with(|| {
            self.dependencies.push(fields);
            self.dependencies.len() as u32 - 1
        })
    }

    /// Adds a package with `lists` in the place of its own.
    pub fn add(&mut self, package: &RepoPackage, lists: &Lists) {
        let nevra = &package.nevra;
        let halves = |long: u64| [long as u32, (long >> 32) as u32];
        let mut fields = Vec::with_capacity(PACKAGE);
        fields.extend([self.name(&nevra.name), nevra.evr.epoch]);
        fields.extend([&nevra.evr.version, &nevra.evr.release, &nevra.arch].map(|text| self.text(text)));
        fields.extend([self.new_text(&package.location), self.text(&package.source)]);
        fields.push(self.text(package.vendor.as_deref().unwrap_or_default()));
        fields.extend([package.size, package.installed_size, package.build_time].map(halves).as_flattened());
        let digest = package.sha256.as_ref().map_or([0; 32], |digest| *Digest::as_bytes(digest));
        fields.extend(digest.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
        for list in lists {
            self.lists.extend_from_slice(list);
            fields.push(self.lists.len() as u32);
        }
        self.packages.push(fields.try_into().expect("a package has so many numbers"));
    }

    /// Adds a package with its own lists.
    pub fn add_whole(&mut self, package: &RepoPackage) {
        let relations = [
            &package.provides,
            &package.requires,
            &package.conflicts,
            &package.obsoletes,
            &package.recommends,
            &package.suggests,
            &package.supplements,
            &package.enhances,
        ];
        let mut lists = Lists::default();
        for (list, relation) in lists.iter_mut().zip(relations) {
            list.extend(relation.iter().map(|dependency| self.dependency(dependency)));
        }
        lists[List::Files as usize].extend(package.files.iter().map(|path| self.name(path)));
        self.add(package, &lists);
    }

    /// The file.
    pub fn finish(self) -> Result<Vec<u8>> {
        let bytes =
            |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let (provider_ends, providers) = self.providers();
        let sections: [(Section, Vec<u8>); SECTIONS] = [
            (Section::Slots, bytes(&self.slots())),
            (Section::ProviderEnds, bytes(&provider_ends)),
            (Section::Providers, bytes(&providers)),
            (Section::TextEnds, bytes(&self.text_ends)),
            (Section::Names, bytes(&self.names)),
            (Section::Dependencies, bytes(self.dependencies.as_flattened())),
            (Section::Packages, bytes(self.packages.as_flattened())),
            (Section::Lists, bytes(&self.lists)),
            (Section::Texts, self.texts.into_bytes()),
        ];
        let mut parts: [&[u8]; SECTIONS + 1] = [&[]; SECTIONS + 1];
        let mut lengths = [0; SECTIONS];
        for (section, bytes) in &sections {
            // the sum, which does not fit either if one does not, is checked
            lengths[*section as usize] = bytes.len() as u32;
            parts[*section as usize + 1] = bytes;
        }
        let lengths = bytes(&lengths);
        parts[0] = &lengths;
        sealed(KIND, &parts)
    }

    /// At most half full, so that few steps lead to a name or to its absence.
    fn slots(&self) -> Vec<u32> {
        let mut slots = vec![0; (2 * self.names.len() + 1).next_power_of_two()];
        for (index, text) in self.names.iter().enumerate() {
            let text = *text as usize;
            let name = &self.texts[self.text_ends[text - 1] as usize..self.text_ends[text] as usize];
            let mut at = hash(name) as usize % slots.len();
            while slots[at] != 0 {
                at = (at + 1) % slots.len();
            }
            slots[at] = index as u32 + 1;
        }
        slots
    }

    /// Where the packages end that provide each name, and all of them.
    fn providers(&self) -> (Vec<u32>, Vec<u32>) {
        let mut ends = vec![0; self.names.len()];
        self.each_provided(|name, _| ends[name] += 1);
        let mut sum = 0;
        for end in &mut ends {
            (sum, *end) = (sum + *end, sum);
        }
        // each begins where the one before ends, and moves to its own end
        let mut providers = vec![0; sum as usize];
        self.each_provided(|name, package| {
            providers[ends[name] as usize] = package;
            ends[name] += 1;
        });
        (ends, providers)
    }

    /// Every name with the packages that provide it: a pair once, packages in their order.
    fn each_provided(&self, mut visit: impl FnMut(usize, u32)) {
        let mut last = vec![u32::MAX; self.names.len()];
        let mut start = 0;
        for (package, fields) in self.packages.iter().enumerate() {
            let end = |list: List| fields[PACKAGE - LISTS + list as usize] as usize;
            let provides = self.lists[start..end(List::Provides)].iter();
            let files = self.lists[end(List::Enhances)..end(List::Files)].iter();
            let names = provides.map(|dependency| self.dependencies[*dependency as usize][0]);
            for name in names.chain(files.copied()).chain([fields[0]]) {
                if std::mem::replace(&mut last[name as usize], package as u32) != package as u32 {
                    visit(name as usize, package as u32);
                }
            }
            start = end(List::Files);
        }
    }
}
