//! A client's stream on its way to another node, before its login: all that `C2s` is in the states in which it can go
//! there. What comes from another process is checked by what would have made it here: a header's namespaces are kept as
//! a header, what was asked for inline as elements.

use super::{C2s, C2sPolicy, Phase};
use crate::stream::TlsFacts;
use crate::stream::sasl::{Mechanism, TokenMechanism};
use crate::stream::sasl2::{Agent, Authenticate, Bind, Fast};
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, StreamContext};
use crate::xmpp::xml::writer::Writer;
use rkyv::{Archive, Deserialize, Serialize};

/// Longest hash of a certificate (RFC 5929 §4): SHA-512.
const END_POINT_BYTES_MAX: usize = 64;

/// A stream whose header is answered and whose next element names an account. Part of a versioned archive: a change is
/// a new version of `shard::image`.
#[derive(Archive, Serialize, Deserialize)]
pub struct Image {
    domain: String,
    /// A header that binds what the client's did; `None` for what all clients write.
    context: Option<String>,
    tls: Option<Tls>,
    /// Chosen by name, its first message is due.
    mechanism: Option<String>,
    request: Option<Request>,
    from: Option<String>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Tls {
    exporter: Option<[u8; 32]>,
    end_point: Option<Vec<u8>>,
    server_name: Option<String>,
    addresses: Vec<String>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Request {
    agent: Option<[u8; 16]>,
    resume: Option<(String, Option<u32>)>,
    bind: Option<Inline>,
    fast: Option<(Option<u32>, bool)>,
    token: Option<String>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Inline {
    tag: Option<String>,
    features: Vec<Vec<u8>>,
}

/// What an image says cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("its domain is not served here")]
    Domain,
    #[error("its header's namespaces cannot be read")]
    Context,
    #[error("what TLS told of it is malformed")]
    Tls,
    #[error("its mechanism is not offered here")]
    Mechanism,
    #[error("what it asks for inline is malformed")]
    Request,
}

impl C2s {
    /// `None` where the stream is in no state in which it goes to another node.
    ///
    /// - takes: `usual`, the namespaces that need not be told
    pub fn image(&self, usual: &StreamContext) -> Option<Image> {
        let mechanism = match self.phase {
            Phase::Open => None,
            Phase::Initial(mechanism) => Some(mechanism.name().to_owned()),
            _ => return None,
        };
        let context = self.context.as_deref().filter(|context| *context != usual);
        Some(Image {
            domain: self.domain.as_deref()?.to_owned(),
            context: match context {
                Some(context) => Some(header_of(context)?),
                None => None,
            },
            tls: self.binding.as_deref().map(Tls::of),
            mechanism,
            request: self.request.as_deref().map(Request::of),
            from: self.from.as_deref().map(str::to_owned),
        })
    }

    /// The stream of an image that another process made.
    pub fn from_image(
        image: Image,
        policy: &C2sPolicy,
        usual: &StreamContext,
    ) -> Result<C2s, ImageError> {
        let domain = policy.domains.iter().find(|domain| ***domain == *image.domain);
        let context = match image.context {
            Some(header) => {
                let limits = XmlLimits::default();
                let header = reader::read_header(header.as_bytes(), &limits);
                let context = header.map_err(|_| ImageError::Context)?.context;
                if context.content() != ns::CLIENT {
                    return Err(ImageError::Context);
                }
                (context != *usual).then(|| Box::new(context))
            }
            None => None,
        };
        let tls = image.tls.map(Tls::facts).transpose()?;
        let request = image.request.map(|request| request.read(policy)).transpose()?;
        let mut stream = C2s {
            phase: Phase::Open,
            domain: Some(domain.ok_or(ImageError::Domain)?.clone()),
            context,
            // Facts are kept until the login.
            secure: tls.is_some(),
            binding: tls.map(Box::new),
            request: request.map(Box::new),
            from: image.from.map(Into::into),
            header_sent: true,
        };
        if let Some(name) = image.mechanism {
            let offered = stream.mechanisms(policy);
            let chosen = Mechanism::parse(&name).filter(|chosen| offered.contains(chosen));
            stream.phase = Phase::Initial(chosen.ok_or(ImageError::Mechanism)?);
        }
        if stream.request.is_some() && (!stream.secure || stream.phase == Phase::Open) {
            return Err(ImageError::Request);
        }
        Ok(stream)
    }

    /// Whether an error and a close tag may follow what is out.
    pub fn may_end(&self) -> bool {
        self.header_sent && self.phase != Phase::Closed
    }
}

/// `None` for a context that no header made.
fn header_of(context: &StreamContext) -> Option<String> {
    let bindings: Vec<(&str, &str)> = context.bindings().collect();
    let (prefix, _) = bindings.iter().rev().find(|(_, namespace)| *namespace == ns::STREAMS)?;
    let name = if prefix.is_empty() { "stream".to_owned() } else { format!("{prefix}:stream") };
    let mut out = Vec::new();
    {
        let mut writer = Writer::new(&mut out);
        writer.start(&name);
        for (prefix, namespace) in &bindings {
            match *prefix {
                "" if namespace.is_empty() => {}
                "" => drop(writer.attr("xmlns", namespace)),
                prefix => drop(writer.attr(&format!("xmlns:{prefix}"), namespace)),
            }
        }
    }
    out.push(b'>');
    String::from_utf8(out).ok()
}

impl Tls {
    fn of(facts: &TlsFacts) -> Tls {
        Tls {
            exporter: facts.exporter,
            end_point: facts.end_point.as_deref().map(<[u8]>::to_vec),
            server_name: facts.server_name.clone(),
            addresses: facts.addresses.iter().map(|jid| jid.as_str().to_owned()).collect(),
        }
    }

    fn facts(self) -> Result<TlsFacts, ImageError> {
        if self.end_point.as_ref().is_some_and(|hash| hash.len() > END_POINT_BYTES_MAX) {
            return Err(ImageError::Tls);
        }
        let jids = self.addresses.iter().map(|text| BareJid::parse(text));
        Ok(TlsFacts {
            exporter: self.exporter,
            end_point: self.end_point.map(Into::into),
            server_name: self.server_name,
            addresses: jids.collect::<Result<_, _>>().map_err(|_| ImageError::Tls)?,
        })
    }
}

impl Request {
    fn of(request: &Authenticate) -> Request {
        let written = |element: &Element| {
            let mut out = Vec::new();
            element.write(&mut out, "");
            out
        };
        Request {
            agent: request.agent.map(|agent| agent.0),
            resume: request.resume.clone(),
            bind: request.bind.as_ref().map(|bind| Inline {
                tag: bind.tag.clone(),
                features: bind.features.iter().map(written).collect(),
            }),
            fast: request.fast.map(|fast| (fast.count, fast.invalidate)),
            token: request.request_token.map(|mechanism| mechanism.name().to_owned()),
        }
    }

    fn read(self, policy: &C2sPolicy) -> Result<Authenticate, ImageError> {
        let context = StreamContext::standalone();
        let parsed = |bytes: Vec<u8>| Element::parse(&bytes, &context, &policy.limits_before);
        let bind = self.bind.map(|bind| {
            let features: Result<Vec<Element>, _> = bind.features.into_iter().map(parsed).collect();
            Ok(Bind { tag: bind.tag, features: features.map_err(|_| ImageError::Request)? })
        });
        let token = self
            .token
            .map(|name| TokenMechanism::parse(&name).ok_or(ImageError::Request))
            .transpose()?;
        Ok(Authenticate {
            agent: self.agent.map(Agent),
            resume: self.resume,
            bind: bind.transpose()?,
            fast: self.fast.map(|(count, invalidate)| Fast { count, invalidate }),
            request_token: token,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::stream::policy::StreamFeatures;

    fn context(header: &str) -> StreamContext {
        reader::read_header(header.as_bytes(), &XmlLimits::default()).unwrap().context
    }

    #[test]
    fn namespaces_of_any_header_are_the_same_on_the_other_side() {
        for header in [
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>",
            "<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>",
            "<s:stream xmlns:c='jabber:client' xmlns:s='http://etherx.jabber.org/streams' \
             xmlns:x='urn:x&apos;&lt;&amp;' xmlns:y='urn:y'>",
            "<s:stream xmlns='jabber:client' xmlns:stream='urn:else' \
             xmlns:s='http://etherx.jabber.org/streams'>",
        ] {
            let wanted = context(header);
            assert_eq!(context(&header_of(&wanted).unwrap()), wanted, "{header}");
        }
    }

    #[test]
    fn stream_that_is_before_its_header_or_logged_in_has_no_image() {
        let usual = StreamContext::client();
        let mut stream = C2s::new(None);
        assert!(stream.image(&usual).is_none());
        stream.domain = Some("here".into());
        for phase in [Phase::Exchange, Phase::Reopening, Phase::Bound, Phase::Closed] {
            stream.phase = phase;
            assert!(stream.image(&usual).is_none());
        }
    }

    #[test]
    fn what_another_process_says_is_checked() {
        let usual = StreamContext::client();
        let policy = C2sPolicy::new("here", StreamFeatures::default());
        let sound = || {
            let mut stream = C2s::new(Some(TlsFacts::default()));
            stream.domain = Some("here".into());
            stream.phase = Phase::Open;
            stream.image(&usual).unwrap()
        };
        let refused = |change: &dyn Fn(&mut Image)| {
            let mut image = sound();
            change(&mut image);
            C2s::from_image(image, &policy, &usual).err()
        };
        assert_eq!(refused(&|_| ()), None);
        assert_eq!(refused(&|it| it.domain = "there".into()), Some(ImageError::Domain));
        assert_eq!(refused(&|it| it.context = Some("<a>".into())), Some(ImageError::Context));
        assert_eq!(refused(&|it| it.mechanism = Some("NONE".into())), Some(ImageError::Mechanism));
        // Nobody's certificate was seen.
        let external = Some("EXTERNAL".to_owned());
        assert_eq!(refused(&|it| it.mechanism = external.clone()), Some(ImageError::Mechanism));
        let tls = |change: fn(&mut Tls)| {
            refused(&|it| change(it.tls.as_mut().unwrap())) == Some(ImageError::Tls)
        };
        assert!(tls(|tls| tls.addresses = vec!["@".into()]));
        assert!(tls(|tls| tls.end_point = Some(vec![0; 65])));
        let bind = |features| Request {
            agent: None,
            resume: None,
            bind: Some(Inline { tag: None, features }),
            fast: None,
            token: None,
        };
        let plain = Some("PLAIN".to_owned());
        let request = |xml: &str| {
            refused(&|it| {
                it.mechanism = plain.clone();
                it.request = Some(bind(vec![xml.as_bytes().to_vec()]));
            })
        };
        assert_eq!(request("<a xmlns='urn:a'/>"), None);
        assert_eq!(request("<a><b></a>"), Some(ImageError::Request));
        assert_eq!(refused(&|it| it.request = Some(bind(vec![]))), Some(ImageError::Request));
    }
}
