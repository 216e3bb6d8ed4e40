//! Stanzas that are nearly right: trees with all that namespaces, prefixes, references, sections and white space can
//! do, then now and then mutated as text.

use corefire::base::rng::Rng;

/// Stream headers: of clients and of components, in the usual form and with prefixes of their own.
const HEADERS: &[&str] = &[
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>",
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='u:h' xmlns:p='u:hp'>",
    "<stream:stream xmlns='u:d' xmlns:c='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    "<stream:stream xmlns='jabber:component:accept' xmlns:h='u:h' xmlns:c='jabber:component:accept' \
     xmlns:stream='http://etherx.jabber.org/streams'>",
    "<stream:stream xmlns:c='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>",
];

const NAMES: &[&str] = &["a", "body", "message", "x.y-z_0", "é", "iq", "stream", "_", "ab·"];
const PREFIXES: &[&str] = &["p", "q", "h", "c", "stream", "ns0", "é", "n0"];
const NAMESPACES: &[&str] = &[
    "u:1",
    "u:2",
    "jabber:client",
    "jabber:component:accept",
    "jabber:server",
    "u:h",
    "u&amp;1",
    "u&#58;1",
    "u:\u{1f600}",
    " u:1 ",
    "urn:xmpp:forward:0",
    "http://etherx.jabber.org/streams",
    "u:'",
    "u:&lt;",
];
const TEXTS: &[&str] = &[
    "text",
    "&amp;&#65;",
    "<![CDATA[<x>&]]]]>",
    "\r\n",
    "\r",
    "]]",
    " > ",
    "é\u{1f600}",
    "&#xD;",
    "&#10;\n",
    "\t",
    "<![CDATA[]]>",
    "<![CDATA[]]]]><![CDATA[>]]>",
    "&apos;&quot;&lt;&gt;",
    "\u{85}\u{2028}\u{7f}",
    "\u{fffd}\u{feff}",
    "&#x10FFFF;",
    "<![CDATA[\r\n\r]]>",
    "'\"",
    "&#38;amp;",
    "\u{10000}",
    " ",
];
const VALUES: &[&str] = &[
    "1",
    "",
    "&lt;",
    "a\tb\r\nc&#10;",
    "'",
    "\"",
    ">",
    "&#x9;&#xA;&#xD;",
    "é\u{1f600}",
    "&amp;amp;",
    "]]>",
    " x ",
    "\u{2028}",
    "\r",
    "&apos;&quot;",
];
/// What a mutation puts somewhere.
const TOKENS: &[&str] = &[
    "<",
    ">",
    "/",
    "</",
    "/>",
    "'",
    "\"",
    "=",
    "&",
    ";",
    " ",
    "\n",
    "<!--",
    "-->",
    "<?x?>",
    "<!DOCTYPE a>",
    "]]>",
    "<![CDATA[",
    "&nope;",
    "&#0;",
    "&#xFFFE;",
    "\u{0}",
    "\u{fffe}",
    " xmlns=''",
    " xmlns='u:1'",
    " xmlns='jabber:client'",
    " xmlns:p='u:1'",
    " xmlns:p=''",
    " xmlns:stream='u:1'",
    " xmlns:xml='http://www.w3.org/XML/1998/namespace'",
    " xmlns:xmlns='u:1'",
    " p:a='1'",
    " q:a='1'",
    " a='1'",
    " from='x'",
    " to='y'",
    " xml:lang='de'",
    "<stream:x/>",
    "<x xmlns='http://etherx.jabber.org/streams'/>",
    "</stream:stream>",
    ":",
    "<p:a/>",
    "xmlns",
    "&#",
    "x",
];

