//! Logs read against what was written.

use std::io::Write;

use super::*;

fn log(lines: &[&str]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    file
}

async fn text(path: &Path, options: LogOptions) -> String {
    let mut reader = LogReader::open(path, options).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = reader.next_text(|| true).await.unwrap() {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

const LINES: [&str; 4] = [
    "2026-01-01T00:00:01.000000001Z stdout F one",
    "2026-01-01T00:00:02Z stderr P tw",
    "2026-01-01T00:00:03Z stderr F o",
    "2026-01-01T00:00:04Z stdout F ",
];

#[tokio::test]
async fn a_log_reads_as_it_was_written() {
    let file = log(&LINES);
    let all = LogOptions::default();
    assert_eq!(text(file.path(), all.clone()).await, "one\ntwo\n\n");
    let stdout = LogOptions { stream: Some(Stream::Stdout), ..all.clone() };
    assert_eq!(text(file.path(), stdout).await, "one\n\n");
    let since = LogOptions { since: Some("2026-01-01T00:00:04Z".parse().unwrap()), ..all.clone() };
    assert_eq!(text(file.path(), since).await, "\n");
    let stamped = LogOptions { timestamps: true, tail_lines: Some(4), ..all.clone() };
    assert_eq!(
        text(file.path(), stamped).await,
        "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:04Z \n"
    );
    let limited = LogOptions { limit_bytes: Some(5), ..all.clone() };
    assert_eq!(text(file.path(), limited).await, "one\nt");
}

#[tokio::test]
async fn the_lines_of_both_streams_are_stamped_where_they_begin() {
    let file = log(&[
        "2026-01-01T00:00:01Z stdout P on",
        "2026-01-01T00:00:02Z stderr F other",
        "2026-01-01T00:00:03Z stdout F e",
    ]);
    let stamped = LogOptions { timestamps: true, ..LogOptions::default() };
    assert_eq!(text(file.path(), stamped).await, "2026-01-01T00:00:01Z on2026-01-01T00:00:02Z other\ne\n");
}

#[tokio::test]
async fn the_tail_is_found_from_the_end() {
    let long = "x".repeat(50_000);
    let lines: Vec<String> = (0..10).map(|n| format!("2026-01-01T00:00:00Z stdout F {n}{long}")).collect();
    let file = log(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for (tail, wanted) in [(0, 0), (1, 1), (3, 3), (10, 10), (99, 10)] {
        let options = LogOptions { tail_lines: Some(tail), ..LogOptions::default() };
        assert_eq!(text(file.path(), options).await.lines().count(), wanted, "tail {tail}");
    }
}

#[tokio::test]
async fn following_sees_what_comes_later_and_a_rotated_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let write = |text: &str| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("2026-01-01T00:00:01Z stdout F one\nnonsense\n2026-01-01T00:00:02Z stdout F tw");
    let mut reader = LogReader::open(&path, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    assert_eq!(reader.next(|| false).await.unwrap().unwrap().text, "one");
    write("o\n");
    assert_eq!(reader.next(|| false).await.unwrap().unwrap().text, "two");
    std::fs::rename(&path, folder.path().join("0.log.1")).unwrap();
    write("2026-01-01T00:00:03Z stdout F three\n");
    assert_eq!(reader.next(|| false).await.unwrap().unwrap().text, "three");
    assert_eq!(reader.next(|| true).await.unwrap(), None);
}

#[test]
fn what_is_no_entry_is_none() {
    for line in
        ["", "x", "2026-01-01T00:00:00Z stdout", "2026-01-01T00:00:00Z stdin F x", "2026-01-01T00:00:00Z stdout Q x"]
    {
        assert_eq!(Entry::parse(&Bytes::from(line)), None, "{line:?}");
    }
    assert_eq!(Entry::parse(&Bytes::from("2026-01-01T00:00:00Z stdout F")).unwrap().text, "");
}

proptest::proptest! {
    #[test]
    fn no_bytes_break_the_parser(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let line = Bytes::from(line);
        if let Some(entry) = Entry::parse(&line) {
            proptest::prop_assert!(line.ends_with(&entry.text));
        }
    }

    /// However a log comes into its file, and wherever a reader meets its end, the entries are those that were written.
    #[test]
    fn pieces_of_any_size_read_as_what_was_written(
        lines in proptest::collection::vec(("(stdout|stderr) [FP]", "[a-z ]{0,40}"), 0..30),
        cuts in proptest::collection::vec(1_usize..60, 0..60),
        tail in proptest::option::of(0_usize..10),
    ) {
        let lines: Vec<String> = lines.iter().map(|(head, text)| format!("2026-01-01T00:00:00Z {head} {text}")).collect();
        let written: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = tokio.block_on(async {
            let mut reader = LogReader::open(&path, LogOptions::default()).await.unwrap();
            let mut read = Vec::new();
            let mut rest = written.as_bytes();
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                file.write_all(piece).unwrap();
                rest = after;
                while let Some(entry) = reader.next(|| true).await.unwrap() {
                    read.push(entry);
                }
            }
            read
        });
        let entries: Vec<_> = lines.iter().map(|line| Entry::parse(&Bytes::from(line.clone())).unwrap()).collect();
        proptest::prop_assert_eq!(&read, &entries);

        if let Some(tail) = tail {
            let options = LogOptions { tail_lines: Some(tail as u64), ..LogOptions::default() };
            let read = tokio.block_on(async {
                let mut reader = LogReader::open(&path, options).await.unwrap();
                let mut read = Vec::new();
                while let Some(entry) = reader.next(|| true).await.unwrap() {
                    read.push(entry);
                }
                read
            });
            proptest::prop_assert_eq!(&read[..], &entries[entries.len().saturating_sub(tail)..]);
        }
    }
}
