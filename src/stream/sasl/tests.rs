//! Whole logins: both halves against each other, the examples of the RFCs, and every way to fail.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::client::{ClientBinding, ClientError, ScramClient, plain};
use super::hash::trace;
use super::*;
use crate::xmpp::credentials::{Credentials, ScramKeys};

const CLIENT_NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";
const SERVER_NONCE: &str = "3rfcNHYJY1ZVvWVs7j";
const SCRAM: [Mechanism; 6] = [
    Mechanism::ScramSha512Plus,
    Mechanism::ScramSha512,
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha1,
];

fn credentials() -> Credentials {
    new_credentials("pencil", ITERATIONS_MIN, &mut |salt| salt.fill(5)).unwrap()
}

fn keys(mechanism: Mechanism) -> ScramKeys {
    match mechanism.hash().unwrap() {
        ScramHash::Sha1 => credentials().sha1,
        ScramHash::Sha256 => credentials().sha256,
        ScramHash::Sha512 => *credentials().sha512.unwrap(),
    }
}

fn binding() -> ChannelBinding {
    ChannelBinding { tls_exporter: Some([8; 32]), tls_server_end_point: Some(vec![9; 48]) }
}

fn client(mechanism: Mechanism, password: &str) -> ScramClient {
    let binding = if mechanism.is_plus() {
        ClientBinding::Used { kind: TLS_EXPORTER, data: &[8; 32] }
    } else {
        ClientBinding::Unsupported
    };
    ScramClient::new(mechanism, "user", password, CLIENT_NONCE, binding).unwrap()
}

/// As in the example of XEP-0474 §3.3.
fn listed() -> Listed {
    Listed {
        mechanisms: vec![Mechanism::ScramSha1Plus, Mechanism::ScramSha1],
        bindings: vec![TLS_SERVER_END_POINT, TLS_EXPORTER],
    }
}

fn start(
    mechanism: Mechanism,
    initial: &[u8],
    keys: &ScramKeys,
) -> Result<(ScramServer, Vec<u8>), SaslFailure> {
    ScramServer::start(mechanism, initial, keys, true, SERVER_NONCE, &binding(), &listed())
}

/// RFC 5802 §5.
#[test]
fn example_of_rfc_5802_holds_on_both_sides() {
    check_example(
        Mechanism::ScramSha1,
        [
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ],
        [CLIENT_NONCE, SERVER_NONCE, "QSXCR+Q6sek8bf92"],
    );
}

/// XEP-0474 §3.3.
#[test]
fn server_first_has_the_hash_of_what_was_listed() {
    let h = |mechanism, listed: &Listed| {
        let first = client(mechanism, "pencil").first();
        let keys = keys(mechanism);
        let (_, server_first) =
            ScramServer::start(mechanism, &first, &keys, true, SERVER_NONCE, &binding(), listed)
                .unwrap();
        String::from_utf8(server_first).unwrap().split_once(",h=").map(|(_, h)| h.to_owned())
    };
    let own = h(Mechanism::ScramSha1Plus, &listed()).unwrap();
    assert_eq!(own, "G6k/rBLDqgOhRRaCuuatSDFkJ08=");
    let cut = Listed { mechanisms: vec![Mechanism::ScramSha1], ..Listed::default() };
    assert_ne!(h(Mechanism::ScramSha1, &cut).unwrap(), own);
    assert_eq!(h(Mechanism::ScramSha512, &cut).unwrap().len(), 88, "by the mechanism's hash");
    assert_eq!(h(Mechanism::ScramSha1, &Listed::default()), None);
}

/// RFC 7677 §3.
#[test]
fn example_of_rfc_7677_holds_on_both_sides() {
    check_example(
        Mechanism::ScramSha256,
        [
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ],
        ["rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ=="],
    );
}

