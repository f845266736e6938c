//! Which events are the same one again, which are many of a kind, and which are too many: as client-go's correlator
//! settles it for the kubelet, with its numbers.
//!
//! Comes in: each event as it occurs, and the time. Goes out: the entry to write for it, or nothing. An event told again
//! counts the entry that is there up; the tenth text of one reason within ten minutes begins a combined entry; and of one
//! object no more is written than 25 events at once and one more every five minutes. Never here: a call of the API server.

mod recent;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::{Timestamp, between};
use recent::Recent;

/// How many objects, reasons and texts are remembered; those longest unheard of are forgotten first.
const REMEMBERED: usize = 4096;
/// Texts of one reason about one object from which on they are combined…
const COMBINED_FROM: usize = 10;
/// …unless so much time has passed since the last of them.
const COMBINED_WITHIN: Duration = Duration::from_secs(600);
/// What a combined entry begins with.
const COMBINED: &str = "(combined from similar events): ";
/// Events about one object that are written at once.
const BURST: f64 = 25.0;
/// The time after which one more may be written.
const REFILL: Duration = Duration::from_secs(300);

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `namespace`; empty for what has none.
    pub namespace: String,
    /// `name`.
    pub name: String,
    /// `uid`.
    pub uid: String,
}

/// One event, as far as it tells whether it is the same as another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Occurrence {
    /// What it is about.
    pub object: Object,
    /// The part of the object, such as a container; empty for the whole.
    pub field_path: String,
    /// A warning rather than the normal course.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's own name.
    pub name: String,
    /// How often it occurred. The first time it is new; later the entry that is there is changed.
    pub count: u32,
    /// When it first occurred.
    pub first_at: Timestamp,
    /// What it says: of a combined one, its beginning and the newest text.
    pub message: String,
}

/// What makes two entries one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Text(Occurrence),
    Combined(Similar),
}

/// Events that differ in their texts alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Similar {
    object: Object,
    warning: bool,
    reason: String,
}

/// The texts of similar events.
#[derive(Clone, Debug)]
struct Texts {
    texts: VecDeque<String>,
    last_at: Timestamp,
}

/// How many events about an object may still be written.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Timestamp,
}

/// Remembers what was told.
#[derive(Debug)]
pub struct Correlator {
    similar: Recent<Similar, Texts>,
    entries: Recent<Key, Entry>,
    allowances: Recent<Object, Allowance>,
}

impl Default for Correlator {
    fn default() -> Self {
        Self { similar: Recent::new(REMEMBERED), entries: Recent::new(REMEMBERED), allowances: Recent::new(REMEMBERED) }
    }
}

impl Correlator {
    /// What to write because of `occurrence`, under `name` if it is new; nothing if its object was told of too often. Such
    /// an event still counts, and shows in the number of the next one that is written.
    pub fn observe(&mut self, occurrence: Occurrence, name: String, now: Timestamp) -> Option<Entry> {
        let object = occurrence.object.clone();
        let (key, message) = self.combine(occurrence, now);
        let known = self.entries.get(&key).cloned();
        let entry = match known {
            Some(known) => Entry { count: known.count.saturating_add(1), message, ..known },
            None => Entry { name, count: 1, first_at: now, message },
        };
        self.entries.put(key, entry.clone());
        self.allows(object, now).then_some(entry)
    }

    /// The entry that the event belongs to, and the text that it takes there.
    fn combine(&mut self, occurrence: Occurrence, now: Timestamp) -> (Key, String) {
        let Occurrence { object, warning, reason, message, .. } = &occurrence;
        let similar = Similar { object: object.clone(), warning: *warning, reason: reason.clone() };
        let known = self.similar.get(&similar).filter(|known| between(known.last_at, now) <= COMBINED_WITHIN);
        let mut texts = known.map_or_else(VecDeque::new, |known| known.texts.clone());
        if !texts.contains(message) {
            texts.push_back(message.clone());
        }
        let many = texts.len() >= COMBINED_FROM;
        if many {
            texts.pop_front();
        }
        self.similar.put(similar.clone(), Texts { texts, last_at: now });
        let message = message.clone();
        if many { (Key::Combined(similar), format!("{COMBINED}{message}")) } else { (Key::Text(occurrence), message) }
    }

    fn allows(&mut self, object: Object, now: Timestamp) -> bool {
        let known = self.allowances.get(&object).copied().unwrap_or(Allowance { left: BURST, at: now });
        let gained = between(known.at, now).as_secs_f64() / REFILL.as_secs_f64();
        let left = (known.left + gained).min(BURST);
        let allowed = left >= 1.0;
        self.allowances.put(object, Allowance { left: if allowed { left - 1.0 } else { left }, at: now });
        allowed
    }
}
