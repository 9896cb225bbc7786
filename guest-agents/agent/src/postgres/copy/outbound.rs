//! COPY TO STDOUT: a cursor's rows as lines, fetched as the client takes them.

use bytes::{BufMut, BytesMut};
use pgwire::messages::copy::{CopyDone, CopyOutResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{Rows, ValueRef};
use vamos_sql_dialect::postgres::{Copy, CopyOptions, Format, Header, PgType, Subject, Translated};

use super::{csv, text};
use crate::limits::PORTAL_WINDOW_BLOCKS;
use crate::postgres::connection::{Connection, Failure};
use crate::postgres::error::PgError;
use crate::postgres::result::{Shape, known_shapes, shapes};
use crate::postgres::value;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Sends the rows. Returns how many.
    pub(super) async fn copy_out(&mut self, copy: &Copy) -> Result<u64, Failure> {
        let (sql, known) = self.copied_query(copy)?;
        let mut cursor = self.session.execute_cursor(&sql, &[], 0, PORTAL_WINDOW_BLOCKS).await?;
        let first = cursor.next_block().await?;
        let shapes = match known {
            Some(known) => known,
            None => shapes(cursor.columns(), &[], first.as_deref())?,
        };
        self.wire.put(&CopyOutResponse::new(0, shapes.len() as i16, vec![0; shapes.len()]));
        if copy.options.header == Header::Present {
            let names: Vec<Option<&[u8]>> = shapes.iter().map(|shape| Some(shape.name.as_bytes())).collect();
            self.wire.put_with(b'd', |out| {
                put_row(out, &names, &copy.options);
                Ok::<(), PgError>(())
            })?;
        }
        let (mut rows, mut block) = (0, first);
        while let Some(now) = block {
            rows += self.send_lines(&now, &shapes, &copy.options).await?;
            block = cursor.next_block().await?;
        }
        self.wire.put(&CopyDone::new());
        Ok(rows)
    }

    /// The engine's query for what is copied, and its columns if they are known beforehand.
    fn copied_query(&self, copy: &Copy) -> Result<(String, Option<Vec<Shape>>), PgError> {
        let select = copy.select_sql(true);
        if matches!(copy.subject, Subject::Table { .. }) {
            return Ok((select, None));
        }
        match self.translate(&select) {
            Translated::PassThrough => Ok((select, None)),
            Translated::Rewritten(rewritten) => Ok((rewritten.sql, None)),
            Translated::Catalog(catalog) => Ok((catalog.sql, Some(known_shapes(&catalog.columns)))),
            Translated::Refused(refusal) => Err(PgError { position: None, ..refusal.into() }),
            _ => {
                Err(PgError::new("0A000", "COPY of this statement is not supported")
                    .hint("COPY takes a query."))
            }
        }
    }

    async fn send_lines(
        &mut self,
        block: &[u8],
        shapes: &[Shape],
        options: &CopyOptions,
    ) -> Result<u64, Failure> {
        let mut rows = Rows::new(block)?;
        let (mut texts, mut ends) = (BytesMut::new(), Vec::new());
        for _ in 0..rows.rows() {
            texts.clear();
            ends.clear();
            for at in 0..rows.columns() {
                let pg = shapes.get(at).map_or(PgType::Text, |shape| shape.pg);
                let value = rows.value()?;
                value::put_text(&mut texts, value, pg)?;
                ends.push((value != ValueRef::Null, texts.len()));
            }
            let mut start = 0;
            let fields = ends.iter().map(|(there, end)| {
                let field = there.then(|| &texts[start..*end]);
                start = *end;
                field
            });
            let fields: Vec<Option<&[u8]>> = fields.collect();
            self.wire.put_with(b'd', |out| {
                put_row(out, &fields, options);
                Ok::<(), PgError>(())
            })?;
            if self.wire.is_full() {
                self.wire.flush().await?;
            }
        }
        Ok(u64::from(rows.rows()))
    }
}

fn put_row(out: &mut BytesMut, fields: &[Option<&[u8]>], options: &CopyOptions) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.put_u8(options.delimiter);
        }
        match (field, options.format) {
            (None, _) => out.put_slice(options.null.as_bytes()),
            (Some(field), Format::Text) => text::put(out, field, options.delimiter),
            (Some(field), Format::Csv) => csv::put(out, field, options, fields.len() == 1),
        }
    }
    out.put_u8(b'\n');
}
