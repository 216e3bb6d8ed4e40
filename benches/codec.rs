//! Frames: building into reused memory, walking trusted ones, checking those of a link.

use std::hint::black_box;
use std::time::Duration;

use corefire::base::instant::Wall;
use corefire::frame::{Batch, Encoder, Envelope, Flags, Kind, Recipients, check};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rkyv::util::AlignedVec;

const FRAMES: u64 = 256;
const LIMIT: usize = 1 << 20;

fn codec(criterion: &mut Criterion) {
    let stanza = [b'x'; 250];
    let envelope = Envelope {
        epoch: 1,
        number: 1,
        hops: 0,
        ingress: Wall(1_767_225_600_123_456),
        trace: None,
        flags: Flags::WANTS_ACK,
        from: "romeo-0001@example.net/orchard",
        to: "juliet-001@example.com/balcony",
        also_to: Recipients::NONE,
        kind: Kind::Message,
        subtype: 1,
        open_end: 60,
        close_start: 240,
        stanza: &stanza,
    };
    let hundred = ["occupant-001@example.net/client"; 100];
    let fanout = Envelope { also_to: Recipients::from(hundred.as_slice()), ..envelope };
    let (mut encoder, mut batch) = (Encoder::new(LIMIT), Batch::new());
    let fill = |encoder: &mut Encoder, batch: &mut Batch, envelope: &Envelope<'_>| {
        batch.clear();
        for number in 0..FRAMES {
            let sent = encoder.append(batch, &Envelope { number, ..*envelope });
            assert_eq!(sent, Ok(()));
        }
    };

    let mut group = criterion.benchmark_group("codec");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.sample_size(20).throughput(Throughput::Elements(FRAMES));
    group.bench_function("build", |bencher| {
        bencher.iter(|| fill(&mut encoder, &mut batch, black_box(&envelope)));
    });
    group.bench_function("walk trusted", |bencher| {
        bencher
            .iter(|| batch.iter().map(|frame| frame.number + frame.to.len() as u64).sum::<u64>());
    });
    let mut bytes = AlignedVec::<16>::new();
    bytes.extend_from_slice(batch.as_bytes());
    group.bench_function("walk checked", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(bytes.as_slice());
            let mut sum = 0;
            while let Ok((frame, consumed)) = check(rest, LIMIT) {
                sum += frame.number + frame.to.len() as u64;
                rest = &rest[consumed..];
            }
            sum
        });
    });
    group.bench_function("build for 101 recipients", |bencher| {
        bencher.iter(|| fill(&mut encoder, &mut batch, black_box(&fanout)));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
