//! The conditions of `[[when]]` blocks: `arch == 'x86_64' && os.version >= 9.6`.
//!
//! ```text
//! or         = and { "||" and }
//! and        = not { "&&" not }
//! not        = "!" not | "(" or ")" | comparison
//! comparison = operand [ ("==" | "!=" | "<" | "<=" | ">" | ">=") operand ]
//! operand    = 'text' | "text" | number | true | false | variable
//! ```
//!
//! Values are texts, as variables are. Both sides of `&&` and `||` are always looked at, so that a mistake
//! shows on every architecture.

use std::cmp::Ordering;
use std::ops::Range;

use super::diagnostic::{Fault, Objection};
use super::variables::Variables;
use crate::error::similar;
use crate::package::Evr;

/// Decides a condition.
pub fn holds(condition: &str, variables: &Variables) -> Result<bool, Fault> {
    let mut parser = Parser { text: condition, tokens: tokens(condition)?, next: 0, variables, depth: 0 };
    let answer = parser.or()?;
    match parser.peek() {
        None => Ok(answer),
        Some(_) => Err(parser.unexpected("`&&`, `||` or the end")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'t> {
    /// One of the operators or parentheses.
    Sign(&'t str),
    /// A quoted text or a number.
    Literal(&'t str),
    /// A variable, `true` or `false`.
    Word(&'t str),
}

const SIGNS: [&str; 11] = ["==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")"];

/// Parentheses and `!` nest at most this deep: nobody's condition does, and the parser recurses.
const MAX_DEPTH: usize = 32;

fn tokens(text: &str) -> Result<Vec<(Token<'_>, Range<usize>)>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (token, length) =
            token(rest, c).map_err(|(objection, length)| Fault { part: at..at + length, objection })?;
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

/// The token at the beginning of `rest` and its length in bytes.
fn token(rest: &str, first: char) -> Result<(Token<'_>, usize), (Objection, usize)> {
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    if first == '\'' || first == '"' {
        return match rest[1..].find(first) {
            Some(end) => Ok((Token::Literal(&rest[1..=end]), end + 2)),
            None => Err((Objection::new("the text has no closing quote"), rest.len())),
        };
    }
    let length = rest.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(rest.len());
    match first {
        _ if length == 0 => Err((objection_to(first), first.len_utf8())),
        '0'..='9' => Ok((Token::Literal(&rest[..length]), length)),
        _ => Ok((Token::Word(&rest[..length]), length)),
    }
}

fn objection_to(c: char) -> Objection {
    let objection = Objection::new(format!("`{c}` is not part of a condition"));
    match c {
        '=' => objection.hint("write `==` to compare"),
        '&' => objection.hint("write `&&`"),
        '|' => objection.hint("write `||`"),
        '$' => objection.hint("name the variable without `$`"),
        _ => objection,
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<(Token<'t>, Range<usize>)>,
    next: usize,
    variables: &'t Variables,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).map(|(token, _)| *token)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        self.next += usize::from(found);
        found
    }

    /// The place of the next token, or of the end.
    fn place(&self) -> Range<usize> {
        let end = self.text.len();
        self.tokens.get(self.next).map_or(end..end, |(_, part)| part.clone())
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let part = self.place();
        let objection = match &self.text[part.clone()] {
            "" => Objection::new(format!("the condition ends where {expected} should follow")),
            "and" => Objection::new("`and` is not an operator").hint("write `&&`"),
            "or" => Objection::new("`or` is not an operator").hint("write `||`"),
            found => Objection::new(format!("found `{found}`, expected {expected}")),
        };
        Fault { part, objection }
    }

    /// A word that is like no variable is perhaps a text.
    fn advise(&self, name: &str, unknown: Objection) -> Objection {
        match similar(name, self.variables.names()) {
            Some(_) => unknown,
            None => unknown.hint(format!("a text is put in quotes: '{name}'")),
        }
    }

    fn or(&mut self) -> Result<bool, Fault> {
        let mut answer = self.and()?;
        while self.accept("||") {
            answer |= self.and()?;
        }
        Ok(answer)
    }

    fn and(&mut self) -> Result<bool, Fault> {
        let mut answer = self.not()?;
        while self.accept("&&") {
            answer &= self.not()?;
        }
        Ok(answer)
    }

    fn not(&mut self) -> Result<bool, Fault> {
        if self.depth == MAX_DEPTH {
            let objection = Objection::new(format!("more than {MAX_DEPTH} nested parentheses or `!`"));
            return Err(Fault { part: self.place(), objection });
        }
        self.depth += 1;
        let answer = if self.accept("!") {
            !self.not()?
        } else if self.accept("(") {
            let answer = self.or()?;
            if !self.accept(")") {
                return Err(self.unexpected("`)`"));
            }
            answer
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(answer)
    }

    fn comparison(&mut self) -> Result<bool, Fault> {
        let place = self.place();
        let left = self.operand()?;
        let sign = match self.peek() {
            Some(Token::Sign(sign @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => sign,
            _ => return truth(left, place),
        };
        self.next += 1;
        let right_place = self.place();
        let right = self.operand()?;
        if sign == "==" || sign == "!=" {
            return Ok((left == right) == (sign == "=="));
        }
        let order = version(left, place)?.rpm_cmp(&version(right, right_place)?);
        Ok(match sign {
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    }

    fn operand(&mut self) -> Result<&'t str, Fault> {
        let part = self.place();
        let value = match self.peek() {
            Some(Token::Literal(text)) => text,
            Some(Token::Word(word @ ("true" | "false"))) => word,
            Some(Token::Word("and" | "or")) | Some(Token::Sign(_)) | None => {
                return Err(self.unexpected("a variable or a value"));
            }
            Some(Token::Word(name)) => self
                .variables
                .get(name)
                .map_err(|unknown| Fault { part, objection: self.advise(name, unknown) })?,
        };
        self.next += 1;
        Ok(value)
    }
}

fn truth(value: &str, part: Range<usize>) -> Result<bool, Fault> {
    value.parse().map_err(|_| Fault {
        part,
        objection: Objection::new(format!("`{value}` is neither true nor false"))
            .hint("compare it: `NAME == 'value'`"),
    })
}

fn version(value: &str, part: Range<usize>) -> Result<Evr, Fault> {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Evr::new(0, value, ""));
    }
    let objection =
        Objection::new(format!("`{value}` is not a version")).hint("compare texts with `==` or `!=`");
    Err(Fault { part, objection })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let pairs =
            [("arch", "x86_64"), ("os.version", "9.10"), ("fips", "true"), ("rt", "false"), ("id", "rhel")];
        Variables(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    #[test]
    fn decides() {
        for (condition, answer) in [
            ("arch == 'x86_64'", true),
            ("arch == \"s390x\"", false),
            ("arch != 's390x'", true),
            ("os.version >= 9.6", true),
            ("os.version<'9.6'", false),
            ("9.10 <= os.version", true),
            ("os.version > 9.10", false),
            ("fips", true),
            ("!fips", false),
            ("!rt && fips", true),
            ("rt || fips && rt", false),
            ("(rt || fips) && !rt", true),
            ("!(rt || id == 'centos')", true),
            ("true", true),
            ("false == rt", true),
        ] {
            assert_eq!(holds(condition, &variables()).unwrap(), answer, "{condition}");
        }
    }

    #[test]
    fn says_what_is_malformed_and_where() {
        for (condition, part, message) in [
            ("", 0..0, "the condition ends where a variable or a value should follow"),
            ("arch ==", 7..7, "the condition ends where a variable or a value should follow"),
            ("arch = 'x'", 5..6, "`=` is not part of a condition"),
            ("arch == x86_64", 8..14, "unknown variable `x86_64`"),
            ("arch == 'x86_64", 8..15, "the text has no closing quote"),
            ("fips and rt", 5..8, "`and` is not an operator"),
            ("arch", 0..4, "`x86_64` is neither true nor false"),
            ("id >= 9", 0..2, "`rhel` is not a version"),
            ("(fips", 5..5, "the condition ends where `)` should follow"),
            ("fips)", 4..5, "found `)`, expected `&&`, `||` or the end"),
            ("fips && ü.", 8..11, "unknown variable `ü.`"),
            ("rt && mistyped", 6..14, "unknown variable `mistyped`"),
        ] {
            let malformed = holds(condition, &variables()).unwrap_err();
            assert_eq!(
                (malformed.part, malformed.objection.message.as_str()),
                (part, message),
                "{condition}"
            );
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = "(".repeat(100_000);
        assert!(holds(&deep, &variables()).unwrap_err().objection.message.contains("nested"));
        assert!(holds(&"!".repeat(100_000), &variables()).is_err());
    }
}
