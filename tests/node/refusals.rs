//! A node that cannot start says so in one line, with the cause and what to do.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::node::Place;
use crate::restrict::{self, CAP_DAC_OVERRIDE, CAP_IPC_LOCK};

#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn io_uring_that_is_forbidden_is_told() {
    let place = Place::new();
    let mut command = place.program(&["serve"]);
    restrict::without_uring(&mut command, libc::EPERM);
    says(&place.refused(command), &["corefire: io_uring is ", "forbidden", "seccomp"]);
}

#[test]
fn a_kernel_without_io_uring_is_told() {
    let place = Place::new();
    let mut command = place.program(&["serve"]);
    restrict::without_uring(&mut command, libc::ENOSYS);
    says(&place.refused(command), &["corefire: this kernel has no io_uring", "run Linux"]);
}

#[test]
fn too_little_locked_memory_for_the_runtime_is_told_to_root_as_well() {
    let place = Place::new();
    let mut command = place.program(&["serve"]);
    restrict::limit(&mut command, libc::RLIMIT_MEMLOCK, 64 << 10);
    says(
        &place.refused(command),
        &[
            "2 shards need 512 KiB of locked memory",
            "may lock 64",
            "LimitMEMLOCK=512K",
            "ulimit -l",
        ],
    );
}

#[test]
fn too_little_locked_memory_for_the_shards_is_told() {
    let place = Place::new().set("node.shards=5");
    let mut command = place.program(&["serve"]);
    restrict::limit(&mut command, libc::RLIMIT_MEMLOCK, 1024 << 10);
    restrict::without_right(&mut command, CAP_IPC_LOCK);
    says(&place.refused(command), &["5 shards need 1280 KiB", "may lock 1024", "node.shards"]);
}

#[test]
fn too_few_open_files_are_told() {
    let place = Place::new();
    let mut command = place.program(&["serve"]);
    restrict::limit(&mut command, libc::RLIMIT_NOFILE, 100);
    says(
        &place.refused(command),
        &["may open 100 files", "at least 128", "LimitNOFILE=", "ulimit -n"],
    );
}

#[test]
fn a_port_that_another_program_has_is_told() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let place = Place::new().set(&format!("c2s.listen=[\"{address}\"]"));
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["corefire: c2s.listen: ", &address.to_string(), "in use", "another port"]);
}

#[test]
fn a_port_that_another_corefire_shares_among_its_cores_is_told() {
    let first = Place::new();
    let node = first.start();
    let place = Place::new().set(&format!("c2s.direct_tls_listen=[\"{}\"]", node.direct));
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["corefire: c2s.direct_tls_listen: ", &node.direct.to_string(), "in use"]);
}

#[test]
fn a_data_directory_that_another_node_has_is_told() {
    let place = Place::new();
    let _node = place.start();
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["data directory", "is in use by process", "--data-dir"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_told() {
    let place = Place::new();
    let data_dir = place.data_dir();
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, PermissionsExt::from_mode(0o500)).unwrap();
    let mut command = place.program(&["serve"]);
    restrict::without_right(&mut command, CAP_DAC_OVERRIDE);
    let line = place.refused(command);
    says(&line, &["data directory", "cannot be used: Permission denied", "another --data-dir"]);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_told() {
    let place = Place::new();
    std::fs::write(place.data_dir(), "no directory").unwrap();
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["data directory", "cannot be used", "another --data-dir"]);
}

#[test]
fn a_database_that_is_none_is_told() {
    let place = Place::new();
    place.add_user("alice", "secret");
    std::fs::write(place.data_dir().join("corefire.db"), vec![b'x'; 8192]).unwrap();
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["corefire: ", "corefire.db"]);
}

#[test]
fn a_certificate_that_is_missing_is_told() {
    let place = Place::new().set("tls.certificate=none.pem").set("tls.key=none.key");
    let line = place.refused(place.program(&["serve"]));
    says(&line, &["tls.certificate", "none.pem: cannot be read", "name a PEM file"]);
    let path = place.path("one.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&path, made.cert.pem()).unwrap();
    let place = Place::new().set(&format!("tls.certificate={}", path.display()));
    says(&place.refused(place.program(&["serve"])), &["tls.certificate", "without its key"]);
}
