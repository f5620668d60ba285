//! Layer manifests: files, includes and `[[when]]` blocks, added up to a [`Layer`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::condition;
use super::diagnostic::{Mistake, Mistakes, Objection, Place, Source};
use super::reader::{Item, Reader, Table, Text, clean, missing_file, open, parse};
use super::rules;
use super::stream::StreamFile;
use crate::image::reference::Place as ImagePlace;
use crate::plan::{Base, Configuration, ImageConfig, Layer, Packages, Sourced};

/// What included files and `[[when]]` blocks may hold.
const KEYS: [&str; 22] = [
    "include",
    "weak-deps",
    "docs",
    "langs",
    "ima",
    "overlay",
    "sysusers",
    "tmpfiles",
    "kargs",
    "packages",
    "override",
    "group",
    "user",
    "file",
    "symlink",
    "remove",
    "units",
    "kernel",
    "script",
    "os-release",
    "image",
    "when",
];
const OWN_KEYS: [&str; 23] = keys_and("from");
const WHEN_KEYS: [&str; 23] = keys_and("if");

const fn keys_and(key: &'static str) -> [&'static str; KEYS.len() + 1] {
    let mut keys = [key; KEYS.len() + 1];
    let mut i = 0;
    while i < KEYS.len() {
        keys[i] = KEYS[i];
        i += 1;
    }
    keys
}

/// A layer while its manifests are being read. What is read later wins.
#[derive(Clone)]
pub struct Draft {
    pub layer: Layer,
    /// Repositories it names; all enabled ones when it names none.
    pub repos: Option<BTreeSet<String>>,
    /// Files already read.
    read: BTreeSet<PathBuf>,
    /// The file being read and those that include it, outermost first.
    trail: Vec<PathBuf>,
}

impl Draft {
    fn new(name: &str, from: Base) -> Self {
        let layer = Layer {
            name: name.to_owned(),
            from,
            packages: Packages::default(),
            docs: false,
            langs: None,
            ima: false,
            config: Configuration::default(),
            os_release: Vec::new(),
            image: ImageConfig::default(),
        };
        Self { layer, repos: None, read: BTreeSet::new(), trail: Vec::new() }
    }

    fn finish(mut self, stream: &StreamFile) -> Layer {
        let wanted =
            |(id, enabled): &(String, bool)| self.repos.as_ref().map_or(*enabled, |ids| ids.contains(id));
        let repos = stream.repos.iter().filter(|repo| wanted(repo));
        self.layer.packages.repos = repos.map(|(id, _)| id.clone()).collect();
        self.layer
    }
}

/// What reading the layers of a stream needs.
pub struct Layers<'a> {
    pub manifests: &'a Path,
    pub stream: &'a StreamFile<'a>,
    pub mistakes: &'a Mistakes,
}

