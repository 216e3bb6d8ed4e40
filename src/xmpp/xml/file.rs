//! Elements of a file that may be larger than memory, one by one. For what an operator brings, which may be damaged; what
//! peers send goes through the framer.
//!
//! No more than one event and what was asked for as a tree is in memory. A tree is read by quick-xml and then held
//! against the strict walk, which quick-xml is not: what comes out of here is sent to clients.

use std::io::{self, BufRead, Read};

use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use quick_xml::reader::NsReader;

use crate::xmpp::ns;
use crate::xmpp::xml::context::StreamContext;
use crate::xmpp::xml::element::{Element, Node};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::tree;

/// Bytes of one tag, text, or comment; of one tree that is asked for, as it is written out again.
const PART_BYTES_MAX: usize = 16 << 20;

/// Elements inside one another, in a tree and in a file.
const DEPTH_MAX: usize = 128;

/// Why a file cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("is no well-formed XML: {0}; correct it, or export it again")]
    NotWellFormed(String),
    #[error("ends within an element; export it again")]
    Truncated,
    #[error("is in {0}; save it as UTF-8")]
    Encoding(String),
    #[error("declares a document type, which is not read; remove it")]
    DocumentType,
    #[error("has a tag, text or element of more than {} MiB", PART_BYTES_MAX >> 20)]
    Large,
    #[error("has elements more than {DEPTH_MAX} deep")]
    Deep,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// With its attributes and without its children.
    Start(Element),
    End,
    /// The file is over.
    Eof,
}

/// A file under way.
pub struct XmlFile<R> {
    reader: NsReader<Bounded<R>>,
    buffer: Vec<u8>,
    depth: usize,
}

impl<R: BufRead> XmlFile<R> {
    pub fn new(input: R) -> Self {
        let mut reader = NsReader::from_reader(Bounded { input, lines: 1, left: PART_BYTES_MAX });
        reader.config_mut().expand_empty_elements = true;
        Self { reader, buffer: Vec::new(), depth: 0 }
    }

    /// The line that was read last.
    pub fn line(&self) -> u64 {
        self.reader.get_ref().lines
    }

    /// The next start or end of an element; texts are left out.
    pub fn advance(&mut self) -> Result<FileEvent, FileError> {
        loop {
            match self.event()? {
                Part::Start(element) => return Ok(FileEvent::Start(element)),
                Part::End => return Ok(FileEvent::End),
                Part::Text(_) => {}
                Part::Eof if self.depth == 0 => return Ok(FileEvent::Eof),
                Part::Eof => return Err(FileError::Truncated),
            }
        }
    }

    /// Passes over the rest of the element that started last.
    pub fn skip(&mut self) -> Result<(), FileError> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if self.advance()? == FileEvent::Eof {
                return Err(FileError::Truncated);
            }
        }
        Ok(())
    }

    /// The whole of the element that started last.
    ///
    /// - errors: as of the file; the file can be read on if it is the inner result that says why this is no sound element
    pub fn whole(&mut self, start: Element) -> Result<Result<Element, String>, FileError> {
        let mut open = vec![start];
        let mut bytes = 0;
        loop {
            match self.event()? {
                Part::Start(element) => open.push(element),
                Part::Text(text) => {
                    bytes += text.len();
                    if let Some(element) = open.last_mut() {
                        element.push_text(&text);
                    }
                }
                Part::End => {
                    let Some(element) = open.pop() else { return Err(FileError::Truncated) };
                    bytes += element.name.len() + element.namespace.len() + 64;
                    bytes += element.attributes.iter().map(|(_, value)| value.len()).sum::<usize>();
                    match open.last_mut() {
                        Some(parent) => parent.children.push(Node::Element(element)),
                        None => return Ok(sound(element)),
                    }
                }
                Part::Eof => return Err(FileError::Truncated),
            }
            if bytes > PART_BYTES_MAX {
                return Err(FileError::Large);
            }
        }
    }

    fn event(&mut self) -> Result<Part, FileError> {
        loop {
            self.buffer.clear();
            self.reader.get_mut().left = PART_BYTES_MAX;
            let event = self.reader.read_event_into(&mut self.buffer).map_err(file_error)?;
            return Ok(match event {
                Event::Start(tag) => {
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return Err(FileError::Deep);
                    }
                    let element = tree::element(self.reader.resolver(), &tag);
                    Part::Start(element.ok_or_else(|| not_well_formed("a faulty tag"))?)
                }
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    Part::End
                }
                Event::Text(text) => Part::Text(text.xml10_content().into_owned()),
                Event::CData(text) => Part::Text(text.xml10_content().into_owned()),
                Event::GeneralRef(reference) => {
                    let c = reference.resolve_char_ref().map_err(not_well_formed)?;
                    match (c, resolve_xml_entity(&reference)) {
                        (Some(c), _) => Part::Text(c.to_string()),
                        (None, Some(text)) => Part::Text(text.to_owned()),
                        (None, None) => return Err(not_well_formed("an unknown entity")),
                    }
                }
                Event::Decl(declaration) => match declaration.encoding() {
                    Some(Ok(name)) if !name.eq_ignore_ascii_case("utf-8") => {
                        return Err(FileError::Encoding(name.into_owned()));
                    }
                    Some(Err(error)) => return Err(not_well_formed(error)),
                    _ => continue,
                },
                Event::DocType(_) => return Err(FileError::DocumentType),
                Event::Comment(_) | Event::PI(_) | Event::Empty(_) => continue,
                Event::Eof => Part::Eof,
            });
        }
    }
}

