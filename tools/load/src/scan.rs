//! Cuts a server's stream into stanzas and reads what a load generator needs of them.
//!
//! Not a validating parser: it trusts the server to be well-formed and to refuse what XMPP forbids, and fails on what
//! it cannot follow. Prefixes are dropped, namespaces are not resolved.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Bytes of one stanza above which the server is taken for broken.
const UNIT_BYTES_MAX: usize = 4 << 20;

/// Why the stream cannot be followed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// A comment, DTD or processing instruction (RFC 6120 §11.1).
    Restricted,
    /// Text between stanzas, or a closing tag without an opening one.
    Misplaced,
    /// A stanza above 4 MiB.
    TooLong,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restricted => "restricted XML from the server",
            Self::Misplaced => "text or a closing tag where none can be",
            Self::TooLong => "a stanza of more than 4 MiB",
        })
    }
}

/// What the scanner cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The opening tag of the stream.
    Open(Range<usize>),
    /// A whole first-level element.
    Element(Range<usize>),
    /// The closing tag of the stream.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After `<`.
    Markup,
    OpenTag {
        quote: u8,
        slash: bool,
    },
    CloseTag,
    Declaration {
        question: bool,
    },
    /// After `<!`, with so many bytes of `[CDATA[` seen.
    Bang(u8),
    /// Inside CDATA, with so many `]` in a row just seen.
    Cdata(u8),
}

/// Finds the ends of stanzas in bytes that arrive in any cuts. One per connection.
///
/// The caller keeps the bytes from [`Scanner::kept_from`] on, puts new ones behind them, and calls
/// [`Scanner::forget`] when it drops what came before.
#[derive(Clone, Debug)]
pub struct Scanner {
    at: usize,
    start: usize,
    depth: u32,
    mixed: bool,
    state: State,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: 0, start: 0, depth: 0, mixed: false, state: State::Text }
    }
}

impl Scanner {
    /// A scanner over the content of an element: cuts its children, skips its text.
    fn inside() -> Self {
        Self { depth: 1, mixed: true, ..Self::default() }
    }

    /// Expects a new stream header after what was cut last (RFC 6120 §4.3.3).
    pub fn restart(&mut self) {
        *self = Self { at: self.at, start: self.at, ..Self::default() };
    }

    /// First byte that is still needed.
    pub fn kept_from(&self) -> usize {
        self.start
    }

    /// The caller has dropped the bytes before `kept_from`.
    pub fn forget(&mut self) {
        self.at -= self.start;
        self.start = 0;
    }

    /// Cuts the next unit out of `data`; `None` if it takes more bytes.
    pub fn next(&mut self, data: &[u8]) -> Result<Option<Unit>, ScanError> {
        while let Some(&byte) = data.get(self.at) {
            match self.state {
                State::Text if byte == b'<' => {
                    if self.depth <= 1 {
                        self.start = self.at;
                    }
                    self.state = State::Markup;
                }
                State::Text if self.depth > 1 => {
                    let rest = &data[self.at..];
                    self.at += rest.iter().position(|b| *b == b'<').unwrap_or(rest.len());
                    continue;
                }
                State::Text => {
                    if !self.mixed && !byte.is_ascii_whitespace() {
                        return Err(ScanError::Misplaced);
                    }
                    self.start = self.at + 1;
                }
                State::Markup => {
                    self.state = match byte {
                        b'/' => State::CloseTag,
                        b'?' if self.depth == 0 => State::Declaration { question: false },
                        b'!' if self.depth > 1 || self.mixed => State::Bang(0),
                        b'?' | b'!' => return Err(ScanError::Restricted),
                        _ => State::OpenTag { quote: 0, slash: false },
                    }
                }
                State::OpenTag { quote: 0, slash } => match byte {
                    b'"' | b'\'' => self.state = State::OpenTag { quote: byte, slash: false },
                    b'>' if slash => match self.depth {
                        0 => return Err(ScanError::Misplaced),
                        1 => return Ok(Some(Unit::Element(self.cut()))),
                        _ => self.state = State::Text,
                    },
                    b'>' => {
                        self.depth += 1;
                        if self.depth == 1 {
                            return Ok(Some(Unit::Open(self.cut())));
                        }
                        self.state = State::Text;
                    }
                    _ => self.state = State::OpenTag { quote: 0, slash: byte == b'/' },
                },
                State::OpenTag { quote, .. } => {
                    let rest = &data[self.at..];
                    let Some(end) = rest.iter().position(|b| *b == quote) else {
                        self.at = data.len();
                        break;
                    };
                    self.at += end;
                    self.state = State::OpenTag { quote: 0, slash: false };
                }
                State::CloseTag => {
                    if byte == b'>' {
                        match self.depth {
                            0 => return Err(ScanError::Misplaced),
                            1 => {
                                self.depth = 0;
                                self.cut();
                                return Ok(Some(Unit::Close));
                            }
                            2 => {
                                self.depth = 1;
                                return Ok(Some(Unit::Element(self.cut())));
                            }
                            _ => {
                                self.depth -= 1;
                                self.state = State::Text;
                            }
                        }
                    }
                }
                State::Declaration { question } => {
                    if question && byte == b'>' {
                        self.start = self.at + 1;
                        self.state = State::Text;
                    } else {
                        self.state = State::Declaration { question: byte == b'?' };
                    }
                }
                State::Bang(seen) => {
                    if b"[CDATA[".get(usize::from(seen)) != Some(&byte) {
                        return Err(ScanError::Restricted);
                    }
                    self.state = if seen == 6 { State::Cdata(0) } else { State::Bang(seen + 1) };
                }
                State::Cdata(brackets) => {
                    self.state = match byte {
                        b']' => State::Cdata((brackets + 1).min(2)),
                        b'>' if brackets == 2 => State::Text,
                        _ => State::Cdata(0),
                    }
                }
            }
            self.at += 1;
        }
        if data.len() - self.start > UNIT_BYTES_MAX { Err(ScanError::TooLong) } else { Ok(None) }
    }

