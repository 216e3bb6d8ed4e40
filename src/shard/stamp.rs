//! XEP-0359: Unique and Stable Stanza IDs. A message that an account may keep is given an id in it: that of its row in
//! the log, where it has one, so that a message which comes again has the id it had. Ids that others forged in the name
//! of the account go.

use super::Core;
use crate::frame::Envelope;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::escape_attr;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Searched for in each message: what does not contain it has no id to look at.
static NAMESPACE: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(ns::STANZA_ID.as_bytes()));

const ELEMENT: &[u8] = b"<stanza-id xmlns='urn:xmpp:sid:0' by='";

impl Core {
    /// The stanza without what claims to be an id by `own`; `None` where nothing does. Gives the bytes that are left, and
    /// where the end tag starts in them.
    ///
    /// - source: XEP-0359 §3, business rules
    pub(super) fn without_forged_ids(
        &mut self,
        own: &BareJid,
        envelope: &Envelope<'_>,
    ) -> Option<(Vec<u8>, u32)> {
        let bytes = envelope.stanza;
        NAMESPACE.find(bytes)?;
        let mut index = Index::default();
        let stanza = self.view(bytes, &mut index)?;
        let mut left = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for child in stanza.children() {
            if child.namespace != ns::STANZA_ID || child.name != "stanza-id" {
                continue;
            }
            let by = child.attr("by").and_then(|by| self.jids.parse(&by).ok());
            if by.is_some_and(|by| by.is_bare() && by.bare() == own) {
                let start = child.start();
                left.extend_from_slice(&bytes[from..start]);
                from = start + child.bytes.len();
            }
        }
        if from == 0 {
            return None;
        }
        left.extend_from_slice(&bytes[from..]);
        let removed = u32::try_from(bytes.len() - left.len()).ok()?;
        Some((left, envelope.close_start - removed))
    }

    /// Writes the id of a message to `own`: that of its row, or one that was never given.
    pub(super) fn write_id(&mut self, out: &mut Vec<u8>, own: &BareJid, row: Option<u64>) {
        let id = match row {
            Some(row) => veiled(row, own, &self.config.decoy_secret),
            None => self.rng.next_u64(),
        };
        out.extend_from_slice(ELEMENT);
        escape_attr(out, own.as_str());
        out.extend_from_slice(b"' id='");
        out.extend_from_slice(&digits(id));
        out.extend_from_slice(b"'/>");
    }

    /// The id of a row, as `write_id` writes it.
    pub(super) fn shown_id(&self, own: &BareJid, row: u64) -> String {
        digits(veiled(row, own, &self.config.decoy_secret))
            .iter()
            .map(|digit| char::from(*digit))
            .collect()
    }

    /// The row whose id this is, whether or not it is there; `None` for what no row was ever shown as.
    pub(super) fn row_of_id(&self, own: &BareJid, id: &str) -> Option<u64> {
        let is_ours = id.len() == 16 && id.bytes().all(|digit| HEX.contains(&digit));
        let id = is_ours.then(|| u64::from_str_radix(id, 16).ok())??;
        let row = unveiled(id, own, &self.config.decoy_secret);
        (1..=ROWS_PLAUSIBLE).contains(&row).then_some(row)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// No partition ever counts as far: of ids that were never given one in 16 million seems to be one of ours.
const ROWS_PLAUSIBLE: u64 = 1 << 40;

fn digits(id: u64) -> [u8; 16] {
    std::array::from_fn(|place| HEX[((id >> (60 - 4 * place)) & 0xf) as usize])
}

/// Whether what stands before the end tag ends with an id that was written by `write_id` for `own`. Clients cannot make it
/// look so: theirs are taken out before.
pub(super) fn ends_with_id(content: &[u8], own: &BareJid) -> bool {
    let Some(start) = memchr::memrchr(b'<', content) else { return false };
    let Some(rest) = content[start..].strip_prefix(ELEMENT) else { return false };
    let mut by = Vec::with_capacity(own.as_str().len());
    escape_attr(&mut by, own.as_str());
    rest.starts_with(&by) && rest[by.len()..].starts_with(b"' id='")
}

/// Rows are counted through; nobody is to read from an id how many there are (XEP-0359, security considerations). A
/// bijection, so that no two rows share an id, and another one for each account of each server.
fn veiled(row: u64, own: &BareJid, secret: &[u8; 32]) -> u64 {
    let (keys, _) = secret.as_chunks::<8>();
    let mut id = row ^ own.hash64();
    for key in keys {
        id = (id ^ u64::from_le_bytes(*key)).wrapping_mul(FACTOR);
        id ^= id >> 32;
    }
    id
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Undoes a multiplication by `FACTOR`.
const INVERSE: u64 = 0xf1de_83e1_9937_733d;

/// The row that `veiled` gives this id.
fn unveiled(id: u64, own: &BareJid, secret: &[u8; 32]) -> u64 {
    let (keys, _) = secret.as_chunks::<8>();
    let mut row = id;
    for key in keys.iter().rev() {
        row ^= row >> 32;
        row = row.wrapping_mul(INVERSE) ^ u64::from_le_bytes(*key);
    }
    row ^ own.hash64()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn own() -> BareJid {
        BareJid::parse("alice@here").unwrap()
    }

    #[test]
    fn neighbouring_rows_have_ids_that_show_nothing() {
        let ids: Vec<u64> = (0..1_000).map(|row| veiled(row, &own(), &[7; 32])).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), ids.len());
        assert!(!ids.is_sorted());
        assert!(ids.windows(2).all(|pair| (pair[0] ^ pair[1]).count_ones() > 8));
    }

    #[test]
    fn each_id_tells_its_row_to_who_knows_the_secret() {
        let secret = std::array::from_fn(|place| u8::try_from(place * 7).unwrap());
        assert_eq!(FACTOR.wrapping_mul(INVERSE), 1);
        for row in (0..1_000).chain([u64::from(u32::MAX), 1 << 40, u64::MAX]) {
            let id = veiled(row, &own(), &secret);
            assert_eq!(unveiled(id, &own(), &secret), row);
            assert_ne!(unveiled(id, &own(), &[0; 32]), row);
            assert_ne!(unveiled(id, &BareJid::parse("bob@here").unwrap(), &secret), row);
        }
    }

    #[test]
    fn only_an_id_of_ours_at_the_end_is_one() {
        let own = BareJid::parse("alice@here").unwrap();
        let ours =
            "<message><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='alice@here' id='1'/>";
        assert!(ends_with_id(ours.as_bytes(), &own));
        for other in [
            "",
            "<message><body>x</body>",
            "<message><a><stanza-id xmlns='urn:xmpp:sid:0' by='alice@here' id='1'/></a>",
            "<message><stanza-id xmlns='urn:xmpp:sid:0' by='alice@here.org' id='1'/>",
            "<message><stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='1'/>",
        ] {
            assert!(!ends_with_id(other.as_bytes(), &own), "{other}");
        }
    }
}
