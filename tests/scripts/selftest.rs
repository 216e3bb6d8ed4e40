//! Conversations that must fail, and how: a test that passes whatever the server does proves nothing.

use std::sync::Arc;

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
    (
        "a_component_is_no_client",
        "component bot\nbot one logs in\nbot one binds",
        "components bind nothing",
    ),
    (
        "a_failed_login_that_nobody_looks_at",
        "alice phone connects over TLS\nalice phone authenticates inline by HT-SHA-256-EXPR with nothing\n  <user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>",
        "more has come than was expected",
    ),
    (
        "a_mechanism_that_is_not_there",
        "alice phone connects\nalice phone authenticates by SCRAM-SHA-256-PLUS",
        "-PLUS mechanisms",
    ),
    ("a_way_to_connect_that_is_none", "alice phone connects by pigeon", "no way to connect"),
    ("time_that_passes", "alice phone online\n5 minutes pass\nalice phone receives nothing", ""),
];

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |&(name, steps, fault): &(&str, &'static str, &'static str)| {
        Trial::test(format!("format::{name}"), move || check(steps, fault))
    };
    CASES.iter().map(trial).collect()
}

/// One for each specification that a feature names, by its `source`; by its name for a feature that has none. What servers
/// speak with one another no client hears: `tests/federation` has that.
pub(crate) fn every_feature_has_a_conversation(scripts: &[Arc<Script>]) -> Trial {
    let mut lacking = Vec::new();
    for manifest in corefire::features::manifests() {
        if manifest.name == "federation" {
            continue;
        }
        let has = |is_it: &dyn Fn(&Script) -> bool| scripts.iter().any(|script| is_it(script));
        for spec in manifest.specs {
            // `XEP-0030` of `XEP-0030`, `RFC 6121 §4` of `RFC 6121 §4, §5, §8`.
            let document = spec.name.split(',').next().unwrap_or_default();
            if !has(&|script| script.source.contains(document)) {
                lacking.push(format!("{}: {document}", manifest.name));
            }
        }
        if manifest.specs.is_empty() && !has(&|script| script.name.contains(manifest.name)) {
            lacking.push(manifest.name.to_owned());
        }
    }
    Trial::test("format::every_feature_has_a_conversation", move || match lacking[..] {
        [] => Ok(()),
        _ => Err(format!("no conversation has as its source: {}", lacking.join("; ")).into()),
    })
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
