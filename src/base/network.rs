//! Blocks of network addresses, IPv4 and IPv6, as operators write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses, `192.0.2.0/24`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The block that an address is judged with: what one subscriber usually has, /24 of IPv4 and /64 of IPv6.
    pub fn around(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                Network { address: Ipv4Addr::from_bits(v4.to_bits() & !0 << 8).into(), prefix: 24 }
            }
            IpAddr::V6(v6) => {
                Network { address: Ipv6Addr::from_bits(v6.to_bits() & !0 << 64).into(), prefix: 64 }
            }
        }
    }

    /// An IPv4 address that came in over an IPv6 socket (`::ffff:192.0.2.1`) is compared as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (ours.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (ours.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, &'static str> {
        const FAULT: &str = "is not a network";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| FAULT)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or(FAULT)?,
        };
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Many networks, asked at each connection: the cost grows with the logarithm of their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address of blocks that do not touch, in order.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_within(&self.v6, address.to_bits()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn is_within<T: Copy + Ord>(blocks: &[(T, T)], address: T) -> bool {
    let behind = blocks.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|place| address <= blocks[place].1)
}

fn join<T: Copy + Ord>(mut blocks: Vec<(T, T)>) -> Vec<(T, T)> {
    blocks.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(blocks.len());
    for (first, last) in blocks {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Network { address, prefix } in networks {
            match address {
                IpAddr::V4(address) => {
                    let below = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                    let first = address.to_bits() & !below;
                    v4.push((first, first | below));
                }
                IpAddr::V6(address) => {
                    let below = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                    let first = address.to_bits() & !below;
                    v6.push((first, first | below));
                }
            }
        }
        Networks { v4: join(v4), v6: join(v6) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_judged_together() {
        let around = |address: &str| Network::around(address.parse().unwrap()).to_string();
        assert_eq!(around("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(around("::ffff:192.0.2.1"), "192.0.2.0/24");
        assert_eq!(around("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }

    #[test]
    fn networks_contain_their_addresses_only() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("127.0.0.0/8", "127.1.2.3"));
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.0/8", "128.0.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(contains("::1", "::1"));
        assert!(!contains("::1", "::2"));
    }

    #[test]
    fn many_networks_contain_what_each_of_them_does() {
        let text = "10.0.0.0/8 10.1.0.0/16 192.0.2.7 0.0.0.0/32 2001:db8::/32 2001:db8:1::/48 ::1 fe80::/10";
        let list: Vec<Network> = text.split(' ').map(|one| one.parse().unwrap()).collect();
        let networks: Networks = list.iter().copied().collect();
        let asked = "10.0.0.0 10.255.255.255 11.0.0.0 9.255.255.255 192.0.2.7 192.0.2.8 192.0.2.6 0.0.0.0 0.0.0.1 \
            2001:db8:ffff::1 2001:db9:: 2001:db7:ffff::1 ::1 :: ::2 fe80::1 febf::1 fec0::1 ::ffff:10.0.0.1";
        for address in asked.split_whitespace() {
            let address: IpAddr = address.parse().unwrap();
            let any = list.iter().any(|network| network.contains(address));
            assert_eq!(networks.contains(address), any, "{address}");
        }
        assert!(!Networks::default().contains("::1".parse().unwrap()));
        let all: Networks = ["0.0.0.0/0".parse().unwrap()].into_iter().collect();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
