//! What finding an owner costs, from the text of an address on.

use std::hint::black_box;
use std::time::Duration;

use corefire::base::hash::hash64;
use corefire::cluster::placement::{Member, NodeId, Placement};
use corefire::xmpp::jid::{BareJid, Jid, JidCache};
use criterion::{Criterion, criterion_group, criterion_main};

fn placement(criterion: &mut Criterion) {
    let members: Vec<Member> = (1..=8)
        .map(|node| Member {
            node: NodeId(node),
            name: format!("xmpp-{node}.example"),
            weight: 1,
            shards: 4,
            federates: false,
        })
        .collect();
    let table = Placement::new(1, &members);
    let jids: Vec<String> =
        (0..1024).map(|n| format!("user-{n:05}@example.com/client-{n:05}")).collect();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % jids.len();
        jids[at].as_str()
    };

    let mut group = criterion.benchmark_group("placement");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.sample_size(20);
    group.bench_function("owner", |bencher| {
        let mut hash = 0u64;
        bencher.iter(|| {
            hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
            table.owner(black_box(hash))
        });
    });
    group.bench_function("hash64", |bencher| bencher.iter(|| hash64(next().as_bytes())));
    group.bench_function("parse", |bencher| bencher.iter(|| Jid::parse(next())));
    group.bench_function("parse from parts", |bencher| {
        bencher.iter(|| BareJid::from_parts(Some(black_box("user-00001")), "example.com"));
    });
    group.bench_function("parse beyond ascii", |bencher| {
        bencher.iter(|| Jid::parse(black_box("J\u{fc}rgen@m\u{fc}nchen.example/B\u{fc}ro")));
    });
    group.bench_function("parse cached", |bencher| {
        let mut cache = JidCache::new(4096);
        bencher.iter(|| cache.parse(next()));
    });
    group.sample_size(10);
    group.bench_function("new table of 8 nodes", |bencher| {
        bencher.iter(|| Placement::new(1, black_box(&members)));
    });
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
