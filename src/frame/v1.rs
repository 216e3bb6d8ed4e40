//! The body of frames of version 1. Frozen: a change is a new version with a type of its own.

use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::Fallible;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Place, Serialize};

use super::frame::{Envelope, Flags, Kind, Recipients};
use crate::base::instant::Wall;

pub(super) const VERSION: u16 = 1;

/// `kind` and `flags` are in the header.
#[derive(Archive, Serialize)]
pub(super) struct Body<'a> {
    epoch: u64,
    number: u64,
    ingress: u64,
    trace: Option<u64>,
    #[rkyv(with = InlineAsBox)]
    from: &'a str,
    #[rkyv(with = InlineAsBox)]
    to: &'a str,
    also_to: Recipients<'a>,
    #[rkyv(with = InlineAsBox)]
    stanza: &'a [u8],
    open_end: u32,
    close_start: u32,
    hops: u8,
    subtype: u8,
}

/// The archive in a frame; its lifetime parameter is only that of what it was written from.
pub(super) type Archived = ArchivedBody<'static>;

impl<'a> Body<'a> {
    pub(super) fn of(envelope: &Envelope<'a>) -> Body<'a> {
        Body {
            epoch: envelope.epoch,
            number: envelope.number,
            ingress: envelope.ingress.0,
            trace: envelope.trace,
            from: envelope.from,
            to: envelope.to,
            also_to: envelope.also_to,
            stanza: envelope.stanza,
            open_end: envelope.open_end,
            close_start: envelope.close_start,
            hops: envelope.hops,
            subtype: envelope.subtype,
        }
    }
}

impl Archived {
    pub(super) fn envelope(&self, kind: Kind, flags: Flags) -> Envelope<'_> {
        Envelope {
            epoch: self.epoch.to_native(),
            number: self.number.to_native(),
            hops: self.hops,
            ingress: Wall(self.ingress.to_native()),
            trace: self.trace.as_ref().map(|trace| trace.to_native()),
            flags,
            from: &self.from,
            to: &self.to,
            also_to: Recipients::from_archive(&self.also_to),
            kind,
            subtype: self.subtype,
            open_end: self.open_end.to_native(),
            close_start: self.close_start.to_native(),
            stanza: &self.stanza,
        }
    }
}

/// A list of strings, whatever it is borrowed from.
impl Archive for Recipients<'_> {
    type Archived = ArchivedVec<ArchivedBox<str>>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len(), resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Recipients<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_iter::<Text<'_>, _, S>(self.iter().map(Text), serializer)
    }
}

struct Text<'a>(&'a str);

impl Archive for Text<'_> {
    type Archived = ArchivedBox<str>;
    type Resolver = BoxResolver;

    fn resolve(&self, resolver: BoxResolver, out: Place<Self::Archived>) {
        ArchivedBox::resolve_from_ref(self.0, resolver, out);
    }
}

impl<S: Fallible + Writer + ?Sized> Serialize<S> for Text<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<BoxResolver, S::Error> {
        ArchivedBox::serialize_from_ref(self.0, serializer)
    }
}
