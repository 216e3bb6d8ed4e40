//! The ring between two cores: a batch written, sent, walked and given back, on one core and across two threads.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corefire::base::instant::Wall;
use corefire::frame::{Batch, Encoder, Envelope, FRAME_BYTES_MAX, Flags, Kind, Recipients};
use corefire::runtime::mailbox::Bell;
use corefire::runtime::mesh::{Inlet, Outlet, mesh};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const STANZA: &[u8] = b"<message from='alice@localhost/phone' to='bob@localhost' type='chat' id='m1'>\
    <body>Are you coming along tonight? The others will be there from eight on, I think.</body></message>";

fn envelope(number: u64) -> Envelope<'static> {
    Envelope {
        epoch: 0,
        number,
        hops: 0,
        ingress: Wall(0),
        trace: None,
        flags: Flags::default(),
        from: "alice@localhost/phone",
        to: "bob@localhost",
        also_to: Recipients::NONE,
        kind: Kind::Message,
        subtype: 1,
        open_end: 78,
        close_start: 162,
        stanza: STANZA,
    }
}

/// The two ends of the ring from the first of two shards to the second.
fn ends() -> (Outlet, Inlet) {
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let mut ends = mesh(&bells);
    let inlet = ends[1].1[0].take().expect("a ring from 0 to 1");
    let outlet = ends[0].0[1].take().expect("a ring from 0 to 1");
    (outlet, inlet)
}

fn fill(encoder: &mut Encoder, batch: &mut Batch, frames: u64) {
    for number in 0..frames {
        encoder.append(batch, &envelope(number)).expect("a small frame");
    }
}

fn drain(inlet: &mut Inlet) -> u64 {
    let mut seen = 0;
    while let Some(parcel) = inlet.receive() {
        for frame in parcel.frames.iter() {
            seen += u64::from(black_box(frame.stanza.len()) > 0);
        }
        inlet.give_back(parcel.frames);
    }
    seen
}

fn one_core(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/one core");
    for frames in [1, 16, 256] {
        let (mut outlet, mut inlet) = ends();
        let mut encoder = Encoder::new(FRAME_BYTES_MAX);
        let mut batch = Batch::new();
        group.throughput(Throughput::Elements(frames));
        group.bench_function(BenchmarkId::from_parameter(frames), |b| {
            b.iter(|| {
                fill(&mut encoder, &mut batch, frames);
                assert!(outlet.send(&mut batch, corefire::base::instant::Instant(0)));
                drain(&mut inlet)
            });
        });
    }
    group.finish();
}

/// Wall time per frame with a second thread reading all the while; busy waiting stands in for the bell.
fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/two threads");
    for frames in [1, 16, 256] {
        group.throughput(Throughput::Elements(frames));
        group.bench_function(BenchmarkId::from_parameter(frames), |b| {
            b.iter_custom(|rounds| across(frames, rounds));
        });
    }
    group.finish();
}

fn across(frames: u64, rounds: u64) -> Duration {
    let (mut outlet, mut inlet) = ends();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < frames * rounds {
            match drain(&mut inlet) {
                0 => std::thread::yield_now(),
                some => seen += some,
            }
        }
    });
    let mut encoder = Encoder::new(FRAME_BYTES_MAX);
    let mut batch = Batch::new();
    let begin = Instant::now();
    for _ in 0..rounds {
        fill(&mut encoder, &mut batch, frames);
        while !outlet.send(&mut batch, corefire::base::instant::Instant(0)) {
            std::thread::yield_now();
        }
    }
    reader.join().expect("the reader ends");
    begin.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = one_core, two_threads
}
criterion_main!(benches);
