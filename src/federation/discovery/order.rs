//! The order of targets: priorities and weights (RFC 2782), families of addresses (RFC 8305 §4).

use crate::base::rng::Rng;
use std::net::IpAddr;

/// What the order hangs on.
pub(super) trait Weighted {
    fn priority(&self) -> u16;
    fn weight(&self) -> u16;
}

/// Low priorities first; within one, drawn by the weights, where a weight of 0 comes first only seldom.
///
/// - cost: the square of how many share a priority, so the caller bounds how many there are
/// - source: RFC 2782, "Weight"
pub(super) fn order<T: Weighted>(mut targets: Vec<T>, rng: &mut Rng) -> Vec<T> {
    // Those of weight 0 stand first within their priority.
    targets.sort_by_key(|target| (target.priority(), target.weight() != 0));
    let mut ordered = Vec::with_capacity(targets.len());
    while let Some(first) = targets.first() {
        let priority = first.priority();
        let group = targets.iter().take_while(|target| target.priority() == priority);
        let sum: u64 = group.map(|target| u64::from(target.weight())).sum();
        let drawn = rng.below(sum + 1);
        let mut running = 0;
        let reaches = |target: &T| {
            running += u64::from(target.weight());
            running >= drawn
        };
        // The last of the group reaches the sum at the latest.
        let place = targets.iter().position(reaches).unwrap_or(0);
        ordered.push(targets.remove(place));
    }
    ordered
}

/// Families take turns, IPv6 first, each in the order in which it came and once; at most `max`.
pub(super) fn interleave(addresses: &[IpAddr], max: usize) -> Vec<IpAddr> {
    let mut sixes = addresses.iter().filter(|address| address.is_ipv6());
    let mut fours = addresses.iter().filter(|address| address.is_ipv4());
    let mut result = Vec::new();
    loop {
        let (six, four) = (sixes.next(), fours.next());
        if six.is_none() && four.is_none() {
            return result;
        }
        for address in [six, four].into_iter().flatten() {
            if result.len() == max {
                return result;
            }
            if !result.contains(address) {
                result.push(*address);
            }
        }
    }
}

/// Whether a name may lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Public,
    /// This machine, or a network that is not part of the Internet.
    Local,
    /// No server can be there.
    Never,
}

/// - takes: any address; an IPv4 address inside of an IPv6 one is looked at as what it is
/// - source: RFC 6890 and the registries that it made
pub(super) fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            if a == 0 || a >= 224 || v4.is_link_local() {
                Reach::Never
            } else if v4.is_loopback() || v4.is_private() || (a == 100 && (64..128).contains(&b)) {
                Reach::Local
            } else {
                Reach::Public
            }
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            if v6.is_unspecified() || v6.is_multicast() || (0xfe80..=0xfeff).contains(&segments[0])
            {
                Reach::Never
            } else if v6.is_loopback() || segments[0] & 0xfe00 == 0xfc00 {
                Reach::Local
            } else if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                // What a translator (RFC 6052) would connect to.
                let [.., a, b, c, d] = v6.octets();
                reach(IpAddr::from([a, b, c, d]))
            } else {
                Reach::Public
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct T(u16, u16, u16);

    impl Weighted for T {
        fn priority(&self) -> u16 {
            self.0
        }
        fn weight(&self) -> u16 {
            self.1
        }
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// RFC 2782: the lowest-numbered priority that can be reached.
    #[test]
    fn lower_priorities_come_first_whatever_their_weight() {
        let mut rng = Rng::from_u64(1);
        for _ in 0..100 {
            let ordered =
                order(vec![T(20, 65535, 0), T(10, 0, 1), T(5, 1, 2), T(10, 9, 3)], &mut rng);
            let priorities: Vec<u16> = ordered.iter().map(|target| target.0).collect();
            assert_eq!(priorities, [5, 10, 10, 20]);
        }
    }

    #[test]
    fn weights_are_the_odds_of_being_first() {
        let mut rng = Rng::from_u64(2);
        let mut first = [0; 3];
        for _ in 0..10_000 {
            let ordered = order(vec![T(1, 60, 0), T(1, 30, 1), T(1, 10, 2)], &mut rng);
            first[usize::from(ordered[0].2)] += 1;
        }
        assert!((5_700..6_300).contains(&first[0]), "{first:?}");
        assert!((2_750..3_250).contains(&first[1]), "{first:?}");
        assert!((800..1_200).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn weight_zero_is_seldom_first_but_is_not_lost() {
        let mut rng = Rng::from_u64(3);
        let mut first = 0;
        for _ in 0..10_000 {
            let ordered = order(vec![T(1, 99, 0), T(1, 0, 1)], &mut rng);
            assert_eq!(ordered.len(), 2);
            first += usize::from(ordered[0].2 == 1);
        }
        assert!((50..200).contains(&first), "one in a hundred: {first}");
        // All of weight 0: some order.
        assert_eq!(order(vec![T(1, 0, 0), T(1, 0, 1), T(0, 0, 2)], &mut rng)[0], T(0, 0, 2));
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let ordered = order(vec![T(0, u16::MAX, 0); 256], &mut Rng::from_u64(4));
        assert_eq!(ordered.len(), 256);
    }

    #[test]
    fn families_take_turns_and_ipv6_is_first() {
        let mixed =
            addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::1"]);
        let expected = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(interleave(&mixed, 8), expected);
        assert_eq!(interleave(&mixed, 2), expected[..2]);
        assert!(interleave(&[], 2).is_empty());
    }

    #[test]
    fn addresses_are_told_apart_by_where_they_lead() {
        for (text, expected) in [
            ("8.8.8.8", Reach::Public),
            ("2a00::1", Reach::Public),
            ("127.0.0.1", Reach::Local),
            ("127.255.0.9", Reach::Local),
            ("10.0.0.1", Reach::Local),
            ("172.31.0.1", Reach::Local),
            ("172.32.0.1", Reach::Public),
            ("192.168.1.1", Reach::Local),
            ("100.64.0.1", Reach::Local),
            ("100.128.0.1", Reach::Public),
            ("::1", Reach::Local),
            ("fd00::1", Reach::Local),
            ("::ffff:127.0.0.1", Reach::Local),
            ("64:ff9b::7f00:1", Reach::Local),
            ("64:ff9b::808:808", Reach::Public),
            ("0.0.0.0", Reach::Never),
            ("0.1.2.3", Reach::Never),
            ("::", Reach::Never),
            ("169.254.169.254", Reach::Never),
            ("fe80::1", Reach::Never),
            ("fec0::1", Reach::Never),
            ("224.0.0.1", Reach::Never),
            ("255.255.255.255", Reach::Never),
            ("ff02::1", Reach::Never),
        ] {
            assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
        }
    }
}
