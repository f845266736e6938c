//! Reads and writes files as its arguments say, for tests of volumes. Any failure is told on stderr and ends with 1.
//!
//! `cat PATH`, `write PATH TEXT`, `append PATH TEXT`, `list DIR`, `mkdir DIR`, `remove PATH`, and `watch PATH`, which
//! prints the content at the start and whenever it has changed, and never ends.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: files cat|write|append|list|mkdir|remove|watch PATH [TEXT]";

/// How often `watch` looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("files {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match *arguments {
        ["cat", path] => print(&fs::read(path)?)?,
        ["write", path, text] => fs::write(path, text)?,
        ["append", path, text] => {
            OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())?;
        }
        ["list", path] => list(path)?,
        ["mkdir", path] => fs::create_dir(path)?,
        ["remove", path] => fs::remove_file(path)?,
        ["watch", path] => watch(path)?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn print(content: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(content)?;
    Ok(stdout.flush()?)
}

/// Prints the directory's names, sorted, one per line.
fn list(path: &str) -> Result<(), Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        println!("{name}");
    }
    Ok(())
}

fn watch(path: &str) -> Result<(), Box<dyn Error>> {
    let mut seen = None;
    loop {
        let content = fs::read(path)?;
        if seen.as_ref() != Some(&content) {
            print(&content)?;
            println!();
            seen = Some(content);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
