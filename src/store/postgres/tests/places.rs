//! How a server is reached, and which are refused.

use super::super::super::{Error, Writer};
use super::super::link::Link;
use super::super::schema::{self, MIGRATIONS, Migration};
use super::super::{PostgresReader, Settings, member, writers};
use super::server::{PASSWORD, Server};
use super::{JULIET, QUICK, create, open, settings};

fn refusal(settings: &Settings) -> String {
    let Err(error) = writers(settings, "here") else { panic!("opened") };
    let told = error.to_string();
    assert!(!told.contains("pass word"), "{told}");
    told
}

#[test]
fn the_password_is_in_the_url_or_a_file_and_a_socket_needs_none() {
    let Some(server) = Server::start(QUICK) else { return };
    server.database("corefire");
    let mut without = Settings::parse(&server.url("corefire")).unwrap();
    assert!(refusal(&without).contains("password"), "{}", refusal(&without));
    without.password_file = Some(server.file("password-of-xmpp", &format!("{PASSWORD}\n")));
    drop(open(&without));
    let url = server.url_with_password("corefire");
    drop(open(&Settings::parse(&url).unwrap()));
    let wrong = url.replace("%20", "%21");
    assert!(refusal(&Settings::parse(&wrong).unwrap()).contains("(SQLSTATE 28P01)"));
    drop(open(&Settings::parse(&server.socket_url("corefire")).unwrap()));
    let absent = Settings::parse(&server.socket_url("absent")).unwrap();
    assert!(refusal(&absent).contains("database \"absent\" does not exist"));
}

#[test]
fn tls_is_as_strict_as_it_is_told_to_be() {
    let Some(server) = Server::start(QUICK) else { return };
    server.database("corefire");
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (own, other) = (made("db.example.org"), made("localhost"));
    let certificate = server.file("server.pem", &own.cert.pem());
    let key = server.file("server.key", &own.signing_key.serialize_pem());
    let stranger = server.file("stranger.pem", &other.cert.pem());
    for (name, value) in [
        ("ssl_cert_file", certificate.display().to_string()),
        ("ssl_key_file", key.display().to_string()),
        ("ssl", "on".to_owned()),
    ] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
    }
    server.sql("postgres", "SELECT pg_reload_conf()");
    let connect = |parameters: &str| {
        let url = server.url_with_password("corefire");
        let settings = Settings::parse(&format!("{url}?{parameters}")).unwrap();
        let mut link = Link::connect(&settings, "test", "", &[])?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let rows = link.once(std::time::Duration::from_secs(5), sql, &[])?;
        Ok::<bool, Error>(rows[0].get(0))
    };
    // It takes its new settings when it comes to it.
    let began = std::time::Instant::now();
    while connect("sslmode=require").is_err() {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "no TLS");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (certificate, stranger) = (certificate.display(), stranger.display());
    assert!(!connect("sslmode=disable").unwrap());
    assert!(connect("sslmode=require").unwrap());
    assert!(connect(&format!("sslmode=require&sslrootcert={stranger}")).is_err());
    assert!(connect(&format!("sslmode=verify-ca&sslrootcert={certificate}")).unwrap());
    assert!(connect(&format!("sslmode=verify-ca&sslrootcert={stranger}")).is_err());
    assert!(connect("sslmode=verify-ca").is_err(), "no authority of the system's");
    let full = format!("sslmode=verify-full&sslrootcert={certificate}");
    let told = connect(&full).unwrap_err().to_string();
    assert!(told.contains("not valid for name"), "{told}");
    let url = server.url_with_password("corefire").replace("127.0.0.1", "db.example.org");
    let named = format!("{url}?hostaddr=127.0.0.1&{full}");
    drop(open(&Settings::parse(&named).unwrap()));
}

#[test]
fn a_database_that_cannot_hold_all_texts_is_refused() {
    let Some(server) = Server::start(QUICK) else { return };
    server.sql(
        "postgres",
        "CREATE DATABASE latin OWNER xmpp TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    );
    let latin = Settings::parse(&server.url_with_password("latin")).unwrap();
    assert!(refusal(&latin).contains("encoding LATIN1"));
}

#[test]
fn a_step_of_the_schema_is_done_once_and_a_newer_schema_is_refused_where_it_says_so() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let newest = MIGRATIONS.len() as u32;
    open(&settings).commit(&[create(JULIET)]).unwrap();
    let mut link = Link::connect(&settings, "test", "", &[]).unwrap();
    let step = |number, oldest, sql| Migration { number, oldest, sql };
    let steps = |more: Vec<Migration>| -> Vec<Migration> {
        let known = MIGRATIONS.iter().map(|known| step(known.number, known.oldest, known.sql));
        known.chain(more).collect()
    };
    let adds = steps(vec![step(newest + 1, 1, "CREATE TABLE more (x integer)")]);
    assert_eq!(schema::migrate(&mut link, &adds).unwrap(), newest + 1);
    assert_eq!(schema::migrate(&mut link, &adds).unwrap(), newest + 1);
    // What only adds shuts nobody out.
    drop(open(&settings));
    drop(PostgresReader::open(&settings).unwrap());
    // One that fails leaves nothing.
    let fails = steps(vec![
        step(newest + 1, 1, ""),
        step(newest + 2, 1, "CREATE TABLE half (x integer); SELECT nonsense"),
    ]);
    assert!(schema::migrate(&mut link, &fails).is_err());
    drop(link);
    assert_eq!(server.sql("corefire", "SELECT to_regclass('half') IS NULL"), "t");
    let mut link = Link::connect(&settings, "test", "", &[]).unwrap();
    let takes =
        steps(vec![step(newest + 1, 1, ""), step(newest + 2, newest + 2, "DROP TABLE more")]);
    assert_eq!(schema::migrate(&mut link, &takes).unwrap(), newest + 2);
    let found = newest + 2;
    let told = format!("schema {found}, this version reads up to {newest}");
    assert!(refusal(&settings).contains(&told), "{}", refusal(&settings));
    assert!(matches!(PostgresReader::open(&settings), Err(Error::TooNew { .. })));
}

#[test]
fn two_who_start_at_once_bring_the_schema_up_to_date_together() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut link = Link::connect(&settings, "test", "", &[]).unwrap();
                schema::migrate(&mut link, MIGRATIONS).unwrap();
            });
        }
    });
    drop(open(&settings));
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    server.sql("corefire", "CREATE TABLE public.account (name text)");
    let told = refusal(&settings);
    assert!(told.contains("relation \"account\" already exists"), "{told}");
    assert_eq!(server.sql("corefire", "SELECT to_regclass('jid') IS NULL"), "t");
}

/// As behind a proxy that shares sessions out.
#[test]
fn connections_with_one_session_are_noticed() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut links: Vec<Link> =
        (0..2).map(|_| Link::connect(&settings, "test", "", &[]).unwrap()).collect();
    member::check_sessions(&mut links, &settings).unwrap();
    server.sql(
        "corefire",
        "CREATE SCHEMA proxy; GRANT USAGE ON SCHEMA proxy TO xmpp; \
        CREATE FUNCTION proxy.pg_backend_pid() RETURNS integer LANGUAGE sql AS 'SELECT 7'",
    );
    for link in &mut links {
        link.once(std::time::Duration::from_secs(5), "SET search_path = proxy, pg_catalog", &[])
            .unwrap();
    }
    let told = member::check_sessions(&mut links, &settings).unwrap_err().to_string();
    assert!(told.contains("PgBouncer"), "{told}");
}
