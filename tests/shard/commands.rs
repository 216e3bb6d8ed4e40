//! XEP-0050 and XEP-0133: administrators run commands, and nobody else sees that there are any. XEP-0077: users change
//! their passwords.

use crate::harness::{CREDENTIALS, Client, Node, attr, bare, chat};
use std::time::Duration;

const ADMIN: &str = "http://jabber.org/protocol/admin";

fn node(shards: u16) -> Node {
    Node::with(shards, |config| config.admins = vec![bare("root")])
}

fn command(name: &str, attributes: &str, inner: &str) -> String {
    format!(
        "<iq type='set' id='c' to='here'><command xmlns='http://jabber.org/protocol/commands' \
         node='{ADMIN}#{name}' {attributes}>{inner}</command></iq>"
    )
}

fn form(fields: &[(&str, &[&str])]) -> String {
    let field = |(var, values): &(&str, &[&str])| {
        let values: String = values.iter().map(|it| format!("<value>{it}</value>")).collect();
        format!("<field var='{var}'>{values}</field>")
    };
    let fields: String = fields.iter().map(field).collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{ADMIN}</value>\
         </field>{fields}</x>"
    )
}

impl Node {
    fn ask(&mut self, client: Client, xml: &str) -> String {
        self.send(client, xml);
        self.read(client)
    }

    /// Starts a command and submits its form.
    fn command(&mut self, client: Client, name: &str, fields: &[(&str, &[&str])]) -> String {
        let offered = self.ask(client, &command(name, "action='execute'", ""));
        if fields.is_empty() {
            return offered;
        }
        assert!(offered.contains("status='executing'"), "{offered}");
        let session = format!("sessionid='{}' action='complete'", attr(&offered, "sessionid"));
        self.ask(client, &command(name, &session, &form(fields)))
    }
}

#[test]
fn only_administrators_see_and_run_commands() {
    let mut node = node(2);
    let (root, alice) = (node.online("root", "desk"), node.online("alice", "phone"));
    let items = |node: &str| {
        format!(
            "<iq type='get' id='i' to='here'><query {node} \
             xmlns='http://jabber.org/protocol/disco#items'/></iq>"
        )
    };
    let commands = "node='http://jabber.org/protocol/commands'";
    assert!(node.ask(root, &items("")).contains(commands));
    let listed = node.ask(root, &items(commands));
    assert!(listed.contains(&format!("node='{ADMIN}#add-user'")), "{listed}");
    assert!(!node.ask(alice, &items("")).contains("commands"));
    assert!(node.ask(alice, &items(commands)).contains("<item-not-found"));
    let info = format!(
        "<iq type='get' id='i' to='here'><query node='{ADMIN}#announce' \
         xmlns='http://jabber.org/protocol/disco#info'/></iq>"
    );
    assert!(node.ask(root, &info).contains("type='command-node'"));
    assert!(node.ask(alice, &info).contains("<item-not-found"));
    for name in ["add-user", "announce", "nothing"] {
        assert!(node.ask(alice, &command(name, "", "")).contains("<forbidden"));
    }
}

#[test]
fn an_administrator_adds_disables_enables_and_deletes_accounts() {
    let mut node = node(2);
    let root = node.online("root", "desk");
    let fields: [(&str, &[&str]); 3] =
        [("accountjid", &["Carol@here"]), ("password", &["pw"]), ("password-verify", &["pw"])];
    let done = node.command(root, "add-user", &fields);
    assert!(done.contains("status='completed'"), "{done}");
    assert!(node.record("carol").is_some());
    assert!(node.command(root, "add-user", &fields).contains("<conflict"));

    let alice = node.online("alice", "phone");
    let accounts: [(&str, &[&str]); 1] = [("accountjids", &["alice@here", "nobody@here"])];
    let done = node.command(root, "disable-user", &accounts);
    assert!(done.contains("completed") && done.contains("nobody@here"), "{done}");
    assert!(node.read(alice).contains("the account is disabled"));
    assert!(node.record("alice").unwrap().disabled);
    let numbers = node.command(root, "get-disabled-users-num", &[]);
    assert!(numbers.contains("<value>1</value>"), "{numbers}");
    node.command(root, "reenable-user", &accounts);
    assert!(!node.record("alice").unwrap().disabled);

    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "desk");
    node.send(bob, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    node.send(bob, "<presence type='subscribe' to='alice@here'/>");
    node.read(alice);
    node.send(alice, "<presence type='subscribed' to='bob@here'/>");
    node.read(bob);
    node.command(root, "delete-user", &[("accountjids", &["alice@here"])]);
    assert!(!node.is_open(alice) && node.record("alice").is_none());
    let told = node.read(bob);
    assert!(told.contains("type='unsubscribed'"), "its name may be another's soon: {told}");
    assert_eq!(node.faults(), 0);
}

