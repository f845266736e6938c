//! The entries of a tar stream, with the long names and extended headers that stand before them applied.
//!
//! In comes an archive, out go entries that have all they need. The headers' sizes are bounded here, as an archive may
//! claim any length for a name. Sparse files are refused: no tool that makes images writes them.

use std::io::{self, Read};

use tar::{Archive, EntryType};

/// Of a long name or an extended header, in bytes.
const HEADER_BYTES_MAX: u64 = 1024 * 1024;

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a header has {0} bytes, over the limit of {HEADER_BYTES_MAX}")]
    HeaderSize(u64),
    #[error("an extended header is not made of records")]
    Records,
    #[error("it says two different sizes")]
    Sizes,
    #[error("it is a sparse file, which images do not have")]
    Sparse,
}

/// One entry.
pub(super) struct Entry<'a, R: Read> {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    /// A link's target.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    /// In bytes.
    pub(super) size: u64,
    /// Seconds since the epoch.
    pub(super) modified: u64,
    pub(super) content: tar::Entry<'a, R>,
}

/// The entries of an archive, in order.
pub(super) struct Entries<'a, R: Read>(tar::Entries<'a, R>);

/// What headers before an entry say about it.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a, R: Read> Entries<'a, R> {
    pub(super) fn of(archive: &'a mut Archive<R>) -> io::Result<Self> {
        Ok(Self(archive.entries()?.raw(true)))
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry<'a, R>>, EntryError> {
        let mut said = Said::default();
        for entry in self.0.by_ref() {
            let mut content = entry?;
            let header = content.header();
            let (kind, size) = (header.entry_type(), header.entry_size()?);
            match kind {
                EntryType::GNULongName => said.path = Some(long_name(&mut content, size)?),
                EntryType::GNULongLink => said.link = Some(long_name(&mut content, size)?),
                EntryType::XHeader => said.read(&read(&mut content, size)?)?,
                // Of the whole archive: a comment, most often; nothing that we look at.
                EntryType::XGlobalHeader => drop(read(&mut content, size)?),
                EntryType::GNUSparse => return Err(EntryError::Sparse),
                _ => {
                    if said.size.is_some_and(|said| said != size) {
                        return Err(EntryError::Sizes);
                    }
                    let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
                    let of_header = || header.link_name_bytes().unwrap_or_default().into_owned();
                    let link = said.link.unwrap_or_else(of_header);
                    // Tar's first version marks directories by their names.
                    let old_directory = kind == EntryType::Regular && path.ends_with(b"/");
                    return Ok(Some(Entry {
                        kind: if old_directory { EntryType::Directory } else { kind },
                        path,
                        link,
                        mode: header.mode()?,
                        size,
                        // A time that is none is no reason to do without the file.
                        modified: header.mtime().unwrap_or_default(),
                        content,
                    }));
                }
            }
        }
        Ok(None)
    }
}

impl Said {
    /// Takes what is of use from an extended header: records of `LENGTH KEYWORD=VALUE`, each ended by a newline.
    fn read(&mut self, mut records: &[u8]) -> Result<(), EntryError> {
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or(EntryError::Records)?;
            let length = number(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&it| it > space + 1 && it <= records.len()).ok_or(EntryError::Records)?;
            let (record, rest) = records.split_at(length);
            records = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(EntryError::Records)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(EntryError::Records)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.path = Some(value.to_owned()),
                b"linkpath" => self.link = Some(value.to_owned()),
                b"size" => self.size = Some(number(value).ok_or(EntryError::Records)?),
                keyword if keyword.starts_with(b"GNU.sparse.") => return Err(EntryError::Sparse),
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn read(content: &mut impl Read, size: u64) -> Result<Vec<u8>, EntryError> {
    if size > HEADER_BYTES_MAX {
        return Err(EntryError::HeaderSize(size));
    }
    let mut read = Vec::new();
    content.take(size).read_to_end(&mut read)?;
    Ok(read)
}

fn long_name(content: &mut impl Read, size: u64) -> Result<Vec<u8>, EntryError> {
    let mut name = read(content, size)?;
    // Ended as a C text is.
    if let Some(end) = name.iter().position(|&byte| byte == 0) {
        name.truncate(end);
    }
    Ok(name)
}
