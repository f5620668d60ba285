//! Rich (boolean) dependencies: `(a if b else c)`, rpm's `doc/manual/boolean_dependencies.md`.

use crate::package::{Comparison, Dependency, Evr};

/// Limits no real package comes near: a tree is walked by recursion, along its chains too, and its text may be
/// hostile.
const MAX_DEPTH: usize = 64;
const MAX_OPERANDS: usize = 512;

/// A parsed rich dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rich {
    /// A plain dependency.
    Plain(Dependency),
    /// Two dependencies joined. `a if b else c` is `If(a, Else(b, c))`, as libsolv has it; chains of `and`,
    /// `or` and `with` lean to the right.
    Joined(Operator, Box<Rich>, Box<Rich>),
}

/// What joins two dependencies; the names are rpm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    And,
    Or,
    If,
    Unless,
    Else,
    With,
    Without,
}

impl Operator {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "and" => Self::And,
            "or" => Self::Or,
            "if" => Self::If,
            "unless" => Self::Unless,
            "else" => Self::Else,
            "with" => Self::With,
            "without" => Self::Without,
            _ => return None,
        })
    }

    fn chains(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::With)
    }

    fn takes_else(self) -> bool {
        matches!(self, Self::If | Self::Unless)
    }
}

/// The text is no rich dependency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRichError {
    /// Something else was expected at a byte of the text.
    #[error("expected {expected} at byte {at}")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// Bytes from the start.
        at: usize,
    },
    /// Too many nested parentheses or operands.
    #[error("more than {MAX_DEPTH} nested parentheses, or more than {MAX_OPERANDS} operands")]
    TooLarge,
}