fn check_example(mechanism: Mechanism, messages: [&str; 4], [nonce, servers, salt]: [&str; 3]) {
    let hash = mechanism.hash().unwrap();
    let keys = derive("pencil", &STANDARD.decode(salt).unwrap(), 4096, hash).unwrap();
    let none = ClientBinding::Unsupported;
    let mut client = ScramClient::new(mechanism, "user", "pencil", nonce, none).unwrap();
    let first = client.first();
    assert_eq!(first, messages[0].as_bytes());
    assert_eq!(peek_username(mechanism, &first).unwrap(), "user");
    let no_binding = ChannelBinding::default();
    let (server, server_first) = ScramServer::start(
        mechanism,
        &first,
        &keys,
        true,
        servers,
        &no_binding,
        &Listed::default(),
    )
    .unwrap();
    assert_eq!(server_first, messages[1].as_bytes());
    let client_final = client.server_first(&server_first).unwrap();
    assert_eq!(client_final, messages[2].as_bytes());
    let server_final = server.finish(&client_final).unwrap();
    assert_eq!(server_final, messages[3].as_bytes());
    client.server_final(&server_final).unwrap();
}

#[test]
fn each_mechanism_logs_in_with_the_right_password_only() {
    for mechanism in SCRAM {
        for (password, is_right) in [("pencil", true), ("pen\u{AD}cil", true), ("Pencil", false)] {
            let mut client = client(mechanism, password);
            let (server, server_first) =
                start(mechanism, &client.first(), &keys(mechanism)).unwrap();
            let client_final = client.server_first(&server_first).unwrap();
            match server.finish(&client_final) {
                Ok(server_final) => {
                    assert!(is_right);
                    client.server_final(&server_final).unwrap();
                }
                Err(failure) => {
                    assert!(!is_right);
                    assert_eq!(failure, SaslFailure::NotAuthorized);
                }
            }
        }
    }
    let message = Plain::parse(&plain("", "user", "pencil")).unwrap();
    assert!(verify_plain(&message.password, &credentials().sha256));
}

#[test]
fn each_binding_type_logs_in() {
    for (kind, data) in [(TLS_EXPORTER, [8; 32].as_slice()), (TLS_SERVER_END_POINT, &[9; 48])] {
        let mechanism = Mechanism::ScramSha256Plus;
        let used = ClientBinding::Used { kind, data };
        let mut client = ScramClient::new(mechanism, "user", "pencil", CLIENT_NONCE, used).unwrap();
        let (server, server_first) = start(mechanism, &client.first(), &keys(mechanism)).unwrap();
        let client_final = client.server_first(&server_first).unwrap();
        client.server_final(&server.finish(&client_final).unwrap()).unwrap();
    }
}

/// RFC 5802 §6: the proof is right, but it was made for another TLS connection.
#[test]
fn login_from_another_channel_is_refused() {
    for (kind, data) in [
        (TLS_EXPORTER, [7; 32].as_slice()),
        (TLS_EXPORTER, &[8; 31]),
        (TLS_EXPORTER, &[]),
        (TLS_SERVER_END_POINT, &[8; 32]),
    ] {
        let mechanism = Mechanism::ScramSha256Plus;
        let used = ClientBinding::Used { kind, data };
        let mut client = ScramClient::new(mechanism, "user", "pencil", CLIENT_NONCE, used).unwrap();
        let (server, server_first) = start(mechanism, &client.first(), &keys(mechanism)).unwrap();
        let client_final = client.server_first(&server_first).unwrap();
        assert_eq!(server.finish(&client_final), Err(SaslFailure::NotAuthorized));
    }
}

