//! The attacks. Each runs on one thread until it is stopped, and counts what it has done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{Field, PASSWORD};
use crate::tls::client_config;

/// Streams that one attack holds open at most: below what a process may usually have.
const STREAMS_MAX: u64 = 5_000;

pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='localhost'>";

pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) run: fn(&Field),
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "none", what: "nothing: what two runs differ by", run: none },
    Attack {
        name: "half-open",
        what: "up to 5000 streams, half a header, a byte a second each",
        run: half_open,
    },
    Attack { name: "connect-abort", what: "connect, header, reset", run: connect_abort },
    Attack {
        name: "tls-abort",
        what: "16 whole ClientHellos at a time, reset at the answer",
        run: tls_abort,
    },
    Attack {
        name: "plain",
        what: "wrong passwords by PLAIN, until the stream is ended",
        run: plain,
    },
    Attack {
        name: "never-reads",
        what: "60 kB headlines to a session that never reads",
        run: never_reads,
    },
    Attack { name: "flood", what: "messages to itself as fast as they are taken", run: flood },
    Attack {
        name: "oversized",
        what: "stanzas above the bound, before login and after",
        run: oversized,
    },
    Attack { name: "nested", what: "10 000 elements inside one another", run: nested },
    Attack { name: "bad-xml", what: "entities, DTD, broken UTF-8 in turn", run: bad_xml },
];