impl Rich {
    /// Parses a whole rich dependency, outer parentheses included.
    pub fn parse(text: &str) -> Result<Self, ParseRichError> {
        let mut parser = Parser { text, at: 0, operands: 0 };
        let rich = parser.parenthesised(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.expected("the end"));
        }
        Ok(rich)
    }

    /// The plain dependencies a package can be brought in by; conditions and exclusions are left out.
    pub fn wanted(&self) -> Vec<&Dependency> {
        match self {
            Rich::Plain(dependency) => vec![dependency],
            Rich::Joined(Operator::Without, wanted, _) => wanted.wanted(),
            Rich::Joined(Operator::If | Operator::Unless, wanted, condition) => {
                let mut all = wanted.wanted();
                if let Rich::Joined(Operator::Else, _, otherwise) = &**condition {
                    all.extend(otherwise.wanted());
                }
                all
            }
            Rich::Joined(_, left, right) => [left.wanted(), right.wanted()].concat(),
        }
    }

    /// Every plain dependency in it.
    pub fn leaves(&self) -> Vec<&Dependency> {
        match self {
            Rich::Plain(dependency) => vec![dependency],
            Rich::Joined(_, left, right) => [left.leaves(), right.leaves()].concat(),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// Operands read so far, of all parentheses.
    operands: usize,
}

impl<'t> Parser<'t> {
    fn parenthesised(&mut self, depth: usize) -> Result<Rich, ParseRichError> {
        if depth > MAX_DEPTH {
            return Err(ParseRichError::TooLarge);
        }
        self.eat("(")?;
        let mut operands = vec![self.operand(depth)?];
        let mut operators = Vec::new();
        while !self.rest().starts_with(')') {
            let operator = self.operator()?;
            let fits = match operators[..] {
                [] => operator != Operator::Else,
                [.., last] if operator == Operator::Else => {
                    operators.len() == 1 && Operator::takes_else(last)
                }
                [.., last] => operator == last && operator.chains(),
            };
            if !fits {
                return Err(self.expected("`)` or the same operator (different ones need parentheses)"));
            }
            operators.push(operator);
            operands.push(self.operand(depth)?);
        }
        if operators.is_empty() {
            return Err(self.expected("an operator (and, or, if, unless, with, without)"));
        }
        self.eat(")")?;
        Ok(join_right(operands, operators))
    }

    /// A dependency, plain or parenthesised; leaves the cursor at the next word.
    fn operand(&mut self, depth: usize) -> Result<Rich, ParseRichError> {
        self.operands += 1;
        if self.operands > MAX_OPERANDS {
            return Err(ParseRichError::TooLarge);
        }
        self.skip_space();
        let operand = match self.rest().starts_with('(') {
            true => self.parenthesised(depth + 1)?,
            false => Rich::Plain(self.plain()?),
        };
        self.skip_space();
        Ok(operand)
    }

    fn plain(&mut self) -> Result<Dependency, ParseRichError> {
        let name = self.word();
        if name.is_empty() {
            return Err(self.expected("a capability"));
        }
        let before = self.at;
        self.skip_space();
        let comparison = match self.word() {
            "<" => Comparison::Lt,
            "<=" => Comparison::Le,
            "=" | "==" => Comparison::Eq,
            ">=" => Comparison::Ge,
            ">" => Comparison::Gt,
            _ => {
                self.at = before;
                return Ok(Dependency { name: name.to_owned(), version: None, pre: false });
            }
        };
        self.skip_space();
        let evr: Evr = self.word().parse().map_err(|_| self.expected("a version before this"))?;
        Ok(Dependency { name: name.to_owned(), version: Some((comparison, evr)), pre: false })
    }

    fn operator(&mut self) -> Result<Operator, ParseRichError> {
        let start = self.at;
        let operator = Operator::parse(self.word());
        operator.ok_or(ParseRichError::Expected {
            expected: "and, or, if, unless, else, with, without",
            at: start,
        })
    }

    /// Takes everything up to white space, a comma or a parenthesis that was not opened in the word.
    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let mut open = 0usize;
        let end = rest.find(|c: char| match c {
            '(' => {
                open += 1;
                false
            }
            ')' if open == 0 => true,
            ')' => {
                open -= 1;
                false
            }
            c => c.is_ascii_whitespace() || c == ',',
        });
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn eat(&mut self, what: &'static str) -> Result<(), ParseRichError> {
        match self.rest().starts_with(what) {
            true => self.at += what.len(),
            false => return Err(self.expected(if what == "(" { "`(`" } else { "`)`" })),
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> ParseRichError {
        ParseRichError::Expected { expected, at: self.at }
    }
}

/// Joins `a op b op c` as `a op (b op c)`; there is one operand more than operators.
fn join_right(mut operands: Vec<Rich>, operators: Vec<Operator>) -> Rich {
    let last = operands.pop().expect("a parenthesis holds two operands at least");
    operands
        .into_iter()
        .zip(operators)
        .rev()
        .fold(last, |right, (left, operator)| Rich::Joined(operator, Box::new(left), Box::new(right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every join in parentheses of its own.
    fn show(rich: &Rich) -> String {
        match rich {
            Rich::Plain(dependency) => dependency.to_string(),
            Rich::Joined(operator, a, b) => {
                format!("({} {} {})", show(a), format!("{operator:?}").to_lowercase(), show(b))
            }
        }
    }

    #[test]
    fn parses_what_rpm_writes() {
        for (text, shown) in [
            ("(a or b)", "(a or b)"),
            ("(a and b and c)", "(a and (b and c))"),
            ("(a if b else c)", "(a if (b else c))"),
            ("(a >= 1:2-3 with a < 4)", "(a >= 1:2-3 with a < 4)"),
            ("((a or b) unless (c and d))", "((a or b) unless (c and d))"),
            ("(libc.so.6(GLIBC_2.34)(64bit) without glibc)", "(libc.so.6(GLIBC_2.34)(64bit) without glibc)"),
            ("(foo(bar) = 1 or baz)", "(foo(bar) = 1 or baz)"),
        ] {
            assert_eq!(show(&Rich::parse(text).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn refuses_what_rpm_refuses() {
        let deep = "(".repeat(100_000);
        let long_chains =
            (0..60).fold("a".to_owned(), |inner, _| format!("({}{inner})", "a or ".repeat(500)));
        for text in [
            "",
            "(",
            "()",
            "(a)",
            "(a or)",
            "(a or b",
            "(a or b))",
            "(a or b and c)",
            "(a else b)",
            "(a nor b)",
            "(a >= or b)",
            &deep,
            &long_chains,
        ] {
            assert!(Rich::parse(text).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn conditions_bring_nothing_in() {
        let names = |text| -> Vec<String> {
            Rich::parse(text).unwrap().wanted().iter().map(|d| d.name.clone()).collect()
        };
        assert_eq!(names("(a if b else c)"), ["a", "c"]);
        assert_eq!(names("((a or b) unless c)"), ["a", "b"]);
        assert_eq!(names("(a without b)"), ["a"]);
    }
}
