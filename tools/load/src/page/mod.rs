//! HTML pages that stand alone: one file with its style and drawings, without script and outside assets.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind};

use crate::chart::units;

const STYLE: &str = include_str!("style.css");
const MACROS: &str = include_str!("macros.html");

/// A template does not fit what it is given: a fault of the tool.
#[derive(Debug)]
pub struct Error(minijinja::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write the page: {:#}", self.0)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Fills `template` with `context`; all text in it is escaped.
///
/// Filters write figures for people: `us`, `n`, `bytes`, `clock`, `digits`, `percent`. `style` is the style sheet.
pub(crate) fn render(template: &str, context: Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(Error)?);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_filter("us", |value: Value| number(&value).map(units::microseconds));
    environment.add_filter("n", |value: Value| number(&value).map(units::count));
    environment.add_filter("bytes", |value: Value| number(&value).map(units::bytes));
    environment.add_filter("clock", |value: Value| number(&value).map(units::clock));
    environment.add_filter("digits", |value: Value| number(&value).map(units::digits));
    environment.add_filter("percent", |value: Value| number(&value).map(percent));
    environment.add_global("style", Value::from_safe_string(STYLE.to_owned()));
    environment
        .add_template("macros.html", MACROS)
        .and_then(|()| environment.render_str(template, context))
        .map_err(Error)
}

fn number(value: &Value) -> Result<f64, minijinja::Error> {
    f64::try_from(value.clone())
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, "not a number"))
}

/// A share of 1 in percent.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent.abs() < 0.01 => "< 0.01 %".to_owned(),
        percent => format!("{} %", units::digits(percent)),
    }
}
