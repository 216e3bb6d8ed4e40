//! Two machines with all that they tell each other between them; forged messages.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::cluster::placement::{NodeId, ShardId};

fn place(node: u32) -> Place {
    Place { run: Run { node: NodeId(node), incarnation: 1 }, shard: ShardId(0) }
}

/// Connections of the owner, as its shard would name them.
fn conn(index: u32) -> Id {
    Id { index, generation: 1 }
}

/// Two machines and what is between them.
#[derive(Default)]
struct Pair {
    front: Relay<u32>,
    owner: Relay<u32>,
}

const FRONT: u32 = 1;
const OWNER: u32 = 2;

/// What happened, without borrows.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Open(Remote, Vec<u8>),
    MayRead,
    Refused(u32, Refusal),
    Input(Id, Vec<u8>),
    Output(Vec<u8>, Said),
    MayWrite(Id),
    Closed(Id),
    Stop(Id),
    Aborted(u32),
    Leave(u64),
    NoLeave,
    FrontChanged(Id, Option<Wall>),
    Sent(Id, u32, Vec<u8>),
    Gap,
}

fn take_piece(machine: &mut Relay<u32>, from: Place, piece: &[u8]) -> Vec<Seen> {
    let taken = messages(piece).filter_map(|message| machine.take(from, message.unwrap()));
    taken
        .map(|event| match event {
            Event::Open { remote, image } => Seen::Open(remote, image.to_vec()),
            Event::MayRead(_) => Seen::MayRead,
            Event::Refused(socket, why) => Seen::Refused(socket, why),
            Event::Input { conn, bytes } => Seen::Input(conn, bytes.to_vec()),
            Event::Output { bytes, said, .. } => Seen::Output(bytes.to_vec(), said),
            Event::MayWrite(conn) => Seen::MayWrite(conn),
            Event::Closed(conn) => Seen::Closed(conn),
            Event::Stop(conn) => Seen::Stop(conn),
            Event::Aborted(socket) => Seen::Aborted(socket),
            Event::Leave(_, leave) => Seen::Leave(leave.token),
            Event::NoLeave(_) => Seen::NoLeave,
            Event::FrontChanged(conn, sends) => Seen::FrontChanged(conn, sends),
            Event::Sent { conn, number, bytes, .. } => Seen::Sent(conn, number, bytes.to_vec()),
            Event::Gap => Seen::Gap,
        })
        .collect()
}

impl Pair {
    fn at_owner(&mut self) -> Vec<Seen> {
        let pieces: Vec<_> = self.front.pieces().collect();
        pieces.iter().flat_map(|it| take_piece(&mut self.owner, place(FRONT), &it.1)).collect()
    }

    fn at_front(&mut self) -> Vec<Seen> {
        let pieces: Vec<_> = self.owner.pieces().collect();
        pieces.iter().flat_map(|it| take_piece(&mut self.front, place(OWNER), &it.1)).collect()
    }

    fn open(&mut self, socket: u32) -> (FrontId, Id) {
        let front = self.front.open(place(OWNER), socket, b"image");
        let seen = self.at_owner();
        let [Seen::Open(remote, image)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(image, b"image");
        let conn = conn(socket);
        self.owner.accept(*remote, conn);
        assert_eq!(self.at_front(), [Seen::MayRead]);
        (front, conn)
    }
}

const MORE: Said = Said { closing: false, may_end: true };
const LAST: Said = Said { closing: true, may_end: true };

#[test]
fn bytes_go_both_ways_until_the_stream_ends() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(7);
    pair.front.input(front, b"<a/>");
    pair.front.input(front, b"<b/>");
    let wanted = [Seen::Input(conn, b"<a/>".into()), Seen::Input(conn, b"<b/>".into())];
    assert_eq!(pair.at_owner(), wanted);
    assert_eq!(pair.owner.output(conn, b"<c/>", false, true), 4);
    assert_eq!(pair.at_front(), [Seen::Output(b"<c/>".into(), MORE)]);
    assert_eq!(pair.owner.output(conn, b"</s>", true, true), 4);
    assert_eq!(pair.owner.output(conn, b"", true, true), 0, "its end is told once");
    assert_eq!(pair.at_front(), [Seen::Output(b"</s>".into(), LAST)]);
    pair.front.close(front);
    assert_eq!(pair.at_owner(), [Seen::Closed(conn)]);
    assert!(pair.front.is_idle() && pair.owner.is_idle());
}

