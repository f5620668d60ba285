//! Whether a package offers what a dependency asks for.

use std::cmp::Ordering;

use anyhow::{Context, Result, bail, ensure};

use crate::package::{Comparison, Dependency, Evr, Nevra};

/// Whether `provided` satisfies `required`: same name, and version ranges that overlap (rpm:
/// `rpmio/rpmver.c`, `rpmverOverlap`). Without a version on either side every version will do.
pub(super) fn satisfies(provided: &Dependency, required: &Dependency) -> bool {
    if provided.name != required.name {
        return false;
    }
    let (Some((op_a, a)), Some((op_b, b))) = (&provided.version, &required.version) else { return true };
    let version = |e: &Evr| Evr::new(e.epoch, e.version.as_str(), "");
    let order = version(a).rpm_cmp(&version(b));
    if order == Ordering::Equal {
        // `= 1` stands for every release of 1
        match (a.release.is_empty(), b.release.is_empty()) {
            (true, false) if op_a.allows(Ordering::Equal) => return true,
            (false, true) if op_b.allows(Ordering::Equal) => return true,
            (false, false) => return overlap(a.rpm_cmp(b), *op_a, *op_b),
            _ => {}
        }
    }
    overlap(order, *op_a, *op_b)
}

/// A package as others refer to it: its name in its version.
pub(super) fn identity(nevra: &Nevra) -> Dependency {
    let version = Some((Comparison::Eq, nevra.evr.clone()));
    Dependency { name: nevra.name.clone(), version, pre: false }
}

/// Whether the ranges `op_a A` and `op_b B` have a point in common, given how A compares to B.
fn overlap(order: Ordering, op_a: Comparison, op_b: Comparison) -> bool {
    use Ordering::{Equal, Greater, Less};
    match order {
        Less => op_a.allows(Greater) || op_b.allows(Less),
        Greater => op_a.allows(Less) || op_b.allows(Greater),
        Equal => [Less, Equal, Greater].into_iter().any(|o| op_a.allows(o) && op_b.allows(o)),
    }
}

/// Which side of its version a comparison reaches.
trait Allows {
    fn allows(self, order: Ordering) -> bool;
}

impl Allows for Comparison {
    fn allows(self, order: Ordering) -> bool {
        match order {
            Ordering::Less => matches!(self, Comparison::Lt | Comparison::Le),
            Ordering::Equal => matches!(self, Comparison::Le | Comparison::Eq | Comparison::Ge),
            Ordering::Greater => matches!(self, Comparison::Gt | Comparison::Ge),
        }
    }
}

/// The plain dependencies in a rich one that rpm orders packages by: both sides of `and` and `or`, the
/// first operand of every other operator; never a condition (rpm: `lib/order.c`, `addRelation`).
pub(super) fn ordering_terms(dependency: &Dependency) -> Result<Vec<Dependency>> {
    let mut terms = Vec::new();
    if dependency.is_rich() {
        collect(&dependency.name, dependency.pre, MAX_DEPTH, &mut terms)
            .with_context(|| format!("parsing the rich dependency {}", dependency.name))?;
    } else {
        terms.push(dependency.clone());
    }
    Ok(terms)
}

/// Nesting beyond this is nobody's dependency.
const MAX_DEPTH: usize = 64;

/// `(OPERAND [OPERATOR OPERAND]...)`; operators do not mix but for a final `else`. `depth` is how much
/// deeper it may nest.
fn collect(rich: &str, pre: bool, depth: usize, terms: &mut Vec<Dependency>) -> Result<()> {
    ensure!(depth > 0, "it nests deeper than {MAX_DEPTH} levels");
    let mut rest =
        rich.strip_prefix('(').and_then(|r| r.strip_suffix(')')).context("no parentheses around it")?;
    loop {
        let (operand, after) = operand(rest)?;
        match operand.starts_with('(') {
            true => collect(operand, pre, depth - 1, terms)?,
            false => terms.push(simple(operand, pre)?),
        }
        let Some((operator, next)) = after.trim_start().split_once(' ') else { return Ok(()) };
        match operator {
            "and" | "or" => rest = next,
            "if" | "unless" | "with" | "without" | "else" => return Ok(()),
            other => bail!("unknown operator `{other}`"),
        }
    }
}

