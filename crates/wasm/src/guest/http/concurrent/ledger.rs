//! What goes on in one instance: who is in it, what its event loop says of itself, and the time come in; whether it takes
//! one more, waits, has been given up or may end goes out.
//!
//! ```text
//!   open ──► closed: it has answered as many as it may, nobody needed it for long, or a client left without its answer
//!                │     (a call cannot be taken back from a guest: what it does for nobody ends with its instance)
//!                └─► over: nobody is in it and its tasks have ended; or it was given up
//! ```
//! Never here: the guest itself, or a clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::request::Asked;

/// Requests that one instance has at a time, as `wasmtime serve` has it.
pub(super) const AT_ONE_TIME: usize = 16;
/// How long an instance that a client left may go on with what others began.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// The book of one instance, with what it is asked for.
pub(super) struct Ledger<A>(Mutex<Entries<A>>);

struct Entries<A> {
    /// A request that the event loop has not taken up yet.
    ask: Option<A>,
    /// Who waits for an answer or for the rest of it.
    clients: Vec<Client>,
    /// How many it has been given.
    given: u32,
    /// How many more it may be given.
    left: u32,
    closed: bool,
    /// When the last client went, and a place among those that wait.
    idle: Option<(Instant, OwnedSemaphorePermit)>,
    /// A client left without its answer.
    forsaken: Option<Forsaken>,
    /// Requests taken up since nothing ran.
    company: u32,
    turns: u64,
    /// Of the last time that the instance was run: whether its event loop came round, and whether it took up a request.
    turned: bool,
    took: bool,
    /// Of the last time that its event loop came round: whether none of its tasks was left, and whether its guest would
    /// take a call.
    quiet: bool,
    ready: bool,
}

struct Client {
    number: u32,
    asked: Asked,
}

/// When it was looked at last, and how often the event loop had come round then.
#[derive(Clone, Copy)]
struct Forsaken {
    seen: Instant,
    turns: u64,
}

impl<A> Ledger<A> {
    /// Of an instance that may be given this many requests.
    pub(super) fn new(requests: u32) -> Self {
        Self(Mutex::new(Entries {
            ask: None,
            clients: Vec::new(),
            given: 0,
            left: requests,
            closed: false,
            idle: None,
            forsaken: None,
            company: 0,
            turns: 0,
            turned: false,
            took: false,
            quiet: false,
            ready: false,
        }))
    }

    fn entries(&self) -> MutexGuard<'_, Entries<A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a request; its client's number comes back, or the request if it takes none.
    pub(super) fn give(&self, ask: A, asked: &Asked) -> Result<u32, A> {
        let mut entries = self.entries();
        if entries.is_closed() || entries.ask.is_some() || entries.clients.len() >= AT_ONE_TIME {
            return Err(ask);
        }
        entries.ask = Some(ask);
        entries.given += 1;
        entries.left -= 1;
        entries.idle = None;
        let number = entries.given;
        entries.clients.push(Client { number, asked: asked.clone() });
        Ok(number)
    }

    /// The request of this client again, if the event loop has not taken it up.
    pub(super) fn take_back(&self, number: u32) -> Option<A> {
        let mut entries = self.entries();
        let ask = entries.ask.take()?;
        entries.left += 1;
        entries.clients.retain(|client| client.number != number);
        Some(ask)
    }

    /// Closes it to others.
    pub(super) fn close(&self) {
        let mut entries = self.entries();
        entries.closed = true;
        entries.idle = None;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.entries().is_closed()
    }

