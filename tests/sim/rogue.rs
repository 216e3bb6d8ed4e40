//! What a hostile client says.

use crate::DOMAIN;
use crate::chance::Chance;
use crate::client::PASSWORD;
use corefire::stream::sasl::client::plain;
use corefire::stream::sasl::encode_payload;

const HEADER: &str = "<stream:stream to='DOMAIN' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

const NUISANCES: &[&str] = &[
    "<message/>",
    "<message to='VICTIM'/>",
    "<message to='VICTIM'><body>hello</body></message>",
    "<message to='VICTIM' type='headline'><body>news</body></message>",
    "<message to='VICTIM' type='groupchat'><body>all</body></message>",
    "<message to='VICTIM' type='error' id='m0x'><body>no</body></message>",
    "<message to='@@@'><body>nobody</body></message>",
    "<message to='DOMAIN'><body>server</body></message>",
    "<message to='a@b.example'><body>elsewhere</body></message>",
    "<message to='VICTIM' id='&lt;&apos;&quot;&gt;'><body>&amp;</body></message>",
    "<iq/>",
    "<iq type='get'/>",
    "<iq type='get' id='1'/>",
    "<iq type='get' id='1' to='VICTIM'><a xmlns='x'/><b xmlns='x'/></iq>",
    "<iq type='get' id='1' to='VICTIM'><a xmlns='x'/></iq>",
    "<iq type='get' id='&lt;&apos;&gt;' to='VICTIM'><a xmlns='x'/></iq>",
    "<iq type='set' id='2'><query xmlns='jabber:iq:roster'><item jid='@'/></query></iq>",
    "<iq type='set' id='2'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='set' id='2'><query xmlns='jabber:iq:roster'><item jid='DOMAIN' subscription='remove'/></query></iq>",
    "<iq type='result' id='confirm-1'/>",
    "<iq type='result' id='unasked' to='VICTIM'/>",
    "<iq type='what' id='3'/>",
    "<presence/>",
    "<presence><priority>many</priority></presence>",
    "<presence><priority>-1</priority></presence>",
    "<presence type='unavailable'/>",
    "<presence type='unavailable' to='VICTIM'/>",
    "<presence to='VICTIM'/>",
    "<presence type='subscribe' to='VICTIM'/>",
    "<presence type='subscribed' to='VICTIM'/>",
    "<presence type='unsubscribe' to='VICTIM'/>",
    "<presence type='probe' to='VICTIM'/>",
    "<presence type='what' to='VICTIM'/>",
    "<presence type='subscribe'/>",
    "<presence xmlns:to='x' type='unavailable'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<enable xmlns='urn:xmpp:sm:3'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='0'/>",
    "<a xmlns='urn:xmpp:sm:3' h='99999'/>",
    "<a xmlns='urn:xmpp:sm:3' h='-1'/>",
    "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>",
    "<message from='VICTIM'><body>forged</body></message>",
    "<unknown xmlns='x'/>",
    "<message><body>&undefined;</body></message>",
    "<message",
    "text",
    "<!-- comment -->",
    "</stream:stream>",
    "\u{0}",
    "  \n ",
];

/// A stream from its start, mostly up to a bound resource.
pub(crate) fn opening(user: usize, chance: &mut Chance) -> Vec<u8> {
    let header = HEADER.replace("DOMAIN", DOMAIN);
    if chance.percent(10) {
        return format!("{header}<message to='user0@{DOMAIN}'><body>early</body></message>").into();
    }
    let password = if chance.percent(90) { PASSWORD } else { "wrong" };
    let auth = encode_payload(&plain("", &format!("user{user}"), password));
    let resource = chance.below(5);
    let sm = if chance.percent(50) { "<enable xmlns='urn:xmpp:sm:3' resume='true'/>" } else { "" };
    format!(
        "{header}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{auth}</auth>\
         {header}<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{resource}</resource></bind></iq>{sm}<presence/>"
    )
    .into()
}

pub(crate) fn nuisance(victim: &str, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..chance.within(1, 4) {
        // The last ones end the stream: they are rarer.
        let most = if chance.percent(90) { 36 } else { NUISANCES.len() };
        let text = NUISANCES[chance.index(most)];
        let bare = victim.split('/').next().unwrap_or_default();
        let to = if chance.percent(50) { victim } else { bare };
        bytes.extend_from_slice(text.replace("VICTIM", to).replace("DOMAIN", DOMAIN).as_bytes());
    }
    if chance.percent(3) {
        let at = chance.index(bytes.len());
        bytes[at] = chance.next() as u8;
    }
    bytes
}