/// Splits the first operand off: a parenthesised expression, or `NAME [OP VERSION]`.
fn operand(text: &str) -> Result<(&str, &str)> {
    let text = text.trim_start();
    if text.starts_with('(') {
        return Ok(text.split_at(closing(text).context("a parenthesis is not closed")?));
    }
    let word = |from: usize| text[from..].find(' ').map_or(text.len(), |n| from + n);
    let name = word(0);
    let is_comparison = |at: usize| text[at..].trim_start().starts_with(['<', '=', '>']);
    if name == text.len() || !is_comparison(name) {
        return Ok(text.split_at(name));
    }
    let operator = word(name + 1);
    let end = if operator == text.len() { operator } else { word(operator + 1) };
    Ok(text.split_at(end))
}

/// Where the parenthesis that opens `text` ends.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at + 1)
    })
}

fn simple(text: &str, pre: bool) -> Result<Dependency> {
    let mut words = text.split_whitespace();
    let name = words.next().context("an operand is empty")?.to_owned();
    let version = match (words.next(), words.next()) {
        (Some(op), Some(evr)) => {
            let op = match op {
                "<" => Comparison::Lt,
                "<=" => Comparison::Le,
                "=" => Comparison::Eq,
                ">=" => Comparison::Ge,
                ">" => Comparison::Gt,
                other => bail!("unknown comparison `{other}`"),
            };
            Some((op, evr.parse()?))
        }
        _ => None,
    };
    Ok(Dependency { name, version, pre })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(text: &str) -> Dependency {
        simple(text, false).unwrap()
    }

    /// The table of rpm and libsolv agreeing (rpm: `tests/rpmdepmatch.at` has the same cases).
    #[test]
    fn ranges_overlap_as_rpms() {
        let requires = ["= 1", "= 1-3", "<= 1", ">= 1-3", "< 1", "< 1-2", "> 1", "> 1-2"];
        for (provided, expected) in
            [("x = 1", "yyyynyny"), ("x = 1-2", "ynynnnnn"), ("x = 1:1-2", "nnnynnyy"), ("x", "yyyyyyyy")]
        {
            let found: String =
                requires
                    .iter()
                    .map(|r| {
                        if satisfies(&dependency(provided), &dependency(&format!("x {r}"))) {
                            'y'
                        } else {
                            'n'
                        }
                    })
                    .collect();
            assert_eq!(found, expected, "{provided}");
        }
        assert!(!satisfies(&dependency("y"), &dependency("x")));
        assert!(satisfies(&dependency("x = 1"), &dependency("x")));
    }

    #[test]
    fn rich_dependencies_order_by_what_they_need() {
        for (rich, expected) in [
            ("(a and b and c)", "a, b, c"),
            ("(a or (b if c))", "a, b"),
            ("(a if b else c)", "a"),
            ("(a >= 1 with a < 2)", "a >= 1"),
            ("((a or b) unless c)", "a, b"),
            (
                "(libc.so.6(GLIBC_2.34)(64bit) and pkgconfig(x) = 2)",
                "libc.so.6(GLIBC_2.34)(64bit), pkgconfig(x) = 2",
            ),
        ] {
            let dependency = Dependency { name: rich.to_owned(), version: None, pre: false };
            let terms: Vec<String> =
                ordering_terms(&dependency).unwrap().iter().map(Dependency::to_string).collect();
            assert_eq!(terms.join(", "), expected, "{rich}");
        }
        let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
        for broken in ["(a xor b)", "((a)", "(a", "( )", &deep] {
            let dependency = Dependency { name: broken.to_owned(), version: None, pre: false };
            assert!(ordering_terms(&dependency).is_err(), "{broken}");
        }
    }
}