pub(super) struct Generator {
    rng: Rng,
    out: String,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator { rng: Rng::from_u64(seed), out: String::new() }
    }

    /// A stream header and an element.
    pub(super) fn case(&mut self) -> (String, String) {
        let header = self.pick(HEADERS);
        self.out.clear();
        self.root(header);
        let mut text = std::mem::take(&mut self.out);
        if self.one_in(3) {
            for _ in 0..=self.below(3) {
                text = self.mutated(&text);
            }
        }
        (header.to_owned(), text)
    }

    fn root(&mut self, header: &str) {
        let kind = ["message", "presence", "iq", "message", "other"][self.below(5)];
        let content =
            if header.contains("component") { "jabber:component:accept" } else { "jabber:client" };
        let is_default = header.starts_with(&format!("<stream:stream xmlns='{content}'"));
        let mut scope: Vec<&'static str> = Vec::new();
        if header.contains("xmlns:h=") {
            scope.push("h");
        }
        if header.contains("xmlns:p=") {
            scope.push("p");
        }
        if header.contains("xmlns:c=") {
            scope.push("c");
        }
        match self.below(4) {
            0 => {
                let extra = format!(" xmlns:r='{content}'");
                self.element(&format!("r:{kind}"), &extra, &mut scope, 0);
            }
            1 if scope.contains(&"c") => self.element(&format!("c:{kind}"), "", &mut scope, 0),
            2 => self.element(kind, &format!(" xmlns='{content}'"), &mut scope, 0),
            _ if is_default => self.element(kind, "", &mut scope, 0),
            _ => self.element(kind, &format!(" xmlns=\"{content}\""), &mut scope, 0),
        }
    }

    /// An element of that name, with attributes `extra` beside those it makes up; `scope` are the prefixes in force.
    fn element(&mut self, name: &str, extra: &str, scope: &mut Vec<&'static str>, depth: usize) {
        let known = scope.len();
        self.out.push('<');
        self.out.push_str(name);
        self.out.push_str(extra);
        let mut used: Vec<String> = Vec::new();
        if depth == 0 {
            for (name, value) in
                [("from", "alice@here"), ("to", "bob@here"), ("id", "i'1"), ("type", "chat")]
            {
                if !self.one_in(3) {
                    self.attr(name, value);
                    used.push(name.to_owned());
                }
            }
        }
        for _ in 0..self.below(3) {
            match self.below(6) {
                0 if !extra.contains("xmlns=")
                    && depth > 0
                    && !used.iter().any(|name| name == "xmlns") =>
                {
                    let namespace = if self.one_in(4) { "" } else { self.namespace() };
                    self.attr("xmlns", namespace);
                    used.push("xmlns".to_owned());
                }
                1 | 2 => {
                    let prefix = self.pick(PREFIXES);
                    let name = format!("xmlns:{prefix}");
                    if !used.contains(&name) {
                        let namespace = if prefix == "stream" {
                            "http://etherx.jabber.org/streams"
                        } else {
                            self.namespace()
                        };
                        self.attr(&name, namespace);
                        used.push(name);
                        scope.push(prefix);
                    }
                }
                3 if !scope.is_empty() => {
                    let at = self.below(scope.len());
                    let name = format!("{}:{}", scope[at], self.pick(NAMES));
                    if !used.contains(&name) {
                        let value = self.pick(VALUES);
                        self.attr(&name, value);
                        used.push(name);
                    }
                }
                4 => {
                    if !used.iter().any(|name| name == "xml:lang") {
                        self.attr("xml:lang", "de");
                        used.push("xml:lang".to_owned());
                    }
                }
                _ => {
                    let name = self.pick(NAMES).to_owned();
                    if !used.contains(&name) {
                        let value = self.pick(VALUES);
                        self.attr(&name, value);
                        used.push(name);
                    }
                }
            }
        }
        if self.one_in(8) {
            let space = self.pick(&[" ", "\n", "\t ", "\r\n"]);
            self.out.push_str(space);
        }
        let children = if depth < 5 { self.below(4) } else { 0 };
        if children == 0 && !self.one_in(4) {
            self.out.push_str("/>");
        } else {
            self.out.push('>');
            for _ in 0..children {
                if self.one_in(2) {
                    let text = self.pick(TEXTS);
                    self.out.push_str(text);
                } else {
                    let local = self.pick(NAMES);
                    let name = match scope.is_empty() || self.one_in(2) {
                        true => local.to_owned(),
                        false => format!("{}:{local}", scope[self.below(scope.len())]),
                    };
                    self.element(&name, "", scope, depth + 1);
                }
            }
            self.out.push_str("</");
            self.out.push_str(name);
            let space = if self.one_in(8) { " \n" } else { "" };
            self.out.push_str(space);
            self.out.push('>');
        }
        scope.truncate(known);
    }

    fn namespace(&mut self) -> &'static str {
        self.pick(NAMESPACES)
    }

    fn attr(&mut self, name: &str, value: &str) {
        let space = self.pick(&[" ", " ", " ", "\n", "\t", "  "]);
        let equals = self.pick(&["=", "=", "=", " = ", "\n="]);
        let quote = match (value.contains('\''), value.contains('"')) {
            (true, _) => '"',
            (_, true) => '\'',
            _ if self.one_in(2) => '"',
            _ => '\'',
        };
        self.out.push_str(space);
        self.out.push_str(name);
        self.out.push_str(equals);
        self.out.push(quote);
        self.out.push_str(value);
        self.out.push(quote);
    }

    fn mutated(&mut self, text: &str) -> String {
        let at = self.boundary(text);
        let end = {
            let far = self.boundary(&text[at..]) + at;
            if self.one_in(2) { far.min(floor(text, at + 12)) } else { far }
        };
        let (before, piece, after) = (&text[..at], &text[at..end], &text[end..]);
        match self.below(6) {
            0 => format!("{before}{}{piece}{after}", self.pick(TOKENS)),
            1 => format!("{before}{}{after}", self.pick(TOKENS)),
            2 => format!("{before}{after}"),
            3 => format!("{before}{piece}{piece}{after}"),
            4 => {
                let place = self.boundary(after);
                format!("{before}{}{piece}{}", &after[..place], &after[place..])
            }
            _ => {
                // Another character in the place of one.
                let mut rest = text[at..].chars();
                let new = rest.next().map_or('x', |old| {
                    char::from_u32(u32::from(old) ^ (1 << self.below(7))).unwrap_or('\u{fffd}')
                });
                format!("{before}{new}{}", rest.as_str())
            }
        }
    }

    /// The start of some character.
    fn boundary(&mut self, text: &str) -> usize {
        let at = self.below(text.len() + 1);
        floor(text, at)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }
}

/// The last start of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
