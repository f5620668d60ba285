//! The chunk plan: which source packages of a layer share a blob.
//!
//! A machine that updates fetches every blob in which anything changed. A chunk of `size` bytes whose packages
//! change in a week with the probabilities `p` costs it `size * (1 - (1 - p1)(1 - p2)...)` bytes a week. A new plan
//! starts with a chunk for each source package and unites the two whose union costs least more than they cost apart,
//! until there are few enough. That leaves alone what is large or changes on its own, and puts together what is small
//! or never changes. Only packages of one class, by how often they change, are united, so that every class has chunks
//! that later packages can join.
//!
//! How often a package changes is told by its changelog: the entries of the year before it was built or, if that is
//! later, before the plan was made (rpm-ostree counts likewise: reference in its `build-chunked-oci`).
//!
//! A plan is an input of builds and is not made anew by them, because every package that moves from chunk to chunk
//! changes two. A package that the plan doesn't know is in a shared chunk of its class, by hash of its name: where
//! depends on the plan and the package alone, not on what else is new.
//!
//! ```text
//! version = 1
//! as-of = 1738540800           # UTC seconds: the newest package when the plan was made
//!
//! [[chunk]]                    # in the order of the blobs
//! changes = "seldom"           # or "sometimes" or "often"
//! sources = ["linux-firmware"]
//!
//! [[chunk]]
//! changes = "seldom"
//! shared = true                # takes in packages that the plan doesn't know; may be empty
//! sources = ["acl", "attr"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{HintExt, hinted};

const VERSION: u32 = 1;
const HEADER: &str =
    "# Made by the first `strata build`: review and commit it. `strata build --rechunk` makes it anew.\n";
const RESTORE: &str = "restore it; or delete it and build, which makes a new one";

const WEEK: f64 = 52.0;
const YEAR: u64 = 365 * 24 * 60 * 60;

/// Least number of chunks: for each class one that is shared, and one that may not be.
pub const LEAST: usize = 2 * CLASSES.len();

/// A chunk plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packing {
    version: u32,
    /// Build time of the newest package when the plan was made, UTC seconds.
    as_of: u64,
    #[serde(rename = "chunk")]
    chunks: Vec<Planned>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    changes: Class,
    #[serde(default, skip_serializing_if = "is_false")]
    shared: bool,
    sources: BTreeSet<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// How often a package changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    /// Less than twice a year.
    Seldom,
    /// Less than every month.
    Sometimes,
    Often,
}

const CLASSES: [Class; 3] = [Class::Seldom, Class::Sometimes, Class::Often];

impl Class {
    fn of(changes_a_year: usize) -> Self {
        match changes_a_year {
            0..2 => Self::Seldom,
            2..12 => Self::Sometimes,
            _ => Self::Often,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seldom => "seldom",
            Self::Sometimes => "sometimes",
            Self::Often => "often",
        }
    }
}

/// A source package, as far as packing goes.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Bytes of its files in the layer.
    pub size: u64,
    /// When its newest package was built, UTC seconds.
    pub built: u64,
    /// Times of its changelog's entries, UTC seconds.
    pub changelog: Vec<u64>,
}

impl Source {
    fn changes_a_year(&self, as_of: u64) -> usize {
        let until = as_of.max(self.built);
        self.changelog.iter().filter(|time| until.saturating_sub(YEAR) < **time && **time <= until).count()
    }

    /// The probability that it stays as it is for a week. Whatever rests may be built again, about once a year.
    fn rests(&self, as_of: u64) -> f64 {
        WEEK / (WEEK + 1.0 + self.changes_a_year(as_of) as f64)
    }
}

/// Source packages of a layer, by name.
pub type Sources = BTreeMap<String, Source>;

/// When the newest source was built, a number that TOML has.
fn newest(sources: &Sources) -> u64 {
    sources.values().map(|source| source.built).max().unwrap_or(0).min(i64::MAX as u64)
}

