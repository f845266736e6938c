//! Counters and histograms with labels, and Prometheus' text format.
//!
//! In come observations, out go lines. A family keeps one value for each set of label values it has seen; its user sees to
//! it that these are few.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Sets of label values a family remembers; beyond it new ones are not counted, rather than memory spent on them.
const MOST_SERIES: usize = 1000;

type Series<const N: usize, V> = Mutex<BTreeMap<[String; N], V>>;

/// A counter for each set of label values.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    labels: [&'static str; N],
    series: Series<N, u64>,
}

/// A histogram for each set of label values, in seconds.
#[derive(Debug)]
pub(super) struct Histograms<const N: usize> {
    labels: [&'static str; N],
    bounds: &'static [f64],
    series: Series<N, Histogram>,
}

/// The distribution of some durations, by bounds that its user keeps.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    /// One for each bound, and one for what is above all.
    buckets: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &[f64]) -> Self {
        Self { buckets: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, bounds: &[f64], took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len());
        self.sum += seconds;
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}

fn change<const N: usize, V>(series: &Series<N, V>, values: [&str; N], new: V, change: impl FnOnce(&mut V)) {
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    let key = values.map(str::to_owned);
    if let Some(value) = series.get_mut(&key) {
        change(value);
    } else if series.len() < MOST_SERIES {
        change(series.entry(key).or_insert(new));
    }
}

impl<const N: usize> Counters<N> {
    pub(super) fn new(labels: [&'static str; N]) -> Self {
        Self { labels, series: Mutex::default() }
    }

    pub(super) fn add(&self, values: [&str; N]) {
        change(&self.series, values, 0, |count| *count += 1);
    }

    pub(super) fn render(&self, out: &mut String, name: &str, help: &str) {
        write_type(out, name, help, "counter");
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if N == 0 && series.is_empty() {
            write_sample(out, name, &[], 0);
        }
        for (values, count) in series.iter() {
            write_sample(out, name, &pairs(&self.labels, values), count);
        }
    }
}

impl<const N: usize> Histograms<N> {
    pub(super) fn new(labels: [&'static str; N], bounds: &'static [f64]) -> Self {
        Self { labels, bounds, series: Mutex::default() }
    }

    pub(super) fn observe(&self, values: [&str; N], took: Duration) {
        let bounds = self.bounds;
        change(&self.series, values, Histogram::new(bounds), |histogram| histogram.observe(bounds, took));
    }

    pub(super) fn render(&self, out: &mut String, name: &str, help: &str) {
        write_type(out, name, help, "histogram");
        for (values, histogram) in self.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            write_histogram(out, name, &pairs(&self.labels, values), self.bounds, histogram);
        }
    }
}

fn pairs<'a, const N: usize>(labels: &[&'a str; N], values: &'a [String; N]) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().zip(values.iter().map(String::as_str)).collect()
}

/// The samples of one histogram.
pub(super) fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    bounds: &[f64],
    histogram: &Histogram,
) {
    let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut total = 0;
    for (bound, count) in bounds.zip(&histogram.buckets) {
        total += count;
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
        write_sample(out, &format!("{name}_bucket"), &labels, total);
    }
    write_sample(out, &format!("{name}_sum"), labels, histogram.sum);
    write_sample(out, &format!("{name}_count"), labels, total);
}

/// The two lines before a metric's samples.
pub(super) fn write_type(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample.
pub(super) fn write_sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}
