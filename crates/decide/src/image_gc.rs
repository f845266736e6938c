//! Which images the node gives up: what it has, what is used, and how full their file system is comes in; which images may
//! go, and in which order, goes out.
//!
//! An image is used while a container of any pod names it. One that was not used for longest goes first. One that came in
//! a moment ago stays, as the pod that it was pulled for is still on its way. Images that were here before this kubelet
//! have no such moment. The texts are the kubelet's own, as users look for them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

/// When images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How full the file system gets before images go, in percent; 100 is never.
    pub high_threshold_percent: u8,
    /// How full it is left, in percent.
    pub low_threshold_percent: u8,
    /// How long an image stays at least after it was first seen.
    pub min_age: SignedDuration,
    /// How long an image stays that nothing uses; `None` is for ever.
    pub max_age: Option<SignedDuration>,
}

impl Policy {
    /// Whether images are given up at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.high_threshold_percent < 100 || self.max_age.is_some()
    }
}

/// The file system that images are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// All of it, in bytes.
    pub capacity_bytes: u64,
    /// What is free, in bytes.
    pub available_bytes: u64,
}

/// An image as the runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The runtime's id of it.
    pub id: String,
    /// What it takes.
    pub size_bytes: u64,
    /// Whether the runtime keeps it in any case.
    pub pinned: bool,
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The runtime's id of it.
    pub id: String,
    /// What its removal frees.
    pub size_bytes: u64,
}

/// What is known of one image.
#[derive(Debug, Clone)]
struct Record {
    size_bytes: u64,
    pinned: bool,
    /// `None` if it was there before anybody looked.
    first_detected: Option<Timestamp>,
    /// `None` if it was never seen used.
    last_used: Option<Timestamp>,
}

/// All images that were there at the last look.
#[derive(Debug, Default)]
pub struct Images {
    records: BTreeMap<String, Record>,
    looked: bool,
}

impl Images {
    /// Takes in what is there and what is used, by ids.
    pub fn detect(&mut self, found: Vec<Found>, in_use: &BTreeSet<String>, now: Timestamp) {
        let first_detected = self.looked.then_some(now);
        self.looked = true;
        let mut records = std::mem::take(&mut self.records);
        for Found { id, size_bytes, pinned } in found {
            let known = records.remove(&id);
            let mut record = known.unwrap_or(Record { size_bytes, pinned, first_detected, last_used: None });
            (record.size_bytes, record.pinned) = (size_bytes, pinned);
            if in_use.contains(&id) {
                record.last_used = Some(now);
            }
            self.records.insert(id, record);
        }
    }

    /// The images that nothing has used for longer than they may stay. None is told before this kubelet, which began at
    /// `began`, has been there as long: it has not seen what was used before.
    #[must_use]
    pub fn outdated(&self, policy: &Policy, began: Timestamp, now: Timestamp) -> Vec<Candidate> {
        let Some(max_age) = policy.max_age else { return Vec::new() };
        if now.duration_since(began) <= max_age {
            return Vec::new();
        }
        let outdated = |record: &Record| record.last_used.is_none_or(|used| now.duration_since(used) >= max_age);
        self.candidates(policy, now, outdated)
    }

    /// The images that may go to make room, the one not used for longest first.
    #[must_use]
    pub fn by_last_use(&self, policy: &Policy, now: Timestamp) -> Vec<Candidate> {
        self.candidates(policy, now, |_| true)
    }

    /// Forgets an image that was removed.
    pub fn forget(&mut self, id: &str) {
        self.records.remove(id);
    }

    fn candidates(&self, policy: &Policy, now: Timestamp, goes: impl Fn(&Record) -> bool) -> Vec<Candidate> {
        let unused = |record: &Record| record.last_used.is_none_or(|used| used < now);
        let aged =
            |record: &Record| record.first_detected.is_none_or(|seen| now.duration_since(seen) >= policy.min_age);
        let mut candidates: Vec<(&String, &Record)> = self.records.iter().collect();
        candidates.retain(|(_, record)| !record.pinned && unused(record) && aged(record) && goes(record));
        // Never is before all times.
        candidates.sort_by_key(|(_, record)| (record.last_used, record.first_detected));
        let candidate = |(id, record): (&String, &Record)| Candidate { id: id.clone(), size_bytes: record.size_bytes };
        candidates.into_iter().map(candidate).collect()
    }
}

/// How many bytes are to be freed; 0 while the file system is not too full.
///
/// # Errors
/// The kubelet's text for a file system of no size, whose reason is `InvalidDiskCapacity`.
pub fn excess_bytes(file_system: FileSystem, policy: &Policy) -> Result<u64, String> {
    let FileSystem { capacity_bytes: capacity, available_bytes } = file_system;
    if capacity == 0 {
        return Err("invalid capacity 0 on image filesystem".to_owned());
    }
    let available = available_bytes.min(capacity);
    let percent = |bytes: u64| u128::from(bytes) * 100 / u128::from(capacity);
    let used_percent = 100 - percent(available);
    if used_percent < u128::from(policy.high_threshold_percent) {
        return Ok(0);
    }
    let free_percent = u128::from(100_u8.saturating_sub(policy.low_threshold_percent));
    let wanted = u64::try_from(u128::from(capacity) * free_percent / 100).unwrap_or(u64::MAX);
    Ok(wanted.saturating_sub(available))
}

/// What the kubelet says when less could be freed than was to be.
#[must_use]
pub fn not_enough(wanted_bytes: u64, freed_bytes: u64) -> String {
    format!(
        "Failed to garbage collect required amount of images. Attempted to free {wanted_bytes} bytes, but only found {freed_bytes} bytes eligible to free."
    )
}

#[cfg(test)]
#[path = "image_gc/tests.rs"]
mod tests;
