//! Body of the fuzz target `beacon`: a datagram that comes to the group of the beacons.
//!
//! The first byte chooses: even, the rest is a whole datagram; odd, it is signed as a node of the cluster would sign it, so
//! that what stands behind the code is reached.
//!
//! Promised: nothing panics; what is not signed with the secret is refused; what was taken is refused when it comes again,
//! and asks for one node at most, which a datagram could reach.

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::beacon::{BEACON_BYTES_MAX, Lookout};
use corefire::cluster::discovery::{Discovery, Output, Settings};
use corefire::cluster::facts;
use corefire::cluster::placement::NodeId;
use corefire::cluster::refusal::Refusal;
use corefire::cluster::view::{NodeFacts, Run};

const KEY: [u8; 32] = [7; 32];
const NOW: Now = Now { mono: Instant(0), wall: Wall(1_800_000_000_000_000) };

pub(crate) fn beacon(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let is_signed = choice % 2 == 1;
    let mut bytes = rest.to_vec();
    if is_signed {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
        bytes.extend_from_slice(ring::hmac::sign(&key, rest).as_ref());
    }
    let mut lookout = Lookout::new(&KEY);
    let first = lookout.read(NOW.wall, &bytes);
    match &first {
        Ok(beacon) => {
            assert!(is_signed && bytes.len() <= BEACON_BYTES_MAX);
            assert_eq!(facts::check(&beacon.facts), Ok(()));
            assert_eq!(lookout.read(NOW.wall, &bytes), Err(Refusal::Replayed));
        }
        Err(refusal) => assert!(is_signed || !matches!(refusal, Refusal::Malformed)),
    }
    let own = NodeFacts {
        name: "n1".into(),
        run: Run { node: NodeId(1), incarnation: 1 },
        shards: 1,
        weight: 1,
        link: ([10, 0, 0, 1], 7070).into(),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: (1, 1),
        version: String::new(),
    };
    let rng = Rng::from_u64(1);
    let discovery = Discovery::new(Settings::default(), own, &KEY, NOW.mono, rng);
    let mut discovery = discovery.expect("sound settings");
    let mut out = Vec::new();
    discovery.datagram(NOW, &bytes, &[], &mut out);
    discovery.datagram(NOW, &bytes, &[], &mut out);
    match &out[..] {
        [] => {}
        [Output::Join(link)] => assert!(first.is_ok() && facts::is_reachable(*link)),
        other => panic!("{other:?}"),
    }
}
