//! The notation of cases.
//!
//! ```text
//! # What the rule is.
//! package alpha 1
//! Requires(pre): beta                      any line of a spec's preamble
//! %config /etc/alpha = text                a file of one line; attributes as in %files
//! /etc/passwd =                            a file of several
//!   root:x:0:0::/:
//! /usr/share/alpha/                        a directory
//! /usr/bin/a -> alpha                      a symbolic link
//! /usr/bin/b == /usr/bin/alpha             a hard link to a file above
//! %triggerin -- beta                       a scriptlet; without a body it notes its call in /log
//! %post -p <lua>
//!   posix.mkdir("/srv")
//! %install                                 more files, in a spec's own words; and below %files
//!   head -c 4096 /dev/zero > %{buildroot}/srv/zeros
//!
//! install alpha-1 beta-1                   rpm -i
//! do echo more >> /etc/alpha               what an administrator does, in both roots
//! upgrade alpha-2                          rpm -U; what has the name, or is obsoleted, goes
//! erase alpha-2                            rpm -e
//! refused install gamma-1                  a step that both refuse
//! try install gamma-1                      a step that both take or both refuse, and is the last then; what there
//!                                          is in the roots is compared, rpm is not asked about it
//!
//! root empty                               without the package `base`, which has a shell
//! with excludedocs                         an option of every step; `with langs de:fr`
//! differs /etc/alpha.rpmnew                what is in the lines of an intended difference
//! ```
//!
//! Lines that belong to the one before are indented by two blanks. The package `shadow-1` is always there,
//! with the machine's useradd and groupadd.

use std::path::Path;

use crate::package::Package;

/// A case.
#[derive(Default)]
pub struct Case {
    /// Its file's name.
    pub name: String,
    pub packages: Vec<Package>,
    pub steps: Vec<Step>,
    pub empty_root: bool,
    pub excludedocs: bool,
    pub langs: Option<String>,
    /// Each is part of a line of difference that is intended.
    pub differs: Vec<String>,
}

/// A step.
pub struct Step {
    /// As it was written.
    pub text: String,
    pub action: Action,
    /// Whether both refuse it; where this is not said, strata has to do as rpm does.
    pub refused: Option<bool>,
}

/// What to do; packages by name and version.
pub enum Action {
    Install(Vec<String>),
    Upgrade(Vec<String>),
    Erase(Vec<String>),
    Do(String),
}

impl Case {
    /// The cases of a directory whose names are `wanted`, sorted.
    pub fn all(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Self> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|file| file.extension().is_some_and(|e| e == "case")).collect();
        files.sort();
        let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
        let cases = files.iter().map(|file| (name(file), file)).filter(|(name, _)| wanted(name));
        cases.map(|(name, file)| Self::parse(name, &std::fs::read_to_string(file).unwrap())).collect()
    }

    /// From its text.
    pub fn parse(name: String, text: &str) -> Self {
        let mut case = Self { name, ..Self::default() };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let mut body = String::new();
            while let Some(more) = lines.next_if(|next| next.starts_with("  ")) {
                body += &format!("{}\n", &more[2..]);
            }
            if !line.is_empty() && !line.starts_with('#') {
                case.read(line, body);
            }
        }
        case
    }

    fn read(&mut self, line: &str, body: String) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "package" => self.packages.push(Package::new(rest)),
            "root" if rest == "empty" => self.empty_root = true,
            "with" if rest == "excludedocs" => self.excludedocs = true,
            "with" if rest.starts_with("langs ") => self.langs = Some(rest[6..].to_owned()),
            "differs" => self.differs.push(rest.to_owned()),
            "refused" => self.step(line, rest, body, Some(true)),
            "try" => self.step(line, rest, body, None),
            "install" | "upgrade" | "erase" | "do" => self.step(line, line, body, Some(false)),
            _ => {
                let package = self.packages.last_mut();
                package.unwrap_or_else(|| panic!("{}: what is `{line}`?", self.name)).read(line, body);
            }
        }
    }

    fn step(&mut self, text: &str, step: &str, body: String, refused: Option<bool>) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let packages = |list: &str| list.split_whitespace().map(str::to_owned).collect();
        let action = match verb {
            "install" => Action::Install(packages(rest)),
            "upgrade" => Action::Upgrade(packages(rest)),
            "erase" => Action::Erase(packages(rest)),
            "do" => Action::Do(format!("{rest}\n{body}")),
            _ => panic!("{}: what is `{text}`?", self.name),
        };
        self.steps.push(Step { text: text.to_owned(), action, refused });
    }
}
