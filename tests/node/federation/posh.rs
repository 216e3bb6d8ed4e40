//! Domains whose servers show the certificate of somebody else, and that name it themselves over HTTPS (RFC 7711). The servers
//! of HTTPS are the test's own.

use super::certified::is_refused;
use super::{Authority, Side, addresses, authority, they_chat};
use crate::admin::ask;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, SHA512, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATH: &str = "/.well-known/posh/xmpp-server.json";

/// What a server says to a request for a path; `None`: nothing, for as long as the test runs.
type Script = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// A server of HTTPS that notes what it is asked for.
struct Https {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// - `name`: in its certificate
fn https(
    name: &str,
    by: &Authority,
    script: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Https {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, by).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let (config, script): (_, Arc<Script>) = (Arc::new(config), Arc::new(script));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = asked.clone();
    // It ends with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let (config, script, noted) = (config.clone(), script.clone(), noted.clone());
            std::thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut request = Vec::new();
                let mut byte = [0; 1];
                while !request.ends_with(b"\r\n\r\n") {
                    if tls.read_exact(&mut byte).is_err() {
                        return;
                    }
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                noted.lock().unwrap().push(path.clone());
                match script(&path) {
                    Some(answer) => {
                        let _ = tls.write_all(&answer);
                        tls.conn.send_close_notify();
                        let _ = tls.flush();
                    }
                    None => std::thread::sleep(Duration::from_secs(60)),
                }
            });
        }
    });
    Https { address, asked }
}

fn answer(status: &str, field: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{field}\r\n");
    Some((head + body).into_bytes())
}

/// A document, at its place and nowhere else.
fn at_its_place(document: String) -> impl Fn(&str) -> Option<Vec<u8>> + Send + Sync {
    move |path| match path == PATH {
        true => answer("200 OK", "Content-Type: application/json\r\n", &document),
        false => answer("404 Not Found", "", ""),
    }
}

/// That it names the certificate that `side` shows.
fn naming(side: &Side, expires: u32) -> String {
    let pem = std::fs::read(side.place.path("own.pem")).unwrap();
    let shown = CertificateDer::from_pem_slice(&pem).unwrap();
    let sha256 = BASE64.encode(digest(&SHA256, &shown));
    let sha512 = BASE64.encode(digest(&SHA512, &shown));
    format!(
        r#"{{"fingerprints":[{{"sha-256":"{sha256}","sha-512":"{sha512}"}}],"expires":{expires}}}"#
    )
}

