//! Conversations that must fail, and how: a test that passes whatever the server does proves nothing.

use libtest_mimic::{Failed, Trial};

use crate::script::Script;

/// Steps, and a part of what is said of them; nothing where they are right.
const CASES: &[(&str, &str, &str)] = &[
    ("a_right_one_passes", "alice phone online\nalice phone receives nothing", ""),
    (
        "what_does_not_come",
        "alice phone online\nalice phone receives\n  <message/>",
        "nothing comes",
    ),
    (
        "what_is_not_read",
        "alice phone online\nalice phone sends\n  <iq type='get' id='1' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>",
        "more has come than was expected",
    ),
    (
        "something_instead_of_nothing",
        "alice phone online\nbob pc online\nbob pc sends\n  <message to='{alice}'><body>x</body></message>\nalice phone receives nothing",
        "alice phone has unread: <message",
    ),
    (
        "another_text",
        "alice phone online\nalice phone sends\n  <message to='{alice}'><body>x</body></message>\nalice phone receives\n  <message from='{alice/phone}'><body>y</body></message>",
        "<message/>: <body/>: 'x', not 'y'",
    ),
    (
        "another_sender",
        "alice phone online\nbob pc online\nbob pc sends\n  <message to='{alice}'><body>x</body></message>\nalice phone receives\n  <message><body>x</body></message>",
        "<message/>: an attribute from=",
    ),
    (
        "an_element_too_many",
        "alice phone online\nalice phone sends\n  <message to='{alice}'><body>x</body><a xmlns='b'/></message>\nalice phone receives\n  <message from='{any}'><body>x</body></message>",
        "<message/>: has a <a/>",
    ),
    (
        "an_element_too_few",
        "alice phone online\nalice phone sends\n  <message to='{alice}'><body>x</body></message>\nalice phone receives\n  <message from='{any}'><body>x</body><a xmlns='b'/></message>",
        "<message/>: has no <a/>",
    ),
    (
        "another_order",
        "alice phone online\nalice phone sends\n  <message to='{alice}'><body>1</body></message>\n  <message to='{alice}'><body>2</body></message>\nalice phone receives\n  <message from='{any}'><body>2</body></message>\n  <message from='{any}'><body>1</body></message>",
        "'1', not '2'",
    ),
    (
        "any_order_where_it_does_not_matter",
        "alice phone online\nalice phone sends\n  <message to='{alice}'><body>1</body></message>\n  <message to='{alice}'><body>2</body></message>\nalice phone receives in any order\n  <message from='{alice/phone}'><body>2</body></message>\n  <message from='{any}'><body>1</body></message>",
        "",
    ),
    (
        "a_captured_value_that_differs",
        "alice phone online\nalice phone sends\n  <message id='1' to='{alice}'><body>x</body></message>\n  <message id='2' to='{alice}'/>\nalice phone receives\n  <message id='{=one}' from='{any}'><body>x</body></message>\n  <message id='{one}' from='{any}'/>",
        "<message/>: id: '2', not '1'",
    ),
    (
        "an_unknown_name",
        "alice phone online\nalice phone sends\n  <message to='{carol}'/>",
        "{carol}",
    ),
    ("an_unknown_step", "alice phone dances", "no such step: dances"),
    ("a_block_that_is_no_xml", "alice phone sends\n  <a><b></a></b>", "not-well-formed"),
    ("a_block_too_many", "alice phone online\n  <a/>", "has no block"),
    ("a_setting_behind_steps", "alice phone online\nneeds a:b", "settings come before steps"),
    (
        "a_stream_that_stays_open",
        "alice phone online\nalice phone is closed",
        "the server leaves the connection open",
    ),
    ("time_that_passes", "alice phone online\n5 minutes pass\nalice phone receives nothing", ""),
];

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |&(name, steps, fault): &(&str, &'static str, &'static str)| {
        Trial::test(format!("format::{name}"), move || check(steps, fault))
    };
    CASES.iter().map(trial).collect()
}

fn check(steps: &str, fault: &str) -> Result<(), Failed> {
    let text = format!("# A conversation.\nsource RFC 6121 §1\n\n{steps}\n");
    let outcome = Script::parse("it", &text).and_then(|script| {
        crate::simulated(&script, 1, 1).map_err(|it| it.message().unwrap_or_default().to_owned())
    });
    match outcome {
        Ok(()) if fault.is_empty() => Ok(()),
        Err(told) if !fault.is_empty() && told.contains(fault) => Ok(()),
        Ok(()) => Err(format!("it passes, instead of: {fault}").into()),
        Err(told) => Err(format!("{told}\n\nnot: {fault}").into()),
    }
}
