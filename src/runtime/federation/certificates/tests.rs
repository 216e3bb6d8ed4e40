//! Chains that the test makes, good ones and all that is wrong with others.

use super::*;
use crate::federation::discovery::Security;
use crate::federation::trust::By;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints, SanType, date_time_ymd,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::slice::from_ref;
use std::time::Duration;

/// 2027-12-28
const NOW_S: u64 = 1_830_000_000;

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW_S))
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn root(name: &str) -> Authority {
    let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn below(above: &Authority, params: CertificateParams) -> Authority {
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, &above.issuer).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut params = params("a server");
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params
}

fn leaf(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = leaf_params("a.example");
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().clone()
}

fn trust(anchors: &[&Authority]) -> Trust {
    let anchors: Vec<_> = anchors.iter().map(|it| it.der.clone()).collect();
    Trust::new(&anchors, &[])
}

fn judged(trust: &Trust, chain: &[CertificateDer<'_>]) -> Result<(), ChainProblem> {
    trust.certificate_at(chain, false, None, now()).unwrap().chain
}

#[test]
fn a_chain_to_an_authority_of_ours_holds() {
    let top = root("top");
    let middle = below(&top, authority_params("middle"));
    let leaf = leaf(&middle, |_| ());
    let trust = trust(&[&top, &root("other")]);
    let chain = [leaf.clone(), middle.der.clone()];
    let found = trust.certificate_at(&chain, false, None, now()).unwrap();
    assert_eq!(found.speaks_for("a.example"), Ok(By::Dns));
    assert_eq!(found.digest, sha256(&leaf));
    assert_eq!(found.key_digest, sha256(parse(&leaf).unwrap().public_key().raw));
    assert_eq!(found.expires_s, date_time_ymd(2030, 1, 1).unix_timestamp());
    assert_eq!(
        judged(&trust, &[leaf.clone(), middle.der, top.der]),
        Ok(()),
        "the root may be sent"
    );
    assert_eq!(trust.certificate_at(&[], false, None, now()), None);
}

#[test]
fn a_chain_without_its_middle_and_one_of_strangers_are_told_by_who_signed() {
    let top = root("top");
    let middle = below(&top, authority_params("middle"));
    let leaf = leaf(&middle, |_| ());
    let issuer = |name: &str| ChainProblem::UnknownIssuer { issuer: format!("CN={name}") };
    assert_eq!(judged(&trust(&[&top]), from_ref(&leaf)), Err(issuer("middle")));
    let strangers = trust(&[&root("other")]);
    assert_eq!(judged(&strangers, &[leaf, middle.der]), Err(issuer("top")));
}

#[test]
fn dates_are_told_of_whichever_certificate_is_out_of_them() {
    let top = root("top");
    let trust = trust(&[&top]);
    let expired = leaf(&top, |params| params.not_after = date_time_ymd(2024, 1, 1));
    let at_s = date_time_ymd(2024, 1, 1).unix_timestamp();
    assert_eq!(
        judged(&trust, &[expired]),
        Err(ChainProblem::Expired { at_s, intermediate: false })
    );
    let early = leaf(&top, |params| params.not_before = date_time_ymd(2029, 1, 1));
    let from_s = date_time_ymd(2029, 1, 1).unix_timestamp();
    assert_eq!(
        judged(&trust, &[early]),
        Err(ChainProblem::NotYetValid { from_s, intermediate: false })
    );
    let mut old = authority_params("old");
    old.not_after = date_time_ymd(2024, 1, 1);
    let old = below(&top, old);
    let chain = [leaf(&old, |_| ()), old.der.clone()];
    assert_eq!(judged(&trust, &chain), Err(ChainProblem::Expired { at_s, intermediate: true }));
    let mut new = authority_params("new");
    new.not_before = date_time_ymd(2029, 1, 1);
    let new = below(&top, new);
    let chain = [leaf(&new, |_| ()), new.der.clone()];
    assert_eq!(
        judged(&trust, &chain),
        Err(ChainProblem::NotYetValid { from_s, intermediate: true })
    );
}

#[test]
fn self_signed_certificates_hold_only_if_the_operator_names_them() {
    let key = KeyPair::generate().unwrap();
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let mut params = leaf_params("a.example");
        params.is_ca = is_ca;
        let der = params.self_signed(&key).unwrap().der().clone();
        let chain = [der.clone()];
        assert_eq!(judged(&trust(&[&root("top")]), &chain), Err(ChainProblem::SelfSigned));
        let pinned = Trust::new(&[], &[der]);
        assert_eq!(judged(&pinned, &chain), Ok(()));
        // Not another one with that name, and not out of its time.
        let other = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        assert!(judged(&pinned, &[other]).is_err());
        let late = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
        let late = pinned.certificate_at(&chain, false, None, late).unwrap().chain;
        assert!(matches!(late, Err(ChainProblem::Expired { intermediate: false, .. })));
    }
}

