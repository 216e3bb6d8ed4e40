//! Tokens for quick logins (FAST, XEP-0484): given out at a login, each to one installation of a client and for one
//! mechanism, good for one message later. A slot of the account keeps them, in a bounded number; a change of the password
//! ends them all.
//!
//! A client has two at most, as XEP-0484 §5.1 has it: the one in use, and one that it was given and has not used yet.
//! Early data of TLS is not taken, so that nothing can be replayed; a `count` that does not rise is refused all the same.

use super::account::{AccountId, Slot, State};
use super::conn::{Flow, Hold};
use super::effect::{Action, ConnId, Effects};
use super::latency::LoginBy;
use super::login::Login;
use super::{Shard, Waiting};
use crate::base::instant::Wall;
use crate::store::Write;
use crate::stream::sasl::{SaslFailure, TokenMechanism, TokenMessage, responder, token};
use crate::stream::sasl2::Agent;
use crate::xmpp::datetime;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// What is kept of a token; the token itself follows from the nonce and the node's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    nonce: [u8; 16],
    mechanism: u8,
    expires: Wall,
    /// The highest `count` that it was used with.
    count: u32,
    /// Of the password that its owner had: tokens of another one are void.
    password: [u8; 8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    agent: [u8; 16],
    current: Option<Token>,
    fresh: Option<Token>,
}

/// Tokens of one account; who used or got one last comes last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tokens(Vec<Holder>);

const TOKEN_BYTES: usize = 16 + 1 + 8 + 4 + 8;
const HOLDER_BYTES: usize = 16 + 2 * (1 + TOKEN_BYTES);
const VERSION: u8 = 1;

impl Slot for Tokens {
    const NAME: &'static str = "login.tokens";

    fn load(stored: Option<&[u8]>) -> Self {
        let Some((&VERSION, holders)) = stored.and_then(<[u8]>::split_first) else {
            return Self::default();
        };
        Self(holders.chunks_exact(HOLDER_BYTES).filter_map(read_holder).collect())
    }
}

impl Tokens {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![VERSION];
        for holder in &self.0 {
            bytes.extend_from_slice(&holder.agent);
            for token in [&holder.current, &holder.fresh] {
                let at = bytes.len();
                if let Some(token) = token {
                    bytes.push(1);
                    bytes.extend_from_slice(&token.nonce);
                    bytes.push(token.mechanism);
                    bytes.extend_from_slice(&token.expires.0.to_le_bytes());
                    bytes.extend_from_slice(&token.count.to_le_bytes());
                    bytes.extend_from_slice(&token.password);
                }
                bytes.resize(at + 1 + TOKEN_BYTES, 0);
            }
        }
        (!self.0.is_empty()).then_some(bytes)
    }

    /// The holder, as the last one; the one that was idle for longest makes way for a new one.
    fn holder(&mut self, agent: [u8; 16], most: usize) -> &mut Holder {
        let known = self.0.iter().position(|holder| holder.agent == agent);
        let holder = match known {
            Some(place) => self.0.remove(place),
            None => Holder { agent, current: None, fresh: None },
        };
        while self.0.len() >= most.max(1) {
            self.0.remove(0);
        }
        self.0.push(holder);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

fn read_holder(bytes: &[u8]) -> Option<Holder> {
    let (agent, rest) = bytes.split_first_chunk()?;
    let (current, fresh) = rest.split_at_checked(1 + TOKEN_BYTES)?;
    Some(Holder { agent: *agent, current: read_token(current), fresh: read_token(fresh) })
}

fn read_token(bytes: &[u8]) -> Option<Token> {
    let (&1, rest) = bytes.split_first()? else { return None };
    let (nonce, rest) = rest.split_first_chunk()?;
    let (&mechanism, rest) = rest.split_first()?;
    let (expires, rest) = rest.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (password, _) = rest.split_first_chunk()?;
    Some(Token {
        nonce: *nonce,
        mechanism,
        expires: Wall(u64::from_le_bytes(*expires)),
        count: u32::from_le_bytes(*count),
        password: *password,
    })
}

/// What a proven token asks for beside the login.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Renewal {
    /// The mechanism of a token to give out.
    pub give: Option<TokenMechanism>,
    /// The login fails if the change cannot be stored.
    pub must_store: bool,
}

