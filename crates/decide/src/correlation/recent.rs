//! A map that holds only so many: what was longest neither read nor written goes first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A bounded map.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    /// Counts reads and writes.
    turn: u64,
    values: HashMap<K, (u64, V)>,
    /// Keys by the turn in which each was last used.
    turns: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Holds `most` values.
    pub(super) fn new(most: usize) -> Self {
        Self { most, turn: 0, values: HashMap::new(), turns: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.turn += 1;
        let (used, value) = self.values.get_mut(key)?;
        self.turns.remove(used);
        self.turns.insert(self.turn, key.clone());
        *used = self.turn;
        Some(value)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.turn += 1;
        if let Some((used, _)) = self.values.insert(key.clone(), (self.turn, value)) {
            self.turns.remove(&used);
        }
        self.turns.insert(self.turn, key);
        while self.values.len() > self.most {
            let Some((_, oldest)) = self.turns.pop_first() else { return };
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_was_longest_unused_goes_first() {
        let mut recent = Recent::new(2);
        let told = |recent: &mut Recent<&str, i32>, keys: [&'static str; 3]| keys.map(|key| recent.get(&key).copied());
        recent.put("a", 1);
        recent.put("b", 2);
        assert_eq!(recent.get(&"a"), Some(&1));
        recent.put("c", 3);
        assert_eq!(told(&mut recent, ["a", "b", "c"]), [Some(1), None, Some(3)]);
        recent.put("a", 4);
        recent.put("d", 5);
        assert_eq!(told(&mut recent, ["a", "c", "d"]), [Some(4), None, Some(5)]);
        assert_eq!((recent.values.len(), recent.turns.len()), (2, 2));
    }
}
