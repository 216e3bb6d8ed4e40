//! Writes XML that every parser reads alike: five escapes, character references where white space would be lost.
//!
//! Characters that XML does not allow (they can only come from our own strings, never from a read stanza) are written
//! as U+FFFD, so that what leaves is well-formed whatever a configuration or database held.

pub use super::chars::is_xml_char;

/// Appends elements to a buffer. Lives for one stanza on the stack; allocates nothing but what the buffer grows by.
///
/// `start` leaves the tag open for `attr`; `open`, `text`, `raw` or the next `start` close it with `>`, while `end`
/// and `close_empty` right behind `start` or `attr` make it an empty element.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    in_tag: bool,
    depth: u32,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out, in_tag: false, depth: 0 }
    }

    /// Begins `<name`; a qualified name of ours, written as it is.
    pub fn start(&mut self, name: &str) -> &mut Self {
        self.open();
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        self.in_tag = true;
        self.depth += 1;
        self
    }

    /// Adds an attribute to the tag that `start` began, its value escaped.
    pub fn attr(&mut self, name: &str, value: &str) -> &mut Self {
        debug_assert!(self.in_tag, "attribute {name} outside of a tag");
        write_attr(self.out, name, value);
        self
    }

    /// As [`Writer::attr`], nothing where there is no value.
    pub fn attr_opt(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Ends the open tag with `>`, if there is one.
    pub fn open(&mut self) -> &mut Self {
        if self.in_tag {
            self.out.push(b'>');
            self.in_tag = false;
        }
        self
    }

    /// Ends the open tag with `/>`.
    pub fn close_empty(&mut self) -> &mut Self {
        debug_assert!(self.in_tag && self.depth > 0, "no tag to close");
        self.out.extend_from_slice(b"/>");
        self.in_tag = false;
        self.depth = self.depth.saturating_sub(1);
        self
    }

    /// Character data, escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.open();
        escape_text(self.out, text);
        self
    }

    /// Bytes that are XML already, balanced in themselves.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.open();
        self.out.extend_from_slice(bytes);
        self
    }

    /// Ends the innermost element, which has that name.
    pub fn end(&mut self, name: &str) -> &mut Self {
        if self.in_tag {
            return self.close_empty();
        }
        debug_assert!(self.depth > 0, "no element {name} to end");
        self.depth = self.depth.saturating_sub(1);
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
        self
    }

    /// Bytes in the buffer so far, those before this writer included.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
}

/// Appends ` name='value'`, the value escaped.
pub fn write_attr(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attr(out, value);
    out.push(b'\'');
}

/// Appends character data. `\r` becomes a reference, as parsers turn a bare one into `\n`.
pub fn escape_text(out: &mut Vec<u8>, text: &str) {
    escape(out, text.as_bytes(), &TEXT);
}

/// Appends an attribute value for either kind of quote. Tab and line ends become references, as parsers turn them
/// into blanks.
pub fn escape_attr(out: &mut Vec<u8>, value: &str) {
    escape(out, value.as_bytes(), &ATTR);
}

/// Which bytes cannot be copied as they are. 0xEF may begin U+FFFE or U+FFFF and is looked at.
static TEXT: [bool; 256] = special(false);
static ATTR: [bool; 256] = special(true);

const fn special(is_attr: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'&' | b'<' | b'>' | 0xef | b'\r' => true,
            b'\t' | b'\n' | b'\'' | b'"' => is_attr,
            0..=0x1f => true,
            _ => false,
        };
        byte += 1;
    }
    table
}

fn escape(out: &mut Vec<u8>, bytes: &[u8], special: &[bool; 256]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| special[usize::from(b)]) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (put, used): (&[u8], usize) = match tail {
            [b'&', ..] => (b"&amp;", 1),
            [b'<', ..] => (b"&lt;", 1),
            [b'>', ..] => (b"&gt;", 1),
            [b'\'', ..] => (b"&apos;", 1),
            [b'"', ..] => (b"&quot;", 1),
            [b'\t', ..] => (b"&#9;", 1),
            [b'\n', ..] => (b"&#10;", 1),
            [b'\r', ..] => (b"&#13;", 1),
            [0xef, 0xbf, 0xbe | 0xbf, ..] => (REPLACEMENT, 3),
            [0xef, ..] => (&[0xef], 1),
            _ => (REPLACEMENT, 1),
        };
        out.extend_from_slice(put);
        rest = tail.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elements_are_empty_or_closed_as_their_content_asks() {
        let xml = written(|w| {
            w.start("a").attr("b", "1").attr_opt("c", None).attr_opt("d", Some("2"));
            w.start("e").end("e").start("f").open().end("f").start("g").close_empty();
            w.text("t").raw(b"<h/>").end("a");
        });
        assert_eq!(xml, "<a b='1' d='2'><e/><f></f><g/>t<h/></a>");
    }

    #[test]
    fn what_a_parser_would_change_or_refuse_is_escaped() {
        let xml = written(|w| {
            w.start("a").attr("b", "'\"<>&\t\n\r").text("'\"<>&\t\n\r]]>").end("a");
        });
        assert_eq!(
            xml,
            "<a b='&apos;&quot;&lt;&gt;&amp;&#9;&#10;&#13;'>'\"&lt;&gt;&amp;\t\n&#13;]]&gt;</a>"
        );
    }

    #[test]
    fn characters_outside_xml_leave_as_replacement_characters() {
        let xml = written(|w| {
            w.start("a").text("\u{0}\u{1f}\u{fffe}\u{ffff}\u{fffd}\u{fb00}é").end("a");
        });
        assert_eq!(xml, "<a>\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fb00}é</a>");
    }
}
