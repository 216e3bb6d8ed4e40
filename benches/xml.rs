//! What a chat message costs on its way through the XML layer: cut, read, look at, write on.
//!
//! quick-xml is timed beside the reader, so that the choice of an own walk can be looked at again.

use std::hint::black_box;

use corefire::xmpp::ns;
use corefire::xmpp::stanza::{Stanza, write_stamped};
use corefire::xmpp::xml::element::Element;
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use corefire::xmpp::xml::reader::{Index, StreamContext, read};
use corefire::xmpp::xml::writer::{Writer, escape_text};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// 264 bytes, as clients send it.
const CHAT: &str = "<message to='bob.with.a.name@example.org/phone' type='chat' id='a1b2c3d4-e5f6-7890'>\
    <body>sixty-four bytes of text are the usual size of a chat message.....</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>";

const FROM: &str = "alice@example.org/laptop";
const TO: &str = "bob.with.a.name@example.org/phone";

fn open_framer() -> Framer {
    let mut framer = Framer::new();
    framer.next(b"<stream:stream>", &XmlLimits::default()).expect("a header");
    framer
}

fn framer(c: &mut Criterion) {
    let limits = XmlLimits::default();
    let mut group = c.benchmark_group("framer");
    group.throughput(Throughput::Bytes(CHAT.len() as u64));
    let mut framer = open_framer();
    group.bench_function("whole", |b| b.iter(|| framer.next(black_box(CHAT.as_bytes()), &limits)));
    let mut framer = open_framer();
    group.bench_function("two parts", |b| {
        b.iter(|| {
            let first = framer.next(black_box(&CHAT.as_bytes()[..150]), &limits);
            (first, framer.next(black_box(CHAT.as_bytes()), &limits))
        })
    });
    let mut framer = open_framer();
    let eight = CHAT.repeat(8);
    group.throughput(Throughput::Bytes(eight.len() as u64));
    group.bench_function("eight at once", |b| {
        b.iter(|| {
            let mut at = 0;
            while let Ok(Step::Stanza(range)) =
                framer.next(black_box(&eight.as_bytes()[at..]), &limits)
            {
                at += range.end;
            }
            at
        })
    });
    group.finish();
}

fn reader(c: &mut Criterion) {
    let limits = XmlLimits::default();
    let context = StreamContext::client();
    let mut index = Index::default();
    let mut group = c.benchmark_group("reader");
    group.throughput(Throughput::Bytes(CHAT.len() as u64));
    group.bench_function("read", |b| {
        b.iter(|| read(black_box(CHAT.as_bytes()), &context, &limits, &mut index))
    });
    group.bench_function("read and look", |b| {
        b.iter(|| {
            let read = read(black_box(CHAT.as_bytes()), &context, &limits, &mut index);
            let stanza = Stanza { bytes: CHAT.as_bytes(), index: &index };
            let has_body = stanza.child(ns::CLIENT, "body").is_some();
            black_box((stanza.kind(), stanza.to(), stanza.id(), stanza.message_type(), has_body));
            read
        })
    });
    group.bench_function("tree", |b| {
        b.iter(|| Element::parse(black_box(CHAT.as_bytes()), &context, &limits))
    });
    group.bench_function("quick-xml events and attributes, unchecked", |b| {
        b.iter(|| {
            let mut reader = quick_xml::Reader::from_str(black_box(CHAT));
            let mut attributes = 0;
            loop {
                match reader.read_event() {
                    Ok(
                        quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag),
                    ) => {
                        attributes += tag.attributes().filter(Result::is_ok).count();
                    }
                    Ok(quick_xml::events::Event::Eof) | Err(_) => break attributes,
                    Ok(_) => {}
                }
            }
        })
    });
    group.finish();
}

fn writer(c: &mut Criterion) {
    let limits = XmlLimits::default();
    let mut index = Index::default();
    read(CHAT.as_bytes(), &StreamContext::client(), &limits, &mut index).expect("a chat message");
    let stanza = Stanza { bytes: CHAT.as_bytes(), index: &index };
    let mut out = Vec::with_capacity(4096);
    let mut group = c.benchmark_group("writer");
    group.bench_function("stamped", |b| {
        b.iter(|| {
            out.clear();
            write_stamped(&mut out, black_box(&stanza), Some(FROM), Some(TO))
        })
    });
    group.bench_function("message", |b| {
        b.iter(|| {
            out.clear();
            let mut writer = Writer::new(&mut out);
            writer.start("message").attr("from", FROM).attr("to", TO).attr("type", "chat");
            writer
                .start("body")
                .text(black_box("some text of a usual length, not long"))
                .end("body");
            writer.end("message");
        })
    });
    let text = "text of 64 bytes, without anything to escape in it, as is usual.";
    group.bench_function("escape 64 bytes", |b| {
        b.iter(|| {
            out.clear();
            escape_text(&mut out, black_box(text));
        })
    });
    group.finish();
}

criterion_group!(benches, framer, reader, writer);
criterion_main!(benches);