#[test]
fn client_is_not_read_before_its_owner_has_taken_it() {
    let mut pair = Pair::default();
    let front = pair.front.open(place(OWNER), 1, b"");
    assert!(!pair.front.is_reading(front));
    pair.front.input(front, b"early");
    let seen = pair.at_owner();
    let [Seen::Open(remote, _)] = seen[..] else { panic!("{seen:?}") };
    pair.owner.accept(remote, conn(1));
    pair.at_front();
    assert!(pair.front.is_reading(front));
    assert_eq!(pair.at_owner(), [Seen::Input(conn(1), b"early".into())]);
}

#[test]
fn input_beyond_the_credit_waits_at_the_front() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    let window = INPUT_WINDOW as usize;
    pair.front.input(front, &vec![b'x'; window + 10]);
    assert!(!pair.front.is_reading(front));
    let received = |seen: Vec<Seen>| match &seen[..] {
        [Seen::Input(_, bytes)] => bytes.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(received(pair.at_owner()), window);
    // A connection that is held takes no more.
    pair.owner.consumed(conn, false);
    assert_eq!(pair.at_front(), []);
    pair.owner.consumed(conn, true);
    assert_eq!(pair.at_front(), [Seen::MayRead]);
    assert_eq!(received(pair.at_owner()), 10);
}

#[test]
fn output_beyond_the_credit_waits_at_the_owner() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    let window = OUTPUT_WINDOW as usize;
    let output = vec![b'x'; window + 10];
    assert_eq!(pair.owner.output(conn, &output, true, true), window);
    let cut = Said { closing: false, may_end: false };
    assert_eq!(pair.at_front(), [Seen::Output(output[..window].into(), cut)]);
    assert!(!pair.front.took(front, window / 2 - 1), "not worth a message");
    assert!(pair.front.took(front, window / 2 + 1));
    assert_eq!(pair.at_owner(), [Seen::MayWrite(conn)]);
    assert_eq!(pair.owner.output(conn, &output[window..], true, true), 10);
    assert_eq!(pair.at_front(), [Seen::Output(output[..10].into(), LAST)]);
}

const LEAVE: Leave<'static> = Leave { token: 8, label: 9, root: 7, number: 6, jid: "a@b/c" };

#[test]
fn front_may_send_behind_what_it_has_forwarded_and_nothing_before_that() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    pair.front.input(front, b"<a/>");
    pair.owner.give_leave(conn, &LEAVE);
    assert_eq!(pair.at_front(), [], "it has said more than the owner knew");
    let wanted = [Seen::Input(conn, b"<a/>".into()), Seen::FrontChanged(conn, None)];
    assert_eq!(pair.at_owner(), wanted);
    pair.owner.give_leave(conn, &LEAVE);
    assert_eq!(pair.at_front(), [Seen::Leave(8)]);
    pair.front.sends(front, Wall(4));
    let before = pair.front.credit(front);
    pair.front.sent(front, 7, Wall(5), b"<message/>");
    assert_eq!(pair.front.credit(front), before - 10);
    pair.front.input(front, b" ");
    let wanted = [
        Seen::FrontChanged(conn, Some(Wall(4))),
        Seen::Sent(conn, 7, b"<message/>".into()),
        Seen::Input(conn, b" ".into()),
    ];
    assert_eq!(pair.at_owner(), wanted);
    pair.owner.take_leave_back(conn);
    assert_eq!(pair.at_front(), [Seen::NoLeave]);
    pair.front.sends_not(front);
    assert_eq!(pair.at_owner(), [Seen::FrontChanged(conn, None)]);
    // What waits for credit is not to be overtaken.
    pair.front.input(front, &vec![b'x'; INPUT_WINDOW as usize]);
    assert_eq!(pair.front.credit(front), 0);
}

/// What a peer would write that keeps to nothing.
fn forged(message: &Message<'_>) -> Vec<u8> {
    let mut piece = Vec::new();
    append(message, &mut piece);
    piece
}

