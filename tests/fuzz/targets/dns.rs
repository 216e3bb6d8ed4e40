//! What DNS servers say, from bytes to a plan: the first byte chooses how look-ups are done, the rest is cut into messages by
//! a length each, which are given as the answers to what is asked, one after the other.
//!
//! Promised: nothing panics; a look-up ends, with a bounded number of questions; a plan has targets with addresses, none of
//! them more than the bounds, at places that a server can have; an address of this machine only where that is permitted.

use corefire::base::rng::Rng;
use corefire::federation::discovery::{
    ADDRESSES_MAX, Answer, Failure, Options, Routes, Search, Step, TARGETS_MAX, TLSA_MAX,
};
use corefire::runtime::federation::dns;

const DOMAINS: [&str; 4] = ["a.example", "m\u{fc}nchen.example", "localhost", "[::1]"];

pub(crate) fn dns(data: &[u8]) {
    let (how, mut rest) = data.split_first().map_or((0, data), |(how, rest)| (*how, rest));
    let options = Options { local_addresses: how & 1 != 0, dane: how & 2 != 0 };
    let domain = DOMAINS[usize::from(how >> 2) % DOMAINS.len()];
    let mut rng = Rng::from_u64(how.into());
    let (mut search, mut step) = Search::begin(domain, &Routes::default(), options);
    let mut asked = 0;
    let outcome = loop {
        let questions = match step {
            Step::Done(outcome) => break outcome,
            Step::Ask(questions) => questions,
        };
        asked += questions.len();
        assert!(asked <= 2 + 3 * TARGETS_MAX, "it ends");
        let answers: Vec<_> = questions
            .into_iter()
            .map(|question| {
                let message = message(&mut rest);
                let answer = dns::read(&question, message);
                (question, answer.unwrap_or(Answer::Failed(Failure::Aliases)))
            })
            .collect();
        step = search.answered(&answers, &mut rng);
    };
    let facts = match outcome {
        Ok(facts) => facts,
        Err(problem) => {
            assert!(problem.to_string().len() < 4_000, "words for people");
            return;
        }
    };
    let plan = facts.plan(&mut rng);
    assert!((1..=TARGETS_MAX).contains(&plan.targets.len()));
    for target in &plan.targets {
        assert!((1..=ADDRESSES_MAX).contains(&target.addresses.len()));
        assert!(target.port != 0 && !target.host.is_empty() && target.host.len() <= 253);
        assert!(target.tlsa.len() <= TLSA_MAX && (options.dane || target.tlsa.is_empty()));
        for address in &target.addresses {
            assert!(!address.is_unspecified() && !address.is_multicast());
            assert!(options.local_addresses || !address.to_canonical().is_loopback());
        }
    }
}

/// Two bytes of length, and the message.
fn message<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, behind)) = rest.split_first_chunk::<2>() else { return &[] };
    let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
    let (message, behind) = behind.split_at(length);
    *rest = behind;
    message
}
