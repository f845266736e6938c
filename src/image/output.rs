//! How results are written.
//!
//! Goes out: on standard output, text for a person or JSON for a program. A reader that has gone away is no failure.

use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use image::Image;
use serde::Serialize;

#[derive(clap::Args, Clone, Copy)]
pub(super) struct OutputArgs {
    /// How the result is written
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; docs/images.md lists the fields
    Json,
}

impl OutputArgs {
    /// Writes `value`, or for people what `text` makes of it.
    pub(super) fn write<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = match self.output {
            Format::Text => text(value),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(value).context("writing JSON")?),
        };
        match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
            _ => Ok(()),
        }
    }
}

/// An image of the store, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageFields {
    id: String,
    references: Vec<String>,
    digests: Vec<String>,
    size_bytes: u64,
    pulled_at: String,
}

impl From<&Image> for ImageFields {
    fn from(image: &Image) -> Self {
        Self {
            id: image.id.to_string(),
            references: image.references.iter().map(ToString::to_string).collect(),
            digests: image.digests.iter().map(ToString::to_string).collect(),
            size_bytes: image.size_bytes,
            pulled_at: timestamp(image.pulled_at),
        }
    }
}

impl ImageFields {
    /// For people.
    pub(super) fn rows(&self, row: &mut impl FnMut(&str, String)) {
        for (at, reference) in self.references.iter().enumerate() {
            row(if at == 0 { "Image" } else { "" }, reference.clone());
        }
        for (at, digest) in self.digests.iter().enumerate() {
            row(if at == 0 { "Digest" } else { "" }, digest.clone());
        }
        row("ID", self.id.clone());
        row("Size", size(self.size_bytes));
        row("Pulled", self.pulled_at.clone());
    }
}

/// RFC 3339, to the second.
pub(super) fn timestamp(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// `3 minutes ago`; a time that lies ahead is `now`.
pub(super) fn ago(at: SystemTime) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let seconds = at.elapsed().unwrap_or(Duration::ZERO).as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => {
            let count = seconds / unit;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "now".to_owned(),
    }
}

/// `12.3 MB`, in decimal units as registries and `docker` have them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Rows in columns as wide as their widest word, two spaces between them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744.1 TB");
        let before = |seconds| ago(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!(
            (before(60), before(7300), before(200_000)),
            ("1 minute ago".into(), "2 hours ago".into(), "2 days ago".into())
        );
        assert_eq!(ago(SystemTime::now() + Duration::from_secs(60)), "now");
    }

    #[test]
    fn columns_stand_below_one_another() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), "A     B\nlong\n");
    }
}