impl Shard {
    /// `<authenticate/>` with a token: the whole login in one message.
    pub(super) fn token(
        &mut self,
        id: ConnId,
        mechanism: TokenMechanism,
        initial: &[u8],
        fx: &mut Effects,
    ) -> Flow {
        let core = &mut self.core;
        let own = core.own();
        let Some(conn) = core.conns.get_mut(id.0) else { return Flow::Taken };
        let domain = conn.stream.domain().cloned().unwrap_or_default();
        let named = TokenMessage::parse(initial).and_then(|message| {
            let jid = BareJid::from_parts(Some(&message.authcid), &domain);
            Ok((jid.map_err(|_| SaslFailure::NotAuthorized)?, message))
        });
        let (jid, message) = match named {
            Ok(named) => named,
            Err(failure) => {
                self.fail(id, failure, fx);
                return Flow::Taken;
            }
        };
        let owner = core.placement.owner(jid.hash64());
        if owner != own {
            conn.stream.rewind_authenticate();
            conn.hold = Hold::Move;
            fx.actions.push(Action::Move { conn: id, to: owner });
            return Flow::Again;
        }
        conn.login_by = Some(LoginBy::Token(mechanism));
        let account = core.account(&jid, fx).filter(|_| !core.is_network_closed(id));
        let Some(account) = account else {
            self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            return Flow::Taken;
        };
        if self.waits_for_account(id, account) {
            if let Some(conn) = self.core.conns.get_mut(id.0) {
                conn.stream.rewind_authenticate();
            }
            return Flow::Again;
        }
        match self.proven_token(id, account, &jid, mechanism, &message) {
            Ok((answer, renewal)) => self.renewed(id, jid, answer, renewal, fx),
            Err(failure) => {
                if failure == SaslFailure::NotAuthorized {
                    self.core.network_failed(id);
                }
                self.fail(id, failure, fx);
            }
        }
        Flow::Taken
    }

    /// The same work is done whether the account, the client or a token of it exists.
    fn proven_token(
        &mut self,
        id: ConnId,
        account: AccountId,
        jid: &BareJid,
        mechanism: TokenMechanism,
        message: &TokenMessage<'_>,
    ) -> Result<(Vec<u8>, Renewal), SaslFailure> {
        let core = &mut self.core;
        let now = core.now.wall;
        let conn = core.conns.get(id.0).ok_or(SaslFailure::TemporaryAuthFailure)?;
        let request = conn.stream.request().ok_or(SaslFailure::MalformedRequest)?;
        let (Some(Agent(agent)), Some(fast)) = (request.agent, request.fast) else {
            return Err(SaslFailure::MalformedRequest);
        };
        let asked = request.request_token;
        let binding = conn.stream.tls_facts().map(|facts| facts.channel_binding());
        let binding = binding.unwrap_or_default();
        let data = mechanism.data(&binding).ok_or(SaslFailure::InvalidMechanism)?;
        let secret = core.config.decoy_secret;
        let made = |kept: Option<&Token>| {
            let nonce = kept.map_or([0; 16], |kept| kept.nonce);
            token(&secret, jid.as_str(), &agent, &nonce)
        };
        let most = core.config.limits.token_holders;
        let life = core.config.limits.token_life;
        let password = core.password_mark(account);
        let slot = core.accounts.get_mut(account.0).and_then(|slot| slot.data());
        let mut none = Tokens::default();
        let tokens = slot.map_or(&mut none, |slot| slot.slot::<Tokens>());
        let place = tokens.0.iter().position(|holder| holder.agent == agent);
        let kept = place.map(|place| tokens.0[place].clone());
        let (fresh, current) = kept.map_or((None, None), |kept| (kept.fresh, kept.current));
        let texts = [made(fresh.as_ref()), made(current.as_ref())];
        let by_fresh = message.proves(&texts[0], data) & fresh.is_some();
        let by_current = message.proves(&texts[1], data) & current.is_some();
        let (mut used, text) = match (fresh, current) {
            (Some(fresh), _) if by_fresh => (fresh, &texts[0]),
            (_, Some(current)) if by_current => (current, &texts[1]),
            _ => return Err(SaslFailure::NotAuthorized),
        };
        // XEP-0484 §3.4: for the mechanism that it was asked for, and no other.
        if used.mechanism != mechanism.code() || Some(used.password) != password {
            return Err(SaslFailure::NotAuthorized);
        }
        if used.expires <= now {
            return Err(SaslFailure::CredentialsExpired);
        }
        if fast.count.is_some_and(|count| count <= used.count) {
            return Err(SaslFailure::NotAuthorized);
        }
        used.count = fast.count.unwrap_or(used.count);
        let holder = tokens.holder(agent, most);
        // Its use ends what was given out before it.
        holder.current = (!fast.invalidate).then_some(used);
        if by_fresh || fast.invalidate {
            holder.fresh = None;
        }
        if fast.invalidate {
            tokens.0.pop();
        }
        let rest = Duration::from_micros(used.expires.0 - now.0);
        let is_due = rest < life / 4 * 3 && !fast.invalidate;
        let give = asked.or(is_due.then_some(mechanism));
        Ok((responder(text, data), Renewal { give, must_store: fast.invalidate }))
    }