/// RFC 5802 §6.
#[test]
fn binding_flag_must_fit_the_mechanism_and_the_offer() {
    let plus = Mechanism::ScramSha256Plus;
    let bare = Mechanism::ScramSha256;
    let judge = |mechanism, flag: &str, binding: &ChannelBinding, plus_offered| {
        let first = format!("{flag},,n=user,r=abc");
        let keys = keys(mechanism);
        ScramServer::start(
            mechanism,
            first.as_bytes(),
            &keys,
            true,
            SERVER_NONCE,
            binding,
            &if plus_offered { listed() } else { Listed::default() },
        )
        .err()
    };
    let all = binding();
    let none = ChannelBinding::default();
    assert_eq!(judge(plus, "p=tls-exporter", &all, true), None);
    assert_eq!(judge(bare, "n", &all, true), None);
    assert_eq!(judge(bare, "y", &none, false), None);
    assert_eq!(judge(bare, "y", &all, true), Some(SaslFailure::NotAuthorized), "downgrade");
    assert_eq!(judge(bare, "p=tls-exporter", &all, true), Some(SaslFailure::MalformedRequest));
    assert_eq!(judge(plus, "n", &all, true), Some(SaslFailure::MalformedRequest));
    assert_eq!(judge(plus, "y", &all, true), Some(SaslFailure::MalformedRequest));
    assert_eq!(judge(plus, "p=tls-unique", &all, true), Some(SaslFailure::NotAuthorized));
    assert_eq!(judge(plus, "p=tls-exporter", &none, true), Some(SaslFailure::NotAuthorized));
}

#[test]
fn header_must_be_repeated_exactly() {
    let mechanism = Mechanism::ScramSha256;
    let mut client = client(mechanism, "pencil");
    let (_, server_first) = start(mechanism, &client.first(), &keys(mechanism)).unwrap();
    let client_final = client.server_first(&server_first).unwrap();
    // One in the middle turned the client's `n` into `y` where no -PLUS was offered: the proof covers `n`.
    let changed = b"y,,n=user,r=fyko+d2lbbFgONRv9qkxdawL";
    let none = ChannelBinding::default();
    let keys = keys(mechanism);
    let (server, _) = ScramServer::start(
        mechanism,
        changed,
        &keys,
        true,
        SERVER_NONCE,
        &none,
        &Listed::default(),
    )
    .unwrap();
    assert_eq!(server.finish(&client_final), Err(SaslFailure::NotAuthorized));
}

#[test]
fn another_nonce_is_refused_though_the_proof_is_right() {
    let mechanism = Mechanism::ScramSha256;
    let mut client = client(mechanism, "pencil");
    let (server, server_first) = start(mechanism, &client.first(), &keys(mechanism)).unwrap();
    // A client that signs another nonce than the server's, and signs it well.
    let replayed = String::from_utf8(server_first.clone()).unwrap().replace("7j,", "8k,");
    let client_final = client.server_first(replayed.as_bytes()).unwrap();
    assert_eq!(server.finish(&client_final), Err(SaslFailure::NotAuthorized));
}

#[test]
fn authzid_is_exposed_unescaped_and_covered_by_the_proof() {
    let mechanism = Mechanism::ScramSha256;
    let mut client = client(mechanism, "pencil").with_authzid("us=er,@localhost");
    let first = client.first();
    assert!(first.starts_with(b"n,a=us=3Der=2C@localhost,n=user,"));
    let (server, server_first) = start(mechanism, &first, &keys(mechanism)).unwrap();
    assert_eq!(server.authzid(), Some("us=er,@localhost"));
    let client_final = client.server_first(&server_first).unwrap();
    assert!(server.finish(&client_final).is_ok());

    let (server, _) =
        start(mechanism, &self::client(mechanism, "pencil").first(), &keys(mechanism)).unwrap();
    assert_eq!(server.authzid(), None);
    assert_eq!(server.finish(&client_final), Err(SaslFailure::NotAuthorized));
}

