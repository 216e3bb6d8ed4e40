//! Finds where stanzas end in a stream that arrives in any pieces (RFC 6120 §4.2, §11.1).
//!
//! It counts tags and knows quotes and CDATA, no more: whether what it cut out is XML is for `scan` to say, which sees
//! each stanza whole. It holds no bytes, only how far it looked. The same bytes give the same steps and the same
//! error for any cut, as each decision is taken at one byte and nothing beyond a limit is looked at.

use std::ops::Range;

use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::chars::is_space;

/// Bounds of what a peer may send. One per listener, shared by its streams.
#[derive(Clone, Debug)]
pub struct XmlLimits {
    /// Bytes of one first-level element. Default 262 144.
    pub stanza_bytes_max: u32,
    /// Elements inside one another, the stanza itself being the first. Default 64.
    pub depth_max: u16,
    /// Attributes of one element, namespace declarations included. Default 64.
    pub attributes_max: u16,
    /// Bytes of a qualified name. Default 256.
    pub name_bytes_max: u16,
    /// Bytes of the XML declaration and the stream header together. Default 4 096.
    pub header_bytes_max: u32,
}

impl XmlLimits {
    /// For bytes that passed the limits of their stream already, and may have been added to since.
    pub const PASSED: XmlLimits = XmlLimits {
        stanza_bytes_max: u32::MAX,
        depth_max: u16::MAX,
        attributes_max: u16::MAX,
        name_bytes_max: u16::MAX,
        header_bytes_max: u32::MAX,
    };
}

impl Default for XmlLimits {
    fn default() -> XmlLimits {
        XmlLimits {
            stanza_bytes_max: 262_144,
            depth_max: 64,
            attributes_max: 64,
            name_bytes_max: 256,
            header_bytes_max: 4096,
        }
    }
}

/// What the next bytes of a stream are. Ranges and offsets count from the start of the buffer given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stream header at that range; the XML declaration and white space before it are skipped.
    Open(Range<usize>),
    /// One first-level element.
    Stanza(Range<usize>),
    /// The stream's end tag, which ends at that offset.
    Close(usize),
    /// Nothing complete. That many bytes at the start (white space between stanzas) may be dropped.
    More(usize),
}

/// Where a stream stands between two cuts. One per connection.
#[derive(Clone, Debug)]
pub struct Framer {
    /// Bytes already looked at, counted from the `<` that began what is in progress; 0: nothing is.
    scanned: u32,
    /// Where the innermost markup began, counted likewise.
    markup: u32,
    /// Hash of the root element's qualified name, so that another end tag is not taken for the stream's.
    root: u32,
    depth: u16,
    phase: Phase,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    /// The XML declaration is read, the header is not.
    Declared,
    Stanzas,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Text,
    /// Behind a `<`.
    Markup,
    /// In a start tag, outside of quotes.
    Tag,
    Apostrophe,
    Quote,
    EndTag,
    /// In `<![CDATA[`.
    Bang,
    Cdata,
    /// In the XML declaration.
    Declaration,
}

const CDATA: &[u8; 9] = b"<![CDATA[";
const DECLARATION: &[u8; 5] = b"<?xml";

impl Default for Framer {
    fn default() -> Framer {
        Framer::new()
    }
}

impl Framer {
    /// Expects an XML declaration or a stream header.
    pub fn new() -> Framer {
        Framer {
            scanned: 0,
            markup: 0,
            root: 0,
            depth: 0,
            phase: Phase::Header,
            mode: Mode::Markup,
        }
    }

    /// A new stream on the same connection (after STARTTLS or SASL): expects a header again.
    pub fn restart(&mut self) {
        *self = Framer::new();
    }

    /// Between two stanzas: what tells the stream's end tag from others, for `between_stanzas` of another framer. `None`
    /// before the header, within a stanza, and after the end.
    pub fn root_between_stanzas(&self) -> Option<u32> {
        (self.phase == Phase::Stanzas && self.is_idle()).then_some(self.root)
    }

    /// Goes on between two stanzas of a stream that another framer began.
    pub fn between_stanzas(root: u32) -> Framer {
        Framer { root, phase: Phase::Stanzas, ..Framer::new() }
    }

    /// Whether nothing is half read: between stanzas, or before the first byte of a header.
    pub fn is_idle(&self) -> bool {
        self.scanned == 0
    }

