//! Repository metadata as XML: decompressed by content, walked element by element, bounded.
//!
//! Nothing here trusts the document: its decompressed size, the size of one element and the memory of the
//! decompressors are limited, entities are only XML's own five, and control characters are refused.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

/// The longest element start or run of text, in bytes. The longest seen in the wild are descriptions of a few
/// kilobytes.
const NODE_LIMIT: u64 = 4 << 20;

/// Memory an xz stream may ask for, in bytes. `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// What [`walk`] meets.
pub(super) enum Node<'a> {
    /// An element begins.
    Open(&'a Element<'a>),
    /// An element ends: its local name, and the text since the last tag.
    Close(&'a str, &'a str),
}

/// The start of an element.
pub(super) struct Element<'a>(BytesStart<'a>);

impl Element<'_> {
    /// Name without namespace prefix.
    pub fn name(&self) -> &str {
        self.0.local_name().into_inner()
    }

    /// Name and attributes as they stand in the document.
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// An attribute by its name as written.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'_, str>>> {
        let [value] = self.all([name])?;
        Ok(value)
    }

    /// Several attributes by their names as written, at once.
    pub fn all<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Cow<'_, str>>; N]> {
        let mut values = [const { None }; N];
        for attribute in self.0.attributes() {
            let attribute = attribute?;
            let Some(index) = names.iter().position(|name| *name == attribute.key.into_inner()) else {
                continue;
            };
            let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
            // as it stands in the document it has been looked at
            if let Cow::Owned(resolved) = &value {
                refuse_control(resolved)
                    .with_context(|| format!("attribute `{}` of <{}>", names[index], self.name()))?;
            }
            values[index] = Some(value);
        }
        Ok(values)
    }

    /// An attribute that must be there.
    pub fn require(&self, name: &str) -> Result<String> {
        let value = self.get(name)?.with_context(|| format!("<{}> has no `{name}`", self.name()))?;
        Ok(value.into_owned())
    }

    /// An attribute that is a number; 0 when it is absent or empty.
    pub fn number(&self, name: &str) -> Result<u64> {
        match self.get(name)?.as_deref() {
            None | Some("") => Ok(0),
            Some(text) => {
                text.parse().with_context(|| format!("`{name}={text:?}` of <{}> is no number", self.name()))
            }
        }
    }
}

/// Walks a document, compressed or not, whose root element must be `root`. More than `limit` decompressed
/// bytes are an error.
pub(super) fn walk(
    input: impl Read + 'static,
    root: &str,
    limit: u64,
    visit: impl FnMut(Node<'_>) -> Result<()>,
) -> Result<()> {
    let mut walker =
        Walker { root, visit, roots: 0, open: Vec::new(), names: String::new(), text: String::new() };
    let mut window = Window::new(Bounded { inner: decompress(input)?, limit, left: limit });
    while window.fill()? {
        let (start, markup) = (window.start, window.markup()?);
        let mut reader = quick_xml::Reader::from_str(markup);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        // a window has no beginning and no end
        (config.check_end_names, config.allow_unmatched_ends) = (false, true);
        let done = loop {
            let at = reader.buffer_position();
            match reader.read_event() {
                Ok(Event::Eof) => break markup.len() as u64,
                Ok(event) => walker.event(event).with_context(|| format!("at byte {}", start + at))?,
                // what seems to be unfinished goes on behind the window
                Err(quick_xml::Error::Syntax(_)) if !window.is_last => break at,
                Err(error) => bail!("at byte {}: {error}", start + reader.error_position()),
            }
        };
        window.pass(done as usize);
    }
    walker.finish()
}

/// Where in a document one is.
struct Walker<'r, V> {
    root: &'r str,
    visit: V,
    roots: usize,
    /// The names of the open elements, one after the other, and where each begins.
    names: String,
    open: Vec<usize>,
    /// The text since the last tag.
    text: String,
}

impl<V: FnMut(Node<'_>) -> Result<()>> Walker<'_, V> {
    fn event(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Start(start) => self.start(Element(start))?,
            Event::End(end) => {
                let name = end.name().into_inner();
                let start = self.open.pop().filter(|start| self.names[*start..] == *name);
                let start = start.with_context(|| format!("</{name}> ends what was not begun"))?;
                self.names.truncate(start);
                (self.visit)(Node::Close(end.local_name().into_inner(), &self.text))?;
                self.text.clear();
            }
            Event::Text(part) => self.text.push_str(&part.xml10_content()),
            Event::CData(part) => self.text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref()? {
                Some(c) => {
                    self.text.push(c);
                    refuse_control(c.encode_utf8(&mut [0; 4]))?;
                }
                None => self.text.push_str(
                    resolve_predefined_entity(&reference)
                        .with_context(|| format!("unknown entity `&{};`", &*reference))?,
                ),
            },
            Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::Eof => {}
        }
        if self.text.len() as u64 > NODE_LIMIT {
            bail!("a text is longer than {NODE_LIMIT} bytes");
        }
        Ok(())
    }

    fn start(&mut self, element: Element) -> Result<()> {
        self.text.clear();
        if self.open.is_empty() {
            self.roots += 1;
            if element.name() != self.root || self.roots > 1 {
                bail!("the document is <{}>, expected one <{}>", element.name(), self.root);
            }
        }
        self.open.push(self.names.len());
        self.names.push_str(element.0.name().into_inner());
        (self.visit)(Node::Open(&element))
    }

    fn finish(self) -> Result<()> {
        if !self.open.is_empty() || self.roots == 0 {
            bail!("the document ends early: expected </{}>", self.root);
        }
        Ok(())
    }
}

