//! Questions between nodes: what an operator asks of all of them at any one. Only the thread that asks waits, and that for a
//! time; who has not answered by then is told of as silent. What is asked and answered is the caller's.
//!
//! | bound | what happens there |
//! |---|---|
//! | 16 questions of others that wait here | the next ones are not heard |
//! | 4 MiB for a question or an answer | it is not sent |

use super::links::Links;
use crate::cluster::view::Run;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const QUESTIONS_MAX: usize = 16;

/// What another node asks. To be answered by `Calls::answer`.
#[derive(Debug)]
pub struct Question {
    pub text: Vec<u8>,
    from: Run,
    number: u64,
}

/// The end that hears what links tell. Never waits.
pub struct Ear {
    open: Arc<Mutex<Open>>,
    questions: SyncSender<Question>,
}

#[derive(Default)]
struct Open {
    /// Of the next question.
    number: u64,
    asked: BTreeMap<u64, Asked>,
}

/// A question that waits for its answer.
struct Asked {
    of: Run,
    /// Its place among those that were asked with it.
    place: usize,
    answer: Sender<(usize, Vec<u8>)>,
}

/// The end that asks. Cloned freely.
#[derive(Clone)]
pub struct Calls {
    links: Links,
    open: Arc<Mutex<Open>>,
}

impl Ear {
    /// - gives: what is asked here, for a thread that may wait
    pub fn new() -> (Ear, Receiver<Question>) {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        (Ear { open: Arc::default(), questions }, asked)
    }

    pub fn asked(&self, from: Run, number: u64, text: Vec<u8>) {
        // Who asks more than can be answered hears nothing.
        let _ = self.questions.try_send(Question { text, from, number });
    }

    /// What nobody asked, or another one, is passed over.
    pub fn answered(&self, from: Run, number: u64, text: Vec<u8>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.asked.get(&number).is_some_and(|asked| asked.of == from)
            && let Some(Asked { place, answer, .. }) = open.asked.remove(&number)
        {
            // Whoever asked may have stopped waiting.
            let _ = answer.send((place, text));
        }
    }

    /// Nothing comes from this run any more.
    pub fn lost(&self, run: Run) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.asked.retain(|_, asked| asked.of != run);
    }

    pub fn calls(&self, links: Links) -> Calls {
        Calls { links, open: self.open.clone() }
    }
}

impl Calls {
    /// Asks all of them the same, and waits for their answers, for `patience` at most.
    ///
    /// - gives: for each its answer, in order; `None` where there was none in time
    pub fn ask(&self, of: &[Run], text: &[u8], patience: Duration) -> Vec<Option<Vec<u8>>> {
        let (answer, answers) = channel();
        let numbers: Vec<u64> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let open = &mut *open;
            let first = open.number;
            // To whom there is no link, nothing is said.
            let up = |run: &Run| self.links.is_up(*run);
            for (place, of) in of.iter().enumerate().filter(|(_, of)| up(of)) {
                let asked = Asked { of: *of, place, answer: answer.clone() };
                open.asked.insert(open.number, asked);
                self.links.ask(*of, open.number, text.to_vec());
                open.number += 1;
            }
            (first..open.number).collect()
        };
        drop(answer);
        let mut heard = vec![None; of.len()];
        let until = Instant::now() + patience;
        // Ends early with the last of them: then nobody can send any more.
        while let Ok((place, text)) =
            answers.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if let Some(slot) = heard.get_mut(place) {
                *slot = Some(text);
            }
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.asked.retain(|number, _| !numbers.contains(number));
        heard
    }

    pub fn answer(&self, question: &Question, text: Vec<u8>) {
        self.links.answer(question.from, question.number, text);
    }
}