    fn cut(&mut self) -> Range<usize> {
        self.state = State::Text;
        self.at += 1;
        let unit = self.start..self.at;
        self.start = self.at;
        unit
    }
}

/// One element, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    name: &'a [u8],
    attributes: &'a [u8],
    content: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the opening tag of one whole element as [`Scanner::next`] cuts it; `None` if it is not one.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let tag = bytes.strip_prefix(b"<")?;
        let mut quote = 0;
        let end = tag.iter().position(|&byte| {
            match byte {
                _ if quote == byte => quote = 0,
                b'"' | b'\'' if quote == 0 => quote = byte,
                b'>' => return quote == 0,
                _ => {}
            }
            false
        })?;
        let (tag, rest) = (&tag[..end], &tag[end + 1..]);
        let (tag, content) = match tag.strip_suffix(b"/") {
            Some(tag) => (tag, &rest[..0]),
            None => (tag, &rest[..rest.iter().rposition(|byte| *byte == b'<').unwrap_or(0)]),
        };
        let split = tag.iter().position(u8::is_ascii_whitespace).unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(split);
        let name = match name.iter().position(|byte| *byte == b':') {
            Some(colon) => &name[colon + 1..],
            None => name,
        };
        Some(Self { name, attributes, content })
    }

    /// Local name.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Value of an attribute as it stands in the stream, entities not replaced.
    pub fn attribute(&self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.attributes.trim_ascii_start();
        while !rest.is_empty() {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let key = rest[..equals].trim_ascii_end();
            let value = rest[equals + 1..].trim_ascii_start();
            let (quote, value) = value.split_first()?;
            let end = value.iter().position(|byte| byte == quote)?;
            if key == name.as_bytes() {
                return Some(&value[..end]);
            }
            rest = value[end + 1..].trim_ascii_start();
        }
        None
    }

    /// Value of an attribute with its entities replaced.
    pub fn text_of(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attribute(name).map(unescape)
    }

    /// The elements directly inside; ends early where the content cannot be followed.
    pub fn children(&self) -> impl Iterator<Item = Element<'a>> + use<'a> {
        let (mut scanner, content) = (Scanner::inside(), self.content);
        std::iter::from_fn(move || match scanner.next(content) {
            Ok(Some(Unit::Element(range))) => Element::parse(&content[range]),
            _ => None,
        })
    }

    /// The first child of that local name.
    pub fn child(&self, name: &str) -> Option<Element<'a>> {
        self.children().find(|child| child.name == name.as_bytes())
    }

    /// What stands between the tags, as it stands.
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// What stands between the tags, entities replaced. For elements that hold text only.
    pub fn text(&self) -> Cow<'a, str> {
        unescape(self.content)
    }

    /// Text of the `<body/>` of a message.
    pub fn body(&self) -> Option<Cow<'a, str>> {
        self.child("body").map(|body| body.text())
    }
}