#[test]
fn sessions_of_commands_belong_to_one_client_and_end() {
    let mut node = node(1);
    let (root, other) = (node.online("root", "desk"), node.online("root", "phone"));
    let offered = node.ask(root, &command("announce", "", ""));
    let id = attr(&offered, "sessionid").to_owned();
    let with = |action: &str| format!("sessionid='{id}' action='{action}'");
    let text = form(&[("announcement", &["hear"])]);
    assert!(
        node.ask(other, &command("announce", &with("complete"), &text)).contains("<bad-sessionid")
    );
    assert!(
        node.ask(root, &command("shutdown", &with("complete"), &text)).contains("<bad-sessionid")
    );
    assert!(node.ask(root, &command("announce", &with("fly"), "")).contains("<malformed-action"));
    for action in ["prev", "next"] {
        assert!(node.ask(root, &command("announce", &with(action), &text)).contains("<bad-action"));
    }
    let empty = node.ask(root, &command("announce", &with("complete"), ""));
    assert!(empty.contains("<bad-payload"), "{empty}");
    assert!(
        node.ask(root, &command("announce", &with("cancel"), "")).contains("status='canceled'")
    );
    assert!(
        node.ask(root, &command("announce", &with("complete"), &text)).contains("<bad-sessionid")
    );
    assert!(node.ask(root, &command("nothing", "", "")).contains("<item-not-found"));

    let offered = node.ask(root, &command("announce", "", ""));
    let id = attr(&offered, "sessionid").to_owned();
    for _ in 0..8 {
        // The client answers pings meanwhile.
        node.advance(Duration::from_secs(119));
    }
    node.read(root);
    let late = format!("sessionid='{id}' action='complete'");
    let refused = node.ask(root, &command("announce", &late, &text));
    assert!(refused.contains("<session-expired"), "{refused}");

    let first = node.ask(root, &command("announce", "", ""));
    for _ in 0..64 {
        node.ask(root, &command("announce", "", ""));
    }
    let first = format!("sessionid='{}' action='complete'", attr(&first, "sessionid"));
    let refused = node.ask(root, &command("announce", &first, &text));
    assert!(refused.contains("<bad-sessionid"), "the oldest of too many is forgotten: {refused}");
}

#[test]
fn announcements_reach_everybody_who_is_there() {
    let mut node = node(3);
    let root = node.online("root", "desk");
    let there: Vec<Client> = (0..6).map(|n| node.online(&format!("user{n}"), "phone")).collect();
    let silent = node.login("silent", "phone");
    let done = node.command(root, "announce", &[("announcement", &["one &lt; two", "three"])]);
    assert!(done.contains("<body>one &lt; two\nthree</body>"), "the administrator as well: {done}");
    for client in there {
        let told = node.read(client);
        assert!(told.contains("type='headline'") && told.contains("from='here'"), "{told}");
    }
    assert_eq!(node.read(silent), "");
}

