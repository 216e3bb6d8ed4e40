//! The data files of Prosody: literals of Lua tables, as its `util.serialization` writes them. Nothing is evaluated; what is
//! no literal is refused.

use std::io::{self, BufRead};

/// Tables inside one another.
const DEPTH_MAX: u32 = 128;

/// Bytes of one file of a table, or of one item of a list.
const VALUE_BYTES_MAX: usize = 16 << 20;

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    /// Any bytes.
    Text(Vec<u8>),
    Table(Table),
}

/// A table: what stands without a key, in its order, and the rest with their keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) list: Vec<Value>,
    pub(super) map: Vec<(Value, Value)>,
}

/// Why a file cannot be read any further, with the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) cause: String,
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn table(&self) -> Option<&Table> {
        match self {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Neither nil nor false.
    pub(super) fn is_true(&self) -> bool {
        !matches!(self, Value::Nil | Value::Bool(false))
    }
}

impl Table {
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.map.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.text()
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.field(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.field(name)?.table()
    }

    /// Fields whose keys are texts.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().filter_map(|(key, value)| Some((key.text()?, value)))
    }

    /// What stands under the key `false`, where rosters keep what is no contact.
    pub(super) fn under_false(&self) -> Option<&Table> {
        self.map.iter().find(|(key, _)| *key == Value::Bool(false))?.1.table()
    }
}

/// A file under way.
pub(super) struct Lua<R> {
    input: R,
    line: u64,
    /// Bytes that the present value may yet have.
    left: usize,
}