/// Many an authority gives out certificates for servers only, and servers are clients of each other.
#[test]
fn certificates_for_servers_are_good_for_both_sides() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, EmailProtection, ServerAuth};
    let top = root("top");
    let trust = trust(&[&top]);
    for (uses, as_server, as_client) in [
        (vec![], true, true),
        (vec![ServerAuth], true, true),
        (vec![ServerAuth, ClientAuth], true, true),
        (vec![CodeSigning, ServerAuth], true, true),
        (vec![Any], true, true),
        (vec![ClientAuth], false, true),
        (vec![CodeSigning], false, false),
        (vec![EmailProtection, CodeSigning], false, false),
    ] {
        let chain = [leaf(&top, |params| params.extended_key_usages = uses.clone())];
        for (is_client, expected) in [(false, as_server), (true, as_client)] {
            let found = trust.certificate_at(&chain, is_client, None, now()).unwrap().chain;
            let expected = if expected { Ok(()) } else { Err(ChainProblem::Purpose) };
            assert_eq!(found, expected, "{uses:?}, client: {is_client}");
        }
    }
}

#[test]
fn authorities_are_held_to_what_they_may_sign() {
    let top = root("top");
    let trust = trust(&[&top]);
    // A server that signs for others.
    let mut server = leaf_params("a.example");
    server.is_ca = IsCa::ExplicitNoCa;
    let server = below(&top, server);
    assert!(judged(&trust, &[leaf(&server, |_| ()), server.der.clone()]).is_err());
    // One that may sign for others, in the place of a server.
    let middle = below(&top, authority_params("middle"));
    assert_eq!(judged(&trust, &[middle.der]), Err(ChainProblem::Authority));
    let mut bound = authority_params("bound");
    bound.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("b.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let bound = below(&top, bound);
    let chain = [leaf(&bound, |_| ()), bound.der.clone()];
    assert_eq!(judged(&trust, &chain), Err(ChainProblem::Constraints));
}

/// It is bound in DNS names; that it is not in others must not help it.
#[test]
fn of_an_authority_that_is_bound_only_dns_names_count() {
    let xmpp = |name: &str| {
        let oid = vec![1, 3, 6, 1, 5, 5, 7, 8, 5];
        SanType::OtherName((oid, name.to_owned().into()))
    };
    let top = root("top");
    let mut bound = authority_params("bound");
    bound.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let bound = below(&top, bound);
    let chain_of = |by: &Authority| {
        let leaf = leaf(by, |params| params.subject_alt_names.push(xmpp("victim.example")));
        [leaf, by.der.clone()]
    };
    let judge = |anchor: &Authority, chain: &[CertificateDer<'_>]| {
        trust(&[anchor]).certificate_at(chain, false, None, now()).unwrap()
    };
    let free = judge(&top, &chain_of(&below(&top, authority_params("free"))));
    assert_eq!(free.speaks_for("victim.example"), Ok(By::XmppAddress));
    let found = judge(&top, &chain_of(&bound));
    assert_eq!(found.speaks_for("a.example"), Ok(By::Dns));
    assert!(found.speaks_for("victim.example").is_err());
    // The same where it is an authority of ours itself.
    let found = judge(&bound, &chain_of(&bound));
    assert_eq!(found.speaks_for("a.example"), Ok(By::Dns));
    assert!(found.speaks_for("victim.example").is_err());
}

#[test]
fn damaged_and_endless_chains_have_a_problem() {
    let top = root("top");
    let trust = trust(&[&top]);
    let good = leaf(&top, |_| ());
    let mut forged = good.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(judged(&trust, &[forged.into()]), Err(ChainProblem::BadSignature));
    for length in [0, 1, 10, good.len() - 1] {
        let cut = CertificateDer::from(good[..length].to_vec());
        assert_eq!(judged(&trust, &[cut]), Err(ChainProblem::Malformed));
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert_eq!(judged(&trust, &[longer.into()]), Err(ChainProblem::Malformed));
    let mut chain = vec![good];
    chain.extend((0..CHAIN_MAX).map(|_| top.der.clone()));
    assert_eq!(judged(&trust, &chain), Err(ChainProblem::TooLong));
    chain.pop();
    assert_eq!(judged(&trust, &chain), Ok(()));
    let critical = leaf(&top, |params| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    assert_eq!(judged(&trust, &[critical]), Err(ChainProblem::Malformed));
}

/// Certificates that openssl made: rcgen makes none that are so weak. `rsa1024` and `sha1` are signed by `ca` in the same file.
#[test]
fn weak_keys_and_weak_signatures_are_told() {
    let of = |text: &'static [u8]| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(text).map(Result::unwrap).collect()
    };
    let ca = of(include_bytes!("data/ca.pem"));
    let trust = Trust::new(&ca, &[]);
    let rsa1024 = of(include_bytes!("data/rsa1024.pem"));
    assert_eq!(judged(&trust, &rsa1024), Err(ChainProblem::WeakKey { bits: 1024 }));
    let sha1 = of(include_bytes!("data/sha1.pem"));
    assert_eq!(judged(&trust, &sha1), Err(ChainProblem::WeakSignature));
    let weak = AnyPeer::new(&provider::default_provider());
    let name = ServerName::try_from("a.example").unwrap();
    let refused = weak.verify_server_cert(&rsa1024[0], &[], &name, &[], now()).unwrap_err();
    assert!(explain(&refused).contains("RSA key of 1024 bits"), "{}", explain(&refused));
    assert!(weak.verify_server_cert(&sha1[0], &[], &name, &[], now()).is_ok());
}

#[test]
fn authorities_are_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let pem = |der: &CertificateDer<'_>| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let top = root("top");
    std::fs::write(&path, pem(&top.der)).unwrap();
    let trust = Trust::load(Some(&path)).unwrap();
    assert!(!trust.is_empty());
    assert_eq!(judged(&trust, &[leaf(&top, |_| ())]), Ok(()));
    std::fs::write(&path, "nothing").unwrap();
    assert!(Trust::load(Some(&path)).err().unwrap().to_string().contains("no certificate in it"));
    assert!(Trust::load(Some(&folder.path().join("none"))).is_err());
    assert!(Trust::load(None).is_ok());
}

proptest::proptest! {
    /// Whatever a peer shows, it is judged without a panic, and does not hold.
    #[test]
    fn damaged_certificates_are_judged_without_a_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), 1u8..), 1..8),
        length in proptest::prelude::any::<usize>(),
    ) {
        static MADE: std::sync::LazyLock<(Trust, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let top = root("top");
            let leaf = leaf(&top, |params| {
                let oid = vec![1, 3, 6, 1, 5, 5, 7, 8, 5];
                let xmpp = SanType::OtherName((oid, "a.example".to_owned().into()));
                params.subject_alt_names.push(xmpp);
            });
            (trust(&[&top]), leaf.to_vec())
        });
        let (trust, whole) = &*MADE;
        let mut bytes = whole.clone();
        for (place, change) in changes {
            let place = place % bytes.len();
            bytes[place] ^= change;
        }
        let is_changed = bytes != *whole;
        let cut = CertificateDer::from(bytes[..length % bytes.len()].to_vec());
        let bytes = CertificateDer::from(bytes);
        for is_client in [false, true] {
            let found = trust.certificate_at(from_ref(&bytes), is_client, None, now()).unwrap();
            assert_eq!(found.chain.is_err(), is_changed);
            assert!(found.names.to_string().len() < 2_000);
            assert!(trust.certificate_at(from_ref(&cut), is_client, None, now()).unwrap().chain.is_err());
        }
        let any = AnyPeer::new(&provider::default_provider());
        let name = ServerName::try_from("a.example").unwrap();
        let _ = any.verify_server_cert(&bytes, &[], &name, &[], now());
    }
}