/// `beta.test` shows a certificate of `host.test` that nobody vouches for; `alpha.test` demands a certificate, and asks
/// what `web` gives for documents.
fn hosted(web: impl FnOnce(&Authority, &Side) -> Vec<(&'static str, SocketAddr)>) -> [Side; 2] {
    hosted_where(true, web)
}

/// - `asks`: POSH is on
fn hosted_where(
    asks: bool,
    web: impl FnOnce(&Authority, &Side) -> Vec<(&'static str, SocketAddr)>,
) -> [Side; 2] {
    let ca = authority("everybody's");
    let [one, other] = addresses();
    let (alpha, beta) = (Side::new("alpha.test", one), Side::new("beta.test", other));
    let (to_alpha, to_beta) = (alpha.route(), beta.route());
    let beta =
        beta.knows("alpha.test", &to_alpha).certified("host.test", None, |_| ()).trusting(&ca);
    let mut alpha = alpha
        .knows("beta.test", &to_beta)
        .certified("alpha.test", Some(&ca), |_| ())
        .trusting(&ca)
        .set(&format!("federation.posh={asks}"))
        .set("federation.domains.\"beta.test\".require_certificate=true")
        .set("federation.domains.\"beta.test\".dialback=false")
        .set("federation.limits.wait_s=2")
        .set("federation.patience_s=2");
    for (host, address) in web(&ca, &beta) {
        alpha.place.add(&format!("federation.posh_routes.\"{host}\"={address}"));
    }
    alpha.add_user("alice");
    beta.add_user("bob");
    [alpha, beta]
}

#[track_caller]
fn is_taken(sides: &[Side; 2]) {
    let [alpha, beta] = sides;
    let (one, other) = (alpha.start(), beta.start());
    let told = alpha.place.run(&["federation", "check", "beta.test"]);
    let line = told.lines().find(|line| line.contains(" posh "));
    assert!(line.is_some_and(|line| line.starts_with("ok ")), "{told}");
    assert!(told.ends_with("beta.test can be reached\n"), "{told}");
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    // Both ways: bob's server comes to alice's for the answer.
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    let metrics = ask(&one, "/metrics", "").1;
    let has = |line: &str| metrics.lines().any(|one| one == line);
    assert!(has("corefire_federation_posh_total{result=\"proved\"} 3"), "{metrics}");
    assert!(has("corefire_federation_pairs_total{by=\"certificate\"} 1"), "{metrics}");
    one.stop();
    other.stop();
}

#[test]
fn a_domain_that_names_its_hosts_certificate_is_believed_both_ways() {
    let mut server = None;
    let sides = hosted(|ca, beta| {
        let web = https("beta.test", ca, at_its_place(naming(beta, 600)));
        let at = vec![("beta.test", web.address)];
        server = Some(web);
        at
    });
    is_taken(&sides);
    let asked = server.unwrap().asked.lock().unwrap().clone();
    assert_eq!(asked, [PATH], "it is remembered");
}

#[test]
fn references_and_redirects_are_followed() {
    is_taken(&hosted(|ca, beta| {
        let document = naming(beta, 600);
        let host = https("host.test", ca, move |path| match path {
            "/old" => answer("302 Found", "Location: /beta.json?x=1\r\n", ""),
            "/beta.json?x=1" => answer("200 OK", "", &document),
            _ => answer("404 Not Found", "", ""),
        });
        let reference = r#"{"url":"https://host.test/old","expires":600}"#;
        let web = https("beta.test", ca, at_its_place(reference.to_owned()));
        vec![("beta.test", web.address), ("host.test", host.address)]
    }));
}

#[test]
fn a_document_with_another_certificate_proves_nothing() {
    let sides = hosted(|ca, _| {
        let wrong = BASE64.encode([7; 32]);
        let document = format!(r#"{{"fingerprints":[{{"sha-256":"{wrong}"}}],"expires":600}}"#);
        let web = https("beta.test", ca, at_its_place(document));
        vec![("beta.test", web.address)]
    });
    is_refused(sides, "names other certificates");
}

#[test]
fn a_document_that_is_good_for_no_time_proves_nothing() {
    let sides = hosted(|ca, beta| {
        let web = https("beta.test", ca, at_its_place(naming(beta, 0)));
        vec![("beta.test", web.address)]
    });
    is_refused(sides, "good for no time");
}

#[test]
fn a_server_of_https_must_prove_the_domain() {
    let sides = hosted(|ca, beta| {
        let web = https("gamma.test", ca, at_its_place(naming(beta, 600)));
        vec![("beta.test", web.address)]
    });
    is_refused(sides, "gamma.test");
    let sides = hosted(|_, beta| {
        let web = https("beta.test", &authority("nobody's"), at_its_place(naming(beta, 600)));
        vec![("beta.test", web.address)]
    });
    is_refused(sides, "cannot be asked");
}

#[test]
fn a_document_that_is_too_long_proves_nothing() {
    let sides = hosted(|ca, beta| {
        let document = naming(beta, 600) + &" ".repeat(100_000);
        let web = https("beta.test", ca, at_its_place(document));
        vec![("beta.test", web.address)]
    });
    is_refused(sides, "longer than 64 KiB");
}

#[test]
fn a_server_of_https_that_says_nothing_is_waited_for_for_a_while_only() {
    let sides = hosted(|ca, _| {
        let web = https("beta.test", ca, |_| None);
        vec![("beta.test", web.address)]
    });
    let began = Instant::now();
    let one = sides[0].start();
    let other = sides[1].start();
    let output = sides[0].place.program(&["federation", "check", "beta.test"]).output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let line = told.lines().find(|line| line.contains(" posh ")).unwrap_or_default();
    assert!(line.starts_with("wrong ") && line.contains("in time"), "{told}");
    let metrics = ask(&one, "/metrics", "").1;
    let failed = "corefire_federation_posh_total{result=\"failed\"} 1";
    assert!(metrics.lines().any(|line| line == failed), "{metrics}");
    one.stop();
    other.stop();
}

#[test]
fn without_the_setting_no_domain_is_asked() {
    let mut server = None;
    let sides = hosted_where(false, |ca, beta| {
        let web = https("beta.test", ca, at_its_place(naming(beta, 600)));
        let at = vec![("beta.test", web.address)];
        server = Some(web);
        at
    });
    is_refused(sides, "self-signed");
    assert!(server.unwrap().asked.lock().unwrap().is_empty());
}