#[test]
fn whoever_sends_beyond_its_credit_loses_that_connection_and_no_other() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    let (other, _) = pair.open(2);
    let bytes = vec![b'x'; INPUT_WINDOW as usize / 2 + 1];
    let piece = forged(&Message::Input { conn: conn.to_u64(), bytes: &bytes });
    assert_eq!(take_piece(&mut pair.owner, place(FRONT), &piece).len(), 1);
    let seen = take_piece(&mut pair.owner, place(FRONT), &piece);
    assert_eq!(seen, [Seen::Closed(conn)]);
    assert_eq!(pair.at_front(), [Seen::Aborted(1)]);
    assert_eq!((pair.front.socket(front), pair.front.socket(other)), (None, Some(2)));

    let bytes = vec![b'x'; OUTPUT_WINDOW as usize / 2 + 1];
    let output = Message::Output { front: other.0.to_u64(), said: MORE, bytes: &bytes };
    let piece = forged(&output);
    assert_eq!(take_piece(&mut pair.front, place(OWNER), &piece).len(), 1);
    assert_eq!(take_piece(&mut pair.front, place(OWNER), &piece), [Seen::Aborted(2)]);
    assert_eq!(pair.at_owner(), [Seen::Closed(super::tests::conn(2))]);
}

#[test]
fn credit_never_grows_above_the_window() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    let credit = forged(&Message::InputCredit { front: front.0.to_u64(), bytes: u32::MAX });
    take_piece(&mut pair.front, place(OWNER), &credit);
    let credit = forged(&Message::OutputCredit { conn: conn.to_u64(), bytes: u32::MAX });
    take_piece(&mut pair.owner, place(FRONT), &credit);
    let much = vec![b'x'; 2 * OUTPUT_WINDOW as usize];
    assert_eq!(pair.owner.output(conn, &much, false, true), OUTPUT_WINDOW as usize);
    pair.front.input(front, &much);
    let seen = pair.at_owner();
    let [Seen::Input(_, bytes)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(bytes.len(), INPUT_WINDOW as usize);
}

#[test]
fn nobody_speaks_for_the_connections_of_others() {
    let mut pair = Pair::default();
    let (front, conn) = pair.open(1);
    for message in [
        Message::Closed { conn: conn.to_u64() },
        Message::Stop { conn: conn.to_u64() },
        Message::Input { conn: conn.to_u64(), bytes: b"x" },
        Message::Sent { conn: conn.to_u64(), number: 1, at: Wall(1), bytes: b"x" },
        Message::SendsNot { conn: conn.to_u64() },
    ] {
        assert_eq!(take_piece(&mut pair.owner, place(3), &forged(&message)), [], "{message:?}");
    }
    for message in [
        Message::Aborted { front: front.0.to_u64() },
        Message::Output { front: front.0.to_u64(), said: LAST, bytes: b"x" },
        Message::Refused { front: front.0.to_u64(), why: Refusal::Full },
        Message::Leave { front: front.0.to_u64(), behind: 0, leave: LEAVE },
        Message::NoLeave { front: front.0.to_u64() },
    ] {
        assert_eq!(take_piece(&mut pair.front, place(3), &forged(&message)), [], "{message:?}");
    }
}

#[test]
fn socket_that_goes_before_it_is_taken_closes_its_connection() {
    let mut pair = Pair::default();
    let front = pair.front.open(place(OWNER), 1, b"");
    let seen = pair.at_owner();
    let [Seen::Open(remote, _)] = seen[..] else { panic!("{seen:?}") };
    pair.front.close(front);
    pair.owner.accept(remote, conn(1));
    assert_eq!(pair.at_front(), []);
    assert_eq!(pair.at_owner(), [Seen::Closed(conn(1))]);
}

#[test]
fn refused_connection_is_forgotten() {
    let mut pair = Pair::default();
    pair.front.open(place(OWNER), 1, b"");
    let seen = pair.at_owner();
    let [Seen::Open(remote, _)] = seen[..] else { panic!("{seen:?}") };
    pair.owner.refuse(remote, Refusal::Full);
    assert_eq!(pair.at_front(), [Seen::Refused(1, Refusal::Full)]);
    assert!(pair.front.is_idle());
}

#[test]
fn node_that_stops_has_its_streams_ended_by_their_owners() {
    let mut pair = Pair::default();
    let (_, one) = pair.open(1);
    pair.front.open(place(OWNER), 2, b"");
    let seen = pair.at_owner();
    let [Seen::Open(remote, _)] = seen[..] else { panic!("{seen:?}") };
    pair.front.stop();
    assert_eq!(pair.at_owner(), [Seen::Stop(one)]);
    pair.owner.accept(remote, conn(2));
    pair.at_front();
    assert_eq!(pair.at_owner(), [Seen::Stop(conn(2))]);
}

