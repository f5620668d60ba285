//! Names inside rich dependencies, as the rpmdb indexes them.

use std::collections::BTreeSet;

/// The names in a rich dependency: sorted, unique, those whose presence the dependency stands against (the
/// condition of `if` and `unless`) marked by a leading `!`. Empty if it does not parse, as in librpm.
///
/// `(a if b else c)` gives `a`, `b`, `c`, `!b`: where there is an `else`, the condition counts both ways.
pub fn names(dependency: &[u8]) -> Vec<Vec<u8>> {
    let mut parser = Parser { rest: dependency, names: Vec::new(), negated: false };
    let parsed = parser.rich(0).is_some() && parser.rest.is_empty();
    let names: BTreeSet<(bool, &[u8])> =
        if parsed { parser.names.into_iter().collect() } else { BTreeSet::new() };
    let key = |(negated, name): (bool, &[u8])| [if negated { &b"!"[..] } else { b"" }, name].concat();
    names.into_iter().map(key).collect()
}

/// Nesting beyond this is nobody's dependency.
const MAX_DEPTH: usize = 64;

struct Parser<'d> {
    rest: &'d [u8],
    /// Negated or not, and the name.
    names: Vec<(bool, &'d [u8])>,
    negated: bool,
}

impl<'d> Parser<'d> {
    /// `(` operand [operator operand]... `)`
    fn rich(&mut self, depth: usize) -> Option<()> {
        self.take(b'(')?;
        if depth > MAX_DEPTH {
            return None;
        }
        let outside = self.negated;
        let mut condition = 0;
        loop {
            self.operand(depth)?;
            self.skip_space();
            if self.take(b')').is_some() {
                self.negated = outside;
                return Some(());
            }
            match self.word() {
                b"if" | b"unless" => {
                    condition = self.names.len();
                    self.negated = !self.negated;
                }
                b"else" => {
                    let flipped: Vec<_> =
                        self.names[condition..].iter().map(|(n, name)| (!n, *name)).collect();
                    self.names.extend(flipped);
                    self.negated = !self.negated;
                }
                b"and" | b"or" | b"with" | b"without" => {}
                _ => return None,
            }
        }
    }

    /// A rich dependency, or a name with an optional version.
    fn operand(&mut self, depth: usize) -> Option<()> {
        self.skip_space();
        if self.rest.starts_with(b"(") {
            return self.rich(depth + 1);
        }
        let name = self.word();
        if name.is_empty() {
            return None;
        }
        // features of rpm itself are never looked up
        if !name.starts_with(b"rpmlib(") {
            self.names.push((self.negated, name));
        }
        self.skip_space();
        if self.skip_while(|b| b"<>=".contains(&b)) > 0 {
            self.skip_space();
            self.word();
        }
        Some(())
    }

    /// What comes before white space, a comma, or a bracket that was not opened inside.
    fn word(&mut self) -> &'d [u8] {
        self.skip_space();
        let mut open = 0_usize;
        let end = self.rest.iter().position(|b| match b {
            b'(' => {
                open += 1;
                false
            }
            b')' if open == 0 => true,
            b')' => {
                open -= 1;
                false
            }
            b => b.is_ascii_whitespace() || *b == b',',
        });
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn skip_space(&mut self) {
        self.skip_while(|b| b.is_ascii_whitespace());
    }

    fn skip_while(&mut self, skip: impl Fn(u8) -> bool) -> usize {
        let n = self.rest.iter().take_while(|b| skip(**b)).count();
        self.rest = &self.rest[n..];
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are rows that rpm 4.18 wrote into Requirename.
    #[test]
    fn names_are_those_of_librpm() {
        for (dependency, expected) in [
            ("(pa if pb else pc)", "pa pb pc !pb"),
            ("(libc.so.6()(64bit) >= 2 with libc.so.6()(64bit) < 3)", "libc.so.6()(64bit)"),
            ("(a if (b unless c))", "a c !b"),
            ("(rpmlib(x) or b)", "b"),
            ("(a or b", ""),
            ("(a nor b)", ""),
        ] {
            let found: Vec<String> =
                names(dependency.as_bytes()).into_iter().map(|n| String::from_utf8(n).unwrap()).collect();
            assert_eq!(found.join(" "), expected, "{dependency}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = [vec![b'('; 100_000], b"a".to_vec(), vec![b')'; 100_000]].concat();
        assert!(names(&deep).is_empty());
    }
}
