//! The notation of cases.
//!
//! ```text
//! # What the rule is.
//! arch aarch64                             if it is not x86_64
//! repo main priority=10 cost=500           more: includepkgs=a,b excludepkgs=c module_hotfixes=1
//!   foo 1-1; needs bar                     packages, as package.rs describes them
//!   bar 1-1 noarch
//!   group core, Core; mandatory a, b; default c; optional d; conditional e if f
//!   environment server, Server; groups core; options more
//!   stream nodejs:18:1:c0ffee; artifacts nodejs-0:18-1.x86_64; profile common a, b; needs platform:el9
//!   default nodejs:18; profiles common
//! below                                    what the layers below have
//!   lib 1-1
//! ask foo, bar >= 2
//! ask foo; weak; exclude ba*; modules nodejs:18; no-weak baz
//! differs foo                              an `ask` with an intended difference
//! ```

use std::fmt;
use std::path::Path;

use serde::Serialize;
use strata::package::Arch;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its file's name.
    pub name: String,
    /// What there is.
    pub sketch: Sketch,
    /// What is asked, and whether the answers differ on purpose.
    pub questions: Vec<(Question, bool)>,
}

/// Repositories and layers below, in the notation.
#[derive(Clone, Debug)]
pub struct Sketch {
    pub arch: Arch,
    pub repos: Vec<RepoSketch>,
    pub below: Vec<String>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { arch: Arch::X86_64, repos: Vec::new(), below: Vec::new() }
    }
}

/// A repository.
#[derive(Clone, Debug, Default)]
pub struct RepoSketch {
    pub id: String,
    /// Keys of a `.repo` file and their values.
    pub options: Vec<(String, String)>,
    pub packages: Vec<String>,
    /// Lines that begin with `group` or `environment`.
    pub comps: Vec<String>,
    /// Lines that begin with `stream` or `default`.
    pub modules: Vec<String>,
}

/// What is asked of both solvers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Question {
    pub install: Vec<String>,
    pub exclude: Vec<String>,
    pub weak: bool,
    /// Names whose packages no weak dependency brings in.
    pub no_weak: Vec<String>,
    /// Enabled streams.
    pub modules: Vec<String>,
}

impl Case {
    /// The cases of a directory whose names are `wanted`, sorted.
    pub fn all(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Self> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|f| f.extension().is_some_and(|e| e == "case")).collect();
        files.sort();
        let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
        let named = files.iter().map(|file| (name(file), file)).filter(|(name, _)| wanted(name));
        named.map(|(name, file)| Self::parse(name, &std::fs::read_to_string(file).unwrap())).collect()
    }

    fn parse(name: String, text: &str) -> Self {
        let mut case = Self { name, sketch: Sketch::default(), questions: Vec::new() };
        let mut below = false;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if let Some(line) = line.strip_prefix("  ") {
                let line = line.trim();
                match below {
                    true => case.sketch.below.push(line.to_owned()),
                    false => case.sketch.repos.last_mut().expect("a repo comes first").add(line),
                }
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            below = word == "below";
            match word {
                "arch" => case.sketch.arch = rest.parse().unwrap(),
                "repo" => case.sketch.repos.push(RepoSketch::parse(rest)),
                "below" => {}
                "ask" => case.questions.push((Question::parse(rest), false)),
                "differs" => case.questions.push((Question::parse(rest), true)),
                _ => panic!("{}: {line}", case.name),
            }
        }
        case
    }
}

impl RepoSketch {
    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let id = words.next().expect("a repo has an id").to_owned();
        let option = |word: &str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self { id, options: words.map(|word| option(word).expect(word)).collect(), ..Self::default() }
    }

    fn add(&mut self, line: &str) {
        let list = match line.split(' ').next() {
            Some("group" | "environment") => &mut self.comps,
            Some("stream" | "default") => &mut self.modules,
            _ => &mut self.packages,
        };
        list.push(line.to_owned());
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The values of an option that is a list.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.option(name).into_iter().flat_map(|list| list.split(',')).map(str::to_owned).collect()
    }
}

impl Question {
    pub fn parse(text: &str) -> Self {
        let list = |text: &str| text.split(", ").map(|item| item.trim().to_owned()).collect::<Vec<_>>();
        let mut parts = text.split("; ");
        let mut question = Self { install: list(parts.next().unwrap_or_default()), ..Self::default() };
        // strata sorts entries, so that their order never decides
        question.install.sort();
        for part in parts {
            match part.trim().split_once(' ').unwrap_or((part.trim(), "")) {
                ("weak", "") => question.weak = true,
                ("exclude", names) => question.exclude = list(names),
                ("no-weak", names) => question.no_weak = list(names),
                ("modules", names) => question.modules = list(names),
                _ => panic!("{text}: {part}"),
            }
        }
        question
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.install.join(", "))?;
        if self.weak {
            f.write_str("; weak")?;
        }
        for (word, list) in
            [("exclude", &self.exclude), ("no-weak", &self.no_weak), ("modules", &self.modules)]
        {
            if !list.is_empty() {
                write!(f, "; {word} {}", list.join(", "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arch != Arch::X86_64 {
            writeln!(f, "arch {}", self.arch.rpm())?;
        }
        for repo in &self.repos {
            write!(f, "repo {}", repo.id)?;
            repo.options.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
            writeln!(f)?;
            let mut lines = repo.packages.iter().chain(&repo.comps).chain(&repo.modules);
            lines.try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        if !self.below.is_empty() {
            writeln!(f, "below")?;
        }
        self.below.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