impl Packing {
    /// The plan of `most` chunks, [`LEAST`] at least, that costs machines least. The same sources give the same plan:
    /// of unions that cost the same the first is taken.
    pub fn new(sources: &Sources, most: usize) -> Self {
        let as_of = newest(sources);
        let alone = |(name, source): (&String, &Source)| {
            let class = Class::of(source.changes_a_year(as_of));
            let cost = Cost { size: source.size as f64, rests: source.rests(as_of) };
            Group { class, cost, sources: [name.clone()].into() }
        };
        let mut groups: Vec<Group> = sources.iter().map(alone).collect();
        while groups.len() + classes_without_shared(&groups) > most.max(LEAST) {
            let Some((a, b)) = cheapest_union(&groups) else { break };
            let other = groups.remove(b);
            groups[a].cost = groups[a].cost.with(other.cost);
            groups[a].sources.extend(other.sources);
        }
        let mut chunks: Vec<Planned> = groups.into_iter().map(Group::planned).collect();
        for class in CLASSES {
            if !chunks.iter().any(|chunk| chunk.shared && chunk.changes == class) {
                chunks.push(Planned { changes: class, shared: true, sources: BTreeSet::new() });
            }
        }
        chunks.sort_by(|a, b| (a.changes, a.shared, &a.sources).cmp(&(b.changes, b.shared, &b.sources)));
        Self { version: VERSION, as_of, chunks }
    }

    /// How many chunks there are.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// The chunk of a source package.
    pub fn chunk_of(&self, name: &str, source: &Source) -> usize {
        let known = self.chunks.iter().position(|chunk| chunk.sources.contains(name));
        known.unwrap_or_else(|| self.chunk_for_new(name, source))
    }

    /// One of the shared chunks of the source's class, or of the nearest that has any.
    fn chunk_for_new(&self, name: &str, source: &Source) -> usize {
        let class = Class::of(source.changes_a_year(self.as_of));
        let distance = |chunk: &Planned| (chunk.changes as usize).abs_diff(class as usize);
        let shared = || self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.shared);
        let nearest = shared().map(|(_, chunk)| distance(chunk)).min();
        let open: Vec<usize> =
            shared().filter(|(_, chunk)| Some(distance(chunk)) == nearest).map(|(index, _)| index).collect();
        let number = Digest::of(name).as_bytes().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
        open[(number % open.len() as u64) as usize]
    }

    /// What people call a chunk: its source package, or the class and a number, `seldom 2`.
    pub fn name(&self, chunk: usize) -> String {
        let Planned { changes, shared, sources } = &self.chunks[chunk];
        match sources.first() {
            Some(source) if !shared => source.clone(),
            _ => {
                let alike = |other: &&Planned| other.shared && other.changes == *changes;
                let number = self.chunks[..chunk].iter().filter(alike).count() + 1;
                format!("{} {number}", changes.name())
            }
        }
    }

    /// How many bytes, not compressed, a machine is expected to fetch in a week if `sources` are packed by this plan.
    pub fn weekly_cost(&self, sources: &Sources) -> u64 {
        let as_of = newest(sources);
        let mut costs: BTreeMap<usize, Cost> = BTreeMap::new();
        for (name, source) in sources {
            let cost = Cost { size: source.size as f64, rests: source.rests(as_of) };
            costs.entry(self.chunk_of(name, source)).and_modify(|c| *c = c.with(cost)).or_insert(cost);
        }
        costs.into_values().map(Cost::weekly).sum::<f64>() as u64
    }

    /// Parses a plan; `path` is what errors call it.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let packing: Self = toml::from_str(text).hint(format!("reading {}", path.display()), RESTORE)?;
        packing.check().hint(format!("reading {}", path.display()), RESTORE)?;
        Ok(packing)
    }

    fn check(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(hinted(
                format!("it has format version {}, this strata reads {VERSION}", self.version),
                "use the strata that wrote it",
            ));
        }
        let mut known = BTreeSet::new();
        let mut sources = self.chunks.iter().flat_map(|chunk| &chunk.sources);
        if let Some(twice) = sources.find(|source| !known.insert(*source)) {
            return Err(hinted(
                format!("{twice} is in two chunks, as after a merge"),
                "leave it in the one that released images have it in",
            ));
        }
        self.chunks.iter().find(|chunk| chunk.shared).context("no chunk of it is shared").map(drop)
    }

    /// The canonical text.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string_pretty(self).expect("a plan is tables of text and numbers below 2^63");
        format!("{HEADER}{body}")
    }
}

/// Packages that will be in one chunk.
struct Group {
    class: Class,
    cost: Cost,
    sources: BTreeSet<String>,
}

impl Group {
    fn planned(self) -> Planned {
        Planned { changes: self.class, shared: self.sources.len() > 1, sources: self.sources }
    }
}

