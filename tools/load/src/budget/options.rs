//! What the budget command can be told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Mechanism;
use crate::scenario::Address;

/// How the arguments are written.
pub(super) const USAGE: &str = "\
options: --quick             shorter runs, fewer sessions
         --only NAME         one row; may be repeated
         --check             exit code 99 if a row is over its budget
         --server-cores A,B  cores of the started server (0)        --generator-cores C  own cores (1)
         --mechanism NAME    PLAIN, SCRAM-SHA-1 or SCRAM-SHA-256 (the last)
         --bare              address the account instead of the session
         --set key=value     further settings of the started server
a server that runs already, instead of a started one (its pinning is not touched):
         --server-pid PID --address HOST:PORT [--tls-address HOST:PORT, for direct TLS; else STARTTLS]
         --domain D --users PATTERN (user{}) --password PW (secret); accounts 0 to 2063, with --quick 0 to 463, exist
rows:    chat8 chat1 chat8-tls service rate login login-tls idle idle-tls start shards2; only by name: durable (XEP-0198, archive)";

/// What is measured.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Started { binary: PathBuf, sets: Vec<String> },
    Running { pid: u32, plain: SocketAddr, direct_tls: Option<SocketAddr> },
}

/// The arguments, read.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    pub(super) quick: bool,
    pub(super) only: Vec<String>,
    pub(super) check: bool,
    pub(super) server_cores: Vec<usize>,
    pub(super) generator_cores: Vec<usize>,
    pub(super) mechanism: Mechanism,
    pub(super) address: Address,
    pub(super) domain: String,
    pub(super) users: String,
    pub(super) password: String,
}

fn cores(list: &str) -> Result<Vec<usize>, String> {
    list.split(',').map(|core| core.parse().map_err(|_| format!("{list}: not cores"))).collect()
}

impl Options {
    /// Reads the arguments; `binary` is the Corefire to start unless they name a running server; `rows` are the names that
    /// `--only` may have.
    pub(super) fn parse(
        binary: Option<&Path>,
        rows: &[&str],
        arguments: impl Iterator<Item = String>,
    ) -> Result<Self, String> {
        let (mut pid, mut plain, mut direct_tls, mut sets) = (None, None, None, Vec::new());
        let mut options = Self {
            target: Target::Started { binary: PathBuf::new(), sets: Vec::new() },
            quick: false,
            only: Vec::new(),
            check: false,
            server_cores: vec![0],
            generator_cores: vec![1],
            mechanism: Mechanism::ScramSha256,
            address: Address::Full,
            domain: "localhost".to_owned(),
            users: "user{}".to_owned(),
            password: "secret".to_owned(),
        };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            match flag.as_str() {
                "--quick" => options.quick = true,
                "--check" => options.check = true,
                "--bare" => options.address = Address::Bare,
                _ => {
                    let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
                    let socket =
                        || value.parse::<SocketAddr>().map_err(|e| format!("{value}: {e}"));
                    match flag.as_str() {
                        "--only" => options.only.push(value),
                        "--server-cores" => options.server_cores = cores(&value)?,
                        "--generator-cores" => options.generator_cores = cores(&value)?,
                        "--set" => sets.push(value),
                        "--server-pid" => {
                            pid = Some(value.parse().map_err(|e| format!("{value}: {e}"))?);
                        }
                        "--address" => plain = Some(socket()?),
                        "--tls-address" => direct_tls = Some(socket()?),
                        "--domain" => options.domain = value,
                        "--users" => options.users = value,
                        "--password" => options.password = value,
                        "--mechanism" => {
                            let all =
                                [Mechanism::Plain, Mechanism::ScramSha1, Mechanism::ScramSha256];
                            let named = all.into_iter().find(|m| m.name() == value);
                            options.mechanism = named.ok_or(format!("{value} is not known"))?;
                        }
                        _ => return Err(format!("{flag} is not known")),
                    }
                }
            }
        }
        let known = |name: &&String| rows.contains(&name.as_str());
        if let Some(name) = options.only.iter().find(|name| !known(name)) {
            return Err(format!("no row {name}"));
        }
        options.target = match (pid, plain, binary) {
            (Some(pid), Some(plain), _) => Target::Running { pid, plain, direct_tls },
            (None, None, Some(binary)) => Target::Started { binary: binary.to_owned(), sets },
            _ => return Err("--server-pid and --address belong together".to_owned()),
        };
        Ok(options)
    }
}

impl Options {
    /// Whether TLS begins with the connection; else by STARTTLS.
    pub(super) fn direct_tls(&self) -> bool {
        !matches!(self.target, Target::Running { direct_tls: None, .. })
    }

    /// A quarter of it where it is to be quick, and no less than a second: what is measured is read once a second.
    pub(super) fn whole_seconds(&self, full: u64) -> Duration {
        Duration::from_secs(if self.quick { (full / 4).max(1) } else { full })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let binary = Path::new("corefire");
        Options::parse(Some(binary), &["chat8"], line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_name_a_started_or_a_running_server() {
        let options = parse("--quick --only chat8 --set a=1 --server-cores 0,1").unwrap();
        assert!(matches!(&options.target, Target::Started { sets, .. } if sets == &["a=1"]));
        assert_eq!(options.server_cores, [0, 1]);
        let options = parse("--server-pid 7 --address 127.0.0.1:5222 --users u{}").unwrap();
        assert!(matches!(options.target, Target::Running { pid: 7, .. }));
        for bad in ["--only nothing", "--server-pid 7", "--what 1", "--set", "--mechanism X"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