impl Layers<'_> {
    /// Reads all layers, in stack order.
    pub fn read(&self) -> Vec<Layer> {
        let mut layers = Vec::new();
        let mut below = Base::Scratch;
        for name in &self.stream.layers {
            layers.extend(self.layer(name, below));
            below = Base::Layer(name.value.clone());
        }
        self.stack_order(layers)
    }

    fn layer(&self, name: &Text, below: Base) -> Option<(Layer, Option<Place>)> {
        let path = clean(&self.manifests.join(&self.stream.stream.name).join(format!("{}.toml", name.value)));
        let source = match open(&path) {
            Ok(source) => source,
            Err(error) => {
                let message =
                    format!("layer `{}` has no manifest: reading {}: {error}", name.value, path.display());
                name.report(missing_file(message, &path));
                return None;
            }
        };
        let document = parse(&source, self.mistakes)?;
        let table = self.reader(&source, &OWN_KEYS).document(&document);
        let from = table.text("from");
        let base = from.as_ref().and_then(|from| self.base(from)).unwrap_or(below);
        let mut draft = Draft::new(&name.value, base);
        draft.read.insert(path.clone());
        draft.trail.push(path);
        self.body(&table, &mut draft);
        Some((draft.finish(self.stream), from.map(|text| text.place())))
    }

    fn reader<'r>(&'r self, source: &'r Arc<Source>, root_keys: &'static [&'static str]) -> Reader<'r> {
        Reader { source, variables: &self.stream.variables, mistakes: self.mistakes, root_keys }
    }

    fn base(&self, from: &Text) -> Option<Base> {
        let names = || self.stream.layers.iter().map(|layer| layer.value.as_str());
        match from.value.as_str() {
            "scratch" => Some(Base::Scratch),
            image if image.contains([':', '/', '@']) => from.check(rules::image).map(|mut image| {
                if let ImagePlace::Layout { dir: path, .. } | ImagePlace::Archive { file: path, .. } =
                    &mut image.place
                {
                    *path = from.beside(path);
                }
                Base::Image(image)
            }),
            layer if names().any(|name| name == layer) => Some(Base::Layer(layer.to_owned())),
            layer => {
                let unknown = Objection::new(format!("unknown layer `{layer}`"));
                from.report(unknown.suggest(layer, names().chain(["scratch"])));
                None
            }
        }
    }

    /// Adds a file's or block's content to the draft: its includes, its own keys, its `[[when]]` blocks.
    fn body(&self, table: &Table, draft: &mut Draft) {
        for path in table.one_or_more("include") {
            self.include(&path, draft);
        }
        draft.add(table, self.stream);
        for block in table.tables("when", &WHEN_KEYS) {
            self.when(&block, draft);
        }
    }

    fn include(&self, include: &Text, draft: &mut Draft) {
        let Some(path) = self.find(include) else { return };
        if let Some(at) = draft.trail.iter().position(|outer| *outer == path) {
            let cycle = draft.trail[at..].iter().chain([&path]).map(|p| p.display().to_string());
            let objection = Objection::new(format!("`{}` includes itself", include.value));
            return include.report(objection.hint(cycle.collect::<Vec<_>>().join(" includes ")));
        }
        if !draft.read.insert(path.clone()) {
            return;
        }
        let source = match open(&path) {
            Ok(source) => source,
            Err(error) => return include.report(format!("reading {}: {error}", path.display())),
        };
        let Some(document) = parse(&source, self.mistakes) else { return };
        draft.trail.push(path);
        self.body(&self.reader(&source, &KEYS).document(&document), draft);
        draft.trail.pop();
    }

    /// Looks beside the including file, then among the files shared by all streams.
    fn find(&self, include: &Text) -> Option<PathBuf> {
        let beside = include.path();
        let shared = clean(&self.manifests.join("shared").join(&include.value));
        let found = [&beside, &shared].into_iter().find(|path| path.is_file());
        if found.is_none() {
            let message = format!("there is no file {}, nor {}", beside.display(), shared.display());
            include.report(missing_file(message, &beside));
        }
        found.cloned()
    }

    /// A block that does not count is read into a copy, for its mistakes.
    fn when(&self, block: &Table, draft: &mut Draft) {
        let condition = block.require("if").and_then(|item| item.verbatim());
        let holds = condition.map(|text| (condition::holds(&text.value, &self.stream.variables), text));
        match holds {
            Some((Ok(true), _)) => return self.body(block, draft),
            Some((Err(fault), text)) => text.report_part(fault),
            Some((Ok(false), _)) | None => {}
        }
        self.body(block, &mut draft.clone());
    }

    /// Sorts layers so that each comes after the one it is built from; otherwise as the stream lists them.
    fn stack_order(&self, mut open: Vec<(Layer, Option<Place>)>) -> Vec<Layer> {
        let mut done: Vec<Layer> = Vec::new();
        while !open.is_empty() {
            let waits = |layer: &Layer, on: &[(Layer, _)]| matches!(&layer.from, Base::Layer(below) if on.iter().any(|(l, _)| l.name == *below));
            let Some(next) = open.iter().position(|(layer, _)| !waits(layer, &open)) else {
                self.report_cycle(&open);
                return done;
            };
            done.push(open.remove(next).0);
        }
        done
    }

    /// Every one of `layers` is built from another of them: following `from` runs in a circle.
    fn report_cycle(&self, layers: &[(Layer, Option<Place>)]) {
        let below: BTreeMap<&str, &str> = layers
            .iter()
            .filter_map(|(layer, _)| match &layer.from {
                Base::Layer(below) => Some((layer.name.as_str(), below.as_str())),
                Base::Scratch | Base::Image(_) => None,
            })
            .collect();
        let mut trail: Vec<&str> = Vec::new();
        let mut next = layers.first().map(|(layer, _)| layer.name.as_str());
        while let Some(name) = next.filter(|name| !trail.contains(name)) {
            trail.push(name);
            next = below.get(name).copied();
        }
        let Some(start) = next.and_then(|name| trail.iter().position(|n| *n == name)) else { return };
        let circle: Vec<_> = trail[start..].iter().chain([&trail[start]]).copied().collect();
        let objection = Objection::new(format!("layer `{}` is built from itself", trail[start]))
            .hint(circle.join(" is built from "));
        let place = layers.iter().find(|(l, _)| l.name == trail[start]).and_then(|(_, place)| place.clone());
        self.mistakes.push(Mistake::new(objection, place));
    }
}