#[test]
fn unknown_name_sees_the_same_messages_lengths_and_work_as_a_wrong_password() {
    for mechanism in SCRAM {
        let hash = mechanism.hash().unwrap();
        let attempt = |keys: &ScramKeys, known| {
            let mut client = client(mechanism, "wrong");
            let first = client.first();
            trace::take();
            let (server, server_first) = ScramServer::start(
                mechanism,
                &first,
                keys,
                known,
                SERVER_NONCE,
                &binding(),
                &listed(),
            )
            .unwrap();
            let work_of_start = trace::take();
            let client_final = client.server_first(&server_first).unwrap();
            trace::take();
            let failure = server.finish(&client_final).unwrap_err();
            (server_first.len(), failure, work_of_start, trace::take())
        };
        let fake = fake_keys(&[3; 32], "user", hash, ITERATIONS_MIN);
        let of_known = attempt(&keys(mechanism), true);
        assert_eq!(of_known, attempt(&fake, false));
        assert_eq!(of_known.1, SaslFailure::NotAuthorized);
        assert_eq!(
            of_known.3,
            [trace::Operation::Hmac, trace::Operation::Hmac, trace::Operation::Digest]
        );
    }
}

#[test]
fn unknown_account_fails_even_with_a_right_proof() {
    let mechanism = Mechanism::ScramSha256;
    let mut client = client(mechanism, "pencil");
    let keys = keys(mechanism);
    let first = client.first();
    let (server, server_first) =
        ScramServer::start(mechanism, &first, &keys, false, SERVER_NONCE, &binding(), &listed())
            .unwrap();
    let client_final = client.server_first(&server_first).unwrap();
    assert_eq!(server.finish(&client_final), Err(SaslFailure::NotAuthorized));
}

#[test]
fn proof_of_another_length_is_malformed() {
    let mechanism = Mechanism::ScramSha256;
    let first = client(mechanism, "pencil").first();
    let (server, _) = start(mechanism, &first, &keys(mechanism)).unwrap();
    let proof = STANDARD.encode([0; 20]);
    let client_final = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={proof}");
    assert_eq!(server.finish(client_final.as_bytes()), Err(SaslFailure::MalformedRequest));
}

#[test]
fn start_refuses_what_it_cannot_serve() {
    let initial = b"n,,n=user,r=abc";
    let keys = keys(Mechanism::ScramSha256);
    let failure = |mechanism, initial: &[u8]| start(mechanism, initial, &keys).unwrap_err();
    assert_eq!(failure(Mechanism::Plain, initial), SaslFailure::InvalidMechanism);
    assert_eq!(failure(Mechanism::ScramSha1, initial), SaslFailure::TemporaryAuthFailure);
    assert_eq!(failure(Mechanism::ScramSha256, b"n,,n=user"), SaslFailure::MalformedRequest);
    let unpreparable = b"n,,n=us\x07er,r=abc";
    assert_eq!(failure(Mechanism::ScramSha256, unpreparable), SaslFailure::NotAuthorized);
}

#[test]
fn peek_unescapes_and_prepares_the_name() {
    let peek = |text: &str| peek_username(Mechanism::ScramSha1, text.as_bytes());
    assert_eq!(peek("n,,n=u=2Cs=3De\u{AD}r\u{2168},r=abc").unwrap(), "u,s=erIX");
    assert_eq!(peek("p=tls-unique,,n=user,r=abc").unwrap(), "user", "judged later");
    assert_eq!(peek("n,,n=us\u{1F600}er,r=abc").unwrap(), "us\u{1F600}er");
    assert_eq!(peek("n,,n=\u{7},r=abc"), Err(SaslFailure::NotAuthorized));
    assert_eq!(peek("n,,n=\u{AD},r=abc"), Err(SaslFailure::NotAuthorized));
    assert_eq!(peek("n,,m=x,n=user,r=abc"), Err(SaslFailure::MalformedRequest));
    assert_eq!(peek_username(Mechanism::Plain, b"\0user\0pw").unwrap(), "user");
    assert_eq!(peek_username(Mechanism::Plain, b"user"), Err(SaslFailure::MalformedRequest));
}