/// Replaces the five entities and character references; others stay as they are.
pub fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    if !text.contains('&') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(';').unwrap_or(0);
        let found = match rest.get(1..end).unwrap_or_default() {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            name => name
                .strip_prefix("#x")
                .map(|hex| u32::from_str_radix(hex, 16))
                .or_else(|| name.strip_prefix('#').map(str::parse))
                .and_then(Result::ok)
                .and_then(char::from_u32),
        };
        match found {
            Some(character) => {
                plain.push(character);
                rest = &rest[end + 1..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Appends `text` so that it can stand in content and in quoted attributes.
pub fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&apos;"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns:stream='s' id='a>b'>\n \
        <stream:features><a x=\"/>\"/><b/></stream:features> <r xmlns='urn:xmpp:sm:3'/>\
        <message id='1' from = 'a@b/c'><body>1 &lt; <![CDATA[</message>]]>é</body></message></stream:stream>";

    fn units(cut: usize) -> Vec<String> {
        let (mut scanner, mut kept, mut found) = (Scanner::default(), Vec::new(), Vec::new());
        for chunk in STREAM.as_bytes().chunks(cut) {
            kept.extend_from_slice(chunk);
            while let Some(unit) = scanner.next(&kept).unwrap() {
                found.push(match unit {
                    Unit::Open(range) | Unit::Element(range) => {
                        String::from_utf8(kept[range].to_vec()).unwrap()
                    }
                    Unit::Close => "end".to_owned(),
                });
            }
            kept.drain(..scanner.kept_from());
            scanner.forget();
        }
        assert!(kept.is_empty());
        found
    }

    #[test]
    fn units_do_not_depend_on_where_the_stream_is_cut() {
        let whole = units(STREAM.len());
        assert_eq!(whole.len(), 5);
        assert!(whole[0].starts_with("<stream:stream") && whole[0].ends_with("'a>b'>"));
        assert_eq!(whole[2], "<r xmlns='urn:xmpp:sm:3'/>");
        assert!(whole[3].ends_with("é</body></message>"));
        assert_eq!(whole[4], "end");
        for cut in 1..STREAM.len() {
            assert_eq!(units(cut), whole, "cut every {cut} bytes");
        }
    }

    #[test]
    fn element_gives_name_attributes_children_and_text() {
        let element = Element::parse(
            b"<x:message id='1' from = \"a'b\" to='&lt;&#65;&#x42;'>text<a/><body>1 &amp; 2</body></x:message>",
        )
        .unwrap();
        assert_eq!(element.name(), b"message");
        assert_eq!(element.attribute("id"), Some(&b"1"[..]));
        assert_eq!(element.attribute("from"), Some(&b"a'b"[..]));
        assert_eq!(element.text_of("to").unwrap(), "<AB");
        assert_eq!(element.attribute("type"), None);
        assert_eq!(element.body().unwrap(), "1 & 2");
        assert_eq!(element.children().count(), 2);
        assert!(element.child("none").is_none());
    }

    #[test]
    fn comments_and_stray_text_end_the_scan() {
        let scan = |text: &str| {
            let mut scanner = Scanner::default();
            loop {
                match scanner.next(text.as_bytes()) {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        };
        assert_eq!(scan("<s><!-- -->"), Err(ScanError::Restricted));
        assert_eq!(scan("<s><a><!-- --></a>"), Err(ScanError::Restricted));
        assert_eq!(scan("<s>text"), Err(ScanError::Misplaced));
        assert_eq!(scan("</s>"), Err(ScanError::Misplaced));
        assert_eq!(scan("<s><a>text"), Ok(None));
    }

    #[test]
    fn escaped_text_reads_back() {
        let mut out = Vec::new();
        escape("<a & 'b' \"c\">", &mut out);
        assert_eq!(unescape(&out), "<a & 'b' \"c\">");
        assert_eq!(unescape(b"&unknown; & x"), "&unknown; & x");
    }
}