impl Draft {
    fn add(&mut self, table: &Table, stream: &StreamFile) {
        if let Some(weak_deps) = table.boolean("weak-deps") {
            self.layer.packages.weak_deps = weak_deps;
        }
        if let Some(docs) = table.boolean("docs") {
            self.layer.docs = docs;
        }
        if let Some(langs) = table.get("langs") {
            self.layer.langs = Some(langs.texts().into_iter().map(|text| text.value).collect());
        }
        if let Some(ima) = table.boolean("ima") {
            self.layer.ima = ima;
        }
        self.add_packages(table, stream);
        self.layer.config.add(table);
        self.add_os_release(table);
        self.add_image(table);
    }

    fn add_os_release(&mut self, table: &Table) {
        for item in table.get("os-release").map(|item| item.entries()).unwrap_or_default() {
            let Some(((), value)) = item.key_text().check(rules::os_release_field).zip(one_line(&item))
            else {
                continue;
            };
            let field = Sourced { value: (item.key.to_owned(), value), origin: item.origin() };
            match self.layer.os_release.iter_mut().find(|f| f.value.0 == item.key) {
                Some(earlier) => *earlier = field,
                None => self.layer.os_release.push(field),
            }
        }
    }

    fn add_image(&mut self, table: &Table) {
        let keys = &["name", "max-layers", "labels", "annotations", "env", "cmd"];
        let Some(table) = table.table("image", keys) else { return };
        let image = &mut self.layer.image;
        if let Some(item) = table.get("max-layers") {
            image.max_layers = max_layers(&item);
        }
        if let Some(name) = table.text("name").and_then(|text| text.checked(rules::image_name)) {
            image.name = Some(name.value);
        }
        for (key, values) in
            [("labels", &mut image.labels), ("annotations", &mut image.annotations), ("env", &mut image.env)]
        {
            for item in table.get(key).map(|item| item.entries()).unwrap_or_default() {
                let named =
                    item.key_text().check(if key == "env" { rules::environment_name } else { rules::label });
                if let Some(((), value)) = named.zip(item.text_or_empty()) {
                    let sourced = Sourced { value: value.value, origin: item.origin() };
                    values.insert(item.key.to_owned(), sourced);
                }
            }
        }
        if let Some(item) = table.get("cmd") {
            let cmd = item.some_texts().into_iter().map(|text| text.value).collect();
            image.cmd = Some(Sourced { value: cmd, origin: item.origin() });
        }
    }
}

fn max_layers(item: &Item) -> Option<usize> {
    let most: usize = item.integer()?;
    match rules::max_layers(most) {
        Ok(()) => Some(most),
        Err(objection) => {
            item.report(objection);
            None
        }
    }
}

fn one_line(item: &Item) -> Option<String> {
    Some(item.text_or_empty()?.checked(rules::one_line)?.value)
}