    /// A token was used: what that changed is stored before success is told.
    fn renewed(
        &mut self,
        id: ConnId,
        jid: BareJid,
        answer: Vec<u8>,
        renewal: Renewal,
        fx: &mut Effects,
    ) {
        self.logged_in_with(id, jid, &answer, Some(renewal), fx);
    }

    /// Gives out a token where one is asked for, and has the store keep what changed. Gives false where there is nothing
    /// to wait for.
    pub(super) fn keep_tokens(
        &mut self,
        id: ConnId,
        jid: &BareJid,
        data: &[u8],
        renewal: Option<Renewal>,
        fx: &mut Effects,
    ) -> bool {
        let core = &mut self.core;
        let Some(conn) = core.conns.get(id.0) else { return false };
        let Some(request) = conn.stream.request() else { return false };
        let wanted = match renewal {
            Some(renewal) => renewal.give,
            None => request.request_token,
        };
        let Some(Agent(agent)) = request.agent else { return false };
        let Some(account) = core.names.get(jid.as_str()).copied() else { return false };
        let Some(password) = core.password_mark(account) else { return false };
        if wanted.is_none() && renewal.is_none() {
            return false;
        }
        let mut nonce = [0; 16];
        core.rng.fill(&mut nonce);
        let (most, life) = (core.config.limits.token_holders, core.config.limits.token_life);
        let life = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
        let expires = Wall(core.now.wall.0.saturating_add(life));
        let Some(kept) = core.accounts.get_mut(account.0).and_then(|slot| slot.data()) else {
            return false;
        };
        let tokens = kept.slot::<Tokens>();
        let mut given = Vec::new();
        if let Some(mechanism) = wanted {
            let mechanism = mechanism.code();
            let fresh = Token { nonce, mechanism, expires, count: 0, password };
            tokens.holder(agent, most).fresh = Some(fresh);
            let text = token(&core.config.decoy_secret, jid.as_str(), &agent, &nonce);
            let mut writer = Writer::new(&mut given);
            writer.start("token").attr("xmlns", ns::FAST).attr("token", &text);
            writer.attr("expiry", &datetime::format(expires)).close_empty();
        }
        let value = tokens.to_bytes();
        let must_store = renewal.is_some_and(|renewal| renewal.must_store);
        let ticket = core.ticket(Waiting::Login { conn: id, account });
        let (owner, name) = (jid.clone(), Tokens::NAME.to_owned());
        fx.writes.push((ticket, Write::PutSlot { owner, name, value }));
        core.wrote(account);
        if let Some(conn) = core.conns.get_mut(id.0) {
            conn.login =
                Some(Box::new(Login::Proved { data: data.to_vec(), token: given, must_store }));
            conn.hold = Hold::Answer;
        }
        true
    }

    /// The store has kept the tokens of a login, or not.
    pub(super) fn tokens_stored(
        &mut self,
        id: ConnId,
        account: AccountId,
        stored: bool,
        fx: &mut Effects,
    ) {
        if !stored {
            self.core.reload(account, fx);
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else { return };
        let Some(Login::Proved { token, must_store, .. }) = conn.login.as_deref_mut() else {
            return;
        };
        if conn.hold != Hold::Answer {
            return;
        }
        if !stored {
            // What is not kept must not be promised.
            token.clear();
            if *must_store {
                conn.hold = Hold::No;
                self.fail(id, SaslFailure::TemporaryAuthFailure, fx);
            }
        }
        self.release(id, fx);
    }
}

impl super::Core {
    /// What tells an account's password from the one before it; `None` without an account.
    fn password_mark(&self, account: AccountId) -> Option<[u8; 8]> {
        match &self.accounts.get(account.0)?.state {
            State::Ready(data) => data.credentials.of_password()?.stored_key.first_chunk().copied(),
            _ => None,
        }
    }
}