mod dane {
    use super::*;

    fn target(tlsa: Vec<Tlsa>) -> Target {
        let host = "x.example".to_owned();
        Target { host, port: 5269, security: Security::StartTls, addresses: Vec::new(), tlsa }
    }

    fn tlsa(usage: u8, selector: u8, matching: u8, of: &CertificateDer<'_>) -> Tlsa {
        let parsed = parse(of).unwrap();
        let selected = if selector == 0 { of.as_ref() } else { parsed.public_key().raw };
        let data = match matching {
            0 => selected.to_vec(),
            1 => digest(&SHA256, selected).as_ref().to_vec(),
            _ => digest(&SHA512, selected).as_ref().to_vec(),
        };
        Tlsa { usage, selector, matching, data }
    }

    fn said(chain: &[CertificateDer<'_>], tlsa: Vec<Tlsa>) -> Dane {
        let trust = trust(&[&root("other")]);
        trust.certificate_at(chain, false, Some(&target(tlsa)), now()).unwrap().dane
    }

    /// RFC 6698 §2.1, RFC 7671 §5.1
    #[test]
    fn a_record_of_the_certificate_vouches_for_it_whatever_its_names_and_dates() {
        let expired = leaf(&root("top"), |params| params.not_after = date_time_ymd(2021, 1, 1));
        let other = leaf(&root("top"), |_| ());
        for selector in [0, 1] {
            for matching in [0, 1, 2] {
                let record = tlsa(3, selector, matching, &expired);
                assert_eq!(said(from_ref(&expired), vec![record.clone()]), Dane::Certificate);
                assert_eq!(said(from_ref(&other), vec![record.clone()]), Dane::Contradicts);
                let renewed = vec![tlsa(3, selector, matching, &other), record];
                assert_eq!(said(from_ref(&expired), renewed), Dane::Certificate, "one is enough");
            }
        }
        assert_eq!(said(&[expired], Vec::new()), Dane::Silent);
    }

    /// RFC 7671 §5.2
    #[test]
    fn a_record_of_an_authority_vouches_for_what_it_signed() {
        let top = root("top");
        let records = || vec![tlsa(2, 1, 1, &top.der)];
        let for_domain = leaf(&top, |_| ());
        let chain = [for_domain.clone(), top.der.clone()];
        assert_eq!(said(&chain, records()), Dane::Authority { for_target: false });
        let for_target = leaf(&top, |params| {
            params.subject_alt_names = vec![SanType::DnsName("x.example".try_into().unwrap())];
        });
        let chain = [for_target, top.der.clone()];
        assert_eq!(said(&chain, records()), Dane::Authority { for_target: true });
        // Without the authority, with one that did not sign, and out of time.
        assert_eq!(said(&[for_domain], records()), Dane::Contradicts);
        let stranger = leaf(&root("top"), |_| ());
        assert_eq!(said(&[stranger, top.der.clone()], records()), Dane::Contradicts);
        let expired = leaf(&top, |params| params.not_after = date_time_ymd(2021, 1, 1));
        assert_eq!(said(&[expired, top.der.clone()], records()), Dane::Contradicts);
    }
}

mod handshakes {
    use super::*;