#[test]
fn client_knows_an_impostor() {
    let mechanism = Mechanism::ScramSha256;
    let mut client = client(mechanism, "pencil");
    let server_first = start(mechanism, &client.first(), &keys(mechanism)).unwrap().1;
    assert_eq!(client.server_first(b"r=other,s=QSXC,i=4096").unwrap_err(), ClientError::Nonce);
    let alone = format!("r={CLIENT_NONCE},s=QSXC,i=4096");
    assert_eq!(client.server_first(alone.as_bytes()).unwrap_err(), ClientError::Nonce);
    let weak = format!("r={CLIENT_NONCE}x,s=QSXC,i=1");
    assert_eq!(
        client.server_first(weak.as_bytes()).unwrap_err(),
        ClientError::Password(PasswordError::Iterations)
    );
    client.server_first(&server_first).unwrap();
    let verifier = format!("v={}", STANDARD.encode([0; 32]));
    assert_eq!(client.server_final(verifier.as_bytes()), Err(ClientError::Impostor));

    let client = self::client(mechanism, "pencil");
    assert_eq!(client.server_final(b"v=AAAA"), Err(ClientError::Order));
}

#[test]
fn salted_password_can_be_kept_between_logins() {
    let mechanism = Mechanism::ScramSha256;
    let keys = keys(mechanism);
    let mut kept: Option<SaltedPassword> = None;
    let mut derivations = 0;
    for _ in 0..3 {
        let mut client = client(mechanism, "pencil");
        let (server, server_first) = start(mechanism, &client.first(), &keys).unwrap();
        let client_final = client
            .server_first_with(&server_first, &mut |password, salt, iterations, hash| {
                if kept.is_none() {
                    derivations += 1;
                    kept = Some(SaltedPassword::derive(password, salt, iterations, hash)?);
                }
                Ok(kept.clone().unwrap())
            })
            .unwrap();
        client.server_final(&server.finish(&client_final).unwrap()).unwrap();
    }
    assert_eq!(derivations, 1);
}

#[test]
fn client_refuses_a_binding_that_does_not_fit() {
    let used = ClientBinding::Used { kind: TLS_EXPORTER, data: b"x" };
    let new = |mechanism, binding| {
        ScramClient::new(mechanism, "user", "pencil", CLIENT_NONCE, binding).err()
    };
    let plus = Mechanism::ScramSha1Plus;
    assert_eq!(new(plus, ClientBinding::Unsupported), Some(ClientError::Binding));
    assert_eq!(new(Mechanism::ScramSha1, used), Some(ClientError::Binding));
    let plain = Mechanism::Plain;
    assert_eq!(new(plain, ClientBinding::Unsupported), Some(ClientError::NotScram(plain)));
}

#[test]
fn offer_is_in_order_of_preference() {
    let names = |offer: Offer| offer.mechanisms().map(Mechanism::name).collect::<Vec<_>>();
    let scram = ScramHashes::default();
    let all = Offer { channel_binding: true, plain: true, scram, external: true };
    assert_eq!(
        names(all),
        [
            "EXTERNAL",
            "SCRAM-SHA-512-PLUS",
            "SCRAM-SHA-512",
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-1",
            "PLAIN"
        ]
    );
    let scram = ScramHashes { sha512: false, ..scram };
    let old = Offer { channel_binding: false, scram, external: false, ..all };
    assert_eq!(names(old), ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]);
    assert_eq!(names(Offer { plain: false, ..old }), ["SCRAM-SHA-256", "SCRAM-SHA-1"]);
    let imported = ScramHashes { sha256: false, ..scram };
    assert_eq!(names(Offer { scram: imported, ..old }), ["SCRAM-SHA-1", "PLAIN"]);
    let mixed = ScramHashes { sha1: false, ..imported };
    assert_eq!(names(Offer { scram: mixed, ..old }), ["PLAIN"]);
    assert!(Mechanism::ALL.is_sorted());
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::parse(mechanism.name()), Some(mechanism));
    }
    assert_eq!(Mechanism::parse("plain"), None);
    assert_eq!(Mechanism::parse("external"), None);
}

