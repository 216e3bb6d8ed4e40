//! What nodes say of themselves first. The fields stand in this order in every version of the link; a later version may
//! add more behind them, which this one skips.

use super::super::placement::NodeId;
use super::super::view::{NodeFacts, Run};
use super::record::{Fields, Kind, put_text, write};
use super::refusal::Refusal;

/// The oldest and newest version of the link (its records) that is spoken here.
pub const PROTOCOL: (u16, u16) = (1, 1);
/// Bytes of a Hello at most: 16 addresses and three texts of 256 bytes, with room for later fields.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 10;
/// Addresses for clients of one node.
const CLIENTS_MAX: usize = 16;
/// No node has more; a larger number would only make others keep windows for them.
const SHARDS_MAX: u16 = 4096;

/// Names a cluster: made of its secret, and not secret itself.
pub type ClusterId = [u8; 16];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol: (u16, u16),
    pub(super) cluster: ClusterId,
    /// The newest that the node knows of.
    pub(super) epoch: u64,
    pub(super) facts: NodeFacts,
}

impl Hello {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let facts = &self.facts;
        let mut body = Vec::with_capacity(256);
        for number in [self.protocol.0, self.protocol.1] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&self.cluster);
        body.extend_from_slice(&self.epoch.to_le_bytes());
        body.extend_from_slice(&facts.run.node.0.to_le_bytes());
        body.extend_from_slice(&facts.run.incarnation.to_le_bytes());
        body.extend_from_slice(&facts.weight.to_le_bytes());
        for number in [facts.shards, facts.frames.0, facts.frames.1] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        put_text(&mut body, &facts.name);
        put_text(&mut body, &facts.link.to_string());
        put_text(&mut body, &facts.version);
        let clients = &facts.clients[..facts.clients.len().min(CLIENTS_MAX)];
        body.push(u8::try_from(clients.len()).unwrap_or_default());
        clients.iter().for_each(|address| put_text(&mut body, address));
        write(out, Kind::Hello, [&body, &[]], &[]);
    }

    /// - errors: `Malformed`; `Protocol` where no version of the link is spoken by both, of which what else stands here
    ///   need not be understood
    pub(super) fn read(body: &[u8]) -> Result<Hello, Refusal> {
        let mut fields = Fields(body);
        let protocol = (fields.u16()?, fields.u16()?);
        if common(PROTOCOL, protocol).is_none() {
            return Err(Refusal::Protocol { ours: PROTOCOL, theirs: protocol });
        }
        let (cluster, epoch) = (fields.array()?, fields.u64()?);
        let run = Run { node: NodeId(fields.u32()?), incarnation: fields.u64()? };
        let weight = fields.u32()?;
        let (shards, frames) = (fields.u16()?, (fields.u16()?, fields.u16()?));
        let name = fields.text()?.to_owned();
        let link = fields.text()?.parse().map_err(|_| Refusal::Malformed)?;
        let version = fields.text()?.to_owned();
        let count = usize::from(fields.u8()?);
        if name.is_empty() || shards == 0 || shards > SHARDS_MAX || count > CLIENTS_MAX {
            return Err(Refusal::Malformed);
        }
        let clients = (0..count)
            .map(|_| fields.text().map(str::to_owned))
            .collect::<Result<Vec<_>, Refusal>>()?;
        let facts = NodeFacts {
            name,
            run,
            shards,
            weight,
            link,
            clients,
            components: Vec::new(),
            federates: false,
            frames,
            version,
        };
        Ok(Hello { protocol, cluster, epoch, facts })
    }
}

/// The newest version that is in both ranges: each side speaks the older of the two newest.
pub(super) fn common(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let (oldest, newest) = (ours.0.max(theirs.0), ours.1.min(theirs.1));
    (oldest <= newest).then_some(newest)
}
