//! Results on their way to the client: their columns described, their blocks unpacked into rows.

use pgwire::messages::data::{FieldDescription, RowDescription};
use tokio::io::{AsyncRead, AsyncWrite};
use vamos_sql_client::{BlockError, Column, Cursor, Rows, Value, ValueRef};
use vamos_sql_dialect::postgres::{Answer, PgType};

use bytes::BufMut;

use super::connection::Failure;
use super::error::PgError;
use super::value;
use super::wire::Wire;

/// A column as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its type.
    pub pg: PgType,
    /// `atttypmod`: the length of a `varchar(n)`; -1 for none.
    pub modifier: i32,
}

impl Shape {
    fn new(name: &str, pg: PgType) -> Self {
        Self { name: name.to_owned(), pg, modifier: -1 }
    }
}

/// The columns of a catalogue query or an answer, which are known beforehand.
pub fn known_shapes(columns: &[(String, PgType)]) -> Vec<Shape> {
    columns.iter().map(|(name, pg)| Shape::new(name, *pg)).collect()
}

/// The columns of an engine's result: by declared type; else by `inferred`; else by the values of the
/// first row; else text.
pub fn shapes(
    columns: &[Column],
    inferred: &[Option<PgType>],
    block: Option<&[u8]>,
) -> Result<Vec<Shape>, BlockError> {
    let undeclared = columns.iter().any(|column| PgType::of_declared(&column.declared).is_none());
    let mut first = match block.filter(|_| undeclared) {
        Some(block) => Some(Rows::new(block)?).filter(|rows| rows.rows() > 0),
        None => None,
    };
    let mut shapes = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        let value = match &mut first {
            Some(rows) if at < rows.columns() => Some(rows.value()?),
            _ => None,
        };
        let guess = inferred.get(at).copied().flatten();
        let pg = PgType::of_declared(&column.declared).or(guess).unwrap_or(match value {
            Some(ValueRef::Integer(_)) => PgType::Int8,
            Some(ValueRef::Real(_)) => PgType::Float8,
            Some(ValueRef::Blob(_)) => PgType::Bytea,
            Some(ValueRef::Text(_) | ValueRef::Null) | None => PgType::Text,
        });
        shapes.push(Shape { modifier: modifier(&column.declared, pg), ..Shape::new(&column.name, pg) });
    }
    Ok(shapes)
}

/// The type modifier of `varchar(n)`, `char(n)` and `numeric(p, s)`: PostgreSQL adds the length of a header.
fn modifier(declared: &str, pg: PgType) -> i32 {
    let Some((_, rest)) = declared.split_once('(') else { return -1 };
    let numbers: Vec<i32> =
        rest.trim_end_matches(')').split(',').filter_map(|part| part.trim().parse().ok()).collect();
    match (pg, numbers.as_slice()) {
        (PgType::Varchar | PgType::Bpchar, [length]) if (1..10_485_760).contains(length) => length + 4,
        (PgType::Numeric, [precision]) if (1..=1000).contains(precision) => (precision << 16) + 4,
        (PgType::Numeric, [precision, scale])
            if (1..=1000).contains(precision) && (0..=1000).contains(scale) =>
        {
            (precision << 16 | scale) + 4
        }
        _ => -1,
    }
}

/// Whether column `at` goes out in binary, by the formats of a Bind: none: all text; one: for all.
pub fn is_binary(formats: &[i16], at: usize) -> bool {
    match formats {
        [] => false,
        [one] => *one == 1,
        many => many.get(at) == Some(&1),
    }
}

/// The description of a result.
pub fn description(shapes: &[Shape], formats: &[i16]) -> RowDescription {
    let fields = shapes.iter().enumerate().map(|(at, shape)| {
        let format = i16::from(is_binary(formats, at));
        FieldDescription::new(
            shape.name.replace('\0', ""),
            0,
            0,
            shape.pg.oid(),
            shape.pg.length(),
            shape.modifier,
            format,
        )
    });
    RowDescription::new(fields.collect())
}

/// Queues all rows of a block.
pub async fn send_block<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    block: &[u8],
    shapes: &[Shape],
    formats: &[i16],
) -> Result<u64, Failure> {
    let mut rows = Rows::new(block)?;
    if rows.rows() > 0 && rows.columns() != shapes.len() {
        // The schema changed between the description and the execution.
        return Err(PgError::new("0A000", "cached plan must not change result type").into());
    }
    for _ in 0..rows.rows() {
        wire.put_with(b'D', |out| {
            out.put_u16(shapes.len() as u16);
            for (at, shape) in shapes.iter().enumerate() {
                let value = rows.value().map_err(PgError::from)?;
                value::put(out, value, shape.pg, is_binary(formats, at))?;
            }
            Ok::<(), PgError>(())
        })?;
        if wire.is_full() {
            wire.flush().await?;
        }
    }
    Ok(u64::from(rows.rows()))
}

/// Queues the rest of a cursor's round. Returns how many rows that were.
pub async fn send_rows<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    cursor: &mut Cursor,
    shapes: &[Shape],
    formats: &[i16],
) -> Result<u64, Failure> {
    let mut sent = 0;
    while let Some(block) = cursor.next_block().await? {
        sent += send_block(wire, &block, shapes, formats).await?;
    }
    Ok(sent)
}

/// Queues the rows of an answer that needs no engine.
pub fn send_answer<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    answer: &Answer,
    formats: &[i16],
) -> Result<(), PgError> {
    for row in &answer.rows {
        wire.put_with(b'D', |out| {
            out.put_u16(row.len() as u16);
            for (at, (value, (_, pg))) in row.iter().zip(&answer.columns).enumerate() {
                let value = value.as_ref().map_or(Value::Null, |text| Value::Text(text.clone()));
                value::put(out, value.as_ref(), *pg, is_binary(formats, at))?;
            }
            Ok::<(), PgError>(())
        })?;
    }
    Ok(())
}
