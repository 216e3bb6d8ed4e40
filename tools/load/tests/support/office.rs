//! A post office: as much of an XMPP server as a run of the load tool needs. Any password is right, a thread serves a
//! connection, messages go to the address that they name. A component that knows the secret may write too (XEP-0114).
//! Ends with the process, or when it is told to.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire_load::scan::{Element, Scanner, Unit};
use ring::digest;

pub(crate) const DOMAIN: &str = "office.example";

/// What components share with it.
const SECRET: &str = "stamps";

type Boxes = Arc<Mutex<HashMap<String, TcpStream>>>;

/// Ends an office when dropped: its connections, and the port on which it took them.
pub(crate) struct Closing {
    address: SocketAddr,
    is_closed: Arc<AtomicBool>,
    visitors: Arc<Mutex<Vec<TcpStream>>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for the next visitor.
        let _ = TcpStream::connect(self.address);
        for visitor in &*self.visitors.lock().unwrap() {
            // One that is gone needs no end.
            let _ = visitor.shutdown(Shutdown::Both);
        }
    }
}

/// Opens on a port of loopback.
pub(crate) fn open() -> SocketAddr {
    let (address, closing) = open_until();
    std::mem::forget(closing);
    address
}

/// Opens on a port of loopback, until the second part is dropped.
pub(crate) fn open_until() -> (SocketAddr, Closing) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let boxes = Boxes::default();
    let (is_closed, visitors) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let closing =
        Closing { address, is_closed: Arc::clone(&is_closed), visitors: Arc::clone(&visitors) };
    thread::spawn(move || {
        for stream in listener.incoming() {
            if is_closed.load(Ordering::SeqCst) {
                return;
            }
            let (stream, boxes) = (stream.unwrap(), Arc::clone(&boxes));
            visitors.lock().unwrap().push(stream.try_clone().unwrap());
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || {
                    let mut visitor =
                        Visitor { stream, boxes, user: None, jid: None, is_component: false };
                    // A client that is gone needs nothing more.
                    let _ = visitor.serve();
                    let _ = visitor.stream.shutdown(Shutdown::Both);
                    if let Some(jid) = &visitor.jid {
                        visitor.boxes.lock().unwrap().remove(jid);
                    }
                })
                .unwrap();
        }
    });
    (address, closing)
}

struct Visitor {
    stream: TcpStream,
    boxes: Boxes,
    user: Option<String>,
    jid: Option<String>,
    is_component: bool,
}

impl Visitor {
    fn say(&mut self, words: &str) -> std::io::Result<()> {
        // Others write to the same socket, whole stanzas at a time.
        let _boxes = self.boxes.lock().unwrap();
        self.stream.write_all(words.as_bytes())
    }

    fn serve(&mut self) -> std::io::Result<()> {
        let (mut scanner, mut held, mut buffer) = (Scanner::default(), Vec::new(), [0; 4096]);
        loop {
            let mut is_new_stream = false;
            while let Some(unit) = scanner.next(&held).unwrap() {
                match unit {
                    Unit::Open(range) => {
                        let header = String::from_utf8_lossy(&held[range]).into_owned();
                        self.opened(&header)?;
                    }
                    Unit::Element(range) => {
                        let bytes = held[range].to_vec();
                        is_new_stream |= self.element(&Element::parse(&bytes).unwrap(), &bytes)?;
                    }
                    Unit::Close => return self.say("</stream:stream>"),
                }
            }
            held.drain(..scanner.kept_from());
            scanner.forget();
            if is_new_stream {
                scanner.restart();
            }
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            held.extend_from_slice(&buffer[..count]);
        }
    }

    fn opened(&mut self, header: &str) -> std::io::Result<()> {
        if header.contains("jabber:component:accept") {
            self.is_component = true;
            return self.say(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' id='3BF96D32' \
                 xmlns:stream='http://etherx.jabber.org/streams' from='service.office.example'>",
            );
        }
        let features = match self.user {
            None => {
                "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                 <mechanism>PLAIN</mechanism></mechanisms>"
            }
            Some(_) => "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        };
        self.say(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' from='{DOMAIN}' id='1' \
             xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
             <stream:features>{features}</stream:features>"
        ))
    }

    /// - gives: whether the client opens its stream anew
    fn element(&mut self, element: &Element<'_>, bytes: &[u8]) -> std::io::Result<bool> {
        let text = |name: &str| element.text_of(name).unwrap_or_default().into_owned();
        match element.name() {
            b"handshake" => {
                let wanted = format!("3BF96D32{SECRET}");
                let wanted = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, wanted.as_bytes());
                let wanted: String =
                    wanted.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                if element.text() != wanted {
                    self.say(
                        "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                         </stream:error></stream:stream>",
                    )?;
                    return Err(ErrorKind::PermissionDenied.into());
                }
                self.say("<handshake/>")?;
            }
            b"auth" => {
                let plain = BASE64.decode(element.text().trim()).unwrap();
                let user = plain.split(|byte| *byte == 0).nth(1).unwrap();
                self.user = Some(String::from_utf8(user.to_vec()).unwrap());
                self.say("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")?;
                return Ok(true);
            }
            b"iq" if element.child("bind").is_some() => {
                let jid = format!("{}@{DOMAIN}/load", self.user.as_deref().unwrap());
                self.boxes.lock().unwrap().insert(jid.clone(), self.stream.try_clone()?);
                self.say(&format!(
                    "<iq type='result' id='{}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                     <jid>{jid}</jid></bind></iq>",
                    text("id")
                ))?;
                self.jid = Some(jid);
            }
            b"iq"
                if element
                    .child("query")
                    .is_some_and(|query| query.attribute("xmlns") == Some(b"urn:xmpp:mam:2")) =>
            {
                self.say(&format!(
                    "<iq type='error' id='{}'><error type='cancel'><service-unavailable \
                     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
                    text("id")
                ))?;
            }
            b"iq" => self.say(&format!("<iq type='result' id='{}'/>", text("id")))?,
            b"presence" => {
                let jid = self.jid.clone().unwrap();
                self.say(&format!("<presence from='{jid}' to='{jid}'/>"))?;
            }
            b"message" => {
                let stamped = if self.is_component {
                    bytes.to_vec()
                } else {
                    let from = format!("<message from='{}'", self.jid.as_deref().unwrap());
                    [from.as_bytes(), &bytes["<message".len()..]].concat()
                };
                let to = text("to");
                let to = if to.contains('/') { to } else { format!("{to}/load") };
                let mut boxes = self.boxes.lock().unwrap();
                // Nobody there: lost, as in a server that promises nothing.
                if let Some(stream) = boxes.get_mut(&to) {
                    stream.write_all(&stamped)?;
                }
            }
            _ => {}
        }
        Ok(false)
    }
}