    /// Looks for the next step.
    ///
    /// - takes: `buf`, which starts where the last step ended (what a step covered is dropped by the caller); more
    ///   bytes may be appended between calls, what was there stays
    /// - gives: ranges of `buf`
    /// - errors: `policy-violation` beyond a limit of bytes or depth; `restricted-xml` for comments, DTDs and
    ///   processing instructions, at their first bytes; `unsupported-encoding` for a declaration of another encoding;
    ///   `not-well-formed` for anything else, text between stanzas included; after an error the framer is not to be
    ///   asked again
    /// - cost: each byte is looked at once, however they arrive; no allocation
    /// - source: RFC 6120 §4.9.3, §11.1
    pub fn next(&mut self, buf: &[u8], limits: &XmlLimits) -> Result<Step, StreamError> {
        self.step(buf, limits).map_err(StreamError::new)
    }

    fn step(&mut self, buf: &[u8], limits: &XmlLimits) -> Result<Step, StreamCondition> {
        let skipped = buf.iter().position(|&b| !is_space(b)).unwrap_or(buf.len());
        let piece = buf.get(skipped..).unwrap_or_default();
        match piece.first() {
            None => return Ok(Step::More(skipped)),
            Some(b'<') if self.phase != Phase::Closed => {}
            Some(_) => return Err(StreamCondition::NotWellFormed),
        }
        let bytes_max = match self.phase {
            Phase::Stanzas if piece.get(1) != Some(&b'/') => limits.stanza_bytes_max,
            _ => limits.header_bytes_max,
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let window = piece.get(..bytes_max).unwrap_or(piece);
        if self.scanned == 0 {
            self.markup = 0;
            self.depth = 0;
            self.mode = Mode::Markup;
            self.scanned = 1;
        }
        match self.scan(window, limits.depth_max)? {
            Some(end) => {
                let markup = self.markup as usize;
                self.scanned = 0;
                Ok(match self.phase {
                    Phase::Header | Phase::Declared => {
                        self.phase = Phase::Stanzas;
                        Step::Open(skipped + markup..skipped + end)
                    }
                    Phase::Closed => Step::Close(skipped + end),
                    Phase::Stanzas => Step::Stanza(skipped..skipped + end),
                })
            }
            None if piece.len() > window.len() => Err(StreamCondition::PolicyViolation),
            None => Ok(Step::More(skipped)),
        }
    }

    /// Goes on from `scanned`; gives the end of what is in progress once it is there.
    fn scan(&mut self, window: &[u8], depth_max: u16) -> Result<Option<usize>, StreamCondition> {
        let mut at = self.scanned as usize;
        while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
            match self.mode {
                // White space may stand between declaration and header; any other text may not.
                Mode::Text if self.phase == Phase::Declared => {
                    at = self.before_header(window, at)?
                }
                Mode::Text => match memchr::memchr(b'<', rest) {
                    Some(found) => {
                        at += found;
                        self.markup = offset(at);
                        self.mode = Mode::Markup;
                        at += 1;
                    }
                    None => at = window.len(),
                },
                Mode::Markup => self.markup(rest, depth_max)?,
                Mode::Tag => {
                    match rest.iter().position(|b| matches!(b, b'>' | b'\'' | b'"' | b'<')) {
                        Some(found) => {
                            at += found;
                            match window.get(at) {
                                Some(b'\'') => self.mode = Mode::Apostrophe,
                                Some(b'"') => self.mode = Mode::Quote,
                                Some(b'>') => {
                                    if self.end_of_start_tag(window, at)? {
                                        return Ok(Some(at + 1));
                                    }
                                }
                                _ => return Err(StreamCondition::NotWellFormed),
                            }
                            at += 1;
                        }
                        None => at = window.len(),
                    }
                }
                Mode::Apostrophe | Mode::Quote => {
                    let quote = if self.mode == Mode::Quote { b'"' } else { b'\'' };
                    match memchr::memchr(quote, rest) {
                        Some(found) => {
                            at += found + 1;
                            self.mode = Mode::Tag;
                        }
                        None => at = window.len(),
                    }
                }
                Mode::EndTag => match memchr::memchr(b'>', rest) {
                    Some(found) => {
                        at += found + 1;
                        if self.depth == 0 {
                            self.end_of_stream(window.get(2..at - 1).unwrap_or_default())?;
                            return Ok(Some(at));
                        }
                        self.depth -= 1;
                        self.mode = Mode::Text;
                        if self.depth == 0 {
                            return Ok(Some(at));
                        }
                    }
                    None => at = window.len(),
                },
                Mode::Bang => match CDATA.get(at - self.markup as usize) {
                    None => self.mode = Mode::Cdata,
                    Some(expected) if rest.first() == Some(expected) => at += 1,
                    Some(_) => return Err(StreamCondition::RestrictedXml),
                },
                Mode::Cdata => match memchr::memchr(b'>', rest) {
                    Some(found) => {
                        at += found + 1;
                        let content =
                            window.get(self.markup as usize + CDATA.len()..at).unwrap_or_default();
                        if content.ends_with(b"]]>") {
                            self.mode = Mode::Text;
                        }
                    }
                    None => at = window.len(),
                },
                Mode::Declaration => match DECLARATION.get(at) {
                    Some(expected) if rest.first() == Some(expected) => at += 1,
                    Some(_) => return Err(StreamCondition::RestrictedXml),
                    None => match memchr::memchr(b'>', rest) {
                        Some(found) => {
                            at += found + 1;
                            check_declaration(window.get(..at).unwrap_or_default())?;
                            self.phase = Phase::Declared;
                            self.mode = Mode::Text;
                        }
                        None => at = window.len(),
                    },
                },
            }
        }
        self.scanned = offset(at);
        Ok(None)
    }

