//! rpm's query formats: `%{NAME}`, `[%{FILENAMES}\n]`, `%|EPOCH?{%{EPOCH}:}|` (rpm: `docs/man/rpm.8`, QUERY OPTIONS;
//! `lib/headerfmt.c`, `lib/formats.c`).

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use num_traits::FromPrimitive;
use rpm::IndexTag as Tag;

use super::Header;
use super::blob::Kind;

/// How wide a field may be, in bytes, and how deep conditions may nest.
const MAX_WIDTH: usize = 4096;
const MAX_DEPTH: usize = 16;

/// Tags that rpm computes, or has in the signature header, and strata does not fill in.
const UNKNOWN: [&str; 15] = [
    "DBINSTANCE",
    "DEPFLAGS",
    "FILECLASS",
    "FILENLINKS",
    "FILEPROVIDE",
    "FILEREQUIRE",
    "FSNAMES",
    "FSSIZES",
    "HEADERCOLOR",
    "SHA1HEADER",
    "SHA256HEADER",
    "SIGMD5",
    "TRIGGERCONDS",
    "TRIGGERTYPE",
    "VERBOSE",
];

/// Fills in `format` from `header`.
///
/// # Errors
/// What rpm refuses, and tags and formatters that strata does not know.
pub fn query_format(header: &Header, format: &str) -> Result<String> {
    let context = || format!("filling in the query format of {}", header.nevra());
    let mut parser = Parser { rest: format };
    let parts = parser.parts("", 0).with_context(context)?;
    let mut out = String::new();
    for part in &parts {
        part.fill(header, None, &mut out).with_context(context)?;
    }
    Ok(out)
}

enum Part {
    Text(String),
    Field(Field),
    /// Repeated for each item of its arrays.
    Each(Vec<Part>),
    /// Tag; if the header has it, and if not.
    If(String, Vec<Part>, Vec<Part>),
}

struct Field {
    tag: String,
    /// `=`: the first item in each round.
    once: bool,
    /// `#`, or the formatter `arraysize`.
    count: bool,
    formatter: Option<String>,
    width: usize,
    left: bool,
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Up to `end`, which is taken; an empty one is the end of the text.
    fn parts(&mut self, end: &str, depth: usize) -> Result<Vec<Part>> {
        ensure!(depth <= MAX_DEPTH, "it nests deeper than {MAX_DEPTH} levels");
        let mut parts = Vec::new();
        while !(self.rest.is_empty() || !end.is_empty() && self.rest.starts_with(end)) {
            parts.push(match self.next().unwrap_or_default() {
                '%' if self.take("%") => Part::Text("%".to_owned()),
                '%' if self.take("|") => self.condition(depth)?,
                '%' => Part::Field(self.field()?),
                '[' if end == "]" => bail!("an array in an array"),
                '[' => Part::Each(self.parts("]", depth + 1)?),
                c @ (']' | '}') => bail!("unexpected {c}"),
                '\\' => Part::Text(escaped(self.next().context("a backslash at the end")?).to_string()),
                c => Part::Text(c.to_string()),
            });
        }
        ensure!(self.take(end), "{end} expected");
        Ok(parts)
    }

    /// `TAG?{parts}:{parts}|`, of which either may be left out.
    fn condition(&mut self, depth: usize) -> Result<Part> {
        let (tag, rest) = self.rest.split_once('?').context("? expected in a condition")?;
        let tag = tag.to_owned();
        self.rest = rest;
        let then = if self.take("{") { self.parts("}", depth + 1)? } else { Vec::new() };
        let other = if self.take(":{") { self.parts("}", depth + 1)? } else { Vec::new() };
        ensure!(self.take("|"), "| expected at the end of a condition");
        Ok(Part::If(tag, then, other))
    }

    /// `-WIDTH{=TAG:FORMATTER}`
    fn field(&mut self) -> Result<Field> {
        let (width, rest) = self.rest.split_once('{').context("{ expected after %")?;
        let (tag, rest) = rest.split_once('}').context("missing } after %{")?;
        self.rest = rest;
        let left = width.starts_with('-');
        let width = match width.trim_start_matches('-') {
            "" => 0,
            width => width.parse().ok().filter(|width| *width <= MAX_WIDTH).context("invalid field width")?,
        };
        let (tag, formatter) = tag.split_once(':').map_or((tag, None), |(tag, f)| (tag, Some(f)));
        let name = tag.trim_start_matches(['=', '#']);
        let count = tag.starts_with('#') || formatter == Some("arraysize");
        let formatter = formatter.filter(|_| !count).map(str::to_owned);
        Ok(Field { tag: name.to_owned(), once: tag.starts_with('='), count, formatter, width, left })
    }
}