enum Part {
    Start(Element),
    End,
    Text(String),
    Eof,
}

/// The element as it is, if it passes the strict walk.
fn sound(element: Element) -> Result<Element, String> {
    let mut bytes = Vec::new();
    element.write(&mut bytes, ns::CLIENT);
    match Element::parse(&bytes, &StreamContext::client(), &XmlLimits::PASSED) {
        Ok(parsed) => Ok(parsed),
        Err(_) => {
            Err(format!("<{}/> has names or characters that XML does not allow", element.name))
        }
    }
}

fn not_well_formed(cause: impl ToString) -> FileError {
    FileError::NotWellFormed(cause.to_string())
}

fn file_error(error: quick_xml::Error) -> FileError {
    match error {
        quick_xml::Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            FileError::Large
        }
        quick_xml::Error::Io(error) => FileError::Read(io::Error::new(error.kind(), error)),
        error => not_well_formed(error),
    }
}

/// Counts lines, and ends what grows beyond bounds.
struct Bounded<R> {
    input: R,
    lines: u64,
    /// Bytes that the present event may yet have.
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let available = self.input.fill_buf()?;
        Ok(&available[..available.len().min(self.left)])
    }

    fn consume(&mut self, taken: usize) {
        // What was filled is still there: `consume` follows `fill_buf` without a read between them.
        if let Ok(filled) = self.input.fill_buf() {
            let lines = memchr::memchr_iter(b'\n', &filled[..taken.min(filled.len())]).count();
            self.lines += lines as u64;
        }
        self.left = self.left.saturating_sub(taken);
        self.input.consume(taken);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn file(text: &str) -> XmlFile<&[u8]> {
        XmlFile::new(text.as_bytes())
    }

    fn name(event: FileEvent) -> String {
        match event {
            FileEvent::Start(element) => element.name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn elements_come_one_by_one_and_trees_when_they_are_asked_for() {
        let mut file = file(
            "<?xml version='1.0' encoding='UTF-8'?>\n<!-- x --><a xmlns='u:a' xmlns:p='u:p'>\n<p:b c='1'/>text\n\
             <d><e>1 &lt; &#50;<![CDATA[<]]></e></d><f><g/></f></a>\n",
        );
        assert_eq!(name(file.advance().unwrap()), "a");
        let FileEvent::Start(b) = file.advance().unwrap() else { panic!("b starts") };
        assert_eq!((b.namespace.as_str(), b.attr("c"), file.line()), ("u:p", Some("1"), 3));
        assert_eq!(file.advance().unwrap(), FileEvent::End);
        let FileEvent::Start(d) = file.advance().unwrap() else { panic!("d starts") };
        let d = file.whole(d).unwrap().unwrap();
        assert_eq!(d.child("u:a", "e").unwrap().text(), "1 < 2<");
        assert_eq!(name(file.advance().unwrap()), "f");
        file.skip().unwrap();
        assert_eq!(file.advance().unwrap(), FileEvent::End);
        assert_eq!(file.advance().unwrap(), FileEvent::Eof);
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let end = |text: &str| {
            let mut file = file(text);
            loop {
                match file.advance() {
                    Ok(FileEvent::Eof) => panic!("{text:?} was read"),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        };
        assert!(matches!(end("<a><b></a>"), FileError::NotWellFormed(_)));
        assert!(matches!(end("<a>&x;</a>"), FileError::NotWellFormed(_)));
        assert!(matches!(end("<a><b/>"), FileError::Truncated));
        assert!(matches!(end("<a b='"), FileError::NotWellFormed(_)));
        assert!(matches!(end("<!DOCTYPE a [<!ENTITY x 'y'>]><a/>"), FileError::DocumentType));
        let latin = "<?xml version='1.0' encoding='ISO-8859-1'?><a/>";
        assert!(matches!(end(latin), FileError::Encoding(_)));
        assert!(matches!(end(&"<a>".repeat(DEPTH_MAX + 1)), FileError::Deep));
        let large = format!("<a>{}</a>", "x".repeat(PART_BYTES_MAX + 1));
        assert!(matches!(end(&large), FileError::Large));
    }

    #[test]
    fn a_tree_that_no_client_could_read_is_refused_and_the_file_goes_on() {
        let mut file = file("<a><b><c;d/></b><e>\u{1}</e></a>");
        file.advance().unwrap();
        let FileEvent::Start(b) = file.advance().unwrap() else { panic!("b starts") };
        assert!(file.whole(b).unwrap().is_err());
        let FileEvent::Start(e) = file.advance().unwrap() else { panic!("e starts") };
        assert_eq!(file.whole(e).unwrap().unwrap().text(), "\u{fffd}");
        assert_eq!(file.advance().unwrap(), FileEvent::End);
    }

    #[test]
    fn a_tree_of_many_small_parts_is_bounded_too() {
        let text = format!("<a>{}</a>", "<b/>".repeat(PART_BYTES_MAX / 64));
        let mut file = file(&text);
        let FileEvent::Start(start) = file.advance().unwrap() else { panic!("a starts") };
        assert!(matches!(file.whole(start), Err(FileError::Large)));
    }
}