/// What decides the price of a chunk. Only sums and products of doubles, which are the same on every machine.
#[derive(Clone, Copy)]
struct Cost {
    /// Bytes.
    size: f64,
    /// The probability that nothing of it changes in a week.
    rests: f64,
}

impl Cost {
    fn with(self, other: Self) -> Self {
        Self { size: self.size + other.size, rests: self.rests * other.rests }
    }

    fn weekly(self) -> f64 {
        self.size * (1.0 - self.rests)
    }
}

/// Classes for which a chunk has to be kept free.
fn classes_without_shared(groups: &[Group]) -> usize {
    let has = |class: Class| groups.iter().any(|group| group.class == class && group.sources.len() > 1);
    CLASSES.into_iter().filter(|class| !has(*class)).count()
}

/// The two groups, the former first, to unite next; none if no two are of one class.
fn cheapest_union(groups: &[Group]) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for (a, first) in groups.iter().enumerate() {
        for (b, second) in groups.iter().enumerate().skip(a + 1) {
            if first.class == second.class {
                let more = first.cost.with(second.cost).weekly() - first.cost.weekly() - second.cost.weekly();
                if best.is_none_or(|(least, ..)| more < least) {
                    best = Some((more, a, b));
                }
            }
        }
    }
    best.map(|(_, a, b)| (a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_738_540_800;

    /// `NAME MIB CHANGES`, a line each: so many changelog entries in the last year.
    fn sources(text: &str) -> Sources {
        let source = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (size, changes) = (words[1].parse::<u64>().unwrap() << 20, words[2].parse::<u64>().unwrap());
            let changelog = (0..changes).map(|n| NOW - n * 86400).chain([NOW - 2 * YEAR]).collect();
            (words[0].to_owned(), Source { size, built: NOW, changelog })
        };
        text.lines().filter(|line| !line.trim().is_empty()).map(source).collect()
    }

    const SYSTEM: &str = "
        acl 1 0
        attr 1 0
        bash 7 1
        firmware 300 8
        glibc 25 10
        kernel 150 50
        popt 1 1
        sed 1 0
        selinux 20 30
        systemd 25 12
        tzdata 2 9
        vim 2 40
        zlib 1 3";

    /// The chunks as a line each.
    fn lines(packing: &Packing) -> Vec<String> {
        let line = |(number, chunk): (usize, &Planned)| {
            let sources: Vec<&str> = chunk.sources.iter().map(String::as_str).collect();
            format!("{}: {}", packing.name(number), sources.join(" "))
        };
        packing.chunks.iter().enumerate().map(line).collect()
    }

    #[test]
    fn the_large_and_the_restless_are_alone() {
        let lines = lines(&Packing::new(&sources(SYSTEM), 8));
        assert_eq!(lines.len(), 8);
        // nothing of the class is large, and all of it together costs less than any other union
        assert_eq!(lines[0], "seldom 1: acl attr bash popt sed");
        for alone in ["firmware: firmware", "kernel: kernel", "selinux: selinux"] {
            assert!(lines.contains(&alone.to_owned()), "{alone}: {lines:?}");
        }
        let changes = |line: &str| CLASSES.iter().position(|class| line.starts_with(class.name()));
        let shared: Vec<usize> = lines.iter().filter_map(|line| changes(line)).collect();
        assert!(shared.is_sorted() && shared.iter().max() == Some(&2), "seldom first, often last: {lines:?}");
    }

    /// Every way of uniting six packages of one class in three chunks: none costs less by much.
    #[test]
    fn the_plan_is_about_as_cheap_as_can_be() {
        let six = "a 1 0\nb 300 0\nc 20 1\nd 5 1\ne 80 0\nf 2 1";
        let sources = sources(six);
        let cost = |packing: &Packing| packing.weekly_cost(&sources);
        // three of this class, and a free one for each other
        let made = Packing::new(&sources, 5);
        let mut least = u64::MAX;
        for code in 0..3_usize.pow(6) {
            let mut chunks: Vec<Planned> = (0..3)
                .map(|_| Planned { changes: Class::Seldom, shared: true, sources: BTreeSet::new() })
                .collect();
            for (index, name) in sources.keys().enumerate() {
                chunks[code / 3_usize.pow(index as u32) % 3].sources.insert(name.clone());
            }
            least = least.min(cost(&Packing { chunks, ..made.clone() }));
        }
        assert!(cost(&made) <= least + least / 20, "{} instead of {least}: {:?}", cost(&made), lines(&made));
    }

    #[test]
    fn there_are_no_more_chunks_than_allowed() {
        let many: String = (0..300).map(|n| format!("p{n} {} {}\n", n * 7 % 90, n * 13 % 40)).collect();
        let many = sources(&many);
        for most in [LEAST, 7, 20, 60] {
            assert_eq!(Packing::new(&many, most).count(), most);
        }
        assert_eq!(Packing::new(&many, 0).count(), LEAST);
        assert_eq!(Packing::new(&sources("a 1 0\nb 1 5\nc 1 50"), LEAST).count(), LEAST);
        // two classes of one package each, for which a chunk has to be kept free
        let uneven = sources(
            &(0..20).map(|n| format!("p{n} 1 {}\n", if n < 2 { 5 * n } else { 20 })).collect::<String>(),
        );
        assert_eq!(Packing::new(&uneven, 8).count(), 8);
    }

    /// A package that the plan doesn't know joins those of its class, whatever else is new, and many are spread.
    #[test]
    fn newcomers_join_their_class() {
        let many: String = (0..60).map(|n| format!("p{n} 1 {}\n", n % 30)).collect();
        let packing = Packing::new(&sources(&many), 14);
        let mut taken = BTreeSet::new();
        for n in 0..50 {
            for (changes, class) in [(0, "seldom"), (6, "sometimes"), (20, "often")] {
                let name = format!("new{n}");
                let newcomer = sources(&format!("{name} 5 {changes}"));
                let chunk = packing.chunk_of(&name, &newcomer[&name]);
                assert!(packing.name(chunk).starts_with(class), "{}", packing.name(chunk));
                taken.insert(chunk);
            }
        }
        let shared = packing.chunks.iter().filter(|chunk| chunk.shared).count();
        assert_eq!(taken.len(), shared, "of {shared} chunks");
        assert!(shared > LEAST / 2);
    }

    /// Neither time that passes nor other packages move it.
    #[test]
    fn a_newcomer_stays_where_it_is() {
        let packing = Packing::new(&sources(SYSTEM), 8);
        let mut new = sources("new 1 6")["new"].clone();
        let before = packing.chunk_of("new", &new);
        assert_eq!(packing.name(before), "sometimes 1");
        new.built -= YEAR;
        assert_eq!(packing.chunk_of("new", &new), before);
        // built two years later without any entry but the first: it rests
        new.built = NOW + 2 * YEAR;
        assert_eq!(packing.name(packing.chunk_of("new", &new)), "seldom 1");
    }

    #[test]
    fn a_plan_is_what_its_text_says() {
        let packing = Packing::new(&sources(SYSTEM), 8);
        let text = packing.to_toml();
        assert_eq!(Packing::parse(&text, Path::new("x")).unwrap(), packing);
        let told = |text: &str| format!("{:#}", Packing::parse(text, Path::new("x.toml")).unwrap_err());
        let twice = text.replace("\"glibc\"", "\"acl\"");
        assert!(told(&twice).contains("x.toml: acl is in two chunks"), "{}", told(&twice));
        assert!(told(&text.replace("shared = true\n", "")).contains("no chunk of it is shared"));
        assert!(told(&text.replace("version = 1", "version = 2")).contains("version 2"));
        assert!(told(&text.replace("changes =", "change =")).contains("change"));
    }

    #[test]
    fn a_bad_plan_costs_more() {
        let all = sources(SYSTEM);
        let good = Packing::new(&all, 8);
        let mut chunks = good.chunks.clone();
        // the kernel with everything that never changes
        let kernel = chunks.iter().position(|chunk| chunk.sources.contains("kernel")).unwrap();
        let moved = std::mem::take(&mut chunks[kernel].sources);
        chunks[0].sources.extend(moved);
        chunks[1].sources.insert("acl".into());
        let bad = Packing { chunks, ..good.clone() };
        assert!(bad.weekly_cost(&all) > good.weekly_cost(&all));
        // firmware 300 MiB, 8 entries: it changes in 9 of 61 weeks
        let alone = sources("firmware 300 8");
        assert_eq!(Packing::new(&alone, 8).weekly_cost(&alone) >> 20, 300 * 9 / 61);
    }
}