fn escaped(c: char) -> char {
    match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        c => c,
    }
}

impl Part {
    /// Appends the part to `out`; `round` counts the items of the array it stands in.
    fn fill(&self, header: &Header, round: Option<usize>, out: &mut String) -> Result<()> {
        match self {
            Part::Text(text) => out.push_str(text),
            Part::Field(field) => field.fill(header, round, out)?,
            Part::Each(parts) => {
                for round in 0..rounds(parts, header)? {
                    parts.iter().try_for_each(|part| part.fill(header, Some(round), out))?;
                }
            }
            Part::If(tag, then, other) => {
                let chosen = if header.query(tag)?.is_some() { then } else { other };
                chosen.iter().try_for_each(|part| part.fill(header, round, out))?;
            }
        }
        Ok(())
    }
}

/// How often parts are repeated: the common length of their arrays.
fn rounds(parts: &[Part], header: &Header) -> Result<usize> {
    let mut common = None;
    for part in parts {
        let length = match part {
            Part::Field(field) if !field.once && !field.count => header.query(&field.tag)?.map(|v| v.len()),
            Part::If(tag, then, other) => {
                let chosen = if header.query(tag)?.is_some() { then } else { other };
                Some(rounds(chosen, header)?).filter(|n| *n > 0)
            }
            _ => None,
        };
        ensure!(
            length.is_none() || common.is_none() || length == common,
            "array iterator used with different sized arrays"
        );
        common = common.or(length);
    }
    Ok(common.unwrap_or(0))
}

impl Field {
    fn fill(&self, header: &Header, round: Option<usize>, out: &mut String) -> Result<()> {
        let values = header.query(&self.tag)?;
        let at = round.filter(|_| !self.once).unwrap_or(0);
        let text = match values {
            Some(values) if self.count => values.len().to_string(),
            Some(values) => values.show(at, self.formatter.as_deref())?,
            None => "(none)".to_owned(),
        };
        let blanks = " ".repeat(self.width.saturating_sub(text.len()));
        out.push_str(&if self.left { text + &blanks } else { blanks + &text });
        Ok(())
    }
}

/// What a tag holds.
enum Values {
    Texts(Vec<String>),
    Numbers(Vec<u64>),
    Bytes(Vec<u8>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Texts(texts) => texts.len(),
            Values::Numbers(numbers) => numbers.len(),
            Values::Bytes(_) => 1,
        }
    }

    fn show(&self, at: usize, formatter: Option<&str>) -> Result<String> {
        let missing = || "the array ends early";
        match self {
            Values::Texts(texts) => show_text(texts.get(at).with_context(missing)?, formatter),
            Values::Numbers(numbers) => show_number(*numbers.get(at).with_context(missing)?, formatter),
            Values::Bytes(bytes) => match formatter {
                None | Some("string") => Ok(hex::encode(bytes)),
                // lines as rpmBase64Encode makes them
                Some("base64") => {
                    let text = BASE64.encode(bytes);
                    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
                    Ok(lines.map(|line| format!("{line}\n")).collect())
                }
                Some(formatter) => show_number(0, Some(formatter)).map(|_| NOT_A_NUMBER.to_owned()),
            },
        }
    }
}

const NOT_A_NUMBER: &str = "(not a number)";

fn show_text(text: &str, formatter: Option<&str>) -> Result<String> {
    Ok(match formatter {
        None | Some("string") => text.to_owned(),
        Some("shescape") => format!("'{}'", text.replace('\'', r"'\''")),
        Some("base64") => "(not a blob)".to_owned(),
        Some(formatter) => show_number(0, Some(formatter)).map(|_| NOT_A_NUMBER.to_owned())?,
    })
}

