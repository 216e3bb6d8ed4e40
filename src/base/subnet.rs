//! What counts as one place among addresses: rates and queues are per place, since single addresses are cheap to change.

use std::net::IpAddr;

/// IPv4 by /24, IPv6 by /64. An IPv4 address that came in over an IPv6 socket is an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet([u8; 8]);

impl Subnet {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self([0, 0, 0, 0, 4, a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// To spread places over a few queues.
    pub fn number(self) -> usize {
        self.0
            .iter()
            .fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_subnet_and_strangers_do_not() {
        let subnet = |text: &str| Subnet::of(text.parse().expect("an address"));
        assert_eq!(subnet("192.0.2.1"), subnet("192.0.2.200"));
        assert_eq!(subnet("::ffff:192.0.2.1"), subnet("192.0.2.7"));
        assert_ne!(subnet("192.0.2.1"), subnet("192.0.3.1"));
        assert_eq!(subnet("2001:db8::1"), subnet("2001:db8::ffff"));
        assert_ne!(subnet("2001:db8::1"), subnet("2001:db8:0:1::1"));
    }
}