    /// A client has its whole answer, or has left. Where it was the last, the instance waits, if it gets a place for that.
    /// Says whether the instance has to be looked at.
    pub(super) fn leave(
        &self,
        number: u32,
        has_answer: bool,
        now: Instant,
        place: impl FnOnce() -> Option<OwnedSemaphorePermit>,
    ) -> bool {
        let mut entries = self.entries();
        let was_full = entries.clients.len() >= AT_ONE_TIME;
        entries.clients.retain(|client| client.number != number);
        if !has_answer {
            entries.closed = true;
            let turns = entries.turns;
            entries.forsaken.get_or_insert(Forsaken { seen: now, turns });
        }
        if entries.clients.is_empty() && !entries.is_closed() {
            match place() {
                Some(place) => entries.idle = Some((now, place)),
                None => entries.closed = true,
            }
        }
        was_full || entries.is_closed()
    }

    /// When it began to wait for a next request, if it does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.entries().idle.as_ref().map(|(since, _)| *since)
    }

    /// Whether it takes one more: all that is in it waits, and its guest holds none back.
    pub(super) fn has_room(&self) -> bool {
        let entries = self.entries();
        let waits = entries.turned && (entries.quiet || !entries.took);
        waits && entries.ready && !entries.is_closed() && entries.ask.is_none() && entries.clients.len() < AT_ONE_TIME
    }

    /// Until when it may go on although a client left it, if one did.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.entries().forsaken.map(|forsaken| forsaken.seen + GIVEN_UP_AFTER)
    }

    /// Whether it is to end at once: what it does is for a client that has left, and nobody else would miss it. That is
    /// known of one that was alone; of others after some time, as nobody can tell what they do after their answers.
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        let mut entries = self.entries();
        let Some(forsaken) = entries.forsaken else { return false };
        let nobody = entries.clients.is_empty();
        if nobody && entries.company <= 1 {
            return true;
        }
        if now < forsaken.seen + GIVEN_UP_AFTER {
            return false;
        }
        // One whose event loop does not come round any more answers nobody.
        let hangs = forsaken.turns == entries.turns;
        entries.forsaken = Some(Forsaken { seen: now, turns: entries.turns });
        nobody || hangs
    }

    /// What those in it asked for, and how many it has been given.
    pub(super) fn asked(&self) -> (Vec<Asked>, u32) {
        let entries = self.entries();
        (entries.clients.iter().map(|client| client.asked.clone()).collect(), entries.given)
    }

    /// It is about to be run.
    pub(super) fn runs(&self) {
        let mut entries = self.entries();
        entries.turned = false;
        entries.took = false;
    }

    /// Whether it took up a request that has not ended, so that nobody knows yet whether that waits.
    pub(super) fn is_unsettled(&self) -> bool {
        let entries = self.entries();
        entries.took && !entries.quiet
    }

    /// The event loop takes up what it was given.
    pub(super) fn take_up(&self) -> Option<A> {
        let mut entries = self.entries();
        let ask = entries.ask.take()?;
        entries.took = true;
        entries.company = entries.company.saturating_add(1);
        Some(ask)
    }

    /// The event loop has come round, with none of its tasks left if it is `quiet`, and would take a call if `ready`. Says
    /// whether it is to end.
    pub(super) fn turn(&self, quiet: bool, ready: bool) -> bool {
        let mut entries = self.entries();
        entries.turned = true;
        entries.turns += 1;
        (entries.quiet, entries.ready) = (quiet, ready);
        if quiet {
            entries.company = 0;
        }
        quiet && entries.is_closed() && entries.clients.is_empty()
    }
}

