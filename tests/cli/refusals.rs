//! Each way in which a configuration can be wrong is told with place, key and remedy.

use crate::{Place, Run};

#[test]
fn a_good_file_is_ok() {
    let place = Place::new();
    let text = "domains = [\"Example.ORG\"]\n[c2s]\ntls = \"optional\"\n";
    assert_eq!(place.check(text).done(), "corefire.toml: ok\n");
}

#[test]
fn values_are_refused_with_file_line_key_and_remedy() {
    let cases = [
        (
            "[c2s]\ntls = \"never\"",
            "2: c2s.tls: \"never\" is not one of \"required\", \"optional\"; write tls = \"required\"",
        ),
        (
            "[c2s]\ntls = true",
            "2: c2s.tls: true is not a text in double quotes; write tls = \"required\"",
        ),
        (
            "[limits]\ndepth = \"9\"",
            "2: limits.depth: \"9\" is not a whole number; write depth = 64",
        ),
        ("[limits]\n\ndepth = 0", "3: limits.depth: 0 is not within 8 to 1024; write depth = 64"),
        (
            "[limits]\ndepth = 99999999999999999999",
            "2: limits.depth: 99999999999999999999 is not within 8 to 1024; write depth = 64",
        ),
        ("[limits]\ndepth = 1.5", "2: limits.depth: 1.5 is not a whole number; write depth = 64"),
        (
            "[archive]\nenabled = \"no\"",
            "2: archive.enabled: \"no\" is neither true nor false; write enabled = true",
        ),
        (
            "[archive]\nretention_days = -1",
            "2: archive.retention_days: -1 is not within 0 to 36500; write retention_days = 0",
        ),
        (
            "[archive.domains.\"other.example\"]\nretention_days = 1",
            "1: archive.domains.\"other.example\": \"other.example\" is not served; add it to domains",
        ),
        (
            "[c2s]\nlisten = \"127.0.0.1:5222\"",
            "2: c2s.listen: \"127.0.0.1:5222\" is not a list; write listen = [\"127.0.0.1:5222\"]",
        ),
        (
            "[c2s]\nlisten = [\"localhost:5222\", 5222]",
            "2: c2s.listen: \"localhost:5222\" is not an IP address with a port, \
             5222 is not a text in double quotes; write listen = [\"127.0.0.1:5222\"]",
        ),
        (
            "[c2s]\nlisten = [\"127.0.0.1:5223\"]",
            "1: c2s.direct_tls_listen: 127.0.0.1:5223 is listened on twice; write another port",
        ),
        (
            "domains = [\"a b\"]",
            "1: domains: \"a b\" is not a domain (the domain is neither a host name nor an IP address); \
             write domains = [\"example.org\"]",
        ),
        (
            "domains = []",
            "1: domains: a server without a domain serves nobody; write domains = [\"example.org\"]",
        ),
        ("domains = [\"a.b\", \"A.b\"]", "1: domains: \"a.b\" is there twice; write it once"),
        (
            "[limits]\nexempt = [\"10.0.0.0/99\"]",
            "2: limits.exempt: \"10.0.0.0/99\" is not a network; write exempt = [\"127.0.0.0/8\"]",
        ),
        (
            "[limits]\nstanza_bytes = 20000\nstanza_bytes_before_login = 30000",
            "3: limits.stanza_bytes_before_login: more than stanza_bytes (20000); \
             write stanza_bytes_before_login = 20000",
        ),
        (
            "[limits]\nstanza_bytes = 50000\noutput_bytes = 70000",
            "3: limits.output_bytes: less than twice stanza_bytes (50000); write output_bytes = 100000",
        ),
        ("node = 1", "1: node: 1 is not a table; write [node] and its keys below"),
        (
            "[storage]\nurl = \"mysql://x\"",
            "2: storage.url: \"mysql:\" does not start with \"sqlite:\" or \"postgres:\"; write url = \"sqlite:corefire.db\" or \"postgres://corefire@db.example.org/corefire\"",
        ),
        (
            "[storage]\nurl = \"sqlite::memory:\"",
            "2: storage.url: \"sqlite::memory:\" keeps nothing; write url = \"sqlite:corefire.db\" or \"postgres://corefire@db.example.org/corefire\"",
        ),
        (
            "[storage]\nurl = \"postgres://u:hunter2@h/x?sslmode=prefer\"",
            "2: storage.url: has an sslmode that is none of disable, require, verify-ca, verify-full; write url = \"sqlite:corefire.db\" or \"postgres://corefire@db.example.org/corefire\"",
        ),
        (
            "[storage]\npassword_file = \"/x\"",
            "2: storage.password_file: there is no database that asks for it; write url = \"postgres://corefire@db.example.org/corefire\"",
        ),
        (
            "[storage]\nurl = \"postgres://localhost/x\"\npassword_file = \"/nowhere/password\"",
            "3: storage.password_file: /nowhere/password: cannot be read: No such file or directory (os error 2); name a file that this process may read",
        ),
        (
            "[storage]\nurl = \"postgres://h/x?sslrootcert=/nowhere/ca.pem\"",
            "2: storage.url: /nowhere/ca.pem: no certificate can be read: I/O error: No such file or directory (os error 2)",
        ),
    ];
    let place = Place::new();
    for (text, line) in cases {
        place.check(text).refused(&[&format!("corefire.toml:{line}")]);
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let place = Place::new();
    let cases = [
        ("[c2s]\nlisen = []", "2: c2s.lisen: no such key; write c2s.listen"),
        ("[c2z]\nlisten = []", "1: c2z: no such key; write c2s"),
        ("domain = \"a.b\"", "1: domain: no such key; write domains"),
        ("shards = 4", "1: shards: no such key; write node.shards"),
        (
            "[storage]\nflavour = 1",
            "2: storage.flavour: no such key; remove it, or write one of url, password_file, connections, ack",
        ),
        (
            "[tls.hosts.localhost]\ncert = \"x\"",
            "2: tls.hosts.localhost.cert: no such key; remove it, or write one of certificate, key",
        ),
    ];
    for (text, line) in cases {
        let run = place.check(text);
        assert_eq!(run.code, 1);
        let expected = format!("corefire.toml:{line}");
        assert!(run.stderr.lines().any(|told| told == expected), "{}\n{expected}", run.stderr);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let place = Place::new();
    let run =
        place.check("[c2s]\ntls = 1\nport = 5222\n[limits]\ndepth = 0\n[log]\nlevel = \"loud\"\n");
    assert_eq!(run.code, 1);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for place in
        ["corefire.toml:2: ", "corefire.toml:3: ", "corefire.toml:5: ", "corefire.toml:7: "]
    {
        assert!(lines.iter().any(|line| line.starts_with(place)), "{lines:#?}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let place = Place::new();
    let run = place.check("[c2s]\ntls = required\n");
    assert_eq!(run.code, 1);
    assert!(run.stderr.starts_with("corefire.toml:2: not TOML: "), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn parts_that_are_not_built_are_refused_with_the_value_that_is_off() {
    let cases = [(
        "[http]\nlisten = [\"127.0.0.1:5280\"]",
        "2: http.listen: [\"127.0.0.1:5280\"] is not in this version; write listen = []",
    )];
    let place = Place::new();
    for (text, line) in cases {
        place.check(text).refused(&[&format!("corefire.toml:{line}")]);
    }
}

#[test]
fn federation_is_refused_with_the_place_and_the_remedy() {
    let place = Place::new();
    for (text, message) in [
        (
            "[federation]\nlisten = [\"5269\"]",
            "2: federation.listen: \"5269\" is not an IP address with a port; write listen = [\"0.0.0.0:5269\"]",
        ),
        (
            "[federation]\nca_file = \"missing.pem\"",
            "2: federation.ca_file: missing.pem: cannot be read: No such file or directory (os error 2); name a PEM file \
             that this process may read",
        ),
        (
            "[federation.routes]\n\"a.b\" = \"192.0.2.1:0\"",
            "2: federation.routes.\"a.b\": \"192.0.2.1:0\": the port is a number from 1 to 65535; write \"a.b\" = \
             \"192.0.2.1:5269\"",
        ),
        (
            "[federation.domains.\"a.b\"]\nmin_tls = \"1.1\"",
            "2: federation.domains.\"a.b\".min_tls: \"1.1\" is not one of \"1.2\", \"1.3\"; write min_tls = \"1.2\"",
        ),
        (
            "[federation.limits]\ndials = 0",
            "2: federation.limits.dials: 0 is not within 1 to 10000; write dials = 64",
        ),
    ] {
        place.check(text).refused(&[&format!("corefire.toml:{message}")]);
    }
}

/// A secret is in no message.
#[test]
fn components_are_refused_with_a_reason_and_without_their_secrets() {
    let place = Place::new();
    for (text, message) in [
        (
            "[components]\nlisten = [\"127.0.0.1:5347\"]",
            "2: components.listen: no component may connect; write its secret below [components.secrets], \
             as in \"bot.example.org\" = \"its secret\"",
        ),
        (
            "[components.secrets]\n\"a.b\" = \"\"",
            "2: components.secrets.\"a.b\": has an empty secret; write one that nobody guesses",
        ),
        (
            "[components.secrets]\n\"localhost\" = \"hunter2\"",
            "2: components.secrets.\"localhost\": is a domain of the server itself; \
             give the component a domain of its own",
        ),
        (
            "[components.secrets]\n\"a b\" = \"hunter2\"",
            "2: components.secrets.\"a b\": is not a domain (the domain is neither a host name nor an IP address); \
             write \"bot.example.org\" = \"its secret\"",
        ),
        (
            "[components.secrets]\n\"a.b\" = \"hunter2\"\n\"A.B\" = \"hunter3\"",
            "2: components.secrets.\"a.b\": is there twice; write it once",
        ),
        (
            "[components.secrets]\n\"a.b\" = 12345",
            "2: components.secrets.\"a.b\": its secret is not a text in double quotes",
        ),
    ] {
        let Run { code, stderr: faults, .. } = place.check(text);
        assert_eq!(code, 1);
        assert!(faults.contains(message), "{text}: {faults}");
        assert!(!faults.contains("hunter") && !faults.contains("12345"), "{faults}");
    }
    let good = "[components]\nlisten = [\"127.0.0.1:5347\"]\n[components.secrets]\n\"Bot.A.b\" = \"hunter2\"\n";
    assert_eq!(place.check(good).done(), "corefire.toml: ok\n");
    for setting in [
        "components.secrets.\"localhost\"=hunter2",
        "components.secrets.\"localhost\"=\"hunter2",
        "components={secrets={localhost=\"hunter2\"}}",
    ] {
        let Run { code, stderr: faults, .. } = place.run(["status", "--set", setting]);
        assert_ne!(code, 0, "{setting}");
        assert!(!faults.contains("hunter"), "{faults}");
    }
}

#[test]
fn bans_balancers_and_the_admin_address_are_checked() {
    let cases = [
        (
            "[access]\nbanned = [\"eve@example.org\", \"192.0.2.0/33\"]",
            "2: access.banned: \"eve@example.org\" is of no domain that is served here, \"192.0.2.0/33\" is neither a \
             network nor a bare address; write banned = [\"eve@localhost\"]",
        ),
        (
            "[c2s]\nproxy_protocol = true",
            "2: c2s.proxy_protocol: no balancer may connect: proxy_from is empty; write proxy_from = [\"10.0.0.0/8\"]",
        ),
        (
            "[c2s]\nproxy_from = [\"balancer\"]",
            "2: c2s.proxy_from: \"balancer\" is not a network; write proxy_from = [\"10.0.0.0/8\"]",
        ),
        (
            "[admin]\nlisten = \"5290\"",
            "2: admin.listen: \"5290\" is not an IP address with a port; write listen = \"127.0.0.1:5290\"",
        ),
        (
            "[admin]\nhosts = [\"a:1\"]",
            "2: admin.hosts: \"a:1\" is not a host's name; write hosts = [\"xmpp-1.example.org\"]",
        ),
    ];
    let place = Place::new();
    for (text, line) in cases {
        place.check(text).refused(&[&format!("corefire.toml:{line}")]);
    }
}

#[test]
fn the_values_that_mean_off_are_taken() {
    let place = Place::new();
    let text = "admins = []\n[archive]\nenabled = false\n[cluster]\nenabled = false\n[federation]\nenabled = false\n\
                listen = []\n[http]\nlisten = []\ntls_listen = []\n[admin]\nlisten = \"\"\n[latency]\nlog = \"\"\n";
    assert_eq!(place.check(text).done(), "corefire.toml: ok\n");
}

#[test]
fn settings_on_the_command_line_are_refused_with_themselves() {
    let place = Place::new();
    let check = |set: &str| {
        place.write("corefire.toml", "");
        place.run(["check-config", "corefire.toml", "--set", set])
    };
    check("c2s.tls=never").refused(&[
        "--set c2s.tls=never: c2s.tls: \"never\" is not one of \"required\", \"optional\"; write --set c2s.tls=required",
    ]);
    check("limits.depth=many").refused(&[
        "--set limits.depth=many: limits.depth: \"many\" is not a whole number; write --set limits.depth=64",
    ]);
    check("c2s.listen=127.0.0.1:5222").refused(&[
        "--set c2s.listen=127.0.0.1:5222: c2s.listen: \"127.0.0.1:5222\" is not a list; \
         write --set 'c2s.listen=[\"127.0.0.1:5222\"]'",
    ]);
    check("c2s.tsl=x").refused(&["--set c2s.tsl=x: c2s.tsl: no such key; write c2s.tls"]);
    check("c2s.tls").refused(&["--set c2s.tls: no \"=\"; write --set c2s.tls=optional"]);
    assert_eq!(check("c2s.tls=optional").done(), "corefire.toml: ok\n");
    assert_eq!(check("c2s.listen=[\"127.0.0.1:0\"]").done(), "corefire.toml: ok\n");
}

#[test]
fn settings_lie_over_the_file_and_the_last_wins() {
    let place = Place::new();
    place.write("corefire.toml", "[c2s]\ntls = \"never\"\n");
    let arguments =
        ["check-config", "corefire.toml", "--set", "c2s.tls=1", "--set", "c2s.tls=optional"];
    assert_eq!(place.run(arguments).done(), "corefire.toml: ok\n");
}

#[test]
fn a_file_that_is_not_there_or_not_text_refused() {
    let place = Place::new();
    place
        .run(["check-config", "missing.toml"])
        .refused(&["missing.toml: cannot be read: No such file or directory (os error 2); \
         give the configuration file as --config FILE"]);
    std::fs::write(place.path("corefire.toml"), b"# ok\n# \xff\n").unwrap();
    place
        .run(["check-config", "corefire.toml"])
        .refused(&["corefire.toml:2: not UTF-8; save the file as UTF-8"]);
    let run = place.run(["serve", "--config", "missing.toml"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.starts_with("missing.toml: cannot be read"), "{}", run.stderr);
}

#[test]
fn certificates_are_refused_with_the_key_that_names_them() {
    let place = Place::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("a.crt", &made.cert.pem());
    place.write("a.key", &made.signing_key.serialize_pem());
    place.write("b.key", &other.signing_key.serialize_pem());

    let pair = "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    assert_eq!(place.check(pair).done(), "corefire.toml: ok\n");
    place
        .check(&pair.replace("a.key", "b.key"))
        .refused(&["corefire.toml:3: tls.key: b.key: does not belong to the certificate a.crt; \
         give the key that the certificate was made for"]);
    place.check(&pair.replace("a.crt", "c.crt")).refused(&[
        "corefire.toml:2: tls.certificate: c.crt: cannot be read: No such file or directory (os error 2); \
         name a PEM file that this process may read",
    ]);
    place
        .check(&pair.replace("a.crt", "a.key"))
        .refused(&["corefire.toml:2: tls.certificate: a.key: holds no PEM certificate; \
         give the PEM chain, the server's own certificate first (\"BEGIN CERTIFICATE\")"]);
    place
        .check("[tls]\ncertificate = \"a.crt\"\n")
        .refused(&["corefire.toml:2: tls.certificate: \"a.crt\" stands without its key; \
         write key = \"/path/to/key.pem\" beside it"]);
    let host = "[tls.hosts.\"example.org\"]\ncertificate = \"a.crt\"\nkey = \"b.key\"\n";
    place.check(&format!("domains = [\"example.org\"]\n{host}")).refused(&[
        "corefire.toml:4: tls.hosts.\"example.org\".key: b.key: does not belong to the certificate a.crt; \
         give the key that the certificate was made for",
    ]);
    place.check(&host.replace("b.key", "a.key")).refused(&[
        "corefire.toml:1: tls.hosts.\"example.org\": \"example.org\" is not served; add it to domains",
    ]);
}

#[test]
fn a_certificate_of_another_domain_is_a_warning() {
    let place = Place::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("a.crt", &made.cert.pem());
    place.write("a.key", &made.signing_key.serialize_pem());
    let text = "domains = [\"localhost\", \"example.org\"]\n[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let run = place.check(text);
    assert_eq!((run.code, run.stdout.as_str()), (0, "corefire.toml: ok\n"));
    let warning = "corefire.toml: warning: a.crt: does not name example.org; clients of that domain will refuse it\n";
    assert_eq!(run.stderr, warning);
}

#[test]
fn a_missing_certificate_does_not_keep_an_operator_from_the_accounts() {
    let place = Place::new();
    place.write("corefire.toml", "[tls]\ncertificate = \"none\"\nkey = \"none\"\n");
    let run =
        place.run(["user", "add", "a@localhost", "--password", "x", "--config", "corefire.toml"]);
    assert_eq!(run.done(), "added a@localhost\n");
}

#[test]
fn a_cluster_needs_an_address_a_secret_and_a_database_that_nodes_share() {
    let place = Place::new();
    let run = place.check("[cluster]\nenabled = true\nbind = \"0.0.0.0:7070\"\n");
    assert_eq!(run.code, 1);
    for part in [
        "cluster.bind: 0.0.0.0:7070 is not an address by which others find this node",
        "cluster.secret_file: a cluster needs a secret; make one with corefire cluster init FILE",
        "cluster.enabled: the nodes of a cluster share their database, and storage.url names a file of this node",
    ] {
        assert!(run.stderr.contains(part), "{part}\n{}", run.stderr);
    }
    let lines = [
        (
            "seeds = [\"host\"]",
            "cluster.seeds: \"host\" is not a host's name or address with a port",
        ),
        ("dns = \"a b:7\"", "cluster.dns: \"a b:7\" is not a host's name or address with a port"),
        ("weight = 1001", "cluster.weight: 1001"),
        ("[cluster.multicast]\ngroup = \"10.0.0.1:7\"", "is not a multicast group of IPv4"),
    ];
    for (line, fault) in lines {
        let run = place.check(&format!("[cluster]\n{line}\n"));
        assert_eq!(run.code, 1, "{line}");
        assert!(run.stderr.contains(fault), "{fault}\n{}", run.stderr);
    }
}