#[test]
fn numbers_lists_rosters_and_statistics_are_shown() {
    let mut node = node(2);
    let root = node.online("root", "desk");
    let alice = node.online("alice", "phone");
    node.send(alice, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='bob@here' name='B'/></query></iq>");
    node.users(&["bob"]);
    let value = |node: &mut Node, name: &str| {
        let shown = node.command(root, name, &[]);
        shown.rsplit("<value>").next().unwrap().split('<').next().unwrap().to_owned()
    };
    assert_eq!(value(&mut node, "get-registered-users-num"), "3");
    assert_eq!(value(&mut node, "get-online-users-num"), "2");
    assert_eq!(value(&mut node, "get-idle-users-num"), "0");
    let all: [(&str, &[&str]); 1] = [("max_items", &["2"])];
    let listed = node.command(root, "get-registered-users-list", &all);
    assert!(
        listed.contains("<value>alice@here</value><value>bob@here</value></field>"),
        "{listed}"
    );
    assert!(listed.contains("there are more"), "{listed}");
    let listed = node.command(root, "get-online-users-list", &[("max_items", &["none"])]);
    assert!(listed.contains("root@here") && !listed.contains("bob@here"), "{listed}");
    let roster = node.command(root, "get-user-roster", &[("accountjids", &["alice@here"])]);
    assert!(roster.contains("<item jid='bob@here' name='B'"), "{roster}");
    let known = node.command(root, "user-stats", &[("accountjid", &["alice@here"])]);
    assert!(known.contains("<value>phone</value>"), "{known}");
    let none = node.command(root, "user-stats", &[("accountjid", &["nobody@here"])]);
    assert!(none.contains("<item-not-found"), "{none}");
    let foreign = node.command(root, "user-stats", &[("accountjid", &["alice@there"])]);
    assert!(foreign.contains("<bad-payload"), "{foreign}");
}

#[test]
fn nodes_that_gave_no_answer_are_named_beside_what_the_others_found() {
    let mut node = node(2);
    let root = node.online("root", "desk");
    node.silent = vec!["n3".to_owned(), "n2".to_owned()];
    let silent = "these nodes gave no answer, and are not in this: n2, n3";
    let counted = node.command(root, "get-online-users-num", &[]);
    assert!(counted.contains("<value>1</value>"), "{counted}");
    assert!(counted.contains("<note type='warn'>") && counted.contains(silent), "{counted}");
    let listed = node.command(root, "get-online-users-list", &[("max_items", &["none"])]);
    assert!(listed.contains("root@here") && listed.contains(silent), "{listed}");
    let done = node.command(root, "announce", &[("announcement", &["snow"])]);
    assert!(done.contains("<body>snow</body>"), "who can be reached is told: {done}");
    assert!(done.contains(&format!("<note type='warn'>done; {silent}</note>")), "{done}");
}

#[test]
fn an_administrator_ends_sessions_and_stops_the_server_once() {
    let mut node = node(2);
    let root = node.online("root", "desk");
    let alice = node.online("alice", "phone");
    node.command(root, "end-user-session", &[("accountjids", &["alice@here/phone"])]);
    assert!(node.read(alice).contains("an operator has ended"));
    let bob = node.online("bob", "phone");
    let fields: [(&str, &[&str]); 2] = [("delay", &["30"]), ("announcement", &["soon"])];
    assert!(node.command(root, "shutdown", &fields).contains("completed"));
    assert_eq!(node.stops_in, Some(Duration::from_secs(30)));
    assert!(node.read(bob).contains("<body>soon</body>"));
    assert!(node.command(root, "shutdown", &fields).contains("<resource-constraint"));
    node.errands_fail = true;
    let busy = node.command(root, "get-online-users-num", &[]);
    assert!(busy.contains("<resource-constraint"), "{busy}");
}

#[test]
fn a_user_changes_the_password_of_nobody_else() {
    let mut node = node(1);
    let alice = node.online("alice", "phone");
    let query = |inner: &str| {
        format!(
            "<iq type='set' id='p' to='here'><query xmlns='jabber:iq:register'>{inner}</query></iq>"
        )
    };
    let get = "<iq type='get' id='g'><query xmlns='jabber:iq:register'/></iq>";
    let known = node.ask(alice, get);
    assert!(known.contains("<registered/><username>alice</username>"), "{known}");
    let refusals = [
        ("<username>bob</username><password>x</password>", "<forbidden"),
        ("<username>alice</username><password/>", "<bad-request"),
        ("<password>x</password>", "<bad-request"),
        ("<remove/>", "<not-allowed"),
        ("<remove/><username>alice</username>", "<bad-request"),
        ("<username>alice</username><password>\u{fffd}\u{e000}</password>", "<not-acceptable"),
    ];
    for (inner, condition) in refusals {
        let answer = node.ask(alice, &query(inner));
        assert!(answer.contains(condition), "{inner}: {answer}");
    }
    assert!(node.record("alice").unwrap().credentials == *CREDENTIALS, "nothing has changed");
    let done = node.ask(alice, &query("<username>ALICE</username><password>new</password>"));
    assert!(done.contains("type='result'"), "{done}");
    assert!(node.record("alice").unwrap().credentials != *CREDENTIALS);
    node.send(alice, &chat("alice@here", "still here"));
    assert!(node.read(alice).contains("still here"));
}