    struct Peer {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    }

    fn peer(change: impl FnOnce(&mut CertificateParams)) -> Peer {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params("a.example");
        change(&mut params);
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        Peer { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    fn meet(client: &Peer, server: &Peer) -> Result<(Connection, Connection), rustls::Error> {
        let provider = Arc::new(provider::default_provider());
        let any = AnyPeer::new(&provider);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(any.clone())
            .with_single_cert(server.chain.clone(), server.key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())?;
        let name = ServerName::try_from("quite.another.example").unwrap();
        let mut client: Connection = ClientConnection::new(Arc::new(client), name)?.into();
        let mut server: Connection = ServerConnection::new(Arc::new(server))?.into();
        for _ in 0..6 {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    /// Dialback may do where nobody vouches for a certificate.
    #[test]
    fn any_certificate_is_taken_whose_key_the_peer_has_and_is_judged_afterwards() {
        let expired = peer(|params| params.not_after = date_time_ymd(2021, 1, 1));
        let odd = peer(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        });
        let (client, server) = meet(&expired, &odd).unwrap();
        let trust = trust(&[]);
        let seen = |connection: &Connection, is_client| {
            let chain = connection.peer_certificates().unwrap();
            trust.certificate_at(chain, is_client, None, now()).unwrap()
        };
        assert!(matches!(seen(&server, true).chain, Err(ChainProblem::Expired { .. })));
        assert_eq!(seen(&client, false).chain, Err(ChainProblem::SelfSigned));
    }

    #[test]
    fn a_certificate_whose_key_the_peer_does_not_have_ends_the_handshake() {
        let (good, thief) = (peer(|_| ()), peer(|_| ()));
        // rustls looks whether the key fits; the resolver below does not.
        #[derive(Debug)]
        struct Stolen(Arc<rustls::sign::CertifiedKey>);
        impl rustls::server::ResolvesServerCert for Stolen {
            fn resolve(
                &self,
                _: rustls::server::ClientHello<'_>,
            ) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(self.0.clone())
            }
        }
        let provider = Arc::new(provider::default_provider());
        let key = provider.key_provider.load_private_key(thief.key).unwrap();
        let stolen = Stolen(Arc::new(rustls::sign::CertifiedKey::new(good.chain, key)));
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(stolen));
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(AnyPeer::new(&provider))
            .with_no_client_auth();
        let name = ServerName::try_from("a.example").unwrap();
        let mut client: Connection = ClientConnection::new(Arc::new(client), name).unwrap().into();
        let mut server: Connection = ServerConnection::new(Arc::new(server)).unwrap().into();
        pass(&mut client, &mut server).unwrap();
        let error = pass(&mut server, &mut client).unwrap_err();
        assert_eq!(
            explain(&error),
            "the peer does not have the key of the certificate that it shows"
        );
    }
}
