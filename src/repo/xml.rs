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
            refuse_control(&value)
                .with_context(|| format!("attribute `{}` of <{}>", names[index], self.name()))?;
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
    mut visit: impl FnMut(Node<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = quick_xml::Reader::from_reader(Bounded::new(decompress(input)?, limit));
    reader.config_mut().expand_empty_elements = true;
    let (mut buffer, mut text) = (Vec::new(), String::new());
    let (mut depth, mut roots) = (0_usize, 0_usize);
    loop {
        reader.get_mut().node_left = NODE_LIMIT;
        buffer.clear();
        let event = match reader.read_event_into(&mut buffer) {
            Ok(event) => event,
            Err(error) => bail!("at byte {}: {error}", reader.error_position()),
        };
        match event {
            Event::Start(start) => {
                text.clear();
                let element = Element(start);
                if depth == 0 {
                    roots += 1;
                    if element.name() != root || roots > 1 {
                        bail!("the document is <{}>, expected one <{root}>", element.name());
                    }
                }
                depth += 1;
                visit(Node::Open(&element))?;
            }
            Event::End(end) => {
                // the reader checks that tags match
                depth -= 1;
                refuse_control(&text)
                    .with_context(|| format!("text of <{}>", end.local_name().into_inner()))?;
                visit(Node::Close(end.local_name().into_inner(), &text))?;
                text.clear();
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::CData(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref()? {
                Some(c) => text.push(c),
                None => text.push_str(
                    resolve_predefined_entity(&reference)
                        .with_context(|| format!("unknown entity `&{};`", &*reference))?,
                ),
            },
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
        if text.len() as u64 > NODE_LIMIT {
            bail!("a text is longer than {NODE_LIMIT} bytes");
        }
    }
    if depth != 0 || roots == 0 {
        bail!("the document ends early: expected </{root}>");
    }
    Ok(())
}

/// Line breaks and tabs are text; other C0 control characters have no place in metadata (XML 1.0 2.2 forbids
/// them) and would end up on terminals and in file names. C1 occurs: descriptions once decoded as Latin-1.
fn refuse_control(text: &str) -> Result<()> {
    match text.bytes().find(|b| b.is_ascii_control() && !matches!(b, b'\n' | b'\r' | b'\t')) {
        Some(b) => bail!("a control character ({:?}) is not allowed", char::from(b)),
        None => Ok(()),
    }
}

/// A document that is no XML: decompressed, and bounded as a whole.
pub(super) fn bounded(input: impl Read + 'static, limit: u64) -> Result<impl Read> {
    let mut bounded = Bounded::new(decompress(input)?, limit);
    bounded.node_left = u64::MAX;
    Ok(bounded)
}

/// Recognises the compression by its magic bytes; what has none of them is taken as it is.
fn decompress(input: impl Read + 'static) -> Result<Box<dyn BufRead>> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let magic = input.fill_buf().context("reading the first bytes")?;
    let reader: Box<dyn Read> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(input)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        _ => return Ok(Box::new(input)),
    };
    Ok(Box::new(BufReader::with_capacity(64 << 10, reader)))
}

/// A reader that refuses documents and elements beyond their limits.
struct Bounded {
    inner: Box<dyn BufRead>,
    limit: u64,
    left: u64,
    node_left: u64,
}

impl Bounded {
    fn new(inner: Box<dyn BufRead>, limit: u64) -> Self {
        Self { inner, limit, left: limit, node_left: NODE_LIMIT }
    }
}

impl BufRead for Bounded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if !buffer.is_empty() && self.left == 0 {
            return Err(io::Error::other(format!(
                "it unpacks to more than the {} bytes expected",
                self.limit
            )));
        }
        if !buffer.is_empty() && self.node_left == 0 {
            return Err(io::Error::other(format!("an element is longer than {NODE_LIMIT} bytes")));
        }
        let allowed = self.left.min(self.node_left).min(buffer.len() as u64);
        Ok(&buffer[..allowed as usize])
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.left -= n as u64;
        self.node_left -= n as u64;
    }
}

impl Read for Bounded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
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
