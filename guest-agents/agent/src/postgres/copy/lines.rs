//! What arrives for COPY FROM, cut into records: lines, or several lines while quotes are open.

use bytes::{Buf, Bytes, BytesMut};
use vamos_sql_dialect::postgres::{CopyOptions, Format, Header};

use super::field::Field;
use super::{csv, text};
use crate::limits::COPY_ROW_BYTES_MAX;
use crate::postgres::error::PgError;

/// The line that ends the data.
const END: &[u8] = b"\\.";

/// Bytes on their way to become records.
pub(super) struct Lines {
    options: CopyOptions,
    /// Names of the columns, for a header that must match.
    names: Vec<String>,
    input: BytesMut,
    /// How far `input` has been looked through.
    scanned: usize,
    /// Whether quotes are open there.
    open: bool,
    /// Lines of the records taken so far.
    line: u64,
    /// Lines of the next record looked through so far.
    begun: u64,
    ended: bool,
    header: Header,
}

impl Lines {
    pub(super) fn new(options: CopyOptions, names: Vec<String>) -> Self {
        let header = options.header;
        Self {
            options,
            names,
            input: BytesMut::new(),
            scanned: 0,
            open: false,
            line: 0,
            begun: 0,
            ended: false,
            header,
        }
    }

    pub(super) fn options(&self) -> &CopyOptions {
        &self.options
    }

    /// Adds bytes; what comes after the end of the data is ignored.
    pub(super) fn arrived(&mut self, data: &[u8]) {
        if !self.ended {
            self.input.extend_from_slice(data);
        }
    }

    /// The next whole record and the number of its first line. `last`: nothing more will arrive.
    pub(super) fn next(&mut self, last: bool) -> Result<Option<(Bytes, u64)>, PgError> {
        loop {
            let Some((record, line)) = self.cut(last)? else { return Ok(None) };
            if &record[..] == END {
                self.ended = true;
                self.input.clear();
                return Ok(None);
            }
            match std::mem::replace(&mut self.header, Header::None) {
                Header::None => return Ok(Some((record, line))),
                Header::Present => {}
                Header::Match => self.check_header(&record)?,
            }
        }
    }

    fn cut(&mut self, last: bool) -> Result<Option<(Bytes, u64)>, PgError> {
        loop {
            let rest = &self.input[self.scanned..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
            let segment = &rest[..end];
            let whole = match self.options.format {
                // A backslash before the end of a line makes the line end part of a field.
                Format::Text => segment.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0,
                Format::Csv => {
                    self.open = csv::open_at_end(segment, self.open, &self.options);
                    !self.open
                }
            };
            self.scanned += end + 1;
            self.begun += 1;
            if whole {
                let mut record = self.input.split_to(std::mem::take(&mut self.scanned) - 1);
                self.input.advance(1);
                if record.last() == Some(&b'\r') {
                    record.truncate(record.len() - 1);
                }
                return Ok(Some(self.number(record)));
            }
        }
        if last && !self.input.is_empty() {
            self.scanned = 0;
            let record = self.input.split();
            self.begun += 1;
            return Ok(Some(self.number(record)));
        }
        if self.input.len() > COPY_ROW_BYTES_MAX {
            let message = format!("a row of COPY exceeds the limit of {COPY_ROW_BYTES_MAX} bytes");
            return Err(PgError::new("54000", message));
        }
        Ok(None)
    }

    fn number(&mut self, record: BytesMut) -> (Bytes, u64) {
        let first = self.line + 1;
        self.line += std::mem::take(&mut self.begun);
        (record.freeze(), first)
    }

    fn check_header(&self, record: &[u8]) -> Result<(), PgError> {
        let mut fields: Vec<Field<'_>> = Vec::new();
        match self.options.format {
            Format::Text => {
                text::fields(record, self.options.delimiter, self.options.null.as_bytes(), &mut fields)
            }
            Format::Csv => csv::fields(record, &self.options, &mut fields)?,
        }
        let given: Vec<&[u8]> = fields.iter().map(|field| field.as_deref().unwrap_or_default()).collect();
        let expected: Vec<&[u8]> = self.names.iter().map(String::as_bytes).collect();
        if given == expected {
            return Ok(());
        }
        Err(PgError::new("22P04", "the header line does not name the columns of COPY, in their order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, header: Header) -> Lines {
        let options = CopyOptions {
            format,
            delimiter: b',',
            null: "\\N".to_owned(),
            header,
            quote: b'"',
            escape: b'"',
        };
        Lines::new(options, vec!["a".to_owned(), "b".to_owned()])
    }

    fn all(lines: &mut Lines, pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64)> {
        let mut records = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            lines.arrived(piece);
            while let Some((record, line)) = lines.next(at + 1 == pieces.len()).unwrap() {
                records.push((record.to_vec(), line));
            }
        }
        records
    }

    #[test]
    fn records_survive_any_cut() {
        let whole = b"a,b\r\n1,\"x\ny\"\n2,z";
        let expected = [(b"a,b".to_vec(), 1), (b"1,\"x\ny\"".to_vec(), 2), (b"2,z".to_vec(), 4)];
        for size in 1..whole.len() {
            let pieces: Vec<&[u8]> = whole.chunks(size).collect();
            assert_eq!(all(&mut lines(Format::Csv, Header::None), &pieces), expected, "pieces of {size}");
        }
    }

    #[test]
    fn data_ends_at_the_end_mark() {
        let records = all(&mut lines(Format::Text, Header::None), &[b"1,2\n\\.\nrubbish\n", b"more\n"]);
        assert_eq!(records, [(b"1,2".to_vec(), 1)]);
    }

    #[test]
    fn headers_are_skipped_or_checked() {
        assert_eq!(all(&mut lines(Format::Csv, Header::Present), &[b"x\n1,2\n"]), [(b"1,2".to_vec(), 2)]);
        assert_eq!(all(&mut lines(Format::Csv, Header::Match), &[b"a,b\n1,2\n"]), [(b"1,2".to_vec(), 2)]);
        let mut wrong = lines(Format::Csv, Header::Match);
        wrong.arrived(b"b,a\n");
        assert_eq!(wrong.next(true).unwrap_err().sqlstate, "22P04");
    }
}