    /// Says by the byte behind `<` what begins there; does not take that byte, as the mode looks at it again.
    fn markup(&mut self, rest: &[u8], depth_max: u16) -> Result<(), StreamCondition> {
        self.mode = match (rest.first(), self.phase) {
            (Some(b'/'), Phase::Stanzas) => Mode::EndTag,
            (Some(b'/'), _) => return Err(StreamCondition::NotWellFormed),
            (Some(b'!'), Phase::Stanzas) if self.depth > 0 => Mode::Bang,
            (Some(b'?'), Phase::Header) => Mode::Declaration,
            (Some(b'!' | b'?'), _) => return Err(StreamCondition::RestrictedXml),
            _ if self.depth >= depth_max => return Err(StreamCondition::PolicyViolation),
            _ => Mode::Tag,
        };
        Ok(())
    }

    /// At the `>` of a start tag; whether the element or header in progress ends there.
    fn end_of_start_tag(&mut self, window: &[u8], at: usize) -> Result<bool, StreamCondition> {
        let is_empty = window.get(at - 1) == Some(&b'/');
        self.mode = Mode::Text;
        if self.phase != Phase::Stanzas {
            if is_empty {
                return Err(StreamCondition::BadFormat);
            }
            let tag = window.get(self.markup as usize + 1..at).unwrap_or_default();
            let end = tag.iter().position(|&b| is_space(b)).unwrap_or(tag.len());
            self.root = name_hash(tag.get(..end).unwrap_or_default());
            return Ok(true);
        }
        if !is_empty {
            self.depth += 1;
        }
        Ok(self.depth == 0)
    }

