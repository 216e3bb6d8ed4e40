//! Hashing: the stable hash that places JIDs, and keyed maps that floods cannot degrade.