impl<R: BufRead> Lua<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 1, left: VALUE_BYTES_MAX }
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The value of a whole file: `return VALUE;`.
    pub(super) fn file(&mut self) -> Result<Value, Fault> {
        self.word(b"return")?;
        let value = self.value(0)?;
        self.blank()?;
        if self.peek()? == Some(b';') {
            self.take()?;
        }
        self.blank()?;
        match self.peek()? {
            None => Ok(value),
            Some(_) => Err(self.fault("something behind its value")),
        }
    }

    /// The next `item(VALUE);` of a list.
    pub(super) fn item(&mut self) -> Result<Option<Value>, Fault> {
        self.left = VALUE_BYTES_MAX;
        self.blank()?;
        if self.peek()?.is_none() {
            return Ok(None);
        }
        self.word(b"item")?;
        self.expect(b'(')?;
        let value = self.value(0)?;
        self.expect(b')')?;
        self.blank()?;
        if self.peek()? == Some(b';') {
            self.take()?;
        }
        Ok(Some(value))
    }

    fn fault(&self, cause: impl ToString) -> Fault {
        Fault { line: self.line, cause: cause.to_string() }
    }

    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let line = self.line;
                    return Err(Fault { line, cause: format!("cannot be read: {error}") });
                }
            }
        }
    }

    fn take(&mut self) -> Result<u8, Fault> {
        let Some(byte) = self.peek()? else {
            return Err(self.fault("ends within a value"));
        };
        if self.left == 0 {
            return Err(self.fault("has a value of more than 16 MiB"));
        }
        self.left -= 1;
        self.input.consume(1);
        if byte == b'\n' {
            self.line += 1;
        }
        Ok(byte)
    }

    /// Passes over blanks and comments to the end of their lines.
    fn blank(&mut self) -> Result<(), Fault> {
        while let Some(byte) = self.peek()? {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => drop(self.take()?),
                b'-' => {
                    // No value begins with two of them, and a number with one begins elsewhere.
                    self.take()?;
                    if self.peek()? != Some(b'-') {
                        return Err(self.fault("a lone '-'"));
                    }
                    while !matches!(self.peek()?, None | Some(b'\n')) {
                        self.take()?;
                    }
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Fault> {
        self.blank()?;
        match self.take()? {
            byte if byte == wanted => Ok(()),
            byte => Err(self.fault(format!(
                "{:?} where {:?} should be",
                char::from(byte),
                char::from(wanted)
            ))),
        }
    }

    fn word(&mut self, wanted: &[u8]) -> Result<(), Fault> {
        self.blank()?;
        let word = self.identifier()?;
        match word.as_bytes() == wanted {
            true => Ok(()),
            false => Err(self.fault(format!(
                "{word:?} where {:?} should be; is it a data file of Prosody?",
                String::from_utf8_lossy(wanted)
            ))),
        }
    }

    fn identifier(&mut self) -> Result<String, Fault> {
        let mut word = String::new();
        while let Some(byte) = self.peek()? {
            if !(byte.is_ascii_alphanumeric() || byte == b'_') || word.len() > 64 {
                break;
            }
            word.push(char::from(self.take()?));
        }
        Ok(word)
    }

    fn value(&mut self, depth: u32) -> Result<Value, Fault> {
        // A negative number: before blanks, where it would begin a comment.
        while matches!(self.peek()?, Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.take()?;
        }
        match self.peek()? {
            Some(b'{') if depth >= DEPTH_MAX => Err(self.fault("tables more than 128 deep")),
            Some(b'{') => Ok(Value::Table(self.table(depth + 1)?)),
            Some(quote @ (b'"' | b'\'')) => Ok(Value::Text(self.quoted(quote)?)),
            Some(b'-' | b'.' | b'0'..=b'9') => self.number(),
            Some(_) => {
                let word = self.identifier()?;
                match word.as_str() {
                    "nil" => Ok(Value::Nil),
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    _ => Err(self.fault(format!("{word:?}, which is no plain value"))),
                }
            }
            None => Err(self.fault("ends within a value")),
        }
    }

    fn table(&mut self, depth: u32) -> Result<Table, Fault> {
        self.take()?;
        let mut table = Table::default();
        loop {
            self.blank()?;
            match self.peek()? {
                Some(b'}') => {
                    self.take()?;
                    return Ok(table);
                }
                Some(b'[') => {
                    self.take()?;
                    let key = self.value(depth)?;
                    self.expect(b']')?;
                    self.expect(b'=')?;
                    let value = self.value(depth)?;
                    table.map.push((key, value));
                }
                Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                    let word = self.identifier()?;
                    self.blank()?;
                    match (word.as_str(), self.peek()?) {
                        (_, Some(b'=')) => {
                            self.take()?;
                            let value = self.value(depth)?;
                            table.map.push((Value::Text(word.into_bytes()), value));
                        }
                        ("nil", _) => table.list.push(Value::Nil),
                        ("true", _) => table.list.push(Value::Bool(true)),
                        ("false", _) => table.list.push(Value::Bool(false)),
                        _ => return Err(self.fault(format!("{word:?}, which is no plain value"))),
                    }
                }
                _ => {
                    let value = self.value(depth)?;
                    table.list.push(value);
                }
            }
            self.blank()?;
            match self.peek()? {
                Some(b';' | b',') => drop(self.take()?),
                Some(b'}') => {}
                Some(byte) => {
                    return Err(self.fault(format!("{:?} in a table", char::from(byte))));
                }
                None => return Err(self.fault("ends within a table")),
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, Fault> {
        self.take()?;
        let mut text = Vec::new();
        loop {
            match self.take()? {
                byte if byte == quote => return Ok(text),
                b'\\' => self.escape(&mut text)?,
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Fault> {
        let byte = match self.take()? {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'z' => {
                while matches!(self.peek()?, Some(b' ' | b'\t' | b'\r' | b'\n')) {
                    self.take()?;
                }
                return Ok(());
            }
            b'x' => {
                let digits = [self.take()?, self.take()?];
                let digits = std::str::from_utf8(&digits).ok();
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                byte.ok_or_else(|| self.fault("a faulty escape in a text"))?
            }
            digit @ b'0'..=b'9' => {
                let mut number = u32::from(digit - b'0');
                for _ in 0..2 {
                    match self.peek()? {
                        Some(digit @ b'0'..=b'9') => {
                            self.take()?;
                            number = number * 10 + u32::from(digit - b'0');
                        }
                        _ => break,
                    }
                }
                u8::try_from(number).map_err(|_| self.fault("a faulty escape in a text"))?
            }
            byte @ (b'\\' | b'"' | b'\'' | b'\n') => byte,
            _ => return Err(self.fault("a faulty escape in a text")),
        };
        text.push(byte);
        Ok(())
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let mut text = String::new();
        while let Some(byte) = self.peek()? {
            let is_part = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            if !is_part || text.len() > 64 {
                break;
            }
            text.push(char::from(self.take()?));
        }
        // Rust's `inf` and `NaN` begin with letters, and never come here.
        match text.parse() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => Err(self.fault(format!("{text:?}, which is no number"))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, Fault> {
        Lua::new(format!("return {text};\n").as_bytes()).file()
    }

    #[test]
    fn literals_are_read() {
        let table = value(
            "{\n\t[\"a\"] = \"\\226\\156\\147\\n\\\"\\\\\\x41\\z  \n b\";\n\t[false] = { [\"v\"] = -1.5e2; };\n\t[7] = nil;\n\
             \t-- a comment\n\t\"x\", { true; false };\n\tname = 'y';\n}",
        )
        .unwrap();
        let table = table.table().unwrap();
        assert_eq!(table.text("a"), Some("\u{2713}\n\"\\Ab"));
        assert_eq!(table.under_false().unwrap().number("v"), Some(-150.0));
        assert_eq!(table.text("name"), Some("y"));
        assert_eq!(table.list[0].text(), Some("x"));
        let inner = table.list[1].table().unwrap();
        assert_eq!(inner.list, [Value::Bool(true), Value::Bool(false)]);
        assert_eq!(value("{}").unwrap(), Value::Table(Table::default()));
        assert_eq!(value("\"\\255\"").unwrap(), Value::Text(vec![255]));
    }

    #[test]
    fn items_of_a_list_come_one_by_one() {
        let mut lua = Lua::new(&b"item({ 1; });\n\nitem({ 2; })\nitem("[..]);
        assert!(lua.item().unwrap().is_some());
        assert!(lua.item().unwrap().is_some());
        assert_eq!(lua.item(), Err(Fault { line: 4, cause: "ends within a value".to_owned() }));
        assert_eq!(Lua::new(&b" \n"[..]).item(), Ok(None));
    }

    #[test]
    fn what_is_no_literal_is_refused_with_its_line() {
        for (text, cause) in [
            ("os.exit(1)", "\"os\", which is no plain value"),
            ("{\n\n f(); }", "\"f\", which is no plain value"),
            ("{ [\"a\"] = 1 2 }", "'2' in a table"),
            ("\"\\q\"", "a faulty escape"),
            ("\"\\256\"", "a faulty escape"),
            ("1x", "\"1x\", which is no number"),
            ("{ ", "';'"),
            ("\"a", "ends within a value"),
            ("1; 2", "something behind its value"),
        ] {
            let fault = value(text).unwrap_err();
            assert!(fault.cause.contains(cause) || text == "{ ", "{text}: {fault:?}");
        }
        assert_eq!(value("{\n\n f(); }").unwrap_err().line, 3);
        assert!(Lua::new(&b"item({})"[..]).file().is_err(), "a list is no table");
        let deep = format!("{}{}", "{".repeat(200), "}".repeat(200));
        assert!(value(&deep).unwrap_err().cause.contains("128 deep"));
        let large = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
        assert!(value(&large).unwrap_err().cause.contains("16 MiB"));
    }
}
