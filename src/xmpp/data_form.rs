//! XEP-0004: data forms, as far as a server asks and answers with them: it offers a form, reads what is submitted, and
//! shows results. Reported tables and media are not needed here.

use super::ns;
use super::xml::element::Element;
use super::xml::writer::Writer;

/// A field that is offered or shown.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub var: &'a str,
    /// `text-single`, `jid-multi`, … (§3.3).
    pub kind: &'static str,
    pub label: &'a str,
    pub required: bool,
    /// What stands in it already.
    pub values: &'a [String],
    /// Of a list: label and value.
    pub options: &'a [(&'a str, &'a str)],
}

impl<'a> Field<'a> {
    pub const fn new(var: &'a str, kind: &'static str, label: &'a str) -> Self {
        Self { var, kind, label, required: false, values: &[], options: &[] }
    }

    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.start("field").attr("var", self.var).attr("type", self.kind);
        if !self.label.is_empty() {
            writer.attr("label", self.label);
        }
        writer.open();
        if self.required {
            writer.start("required").close_empty();
        }
        for value in self.values {
            writer.start("value").open().text(value).end("value");
        }
        for (label, value) in self.options {
            writer.start("option").attr("label", label).open();
            writer.start("value").open().text(value).end("value").end("option");
        }
        writer.end("field");
    }
}

/// Appends `<x/>` of a type with its hidden `FORM_TYPE` (XEP-0068).
///
/// - takes: `inner`, what else stands in it, as XML
pub fn write(
    out: &mut Vec<u8>,
    kind: &str,
    (title, instructions): (&str, &str),
    form_type: &str,
    fields: &[Field<'_>],
    inner: &[u8],
) {
    let mut writer = Writer::new(out);
    writer.start("x").attr("xmlns", ns::DATA_FORMS).attr("type", kind).open();
    for (name, text) in [("title", title), ("instructions", instructions)] {
        if !text.is_empty() {
            writer.start(name).open().text(text).end(name);
        }
    }
    let form_type = [form_type.to_owned()];
    Field { values: &form_type, ..Field::new("FORM_TYPE", "hidden", "") }.write(&mut writer);
    for field in fields {
        field.write(&mut writer);
    }
    writer.raw(inner).end("x");
}

/// What a client has filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitted {
    /// In the order of their fields.
    fields: Vec<(String, Vec<String>)>,
}

impl Submitted {
    /// - takes: `<x type='submit'/>`
    /// - gives: `None` for anything else, and where `FORM_TYPE` is there and not `form_type` (XEP-0068 §3)
    pub fn read(form: &Element, form_type: &str) -> Option<Self> {
        if !form.is(ns::DATA_FORMS, "x") || form.attr("type") != Some("submit") {
            return None;
        }
        let mut fields = Vec::new();
        for field in form.children().filter(|child| child.is(ns::DATA_FORMS, "field")) {
            let values = field.children().filter(|child| child.is(ns::DATA_FORMS, "value"));
            let values: Vec<String> = values.map(Element::text).collect();
            match field.attr("var") {
                Some("FORM_TYPE") if values.first().is_some_and(|value| value != form_type) => {
                    return None;
                }
                Some("FORM_TYPE") | None => {}
                Some(var) => fields.push((var.to_owned(), values)),
            }
        }
        Some(Self { fields })
    }

    /// Each field with its values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.fields.iter().map(|(var, values)| (var.as_str(), values.as_slice()))
    }

    /// The values of a field; none where it is not there.
    pub fn values(&self, var: &str) -> &[String] {
        let field = self.fields.iter().find(|(name, _)| name == var);
        field.map_or(&[], |(_, values)| values)
    }

    /// The value of a field that has one.
    pub fn value(&self, var: &str) -> Option<&str> {
        self.values(var).first().map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(var: &str, values: &[&str]) -> Element {
        let value = |text: &&str| Element::new("value", ns::DATA_FORMS).with_text(text);
        values
            .iter()
            .map(value)
            .fold(Element::new("field", ns::DATA_FORMS).with_attr("var", var), Element::with_child)
    }

    #[test]
    fn what_is_submitted_is_read_and_anything_else_is_not() {
        let form = Element::new("x", ns::DATA_FORMS)
            .with_attr("type", "submit")
            .with_child(field("FORM_TYPE", &["a"]))
            .with_child(field("who", &["one", "two"]))
            .with_child(field("empty", &[""]));
        let read = Submitted::read(&form, "a").expect("a form");
        assert_eq!(read.values("who"), ["one", "two"]);
        assert_eq!(read.value("who"), Some("one"));
        assert_eq!((read.value("empty"), read.value("missing")), (None, None));
        assert_eq!(Submitted::read(&form, "b"), None);
        assert_eq!(Submitted::read(&form.clone().with_attr("type", "cancel"), "a"), None);
    }

    #[test]
    fn a_form_is_written_with_its_type() {
        let mut out = Vec::new();
        let field = Field {
            options: &[("Soon", "30")],
            ..Field::new("delay", "list-single", "Delay").required()
        };
        write(&mut out, "form", ("T", ""), "urn:t", &[field], b"");
        assert_eq!(
            str::from_utf8(&out),
            Ok("<x xmlns='jabber:x:data' type='form'><title>T</title>\
                <field var='FORM_TYPE' type='hidden'><value>urn:t</value></field>\
                <field var='delay' type='list-single' label='Delay'><required/>\
                <option label='Soon'><value>30</value></option></field></x>")
        );
    }
}
