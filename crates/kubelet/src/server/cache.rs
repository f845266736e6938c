//! Answers of the API server, kept for a while.
//!
//! In come answers with the time they hold, out go those that still do. Bounded: a full cache forgets what has run out,
//! then everything; a client that makes up tokens costs calls, never memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const MOST_ANSWERS: usize = 4096;

/// Answers by what was asked.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    answers: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new() -> Self {
        Self { answers: Mutex::default() }
    }

    /// The answer, if it still holds.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer.
    pub(super) fn put(&self, key: K, answer: V, holds_for: Duration) {
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= MOST_ANSWERS {
            answers.clear();
        }
        answers.insert(key, (now + holds_for, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_run_out_and_never_pile_up() {
        let cache = Cache::new();
        cache.put("a".to_owned(), 1, Duration::from_secs(10));
        assert_eq!(cache.get(&"a".to_owned()), Some(1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(cache.get(&"a".to_owned()), None);
        for number in 0..3 * MOST_ANSWERS {
            cache.put(number.to_string(), number, Duration::from_secs(10));
        }
        assert!(cache.answers.lock().unwrap().len() <= MOST_ANSWERS);
    }
}
