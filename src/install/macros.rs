//! The few rpm macros that installed systems use: in Lua scriptlets (`rpm.expand`) and in scriptlets that are
//! expanded when they are installed (`%post -e`).
//!
//! No macro files are read: the result must not depend on the machine that builds. What is not known here is
//! an error, not a text left as it is, except for a bare `%name`, which shell code may mean otherwise.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Names and values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macros(BTreeMap<String, String>);

/// Enterprise Linux's values (`rpm --showrc` of EL9 and EL10); all its architectures have 64 bits.
const KNOWN: &[(&str, &str)] = &[
    ("_bindir", "/usr/bin"),
    ("_datadir", "/usr/share"),
    ("_datarootdir", "/usr/share"),
    ("_dbpath", "/usr/lib/sysimage/rpm"),
    ("_exec_prefix", "/usr"),
    ("_includedir", "/usr/include"),
    ("_infodir", "/usr/share/info"),
    ("_install_langs", "all"),
    ("_lib", "lib64"),
    ("_libdir", "/usr/lib64"),
    ("_libexecdir", "/usr/libexec"),
    ("_localstatedir", "/var"),
    ("_mandir", "/usr/share/man"),
    ("_prefix", "/usr"),
    ("_presetdir", "/usr/lib/systemd/system-preset"),
    ("_rundir", "/run"),
    ("_sbindir", "/usr/sbin"),
    ("_sharedstatedir", "/var/lib"),
    ("_sysconfdir", "/etc"),
    ("_sysctldir", "/usr/lib/sysctl.d"),
    ("_sysusersdir", "/usr/lib/sysusers.d"),
    ("_tmpfilesdir", "/usr/lib/tmpfiles.d"),
    ("_tmppath", "/var/tmp"),
    ("_udevrulesdir", "/usr/lib/udev/rules.d"),
    ("_unitdir", "/usr/lib/systemd/system"),
    ("_usr", "/usr"),
    ("_var", "/var"),
    ("nil", ""),
];

/// How deep macros nest in rpm (rpm: `rpmio/macro.c`, `MAX_MACRO_DEPTH`).
const MAX_DEPTH: usize = 64;

impl Default for Macros {
    fn default() -> Self {
        Self(KNOWN.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Macros {
    /// Defines `name`; macros in `value` are expanded when it is used.
    pub fn define(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Forgets `name`.
    pub fn undefine(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Expands `%name`, `%{name}`, `%{?name}`, `%{!?name:text}`, `%{?name:text}` and `%%` in `text`.
    ///
    /// # Errors
    /// Any other form, a `%{name}` without a value, and texts in texts beyond rpm's 64 levels.
    pub fn expand(&self, text: &str) -> Result<String> {
        self.expand_nested(text, MAX_DEPTH)
    }

    /// `depth` is how much deeper texts may nest.
    fn expand_nested(&self, text: &str, depth: usize) -> Result<String> {
        ensure!(depth > 0, "macros nest deeper than {MAX_DEPTH} levels");
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            rest = match rest.chars().next() {
                Some('%') => {
                    out.push('%');
                    &rest[1..]
                }
                Some('{') => {
                    let Some(end) = closing(rest) else { bail!("macro without an end: %{rest}") };
                    out.push_str(&self.braced(&rest[1..end], depth)?);
                    &rest[end + 1..]
                }
                Some('(' | '[') => bail!("macros that run commands or compute are not supported: %{rest}"),
                _ => {
                    let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
                    match self.get(&rest[..end]) {
                        Some(value) => out.push_str(&self.expand_nested(value, depth - 1)?),
                        None => out.extend(["%", &rest[..end]]),
                    }
                    &rest[end..]
                }
            };
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What stands between the braces.
    fn braced(&self, inside: &str, depth: usize) -> Result<String> {
        let (condition, body) =
            inside.split_at(inside.find(|c| !['?', '!'].contains(&c)).unwrap_or(inside.len()));
        let (name, text) = body.split_once(':').map_or((body, None), |(name, text)| (name, Some(text)));
        let value = self.get(name);
        let wanted = value.is_some() != condition.contains('!');
        match (condition.contains('?'), text, value) {
            _ if name.is_empty() || !name.chars().all(is_name) => bail!("unsupported macro %{{{inside}}}"),
            (true, Some(text), _) if wanted => self.expand_nested(text, depth - 1),
            (true, None, Some(value)) if wanted => self.expand_nested(value, depth - 1),
            (true, _, _) => Ok(String::new()),
            (false, None, Some(value)) => self.expand_nested(value, depth - 1),
            (false, Some(_), _) => bail!("unsupported macro %{{{inside}}}"),
            (false, None, None) => bail!("macro %{{{name}}} has no value in a composed system"),
        }
    }
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// Where the brace that opens `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Macros;

    /// What both know must come out as rpm's own expansion.
    #[test]
    fn expansions_equal_rpms() {
        let macros = Macros::default();
        for text in [
            "%{_sysconfdir}/x %_prefix %% 100%",
            "%{?_sysconfdir} %{?nope} %{!?nope:absent} %{?nope:present}",
            "%{?_prefix:in %{_prefix}} %{!?_prefix:out}",
            "${file%.rpmnew} date +%s",
            "%{!?_prefix}|",
            "a%{nil}b",
        ] {
            let output = Command::new("rpm").args(["--eval", text]).output().expect("rpm is installed");
            let expected = String::from_utf8(output.stdout).unwrap();
            assert_eq!(macros.expand(text).unwrap(), expected.trim_end_matches('\n'), "{text}");
        }
    }

    #[test]
    fn unknown_is_an_error() {
        let deep = format!("{}{}", "%{?_prefix:".repeat(100_000), "}".repeat(100_000));
        for text in ["%{nope}", "%{lua:print(1)}", "%(id)", "%[1+1]", "%{", "%{}", "%{?}", &deep] {
            assert!(Macros::default().expand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defined_until_undefined() {
        let mut macros = Macros::default();
        macros.define("mine", "yes");
        assert_eq!(macros.expand("%mine %{mine}").unwrap(), "yes yes");
        macros.define("mine", "in %{_prefix}, %mine");
        assert!(macros.expand("%mine").is_err(), "it never ends");
        macros.undefine("mine");
        assert_eq!(macros.expand("%mine%{?mine}").unwrap(), "%mine");
    }
}
