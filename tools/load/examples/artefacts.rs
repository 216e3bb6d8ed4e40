//! Writes the artefacts of runs that never were into folders below the one it is given: for tests of other languages,
//! and to see what a report looks like.

use std::path::PathBuf;

use corefire_load::artefacts;
use corefire_load::compare::{Options, Run, compare};

#[path = "../tests/support/sample.rs"]
mod sample;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: artefacts FOLDER")?);
    let runs = [
        ("mixed-day", sample::mixed_day()),
        ("chat", sample::chat(&[])),
        ("stopped", sample::chat(&[sample::STOP])),
        ("closed", sample::closed_chat(&[sample::STOP])),
        ("slower", sample::slower_chat(1.3)),
        ("invalid", sample::invalid()),
    ];
    for (name, run) in runs {
        artefacts::write(&run, &folder.join(name))?;
    }
    let read = |name: &str| Run::read(&folder.join(name));
    let (chat, slower) = (read("chat")?, read("slower")?);
    let page = compare(&chat, &slower, &Options::default())?.page(&chat, &slower)?;
    std::fs::write(folder.join("compared.html"), page)?;
    Ok(())
}
