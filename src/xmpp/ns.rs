//! Namespace names, by the specification that defines them. One constant per namespace that the server speaks.

/// RFC 6120 §4.8: the root element of a stream, its features and its errors.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Content namespace of streams between client and server.
pub const CLIENT: &str = "jabber:client";
/// Content namespace of streams between servers.
pub const SERVER: &str = "jabber:server";
/// XEP-0114: content namespace of component streams.
pub const COMPONENT_ACCEPT: &str = "jabber:component:accept";
/// XEP-0220, bound to the prefix `db` on server streams.
pub const DIALBACK: &str = "jabber:server:dialback";
/// XEP-0220: stream feature.
pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";
/// XEP-0288: stream feature.
pub const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
/// XEP-0288.
pub const BIDI: &str = "urn:xmpp:bidi";
/// RFC 7395: framing of streams over WebSocket.
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

/// Always bound to the prefix `xml` (Namespaces in XML §3).
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Always bound to the prefix `xmlns`; no element may use it.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// RFC 6120 §4.9.2.
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// RFC 6120 §8.3.2.
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// RFC 6120 §5.
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// RFC 6120 §6.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// XEP-0440: channel bindings that the server can check.
pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// XEP-0388.
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// RFC 6120 §7.
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// XEP-0386.
pub const BIND2: &str = "urn:xmpp:bind:0";
/// XEP-0484.
pub const FAST: &str = "urn:xmpp:fast:0";
/// RFC 3921 §3, kept for old clients.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// XEP-0198.
pub const SM3: &str = "urn:xmpp:sm:3";
/// XEP-0352.
pub const CSI: &str = "urn:xmpp:csi:0";

/// RFC 6121 §2.1.
pub const ROSTER: &str = "jabber:iq:roster";
/// RFC 6121 §2.6: stream feature.
pub const ROSTER_VER: &str = "urn:xmpp:features:rosterver";
/// RFC 6121 §3.4: stream feature.
pub const PRESUB: &str = "urn:xmpp:features:pre-approval";

/// XEP-0030.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// XEP-0030.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// XEP-0115.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// XEP-0004.
pub const DATA_FORMS: &str = "jabber:x:data";
/// XEP-0059.
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// XEP-0199.
pub const PING: &str = "urn:xmpp:ping";
/// XEP-0202.
pub const TIME: &str = "urn:xmpp:time";
/// XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// XEP-0012.
pub const LAST: &str = "jabber:iq:last";
/// XEP-0049.
pub const PRIVATE: &str = "jabber:iq:private";
/// XEP-0054.
pub const VCARD: &str = "vcard-temp";
/// XEP-0215.
pub const EXTERNAL_SERVICES: &str = "urn:xmpp:extdisco:2";
/// XEP-0478.
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// XEP-0077.
pub const REGISTER: &str = "jabber:iq:register";
/// XEP-0077: stream feature.
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// XEP-0191.
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// XEP-0191: why a stanza was refused.
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// XEP-0050.
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// XEP-0033.
pub const ADDRESS: &str = "http://jabber.org/protocol/address";

/// XEP-0203.
pub const DELAY: &str = "urn:xmpp:delay";
/// XEP-0160: what a server that keeps messages announces.
pub const OFFLINE: &str = "msgoffline";
/// XEP-0249.
pub const CONFERENCE: &str = "jabber:x:conference";
/// XEP-0297.
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// XEP-0280.
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// XEP-0313.
pub const MAM: &str = "urn:xmpp:mam:2";
pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
pub const MAM_GROUPCHAT: &str = "urn:xmpp:mam:2#groupchat-field";
/// XEP-0359.
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// XEP-0424.
pub const RETRACT: &str = "urn:xmpp:message-retract:1";
pub const RETRACT_TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";
/// XEP-0334.
pub const HINTS: &str = "urn:xmpp:hints";
/// XEP-0184.
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// XEP-0333.
pub const CHAT_MARKERS: &str = "urn:xmpp:chat-markers:0";
/// XEP-0085.
pub const CHATSTATES: &str = "http://jabber.org/protocol/chatstates";
/// XEP-0308.
pub const CORRECT: &str = "urn:xmpp:message-correct:0";

/// XEP-0380: says how a payload is encrypted.
pub const EME: &str = "urn:xmpp:eme:0";
/// XEP-0384, version 0.3 of that document, the one in wide use.
pub const OMEMO_LEGACY: &str = "eu.siacs.conversations.axolotl";
/// XEP-0384, present versions.
pub const OMEMO: &str = "urn:xmpp:omemo:2";
/// XEP-0373.
pub const OX: &str = "urn:xmpp:openpgp:0";
/// XEP-0027.
pub const PGP_LEGACY: &str = "jabber:x:encrypted";

/// XEP-0045.
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// XEP-0045.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// XEP-0045.
pub const MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
/// XEP-0045.
pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
/// XEP-0060.
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// XEP-0060.
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// XEP-0060.
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// Ours: the shard map (`cluster::map`).
pub const SHARD_MAP: &str = "urn:corefire:shard-map:1";