fn show_number(number: u64, formatter: Option<&str>) -> Result<String> {
    let time = |format: &str| -> Result<String> {
        let seconds = i64::try_from(number).context("a time")?;
        // rpm would take the machine's time zone
        Ok(jiff::Timestamp::from_second(seconds)?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .strftime(format)
            .to_string())
    };
    Ok(match formatter {
        None | Some("string" | "shescape") => number.to_string(),
        Some("octal") => format!("{number:o}"),
        Some("hex") => format!("{number:x}"),
        Some("date") => time("%a %b %e %H:%M:%S %Y")?,
        Some("day") => time("%a %b %d %Y")?,
        Some("perms" | "permissions") => permissions(number),
        Some("fflags") => letters(number, &FILE_FLAGS),
        Some("depflags") => letters(number, &[(2, "<"), (4, ">"), (8, "=")]),
        Some("base64") => "(not a blob)".to_owned(),
        Some(other) => bail!("strata does not know the formatter `{other}`"),
    })
}

/// `RPMFILE_*` (rpm: `include/rpm/rpmfiles.h`), in the order of rpm's letters.
const FILE_FLAGS: [(u64, &str); 9] =
    [(2, "d"), (1, "c"), (4, "s"), (8, "m"), (16, "n"), (64, "g"), (128, "l"), (256, "r"), (4096, "a")];

fn letters(number: u64, flags: &[(u64, &str)]) -> String {
    flags.iter().filter(|(bit, _)| number & bit != 0).map(|(_, letter)| *letter).collect()
}

