//! Whether the time of an answer tells which accounts exist: logins that fail, for names that exist and names that do
//! not, in turn, on fresh connections; and how well the two can be told apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write;

use super::attacks::{HEADER, expect, plain_auth};
use super::dial;
use crate::Error;
use crate::record::Latency;

/// Accounts that exist for this.
pub(super) const KNOWN: usize = 400;

pub(super) fn run(
    address: SocketAddr,
    quick: bool,
    print: &mut impl FnMut(&str),
) -> Result<(), Error> {
    print(
        "\nenumeration: time of the answer to a login that fails; |z| below 2.58: not told apart at p = 0.01 (rank sum)",
    );
    let scram = |user: &str| {
        let first = BASE64.encode(format!("n,,n={user},r=nonce"));
        format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>"
        )
    };
    let wrong = |user: &str| plain_auth(user, "wrong");
    let rounds = if quick { KNOWN / 4 } else { KNOWN };
    type Say<'a> = &'a dyn Fn(&str) -> String;
    let rows: [(&str, &str, Say<'_>, usize, bool); 3] = [
        ("SCRAM challenge, first touch", "</challenge>", &scram, rounds, true),
        ("SCRAM challenge, again", "</challenge>", &scram, rounds * 4, false),
        ("PLAIN refusal, again", "</failure>", &wrong, rounds, false),
    ];
    for (what, end, say, rounds, is_fresh) in rows {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            let number = if is_fresh { round } else { round % 8 };
            for unknown in [round % 2, 1 - round % 2] {
                let kind = ["known", "nobody"][unknown];
                let took = time(address, &say(&format!("{kind}{number}")), end);
                times[unknown].push(took.ok_or_else(|| Error::Server("no answer".to_owned()))?);
            }
        }
        let median = |times: &[Duration]| {
            let mut all = Latency::default();
            times.iter().for_each(|time| all.record(*time));
            all.quantile(0.5).as_secs_f64() * 1e6
        };
        let (known, unknown) = (median(&times[0]), median(&times[1]));
        print(&format!(
            "  {what:<30} {rounds:>5} each: exists {known:>8.1} µs, does not {unknown:>8.1} µs, ratio {:.3}, z {:+.2}",
            known / unknown,
            rank_sum(&times[0], &times[1])
        ));
    }
    Ok(())
}

/// From the write of the message to its answer.
fn time(address: SocketAddr, message: &str, end: &str) -> Option<Duration> {
    let mut socket = dial(address, Ipv4Addr::LOCALHOST).ok()?;
    socket.write_all(HEADER.as_bytes()).ok()?;
    expect(&mut socket, "</stream:features>")?;
    let begun = Instant::now();
    socket.write_all(message.as_bytes()).ok()?;
    expect(&mut socket, end)?;
    Some(begun.elapsed())
}

/// Deviations from the mean of the rank sum of `one`, as both came from the same distribution (Mann and Whitney).
fn rank_sum(one: &[Duration], other: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> = one.iter().map(|time| (*time, true)).collect();
    all.extend(other.iter().map(|time| (*time, false)));
    all.sort_unstable();
    let ranks = all.iter().enumerate().filter(|(_, (_, is_one))| *is_one);
    let sum: f64 = ranks.map(|(rank, _)| rank as f64 + 1.0).sum();
    let (n, m) = (one.len() as f64, other.len() as f64);
    let mean = n * (n + m + 1.0) / 2.0;
    (sum - mean) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shifted_is_told_apart_and_what_is_not_is_not() {
        let times =
            |from: u64| (0..200).map(|n| Duration::from_micros(from + n * 37 % 200)).collect();
        let (one, same, later): (Vec<_>, Vec<_>, Vec<_>) = (times(0), times(0), times(60));
        assert!(rank_sum(&one, &same).abs() < 1.0);
        assert!(rank_sum(&one, &later) < -5.0);
        assert!(rank_sum(&later, &one) > 5.0);
    }
}
