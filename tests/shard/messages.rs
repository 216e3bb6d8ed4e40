//! x
use crate::harness::*;
#[test]
fn a_message_goes() {
    let mut node = Node::new(1);
    let bob = node.online("bob", "pc");
    let (alice, _) = node.online_acked("alice", "phone");
    node.send(alice, &chat("bob@here", "hi"));
    assert_eq!(
        node.read(bob),
        "<message from='alice@here/phone' to='bob@here' type='chat' id='hi'><body>hi</body></message>"
    );
    node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(node.read(alice), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
}
