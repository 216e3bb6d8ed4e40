//! SASL messages of a hostile client. The first byte chooses the mechanism and the offer; the first line after it is
//! the first message, the rest is the final one. For EXTERNAL the rest is the addresses of the client's certificate, one
//! a line.
//!
//! Promised: nothing panics; what `start` takes, `peek_username` takes too; a login succeeds only with a proof made
//! from the password over exactly these messages, or as somebody whom the certificate names at the stream's domain.

use std::sync::LazyLock;

use corefire::stream::sasl::client::{ClientBinding, ScramClient};
use corefire::stream::sasl::{
    ChannelBinding, ITERATIONS_MIN, Listed, Mechanism, Plain, SaltedPassword, SaslFailure,
    ScramServer, TLS_EXPORTER, decode_payload, derive, encode_payload, external_identity,
    is_external_offered, peek_username,
};
use corefire::xmpp::credentials::ScramKeys;
use corefire::xmpp::jid::BareJid;

const SALT: &[u8] = b"a salt of 16 byt";
const NONCE: &str = "3rfcNHYJY1ZVvWVs7j";
const DOMAIN: &str = "here";
/// As many as a certificate's addresses are looked at.
const ADDRESSES_MAX: usize = 16;

/// In this order for good: the first byte of an input chooses, its bit 6 among the last three, of which bit 1 chooses the
/// last.
const MECHANISMS: [Mechanism; 8] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha1,
    Mechanism::Plain,
    Mechanism::ScramSha512Plus,
    Mechanism::ScramSha512,
    Mechanism::External,
];

/// With its hash a server-first-message is another one; the seeds with a right proof are for none.
fn listed() -> Listed {
    let mechanisms = MECHANISMS.into_iter().filter(|it| *it != Mechanism::External).collect();
    Listed { mechanisms, bindings: Vec::new() }
}

struct Account {
    keys: ScramKeys,
    salted: SaltedPassword,
}

static ACCOUNTS: LazyLock<[Option<Account>; 8]> = LazyLock::new(|| {
    MECHANISMS.map(|mechanism| {
        let hash = mechanism.hash()?;
        let keys = derive("pencil", SALT, ITERATIONS_MIN, hash).expect("bounds are kept");
        let salted = SaltedPassword::derive("pencil", SALT, ITERATIONS_MIN, hash);
        Some(Account { keys, salted: salted.expect("bounds are kept") })
    })
});

pub(crate) fn sasl(data: &[u8]) {
    let Some((&choice, messages)) = data.split_first() else { return };
    let index = match choice & 0x40 {
        0 => usize::from(choice & 0x3f) % 5,
        _ if choice & 2 != 0 => 7,
        _ => 5 + usize::from(choice & 1),
    };
    let (mechanism, account) = (MECHANISMS[index], &ACCOUNTS[index]);
    let plus_offered = choice & 0x80 == 0;
    let end_of_first = messages.iter().position(|&byte| byte == b'\n').unwrap_or(messages.len());
    let (initial, last) = messages.split_at(end_of_first);
    let last = last.strip_prefix(b"\n").unwrap_or(last);

    check_payload(messages);
    let peeked = peek_username(mechanism, initial);
    let plain = Plain::parse(initial);
    if mechanism == Mechanism::Plain {
        assert_eq!(peeked.clone().ok(), plain.ok().map(|plain| plain.authcid.clone()));
    }
    if mechanism == Mechanism::External {
        assert_eq!(peeked, Err(SaslFailure::InvalidMechanism), "it names nobody");
        check_external(initial, last);
        return;
    }
    let Some(account) = account else { return };

    let binding =
        ChannelBinding { tls_exporter: Some([8; 32]), tls_server_end_point: Some(vec![9; 32]) };
    let listed = if plus_offered { listed() } else { Listed::default() };
    let start = |initial: &[u8], known| {
        ScramServer::start(mechanism, initial, &account.keys, known, NONCE, &binding, &listed)
    };
    if let Ok((server, _)) = start(initial, true) {
        assert!(peeked.is_ok(), "start is stricter than peek");
        let (stranger, _) = start(initial, false).expect("the same first message");
        assert!(stranger.finish(last).is_err(), "an account that is not there");
        // Two seeds hold a right proof: it must then cover every byte.
        if server.finish(last).is_ok() {
            for at in 0..last.len() {
                let mut changed = last.to_vec();
                changed[at] ^= 1;
                let (server, _) = start(initial, true).expect("the same first message");
                assert!(server.finish(&changed).is_err(), "byte {at} is not covered");
            }
        }
    }
    check_changed_login(mechanism, account, &binding, last);
}