    /// `name` is what stands between `</` and `>` at the top level.
    fn end_of_stream(&mut self, name: &[u8]) -> Result<(), StreamCondition> {
        if name_hash(name.trim_ascii_end()) != self.root {
            return Err(StreamCondition::NotWellFormed);
        }
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Skips white space behind the declaration, up to the `<` of the header.
    fn before_header(&mut self, window: &[u8], at: usize) -> Result<usize, StreamCondition> {
        let rest = window.get(at..).unwrap_or_default();
        match rest.iter().position(|&b| !is_space(b)) {
            None => Ok(window.len()),
            Some(found) if rest.get(found) == Some(&b'<') => {
                self.markup = offset(at + found);
                self.mode = Mode::Markup;
                Ok(at + found + 1)
            }
            Some(_) => Err(StreamCondition::NotWellFormed),
        }
    }
}

/// Offsets stay below a limit that is a u32.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// FNV-1a: tells a wrong end tag apart; whoever forges one closes only their own stream.
fn name_hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// Checks a whole XML declaration (XML 1.0 §2.8): version 1.x, then UTF-8 if an encoding is named (RFC 6120 §11.6).
fn check_declaration(declaration: &[u8]) -> Result<(), StreamCondition> {
    let Some(mut rest) = declaration.strip_prefix(DECLARATION).and_then(|d| d.strip_suffix(b"?>"))
    else {
        return Err(StreamCondition::NotWellFormed);
    };
    match rest.first() {
        Some(&first) if is_space(first) => {}
        // `<?xml-stylesheet` and the like.
        Some(_) => return Err(StreamCondition::RestrictedXml),
        None => return Err(StreamCondition::NotWellFormed),
    }
    let version = pseudo_attribute(&mut rest, b"version").ok_or(StreamCondition::NotWellFormed)?;
    match version {
        [b'1', b'.', minor @ ..] if !minor.is_empty() && minor.iter().all(u8::is_ascii_digit) => {}
        _ => return Err(StreamCondition::NotWellFormed),
    }
    if let Some(encoding) = pseudo_attribute(&mut rest, b"encoding")
        && !encoding.eq_ignore_ascii_case(b"utf-8")
    {
        return Err(StreamCondition::UnsupportedEncoding);
    }
    if let Some(standalone) = pseudo_attribute(&mut rest, b"standalone")
        && !matches!(standalone, b"yes" | b"no")
    {
        return Err(StreamCondition::NotWellFormed);
    }
    if rest.iter().all(|&b| is_space(b)) { Ok(()) } else { Err(StreamCondition::NotWellFormed) }
}

/// Takes ` name = 'value'` off the start of `rest`; leaves it alone where something else is there.
fn pseudo_attribute<'a>(rest: &mut &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let trimmed = rest.trim_ascii_start();
    if trimmed.len() == rest.len() {
        return None;
    }
    let value =
        trimmed.strip_prefix(name)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let (&quote, value) = value.split_first()?;
    if !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let end = memchr::memchr(quote, value)?;
    *rest = value.get(end + 1..)?;
    value.get(..end)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream to='a>b' xmlns:stream='s'>";

    /// All steps as texts; the error at the end, if any.
    fn steps(stream: &str, limits: &XmlLimits) -> (Vec<String>, Option<StreamCondition>) {
        let mut framer = Framer::new();
        let mut at = 0;
        let mut found = Vec::new();
        loop {
            let buf = &stream.as_bytes()[at..];
            match framer.next(buf, limits) {
                Ok(Step::Open(range)) => {
                    found.push(format!(
                        "open {}",
                        std::str::from_utf8(&buf[range.clone()]).unwrap()
                    ));
                    at += range.end;
                }
                Ok(Step::Stanza(range)) => {
                    found.push(std::str::from_utf8(&buf[range.clone()]).unwrap().to_owned());
                    at += range.end;
                }
                Ok(Step::Close(end)) => {
                    found.push("close".to_owned());
                    at += end;
                }
                Ok(Step::More(_)) => return (found, None),
                Err(error) => return (found, Some(error.condition)),
            }
        }
    }

    fn error_of(stream: &str) -> Option<StreamCondition> {
        steps(stream, &XmlLimits::default()).1
    }

    #[test]
    fn stream_is_cut_into_header_stanzas_and_close() {
        let stream = format!(
            "{HEADER} \n<a/><b c='>' d=\"'/>\"><b/>x<![CDATA[</b>]]</b>]]]></b> <e >]]</e >\t</stream:stream>\n"
        );
        let (found, error) = steps(&stream, &XmlLimits::default());
        assert_eq!(
            found,
            [
                "open <stream:stream to='a>b' xmlns:stream='s'>",
                "<a/>",
                "<b c='>' d=\"'/>\"><b/>x<![CDATA[</b>]]</b>]]]></b>",
                "<e >]]</e >",
                "close",
            ]
        );
        assert_eq!(error, None);
    }

    #[test]
    fn white_space_between_stanzas_may_be_dropped_or_kept() {
        let limits = XmlLimits::default();
        let mut framer = Framer::new();
        assert_eq!(framer.next(b" \r\n", &limits), Ok(Step::More(3)));
        assert!(framer.is_idle());
        assert_eq!(framer.next(b" \r\n<s", &limits), Ok(Step::More(3)));
        assert!(!framer.is_idle());
        assert_eq!(framer.next(b"<s>", &limits), Ok(Step::Open(0..3)));
        assert_eq!(framer.next(b"  <a>", &limits), Ok(Step::More(2)));
        assert_eq!(framer.next(b"  <a></a>", &limits), Ok(Step::Stanza(2..9)));
        assert!(framer.is_idle());
    }

