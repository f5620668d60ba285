//! A case as text in parts, so that it can be drawn at random and made smaller.

use std::fmt;

/// A case.
#[derive(Clone, Default)]
pub struct Sketch {
    /// `with` lines.
    pub options: Vec<String>,
    pub packages: Vec<Package>,
    pub steps: Vec<String>,
}

/// A package of a sketch.
#[derive(Clone)]
pub struct Package {
    pub name: &'static str,
    pub version: u32,
    /// Lines, each with those that belong to it.
    pub lines: Vec<String>,
}

impl Package {
    /// What steps call it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Names of the packages it obsoletes.
    pub fn obsoletes(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.strip_prefix("Obsoletes: "))
    }
}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for option in &self.options {
            writeln!(f, "{option}")?;
        }
        for package in &self.packages {
            writeln!(f, "package {} {}", package.name, package.version)?;
            for line in &package.lines {
                writeln!(f, "{line}")?;
            }
        }
        writeln!(f)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl Sketch {
    /// Drops packages that no step names.
    pub fn drop_unused(&mut self) {
        let Self { packages, steps, .. } = self;
        packages.retain(|package| steps.iter().any(|step| mentions(step, &package.id())));
    }

    /// The smallest sketch that can be had by leaving parts out one by one and still `differs`.
    pub fn shrunk(mut self, differs: impl Fn(&Self) -> bool) -> Self {
        while let Some(smaller) = self.smaller().into_iter().find(|sketch| differs(sketch)) {
            self = smaller;
        }
        self
    }

    /// This sketch without one of its parts, the biggest parts first.
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        smaller.extend((0..self.steps.len()).rev().map(|step| self.but(|s| drop(s.steps.remove(step)))));
        smaller.extend(self.packages.iter().map(|package| self.without_package(&package.id())));
        smaller.extend(self.packages.iter().flat_map(|package| self.without_mention(&package.id())));
        for (index, package) in self.packages.iter().enumerate() {
            let lines = (0..package.lines.len()).rev();
            smaller.extend(lines.map(|line| self.but(|s| drop(s.packages[index].lines.remove(line)))));
        }
        smaller.extend((0..self.options.len()).map(|option| self.but(|s| drop(s.options.remove(option)))));
        smaller
    }

    fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed.drop_unused();
        changed
    }

    /// Without a package, wherever steps name it.
    fn without_package(&self, id: &str) -> Self {
        self.but(|sketch| {
            sketch.steps = sketch.steps.iter().filter_map(|step| unmentioned(step, id)).collect();
        })
    }

    /// Without a package in one of the steps that name it.
    fn without_mention(&self, id: &str) -> Vec<Self> {
        let step = |(index, step): (usize, &String)| {
            let shorter = unmentioned(step, id).filter(|shorter| shorter != step)?;
            Some(self.but(|sketch| sketch.steps[index] = shorter))
        };
        self.steps.iter().enumerate().filter_map(step).collect()
    }
}

fn mentions(step: &str, id: &str) -> bool {
    step.split(' ').any(|word| word == id)
}

/// A step without a package; none if there is nothing left to do.
fn unmentioned(step: &str, id: &str) -> Option<String> {
    if step.starts_with("do") {
        return Some(step.to_owned());
    }
    let words: Vec<&str> = step.split(' ').filter(|word| *word != id).collect();
    // beside `try VERB`
    (words.len() > 2).then(|| words.join(" "))
}