fn none(field: &Field) {
    while field.goes_on() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn half_open(field: &Field) {
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut number = 0;
    while field.goes_on() {
        if (streams.len() as u64) < STREAMS_MAX {
            if let Ok(mut socket) = field.dial(field.plain, number)
                && socket.write_all(&HEADER.as_bytes()[..60]).is_ok()
            {
                streams.push(socket);
                field.count();
            }
            number += 1;
        } else {
            number += 1;
            let at = (number % STREAMS_MAX) as usize;
            let _ = streams[at].write_all(b" ");
        }
        // Each stream gets a byte a second.
        let pace = if (streams.len() as u64) < STREAMS_MAX { 64 } else { STREAMS_MAX / 1000 };
        if number % pace == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn connect_abort(field: &Field) {
    let mut number = 0;
    while field.goes_on() {
        number += 1;
        if let Ok(mut socket) = field.dial(field.plain, number) {
            let _ = socket.write_all(HEADER.as_bytes());
            field.count();
        }
    }
}

fn tls_abort(field: &Field) {
    let (Ok(config), Ok(name)) = (client_config(), ServerName::try_from("localhost")) else {
        return;
    };
    let mut number = 0;
    while field.goes_on() {
        // Several at a time, so that the server always has one to answer.
        let mut streams = Vec::new();
        for _ in 0..16 {
            number += 1;
            let Ok(mut tls) = ClientConnection::new(Arc::clone(&config), name.clone()) else {
                return;
            };
            if let Ok(mut socket) = field.dial(field.direct_tls, number)
                && tls.write_tls(&mut socket).is_ok()
            {
                streams.push(socket);
            }
        }
        for mut socket in streams {
            // The server has begun to answer, which is what costs it.
            let _ = socket.read(&mut [0]);
            field.count();
        }
    }
}

pub(crate) fn plain_auth(user: &str, password: &str) -> String {
    let message = BASE64.encode(format!("\0{user}\0{password}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")
}

fn plain(field: &Field) {
    let mut number = 0;
    // Several streams at a time, so that the queue of checks is never empty.
    while field.goes_on() {
        let mut streams = Vec::new();
        for _ in 0..16 {
            number += 1;
            let user = format!("mallory{}", number % 8);
            if let Ok(mut socket) = field.dial(field.plain, number) {
                let said = format!("{HEADER}{}", plain_auth(&user, "wrong").repeat(5));
                if socket.write_all(said.as_bytes()).is_ok() {
                    streams.push(socket);
                }
            }
        }
        for mut socket in streams {
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            (0..answer.matches("<failure").count()).for_each(|_| field.count());
        }
    }
}

/// Reads until `wanted` is there.
pub(crate) fn expect(socket: &mut TcpStream, wanted: &str) -> Option<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        match socket.read(&mut buffer) {
            Ok(length) if length > 0 => text += &String::from_utf8_lossy(&buffer[..length]),
            _ => return None,
        }
    }
    Some(text)
}

/// Logs in and binds.
fn session(field: &Field, number: u64) -> Option<TcpStream> {
    let user = format!("mallory{}", number % u64::from(super::NETWORKS));
    let mut socket = field.dial(field.plain, number).ok()?;
    socket.write_all(HEADER.as_bytes()).ok()?;
    expect(&mut socket, "</stream:features>")?;
    socket.write_all(plain_auth(&user, PASSWORD).as_bytes()).ok()?;
    expect(&mut socket, "<success")?;
    socket.write_all(HEADER.as_bytes()).ok()?;
    expect(&mut socket, "</stream:features>")?;
    socket
        .write_all(
            b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
              <resource>r</resource></bind></iq>",
        )
        .ok()?;
    expect(&mut socket, "</jid>")?;
    Some(socket)
}

fn never_reads(field: &Field) {
    let pad = "x".repeat(60_000);
    let headline =
        format!("<message to='mallory1@localhost/r' type='headline'><body>{pad}</body></message>");
    while field.goes_on() {
        let (Some(_deaf), Some(mut speaker)) = (session(field, 1), session(field, 2)) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // More than the bound and what the kernel takes; then the deaf one is gone and the rest is dropped.
        for _ in 0..400 {
            if !field.goes_on() || speaker.write_all(headline.as_bytes()).is_err() {
                break;
            }
            field.count();
        }
    }
}

fn flood(field: &Field) {
    let Some(mut socket) = session(field, 3) else { return };
    let Ok(mut reader) = socket.try_clone() else { return };
    let message = "<message to='mallory3@localhost/r' type='headline'><body>again</body></message>";
    let batch = message.repeat(100);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            yield_too();
            let mut buffer = vec![0; 64 << 10];
            while field.goes_on() {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        });
        let _ = socket.set_write_timeout(Some(Duration::from_millis(200)));
        let mut at = 0;
        while field.goes_on() {
            // A part of the batch may have been taken when the time was up.
            match socket.write(&batch.as_bytes()[at..]) {
                Ok(length) => {
                    at = (at + length) % batch.len();
                    (0..length / message.len()).for_each(|_| field.count());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    });
}

fn yield_too() {
    crate::sys::yield_to_others();
}

fn oversized(field: &Field) {
    let body = "x".repeat(300_000);
    let stanza = format!("<message to='calm0@localhost'><body>{body}</body></message>");
    let mut number = 0;
    while field.goes_on() {
        number += 1;
        let socket = match number % 2 {
            0 => session(field, number),
            _ => field.dial(field.plain, number).ok().filter(|socket| {
                let mut socket = socket;
                socket.write_all(HEADER.as_bytes()).is_ok()
            }),
        };
        if let Some(mut socket) = socket {
            let _ = socket.write_all(stanza.as_bytes());
            let _ = socket.read_to_end(&mut Vec::new());
            field.count();
        }
    }
}

/// Sends something behind a header, and waits for the end.
fn say(field: &Field, number: u64, said: &[u8]) {
    if let Ok(mut socket) = field.dial(field.plain, number) {
        let _ = socket.write_all(&[HEADER.as_bytes(), said].concat());
        let _ = socket.read_to_end(&mut Vec::new());
        field.count();
    }
}

fn nested(field: &Field) {
    let said = "<a>".repeat(10_000);
    let mut number = 0;
    while field.goes_on() {
        number += 1;
        say(field, number, said.as_bytes());
    }
}

fn bad_xml(field: &Field) {
    let said: [&[u8]; 5] = [
        b"<!DOCTYPE lolz [<!ENTITY lol 'lol'>]>",
        b"<message><body>&lol9;</body></message>",
        b"<message><body>\xC0\xAF</body></message>",
        b"<message></presence>",
        b"<x:y/>",
    ];
    let mut number = 0;
    while field.goes_on() {
        number += 1;
        say(field, number, said[(number % 5) as usize]);
    }
}