/// As `ls -l` shows a mode.
fn permissions(mode: u64) -> String {
    let kind = match mode & 0o170000 {
        0o040000 => 'd',
        0o120000 => 'l',
        0o010000 => 'p',
        0o140000 => 's',
        0o020000 => 'c',
        0o060000 => 'b',
        0o100000 => '-',
        _ => '?',
    };
    let mut text: Vec<char> =
        (0..9).map(|n| if mode & (0o400 >> n) != 0 { ['r', 'w', 'x'][n % 3] } else { '-' }).collect();
    for (bit, at, letter) in [(0o4000, 2, 's'), (0o2000, 5, 's'), (0o1000, 8, 't')] {
        if mode & bit != 0 {
            text[at] = if text[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    [kind].into_iter().chain(text).collect()
}

impl Header {
    /// What the tag `name` holds, in rpm's spelling without `RPMTAG_`; none if the header does not have it.
    fn query(&self, name: &str) -> Result<Option<Values>> {
        let name = name.trim_start_matches("RPMTAG_").to_ascii_uppercase();
        let (package, evr) = (self.nevra(), &self.nevra().evr);
        let one = |text: String| Ok(Some(Values::Texts(vec![text])));
        let version = format!("{}-{}", evr.version, evr.release);
        match name.as_str() {
            "EVR" => one(evr.to_string()),
            "NVR" => one(format!("{}-{version}", package.name)),
            "NEVR" => one(format!("{}-{evr}", package.name)),
            "NVRA" => one(format!("{}-{version}.{}", package.name, package.arch)),
            "NEVRA" => one(package.to_string()),
            "EPOCHNUM" => Ok(Some(Values::Numbers(vec![evr.epoch.into()]))),
            "LONGSIZE" => Ok(Some(Values::Numbers(vec![self.size()?]))),
            "FILENAMES" => texts(self.files()?.into_iter().map(|file| file.path).collect()),
            "INSTPREFIXES" => texts(self.prefixes().to_vec()),
            _ if UNKNOWN.contains(&name.as_str()) => bail!("strata does not fill in %{{{name}}}"),
            _ => self.stored(&name),
        }
    }

    /// What the header itself has.
    fn stored(&self, name: &str) -> Result<Option<Values>> {
        let tag = (1..6000u32)
            .filter_map(Tag::from_u32)
            .find(|tag| format!("{tag:?}").strip_prefix("RPMTAG_") == Some(name))
            .with_context(|| format!("unknown tag: {name}"))?;
        let Some(entry) = self.main.find(tag) else { return Ok(None) };
        Ok(Some(match entry.kind {
            Kind::Bin => Values::Bytes(self.main.bytes_of(entry).to_vec()),
            Kind::String | Kind::StringArray | Kind::I18nString => {
                let found = self.main.strings(tag)?;
                // of a text in several languages, the first, which is C's
                let found =
                    if entry.kind == Kind::I18nString { &found[..found.len().min(1)] } else { &found[..] };
                Values::Texts(found.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
            }
            _ => Values::Numbers(self.main.numbers(tag)?),
        }))
    }
}

fn texts(texts: Vec<String>) -> Result<Option<Values>> {
    Ok(Some(Values::Texts(texts)).filter(|values| values.len() > 0))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rpm::{FileOptions, PackageBuilder, Scriptlet};

    use super::*;

    fn package() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = PackageBuilder::new("foo", "1.5", "MIT", "x86_64", "it's a summary");
        builder.epoch(2).release("3.el9").vendor("us").pre_install_script(Scriptlet::new("true"));
        builder.requires(rpm::Dependency::greater_eq("bar", "1.0")).requires(rpm::Dependency::any("baz"));
        builder.with_file_contents("x", FileOptions::new("/etc/a").permissions(0o4711)).unwrap();
        builder
            .with_file_contents("yy", FileOptions::new("/usr/bin/b c").permissions(0o644).config())
            .unwrap();
        builder.with_symlink(FileOptions::symlink("/usr/bin/link", "b c")).unwrap();
        builder.build().unwrap().write(&mut file.as_file()).unwrap();
        file
    }

    fn rpm(file: &tempfile::NamedTempFile, format: &str) -> std::process::Output {
        let mut rpm = Command::new("rpm");
        rpm.args(["-qp", "--nosignature", "--qf", format])
            .arg(file.path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        rpm.output().expect("rpm is installed")
    }

    #[test]
    fn formats_equal_rpms() {
        let file = package();
        let header = Header::open(file.path()).unwrap();
        for format in [
            "%{NAME} %{version} %{RPMTAG_RELEASE} %{EPOCH} 100%%",
            "%{nevra} %{NVRA} %{EVR} %{NVR} %{NEVR} %{ARCH} %{EPOCHNUM} %{OS}",
            "%{SUMMARY}, %{LICENSE}, %{VENDOR}, %{SIZE}, %{LONGSIZE}, %{BUILDTIME}, %{INSTPREFIXES}, %{URL}",
            "%{SUMMARY:shescape} %{SIZE:shescape} %{SIZE:octal} %{SIZE:hex} %{NAME:octal} %{NAME:base64}|",
            "%{BUILDTIME:date}|%{BUILDTIME:day}|%{URL:date}|%{NAME:date}",
            "%-10{NAME}|%10{NAME}|%2{NAME}|%{#FILENAMES} %{FILENAMES:arraysize} %{FILENAMES}",
            "[%{FILEMODES:perms} %{FILEMODES:octal} %{FILENAMES:shescape} %{FILEFLAGS:fflags} %{=NAME}\\n]end",
            "[%-20{FILENAMES} %{FILESIZES} %{FILEUSERNAME} %{FILELINKTOS} %{FILEDIGESTS}\\n]",
            "[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\\n]",
            "%|EPOCH?{e%{EPOCH}}:{none}| %|URL?{url}:{none}| %|URL?{url}|%|NAME?{%|URL?{a}:{b}|}|",
            "[%{URL}]|[%{=NAME}]|[text]|%{POSTIN}|%{PREIN}|%{PREINPROG}",
            "a\\tb\\\\n\\q \\[x\\] \u{e9}",
        ] {
            let output = rpm(&file, format);
            let expected = String::from_utf8(output.stdout).unwrap();
            assert_eq!(query_format(&header, format).unwrap(), expected, "{format}");
        }
    }

    #[test]
    fn what_rpm_refuses_is_refused() {
        let file = package();
        let header = Header::open(file.path()).unwrap();
        let deep = "%|NAME?{".repeat(100_000);
        for format in [
            "%d",
            "%{NAME",
            "%",
            "%{NOPE}",
            "x]",
            "[%{FILENAMES}",
            "[%{NAME}%{FILENAMES}]",
            "%|NAME?{x}",
            "%|NAME",
            "%|NAME?{",
            "%x{NAME}",
        ] {
            assert!(query_format(&header, format).is_err(), "{format}");
            assert!(!rpm(&file, format).stderr.is_empty(), "{format}");
        }
        for format in [deep.as_str(), "[[%{NAME}]]", "%99999999{NAME}", "%{FILECLASS}", "%{NAME:pgpsig}"] {
            assert!(query_format(&header, format).is_err(), "{format}");
        }
    }
}
