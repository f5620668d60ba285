//! File modes as rpm's Lua writes and reads them: `rwxr-xr-x`, `755`, `u=rwx,go+r`.

/// The nine letters of `mode`; set-id bits are `s`, or `S` without the execute bit, and the sticky bit is not
/// shown.
pub fn text(mode: u32) -> String {
    let mut letters: Vec<char> =
        (0..9).map(|n| if mode & (0o400 >> n) != 0 { RWX[n % 3] } else { '-' }).collect();
    for (bit, at) in [(0o4000, 2), (0o2000, 5)] {
        if mode & bit != 0 {
            letters[at] = if letters[at] == 'x' { 's' } else { 'S' };
        }
    }
    letters.into_iter().collect()
}

const RWX: [char; 3] = ['r', 'w', 'x'];

/// The mode that `text` makes of `old`; none if it is no mode.
pub fn parse(text: &str, old: u32) -> Option<u32> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    }
    letters(text).or_else(|| text.split(',').try_fold(old, change))
}

/// `rwxr-sr--`
fn letters(text: &str) -> Option<u32> {
    let mut mode = 0;
    let mut count = 0;
    for (n, c) in text.chars().enumerate() {
        mode |= match c {
            _ if n >= 9 => return None,
            '-' => 0,
            c if c == RWX[n % 3] => 0o400 >> n,
            's' | 'S' if n == 2 => 0o4000 | if c == 's' { 0o100 } else { 0 },
            's' | 'S' if n == 5 => 0o2000 | if c == 's' { 0o010 } else { 0 },
            _ => return None,
        };
        count += 1;
    }
    (count == 9).then_some(mode)
}

/// One clause: `u=rwx`, `go-w`, `+x`.
fn change(mode: u32, clause: &str) -> Option<u32> {
    let (who, rest) = clause.split_at(clause.find(['+', '-', '='])?);
    let operator = rest.chars().next()?;
    let mut classes = 0;
    for c in who.chars() {
        classes |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => 0o6777,
            _ => return None,
        };
    }
    let classes = if who.is_empty() { 0o6777 } else { classes };
    let mut bits = 0;
    for c in rest[1..].chars() {
        bits |= match c {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            's' => 0o6000,
            _ => return None,
        };
    }
    Some(match operator {
        '+' => mode | (bits & classes),
        '-' => mode & !(bits & classes),
        _ => (mode & !classes) | (bits & classes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(text(0o100755), "rwxr-xr-x");
        assert_eq!(text(0o6710), "rws--s---");
        assert_eq!(text(0o2600), "rw---S---");
        assert_eq!(text(0o1777), "rwxrwxrwx");
    }

    #[test]
    fn parsed_like_chmod() {
        for (input, expected) in [
            ("0700", Some(0o700)),
            ("2755", Some(0o2755)),
            ("rwxr-xr-x", Some(0o755)),
            ("rwsr-xr-x", Some(0o4755)),
            ("u=rwx,g+rx,o-rwx", Some(0o750)),
            ("g+s", Some(0o2644)),
            ("a+x", Some(0o755)),
            ("+x", Some(0o755)),
            ("", None),
            ("zz", None),
            ("8", None),
            ("77777", None),
            ("rwxrwxrwxr", None),
            ("ü=r", None),
        ] {
            assert_eq!(parse(input, 0o644), expected, "{input}");
        }
    }
}