/// A part of a document, up to the end of a tag: quick-xml is several times as fast on a text in memory as on a reader.
struct Window {
    document: Bounded,
    bytes: Vec<u8>,
    /// Where it begins in the document, in bytes.
    start: u64,
    /// Whether nothing follows.
    is_last: bool,
}

impl Window {
    const SIZE: usize = 256 << 10;

    fn new(document: Bounded) -> Self {
        Self { document, bytes: Vec::new(), start: 0, is_last: false }
    }

    /// Reads on, as far as to the end of a tag; tells whether there is anything.
    fn fill(&mut self) -> Result<bool> {
        while !self.is_last {
            let before = self.bytes.len();
            if before as u64 > NODE_LIMIT {
                bail!("at byte {}: an element is longer than {NODE_LIMIT} bytes", self.start);
            }
            let read = self.document.by_ref().take(Self::SIZE as u64).read_to_end(&mut self.bytes);
            let read = read.with_context(|| format!("after byte {}", self.start + before as u64))?;
            self.is_last = read < Self::SIZE;
            if self.bytes[before..].contains(&b'>') {
                break;
            }
        }
        Ok(!self.bytes.is_empty())
    }

    /// What is between tags, whole tags, and at the end of the document whatever is left.
    fn markup(&self) -> Result<&str> {
        let tag = self.bytes.iter().rposition(|byte| *byte == b'>').map_or(0, |at| at + 1);
        let end = if self.is_last { self.bytes.len() } else { tag };
        let markup = std::str::from_utf8(&self.bytes[..end]);
        let markup = markup.with_context(|| format!("after byte {}", self.start))?;
        refuse_control(markup).with_context(|| format!("after byte {}", self.start))?;
        Ok(markup)
    }

    fn pass(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.start += length as u64;
    }
}

/// Line breaks and tabs are text; other C0 control characters have no place in metadata (XML 1.0 2.2 forbids
/// them) and would end up on terminals and in file names. C1 occurs: descriptions once decoded as Latin-1.
fn refuse_control(text: &str) -> Result<()> {
    let is_refused = |byte: u8| byte.is_ascii_control() & !matches!(byte, b'\n' | b'\r' | b'\t');
    // all of them, without a branch at each: this takes a hundredth of the time of finding the first
    if text.bytes().fold(false, |any, byte| any | is_refused(byte)) {
        let found = text.chars().find(|c| c.is_ascii() && is_refused(*c as u8)).unwrap_or_default();
        bail!("a control character ({found:?}) is not allowed");
    }
    Ok(())
}

/// A document that is no XML: decompressed, and bounded as a whole.
pub(super) fn bounded(input: impl Read + 'static, limit: u64) -> Result<impl Read> {
    Ok(Bounded { inner: decompress(input)?, limit, left: limit })
}

/// Recognises the compression by its magic bytes; what has none of them is taken as it is.
fn decompress(input: impl Read + 'static) -> Result<Box<dyn Read>> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let magic = input.fill_buf().context("reading the first bytes")?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(input)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        _ => Box::new(input),
    })
}

/// A reader that refuses documents beyond their limit.
struct Bounded {
    inner: Box<dyn Read>,
    limit: u64,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        let unexpected =
            || io::Error::other(format!("it unpacks to more than the {} bytes expected", self.limit));
        self.left = self.left.checked_sub(n as u64).ok_or_else(unexpected)?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn texts(document: &[u8], limit: u64) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        walk(io::Cursor::new(document.to_vec()), "r", limit, |node| {
            if let Node::Close(name, text) = node {
                texts.push(format!("{name}={text}"));
            }
            Ok(())
        })?;
        Ok(texts)
    }

    #[test]
    fn entities_and_cdata_are_text() {
        let document = b"<?xml version='1.0'?><!-- c --><r><x:a>1 &lt; &#50;<![CDATA[ & 3]]></x:a><b/></r>";
        assert_eq!(texts(document, 1000).unwrap(), ["a=1 < 2 & 3", "b=", "r="]);
    }

    #[test]
    fn refuses_what_is_no_such_document() {
        for (document, message) in [
            ("", "ends early"),
            ("not xml at all", "ends early"),
            ("<r><a></r>", "at byte"),
            ("<r><a>", "ends early"),
            ("<other/>", "expected one <r>"),
            ("<r/><r/>", "expected one <r>"),
            ("<r>&xxe;</r>", "unknown entity `&xxe;`"),
            ("<r>&#7;</r>", "control character"),
        ] {
            let error = format!("{:#}", texts(document.as_bytes(), 1000).unwrap_err());
            assert!(error.contains(message), "{document}: {error}");
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let bomb = |size: usize| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(b"<r>").unwrap();
            gz.write_all(&vec![b' '; size]).unwrap();
            gz.write_all(b"</r>").unwrap();
            gz.finish().unwrap()
        };
        let error = format!("{:#}", texts(&bomb(1 << 20), 1000).unwrap_err());
        assert!(error.contains("more than the 1000 bytes"), "{error}");
        let error = format!("{:#}", texts(&bomb(32 << 20), 1 << 30).unwrap_err());
        assert!(error.contains("element is longer"), "{error}");
    }

    #[test]
    fn every_compression_is_recognised() {
        let plain = b"<r><a>x</a></r>".to_vec();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&plain).unwrap();
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        for document in [plain, gz.finish().unwrap(), xz.finish().unwrap(), bz.finish().unwrap(), zst] {
            assert_eq!(texts(&document, 1000).unwrap(), ["a=x", "r="]);
            for cut in 0..document.len() {
                assert!(texts(&document[..cut], 1000).is_err(), "cut at {cut}");
            }
        }
    }
}