    #[test]
    fn restart_expects_a_header_again() {
        let limits = XmlLimits::default();
        let mut framer = Framer::new();
        framer.next(b"<s>", &limits).unwrap();
        framer.restart();
        assert_eq!(framer.next(b"\n<?xml version=\"1.0\"?>\n<s>", &limits), Ok(Step::Open(23..26)));
    }

    #[test]
    fn restricted_xml_is_refused_at_its_first_bytes() {
        for bad in ["<!", "<?", "<a><!-", "<a><!D", "<a><![CDATA ", "<a><![cdata[", "<a><?"] {
            assert_eq!(
                error_of(&format!("{HEADER}{bad}")),
                Some(StreamCondition::RestrictedXml),
                "{bad}"
            );
        }
        for bad in
            ["<!", "<?y", "<?xml version='1.0'?><?", "<?xml version='1.0'?><!", "<?xml-s a='b'?>"]
        {
            assert_eq!(error_of(bad), Some(StreamCondition::RestrictedXml), "{bad}");
        }
    }

    #[test]
    fn declaration_of_another_encoding_or_none_that_is_one_is_refused() {
        for good in [
            "<?xml version='1.0'?>",
            "<?xml version=\"1.0\" encoding=\"utf-8\" ?>",
            "<?xml version = '1.1' encoding='UTF-8' standalone='yes'?>\n",
        ] {
            assert_eq!(error_of(&format!("{good}<a>")), None, "{good}");
        }
        assert_eq!(
            error_of("<?xml version='1.0' encoding='ISO-8859-1'?>"),
            Some(StreamCondition::UnsupportedEncoding)
        );
        for bad in [
            "?>",
            " ?>",
            " version=1.0?>",
            " version='2.0'?>",
            " version='1.0' x='y'?>",
            ">",
            " version='1.0'>",
        ] {
            assert_eq!(
                error_of(&format!("<?xml{bad}")),
                Some(StreamCondition::NotWellFormed),
                "{bad}"
            );
        }
    }

    #[test]
    fn text_outside_of_stanzas_is_refused() {
        for bad in [
            "x",
            "&#32;",
            "\u{feff}",
            "<a/>x",
            "</b>",
            "</stream:stream x>",
            "</stream:stream>x",
            "<a<b/>",
        ] {
            assert_eq!(
                error_of(&format!("{HEADER}{bad}")),
                Some(StreamCondition::NotWellFormed),
                "{bad}"
            );
        }
        for bad in [
            "GET / HTTP/1.1",
            "\u{16}\u{3}\u{1}",
            "</a>",
            "\u{feff}<a>",
            "<?xml version='1.0'?>x<a>",
        ] {
            assert_eq!(error_of(bad), Some(StreamCondition::NotWellFormed), "{bad}");
        }
        assert_eq!(error_of("<stream:stream/>"), Some(StreamCondition::BadFormat));
    }

    #[test]
    fn limits_hold_before_anything_is_complete() {
        let limits = XmlLimits {
            stanza_bytes_max: 20,
            depth_max: 3,
            header_bytes_max: 70,
            ..XmlLimits::default()
        };
        let within = |text: &str| steps(&format!("{HEADER}{text}"), &limits);
        assert_eq!(within("<a>4567890123456</a>"), within("<a>4567890123456</a>  "));
        assert_eq!(within("<a>4567890123456</a>").0.len(), 2);
        assert_eq!(within("<a>45678901234567</a>").1, Some(StreamCondition::PolicyViolation));
        assert_eq!(within("<a>456789012345678901").1, Some(StreamCondition::PolicyViolation));
        assert_eq!(within("<a><b><c/></b></a>").0.len(), 2);
        assert_eq!(within("<a><b><c><d").1, Some(StreamCondition::PolicyViolation));
        assert_eq!(
            steps(&format!("<s a='{}", "x".repeat(70)), &limits).1,
            Some(StreamCondition::PolicyViolation)
        );
        let end = format!("{HEADER}</{}", "x".repeat(80));
        assert_eq!(steps(&end, &limits).1, Some(StreamCondition::PolicyViolation));
    }

    #[test]
    fn framer_is_small() {
        assert!(size_of::<Framer>() <= 48);
    }
}
