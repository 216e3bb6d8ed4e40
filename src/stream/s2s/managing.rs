//! XEP-0198 on streams between servers: who asks for it, what is granted, and going on with an earlier stream.
//!
//! The initiating side asks, as clients do; it counts both ways then, which with XEP-0288 are both of use.

use super::{Event, Managing, Phase, Role, S2sStream};
use crate::stream::resume::failed;
use crate::stream::sasl2::{read_enable, read_h};
use crate::xmpp::ns;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::StreamError;
use crate::xmpp::xml::writer::Writer;

/// Longest name of a stream to be resumed, in bytes (XEP-0198 §10: at most 4000).
const ID_BYTES_MAX: usize = 4000;

impl S2sStream {
    pub(super) fn managing(
        &mut self,
        stanza: &Stanza<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        let event = match (stanza.name(), self.managing) {
            ("r", Managing::On) => Event::Requested,
            ("a", Managing::On) => Event::Acknowledged { h: read_h(stanza.attr("h").as_deref())? },
            // What is said of a stream that was not granted means nothing.
            ("r" | "a", _) => return Ok(None),
            ("enable" | "resume", _) if !self.may_manage() => {
                out.extend_from_slice(&failed("unexpected-request", None));
                return Ok(None);
            }
            ("enable", _) => {
                let (resume, max_s) = read_enable(|name| stanza.attr(name));
                self.managing = Managing::Deciding;
                Event::Enable { resume, max_s }
            }
            ("resume", _) => {
                let previous = stanza.attr("previd").filter(|id| id.len() <= ID_BYTES_MAX);
                let h = read_h(stanza.attr("h").as_deref());
                let (Some(previous), Ok(h)) = (previous, h) else {
                    out.extend_from_slice(&failed("bad-request", None));
                    return Ok(None);
                };
                self.managing = Managing::Deciding;
                Event::Resume { previous: Box::from(&*previous), h }
            }
            ("enabled", Managing::Enabling) => {
                self.managing = Managing::On;
                let (resumes, max_s) = read_enable(|name| stanza.attr(name));
                let id = stanza.attr("id").filter(|id| resumes && id.len() <= ID_BYTES_MAX);
                Event::Enabled { id: id.map(|id| Box::from(&*id)), max_s }
            }
            ("resumed", Managing::Resuming) => {
                let h = read_h(stanza.attr("h").as_deref())?;
                self.managing = Managing::On;
                Event::Resumed { h }
            }
            ("failed", Managing::Enabling | Managing::Resuming) => {
                self.managing = Managing::Off;
                Event::NotManaged { h: read_h(stanza.attr("h").as_deref()).ok() }
            }
            _ => return Err(self.unexpected()),
        };
        Ok(Some(event))
    }

    /// Whether the peer may ask now: XEP-0198 is for authenticated streams, once each.
    fn may_manage(&self) -> bool {
        self.role == Role::Receiving
            && self.phase == Phase::Open
            && self.offer.management
            && self.is_established()
            && self.managing == Managing::Off
    }

    /// Asks for acknowledgements; stanzas count from here on. False, and nothing is written, where the peer does not offer
    /// them or no pair is authenticated yet.
    pub fn enable(&mut self, resume: bool, out: &mut Vec<u8>) -> bool {
        if !self.may_ask_managing() {
            return false;
        }
        let mut writer = Writer::new(out);
        writer.start("enable").attr("xmlns", ns::SM3);
        writer.attr_opt("resume", resume.then_some("true")).close_empty();
        self.managing = Managing::Enabling;
        true
    }

    /// Asks to go on with the stream `previous`, of which we handled `h` stanzas. False as for `enable`.
    pub fn resume(&mut self, previous: &str, h: u32, out: &mut Vec<u8>) -> bool {
        if !self.may_ask_managing() {
            return false;
        }
        let mut writer = Writer::new(out);
        writer.start("resume").attr("xmlns", ns::SM3).attr("h", &h.to_string());
        writer.attr("previd", previous).close_empty();
        self.managing = Managing::Resuming;
        true
    }

    fn may_ask_managing(&self) -> bool {
        self.role == Role::Initiating
            && self.phase == Phase::Negotiating
            && self.offer.management
            && self.is_established()
            && self.managing == Managing::Off
    }

    /// Answers `Event::Enable`; stanzas count from here on.
    ///
    /// - takes: `resumable`, the name by which the stream can be resumed, and for how long after a break, in seconds
    pub fn enabled(&mut self, resumable: Option<(&str, u32)>, out: &mut Vec<u8>) {
        if self.managing != Managing::Deciding {
            return;
        }
        self.managing = Managing::On;
        let mut writer = Writer::new(out);
        writer.start("enabled").attr("xmlns", ns::SM3);
        if let Some((id, max_s)) = resumable {
            writer.attr("id", id).attr("resume", "true").attr("max", &max_s.to_string());
        }
        writer.close_empty();
    }

    /// Answers `Event::Resume`: the stream `previous` goes on here, of which we handled `h` stanzas.
    pub fn resumed(&mut self, previous: &str, h: u32, out: &mut Vec<u8>) {
        if self.managing != Managing::Deciding {
            return;
        }
        self.managing = Managing::On;
        let mut writer = Writer::new(out);
        writer.start("resumed").attr("xmlns", ns::SM3).attr("h", &h.to_string());
        writer.attr("previd", previous).close_empty();
    }

    /// Refuses what `Event::Enable` or `Event::Resume` asked for; it may be asked for again.
    ///
    /// - takes: `condition`, of RFC 6120 §8.3.3, as `item-not-found`; `h`, what we handled of the stream that is not resumed
    pub fn not_managed(&mut self, condition: &str, h: Option<u32>, out: &mut Vec<u8>) {
        if self.managing != Managing::Deciding {
            return;
        }
        self.managing = Managing::Off;
        out.extend_from_slice(&failed(condition, h));
    }
}