/// A right login succeeds, and fails once any byte of its last message is another.
fn check_changed_login(
    mechanism: Mechanism,
    account: &Account,
    binding: &ChannelBinding,
    change: &[u8],
) {
    let flag = if mechanism.is_plus() {
        ClientBinding::Used { kind: TLS_EXPORTER, data: &[8; 32] }
    } else {
        ClientBinding::Unsupported
    };
    let mut client =
        ScramClient::new(mechanism, "user", "pencil", "abc", flag).expect("all is printable");
    let start = |initial: &[u8]| {
        ScramServer::start(mechanism, initial, &account.keys, true, NONCE, binding, &listed())
            .expect("a sound first message")
    };
    let (server, server_first) = start(&client.first());
    let client_final = client
        .server_first_with(&server_first, &mut |_, _, _, _| Ok(account.salted.clone()))
        .expect("a sound challenge");
    let server_final = server.finish(&client_final).expect("the right proof");

    let mut changed = client_final.clone();
    for pair in change.chunks_exact(2).take(4) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    if changed != client_final {
        let (server, _) = start(&client.first());
        assert!(server.finish(&changed).is_err(), "changed on the way");
    }
    client.server_final(&server_final).expect("the server knows the password");
    // The client must survive any server.
    let mut client =
        ScramClient::new(mechanism, "user", "pencil", "abc", flag).expect("all is printable");
    if client.server_first_with(change, &mut |_, _, _, _| Ok(account.salted.clone())).is_ok() {
        let _ = client.server_final(change);
    }
}

/// A certificate makes nobody of whom it does not speak, and no two.
fn check_external(message: &[u8], certificate: &[u8]) {
    let mut addresses: Vec<BareJid> = Vec::new();
    for line in certificate.split(|&byte| byte == b'\n').take(ADDRESSES_MAX) {
        let address = std::str::from_utf8(line).ok().and_then(|text| BareJid::parse(text).ok());
        // Each once, as the handshake leaves them.
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    let is_here = |address: &&BareJid| address.domain() == DOMAIN && address.local().is_some();
    let here: Vec<&BareJid> = addresses.iter().filter(is_here).collect();
    assert_eq!(is_external_offered(&addresses, DOMAIN), !here.is_empty());
    let named = std::str::from_utf8(message).ok().and_then(|text| BareJid::parse(text).ok());
    match external_identity(&addresses, DOMAIN, message) {
        Ok(identity) => {
            assert!(here.contains(&&identity), "{identity} is not in the certificate");
            match message {
                [] => assert_eq!(here.len(), 1, "of several one was chosen"),
                _ => assert_eq!(named, Some(identity), "not who was named"),
            }
        }
        Err(SaslFailure::InvalidAuthzid) if message.is_empty() => assert!(here.len() > 1),
        Err(SaslFailure::InvalidAuthzid) => {
            assert!(named.is_none_or(|named| !here.contains(&&named)), "refused whom it names");
        }
        Err(SaslFailure::NotAuthorized) => assert!(message.is_empty() && here.is_empty()),
        Err(SaslFailure::MalformedRequest) => {
            assert!(message.contains(&0) || std::str::from_utf8(message).is_err());
        }
        Err(other) => panic!("{other:?} is no answer to EXTERNAL"),
    }
}

fn check_payload(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(message) = decode_payload(text)
    {
        assert!(text == "=" || encode_payload(&message) == text, "two encodings of one message");
    }
}