impl<A> Entries<A> {
    fn is_closed(&self) -> bool {
        self.closed || self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use tokio::sync::Semaphore;

    use super::*;

    fn asked() -> Asked {
        Asked::of(&Request::new(()))
    }

    /// A place among those that wait.
    fn place() -> Option<OwnedSemaphorePermit> {
        Arc::new(Semaphore::new(1)).try_acquire_owned().ok()
    }

    /// Gives it a request, which its event loop takes up.
    fn taken(ledger: &Ledger<u32>, now_quiet: bool) -> u32 {
        let number = ledger.give(7, &asked()).unwrap();
        ledger.runs();
        assert_eq!(ledger.take_up(), Some(7));
        assert!(!ledger.turn(now_quiet, true));
        number
    }

    fn comes_round(ledger: &Ledger<u32>, quiet: bool) -> bool {
        ledger.runs();
        ledger.turn(quiet, true)
    }

    #[test]
    fn it_takes_one_more_once_those_in_it_wait_and_its_guest_holds_none_back() {
        let ledger = Ledger::new(100);
        for _ in 1..AT_ONE_TIME {
            taken(&ledger, false);
            assert!(ledger.is_unsettled() && !ledger.has_room(), "it may compute");
            assert!(!comes_round(&ledger, false) && ledger.has_room());
        }
        ledger.runs();
        assert!(!ledger.has_room(), "its event loop does not come round");
        ledger.turn(false, false);
        assert!(!ledger.has_room(), "its guest holds calls back");
        taken(&ledger, false);
        comes_round(&ledger, false);
        assert!(!ledger.has_room() && ledger.give(7, &asked()).is_err(), "it is full");
    }

    #[test]
    fn what_is_not_taken_up_comes_back_and_does_not_count() {
        let ledger = Ledger::new(1);
        let number = ledger.give(7, &asked()).unwrap();
        assert_eq!(ledger.give(8, &asked()), Err(8));
        assert_eq!(ledger.take_back(number), Some(7));
        let number = taken(&ledger, false);
        assert_eq!(ledger.take_back(number), None);
        assert_eq!(ledger.give(8, &asked()), Err(8), "it has had as many as it may");
    }

    #[test]
    fn one_that_has_answered_all_it_may_ends_when_nobody_is_in_it_and_nothing_runs() {
        let ledger = Ledger::new(1);
        let number = taken(&ledger, true);
        assert!(!comes_round(&ledger, true), "its client has not got all of the answer");
        assert!(ledger.leave(number, true, Instant::now(), place));
        assert!(!comes_round(&ledger, false), "it goes on after its answer");
        assert!(comes_round(&ledger, true));
    }

    #[test]
    fn it_waits_for_a_next_request_where_there_is_a_place() {
        let (ledger, now) = (Ledger::new(9), Instant::now());
        let number = taken(&ledger, true);
        assert!(!ledger.leave(number, true, now, place));
        assert_eq!(ledger.idle_since(), Some(now));
        let number = taken(&ledger, true);
        assert_eq!(ledger.idle_since(), None);
        assert!(ledger.leave(number, true, now, || None) && comes_round(&ledger, true));
    }

    #[test]
    fn who_leaves_without_an_answer_ends_it_at_once_if_alone() {
        let (ledger, now) = (Ledger::new(9), Instant::now());
        let number = taken(&ledger, false);
        assert!(!ledger.is_given_up(now));
        assert!(ledger.leave(number, false, now, place));
        assert!(ledger.is_closed() && ledger.is_given_up(now));
    }

    #[test]
    fn who_leaves_others_ends_it_when_those_have_left_and_some_time_has_gone() {
        let (ledger, now) = (Ledger::new(9), Instant::now());
        let (one, other) = (taken(&ledger, false), taken(&ledger, false));
        ledger.leave(one, false, now, place);
        assert!(ledger.give(7, &asked()).is_err());
        let later = ledger.given_up_at().unwrap();
        comes_round(&ledger, false);
        assert!(!ledger.is_given_up(now) && !ledger.is_given_up(later), "the other waits for its answer");
        ledger.leave(other, true, later, place);
        assert!(!ledger.is_given_up(later), "it may do something after that answer");
        assert!(ledger.is_given_up(ledger.given_up_at().unwrap()));
    }

    #[test]
    fn who_leaves_others_in_one_that_hangs_ends_it_for_all() {
        let (ledger, now) = (Ledger::new(9), Instant::now());
        let (one, _other) = (taken(&ledger, false), taken(&ledger, false));
        ledger.leave(one, false, now, place);
        assert!(!ledger.is_given_up(now) && ledger.is_given_up(now + GIVEN_UP_AFTER));
    }
}
