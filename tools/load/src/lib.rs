//! Clients by the hundred that drive an XMPP server and count what comes back.