#[test]
fn one_socket_is_let_go_and_the_others_stay() {
    let mut pair = Pair::default();
    let (first, one) = pair.open(1);
    let (second, _) = pair.open(2);
    let third = pair.front.open(place(OWNER), 3, b"");
    assert_eq!(pair.front.accepted_fronts(), [first, second], "the third is on its way");
    pair.front.let_go(first);
    pair.front.let_go(third);
    assert!(matches!(&pair.at_owner()[..], [Seen::Open(..), Seen::Stop(conn)] if *conn == one));
    pair.front.close(first);
    pair.front.let_go(first);
    assert_eq!(pair.at_owner(), [Seen::Closed(one)]);
}

#[test]
fn lost_piece_ends_all_between_the_two_cores_and_nothing_else() {
    let mut pair = Pair::default();
    let (front, one) = pair.open(1);
    let third = pair.front.open(place(3), 9, b"");
    pair.front.pieces().for_each(drop);
    pair.front.input(front, b"lost");
    pair.front.pieces().for_each(drop);
    pair.front.input(front, b"late");
    assert_eq!(pair.at_owner(), [Seen::Gap, Seen::Input(one, b"late".into())]);
    let lost = pair.owner.lose(place(FRONT));
    assert_eq!(lost, Lost { fronts: vec![], conns: vec![one] });
    assert_eq!(pair.at_front(), [Seen::Aborted(1)]);
    assert_eq!(pair.front.socket(third), Some(9));
    pair.open(4);
}

#[test]
fn broken_link_ends_what_went_over_it() {
    let mut pair = Pair::default();
    let (_, one) = pair.open(1);
    let (_, two) = pair.open(2);
    let third = pair.front.open(place(3), 9, b"");
    let lost = pair.front.unlinked(place(OWNER).run);
    assert_eq!(lost, Lost { fronts: vec![1, 2], conns: vec![] });
    let lost = pair.owner.unlinked(place(FRONT).run);
    assert_eq!(lost, Lost { fronts: vec![], conns: vec![one, two] });
    assert_eq!(pair.front.socket(third), Some(9));
    assert!(pair.owner.is_idle());
    assert_eq!(pair.front.pieces().map(|it| it.0).collect::<Vec<_>>(), [place(3)]);
    // The next link begins anew.
    pair.open(5);
}

fn all() -> Vec<Message<'static>> {
    vec![
        Message::Number(u64::MAX),
        Message::Open { front: 1, image: b"image" },
        Message::Accepted { front: 1, conn: 2 },
        Message::Refused { front: 1, why: Refusal::Full },
        Message::Refused { front: 1, why: Refusal::Stopping },
        Message::Refused { front: 1, why: Refusal::Image },
        Message::Input { conn: 2, bytes: b"in" },
        Message::Output { front: 1, said: MORE, bytes: b"" },
        Message::Output { front: 1, said: LAST, bytes: b"out" },
        Message::InputCredit { front: 1, bytes: 3 },
        Message::OutputCredit { conn: 2, bytes: u32::MAX },
        Message::Closed { conn: 2 },
        Message::Aborted { front: 1 },
        Message::Stop { conn: 2 },
        Message::Leave { front: 1, behind: 5, leave: LEAVE },
        Message::NoLeave { front: 1 },
        Message::Sends { conn: 2, at: Wall(9) },
        Message::SendsNot { conn: 2 },
        Message::Sent { conn: 2, number: 3, at: Wall(9), bytes: b"in" },
    ]
}

#[test]
fn all_that_is_written_is_read_again() {
    let mut piece = Vec::new();
    all().iter().for_each(|message| append(message, &mut piece));
    let read: Vec<_> = messages(&piece).map(Result::unwrap).collect();
    assert_eq!(read, all());
}

#[test]
fn cut_and_foreign_pieces_are_refused_where_they_stop_to_make_sense() {
    for message in all() {
        let piece = forged(&message);
        for cut in 1..piece.len() {
            assert_eq!(messages(&piece[..cut]).collect::<Vec<_>>(), [Err(Malformed)]);
        }
    }
    for kind in [0, 17, 255] {
        assert_eq!(messages(&[kind; 40]).collect::<Vec<_>>(), [Err(Malformed)]);
    }
    let mut long = vec![5];
    long.extend_from_slice(&2u64.to_le_bytes());
    long.extend_from_slice(&(INPUT_WINDOW + 1).to_le_bytes());
    long.resize(long.len() + INPUT_WINDOW as usize + 1, 0);
    assert_eq!(messages(&long).collect::<Vec<_>>(), [Err(Malformed)]);
}
