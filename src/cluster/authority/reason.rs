//! Why a node waits, in words for its operator.

use std::fmt;

use crate::base::instant::Instant;

/// Names are those of nodes, with the address of the link where that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has not been asked yet.
    Starting,
    Database {
        since: Instant,
        why: String,
    },
    /// These live by their leases, and there is no way to them.
    Unlinked(Vec<String>),
    /// Their leases are over, and others have not yet taken them over.
    Vacant(Vec<String>),
    /// They are dead to us, but have leases, and we are too few to say that it is not us who are cut off.
    Minority(Vec<String>),
    /// The epoch before must have arrived everywhere.
    Settling {
        epoch: u64,
        names: Vec<String>,
    },
    /// It is to be drained, and no other that stays has a weight.
    Last,
    /// All leave, and these before it.
    Before(Vec<String>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Starting => f.write_str("the database has not answered yet"),
            // The time is left to who knows the clock.
            Reason::Database { why, .. } => write!(f, "the database cannot be reached: {why}"),
            Reason::Unlinked(nodes) => write!(
                f,
                "reaches the database, but not {}, whose lease lives: look after the network and the cluster's secret",
                nodes.join(", ")
            ),
            Reason::Vacant(nodes) => {
                write!(f, "{} lost its lease and is about to be taken over", nodes.join(", "))
            }
            Reason::Minority(nodes) => write!(
                f,
                "cannot reach {}, whose lease lives, and this side is not the larger one: look after the network",
                nodes.join(", ")
            ),
            Reason::Settling { epoch, names } => {
                write!(f, "epoch {epoch} has not yet arrived at {}", names.join(", "))
            }
            Reason::Last => f.write_str(
                "keeps its accounts, as no other member that stays has a weight: give one to another",
            ),
            Reason::Before(nodes) => {
                write!(f, "all nodes leave, and {} before it", nodes.join(", "))
            }
        }
    }
}