#[test]
fn payload_is_strict_base64_within_bounds() {
    assert_eq!(decode_payload("").unwrap(), b"");
    assert_eq!(decode_payload("=").unwrap(), b"");
    assert_eq!(decode_payload("AHRpbQ==").unwrap(), b"\0tim");
    for text in ["AHRpbQ", "AHRpbQ=", "AHRpbR==", " AHRpbQ==", "AHRp\nbQ==", "AHRp-_==", "=="] {
        assert_eq!(decode_payload(text), Err(SaslFailure::IncorrectEncoding), "{text}");
    }
    let longest = encode_payload(&[0; MESSAGE_BYTES_MAX]);
    assert_eq!(decode_payload(&longest).unwrap().len(), MESSAGE_BYTES_MAX);
    for longer in [MESSAGE_BYTES_MAX + 1, MESSAGE_BYTES_MAX + 2, 2 * MESSAGE_BYTES_MAX] {
        let text = encode_payload(&vec![0; longer]);
        assert_eq!(decode_payload(&text), Err(SaslFailure::MalformedRequest));
    }
    assert_eq!(encode_payload(b"\0tim"), "AHRpbQ==");
}

#[test]
fn new_nonce_is_printable_and_uses_its_randomness() {
    let nonce = new_nonce(&mut |bytes| bytes.fill(0xfb));
    assert_eq!(nonce.len(), 24);
    assert!(message::printable(&nonce).is_ok());
    assert_ne!(nonce, new_nonce(&mut |bytes| bytes.fill(0xfa)));
}

#[test]
fn secrets_do_not_show_in_debug() {
    let first = client(Mechanism::ScramSha256, "pencil").first();
    let (server, _) = start(Mechanism::ScramSha256, &first, &keys(Mechanism::ScramSha256)).unwrap();
    assert_eq!(format!("{server:?}"), "ScramServer { hash: Sha256, .. }");
}

/// Bytes that come near the grammar more often than random ones do.
fn near_message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"n,,n=user,r=abc".to_vec()),
        Just(b"p=tls-exporter,a=x,".to_vec()),
        Just(b"c=biws,r=fyko".to_vec()),
        Just(b",p=AAAA".to_vec()),
        Just(b"=2C".to_vec()),
        Just(b",".to_vec()),
        Just(b"\0".to_vec()),
        Just("\u{AD}\u{1F600}\u{627}".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_a_panic(
        initial in near_message(),
        last in near_message(),
        mechanism in proptest::sample::select(Mechanism::ALL.as_slice()),
    ) {
        let peeked = peek_username(mechanism, &initial);
        let _ = Plain::parse(&initial);
        let fake = fake_keys(&[1; 32], "x", mechanism.hash().unwrap_or(ScramHash::Sha1), 4096);
        if let Ok((server, _)) = start(mechanism, &initial, &fake) {
            prop_assert!(peeked.is_ok());
            prop_assert!(server.finish(&last).is_err());
        }
        let first = client(Mechanism::ScramSha1, "pencil").first();
        let fake = fake_keys(&[1; 32], "x", ScramHash::Sha1, 4096);
        let (server, _) = start(Mechanism::ScramSha1, &first, &fake).unwrap();
        prop_assert!(server.finish(&last).is_err());
    }

    #[test]
    fn payload_decodes_only_from_its_one_encoding(text in "[A-Za-z0-9+/=]{0,24}") {
        if let Ok(message) = decode_payload(&text) {
            prop_assert!(text == "=" || encode_payload(&message) == text);
        }
    }
}

#[test]
fn any_changed_byte_of_the_final_message_is_refused() {
    let mechanism = Mechanism::ScramSha1Plus;
    let keys = keys(mechanism);
    let mut client = client(mechanism, "pencil");
    let first = client.first();
    let (server, server_first) = start(mechanism, &first, &keys).unwrap();
    let client_final = client.server_first(&server_first).unwrap();
    assert!(server.finish(&client_final).is_ok());
    for at in 0..client_final.len() {
        for bit in 0..8 {
            let mut changed = client_final.clone();
            changed[at] ^= 1 << bit;
            let (server, _) = start(mechanism, &first, &keys).unwrap();
            assert!(server.finish(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}
