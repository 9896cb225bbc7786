//! The machine's Debian package catalogue: read from apt, kept as the rows of `schema.sql`, written as the
//! text that COPY reads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::output;

/// Fields of a package that name other packages.
const KINDS: &[&str] = &[
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Enhances",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
];

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// An integer.
    Integer(i64),
    /// A text.
    Text(String),
    /// Nothing.
    Null,
}

/// A table and all of its rows.
#[derive(Debug)]
pub struct Table {
    /// Its name in `schema.sql`.
    pub name: &'static str,
    /// The rows, in the order of its columns there.
    pub rows: Vec<Vec<Field>>,
}

/// The catalogue, in the order in which tables refer to each other.
#[derive(Debug)]
pub struct Catalogue {
    /// maintainer, section, package, dependency.
    pub tables: [Table; 4],
}

impl Catalogue {
    /// What apt knows: `apt-cache dumpavail`.
    ///
    /// # Errors
    /// When apt knows nothing.
    pub fn of_this_machine() -> Result<Self> {
        let catalogue = Self::parse(&output(Command::new("apt-cache").arg("dumpavail"))?);
        ensure!(
            catalogue.tables.iter().all(|table| !table.rows.is_empty()),
            "apt knows no packages: run apt-get update"
        );
        Ok(catalogue)
    }

    fn parse(dump: &str) -> Self {
        let mut maintainers = Numbered::default();
        let mut sections = Numbered::default();
        let mut packages = Vec::new();
        let mut dependencies = Vec::new();
        for stanza in dump.split("\n\n") {
            let fields = fields(stanza);
            let Some(name) = fields.get("Package") else { continue };
            let field = |name: &str| fields.get(name).copied();
            let id = number(packages.len() + 1);
            packages.push(vec![
                id.clone(),
                text(Some(name)),
                text(Some(field("Version").unwrap_or_default())),
                text(Some(field("Architecture").unwrap_or_default())),
                number(sections.id(field("Section").unwrap_or("unknown"))),
                number(maintainers.id(field("Maintainer").unwrap_or("unknown"))),
                integer(field("Size")),
                integer(field("Installed-Size")),
                text(field("Homepage")),
                text(field("Description").or(field("Description-en"))),
            ]);
            for (kind, requirements) in KINDS.iter().filter_map(|kind| Some((kind, field(kind)?))) {
                for (requirement, alternatives) in (1..).zip(requirements.split(',')) {
                    for (alternative, named) in (1..).zip(alternatives.split('|')) {
                        let (target, condition) = named_package(named);
                        dependencies.push(vec![
                            number(dependencies.len() + 1),
                            id.clone(),
                            text(Some(&kind.to_lowercase())),
                            Field::Integer(requirement),
                            Field::Integer(alternative),
                            text(Some(target)),
                            text(condition),
                        ]);
                    }
                }
            }
        }
        let maintainers = maintainers.names.iter().zip(1..).map(|(whole, id)| {
            let (name, address) = match whole.split_once(" <") {
                Some((name, address)) => (name, Some(address.trim_end_matches('>'))),
                None => (*whole, None),
            };
            vec![Field::Integer(id), text(Some(name)), text(address)]
        });
        let sections =
            sections.names.iter().zip(1..).map(|(name, id)| vec![Field::Integer(id), text(Some(name))]);
        Self {
            tables: [
                Table { name: "maintainer", rows: maintainers.collect() },
                Table { name: "section", rows: sections.collect() },
                Table { name: "package", rows: packages },
                Table { name: "dependency", rows: dependencies },
            ],
        }
    }

    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.rows.len()).sum()
    }

    /// Keeps the first packages, and of the dependencies those of packages that are kept.
    pub fn truncate(&mut self, packages: usize) {
        let [_, _, package, dependency] = &mut self.tables;
        package.rows.truncate(packages);
        let kept = number(packages);
        let beyond = dependency.rows.partition_point(|row| match (&row[1], &kept) {
            (Field::Integer(id), Field::Integer(kept)) => id <= kept,
            _ => false,
        });
        dependency.rows.truncate(beyond);
    }

    /// The table of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.tables.iter().find(|table| table.name == name).with_context(|| format!("no table {name}"))
    }
}

/// A file of rows for COPY.
#[derive(Debug)]
pub struct Batch {
    /// The table.
    pub table: &'static str,
    /// How many rows.
    pub rows: usize,
    /// The file.
    pub path: PathBuf,
}

impl Table {
    /// Writes the rows as COPY's text format, `rows_max` a file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, rows_max: usize) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for (part, rows) in self.rows.chunks(rows_max).enumerate() {
            let path = directory.join(format!("{}.{part}.tsv", self.name));
            let mut file = BufWriter::new(File::create(&path).context("creating a data file")?);
            for row in rows {
                let line: Vec<String> = row.iter().map(copy_text).collect();
                writeln!(file, "{}", line.join("\t")).context("writing a data file")?;
            }
            file.flush().context("writing a data file")?;
            batches.push(Batch { table: self.name, rows: rows.len(), path });
        }
        Ok(batches)
    }
}

/// A value in COPY's text format.
fn copy_text(field: &Field) -> String {
    match field {
        Field::Null => "\\N".to_owned(),
        Field::Integer(value) => value.to_string(),
        Field::Text(text) => {
            text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
        }
    }
}

/// The fields of a stanza; of a folded one, the first line.
fn fields(stanza: &str) -> HashMap<&str, &str> {
    stanza
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(": "))
        .collect()
}

/// `("a", Some(">= 1"))` of ` a:any (>= 1) `.
fn named_package(named: &str) -> (&str, Option<&str>) {
    let named = named.trim();
    let (name, rest) = named.split_once([' ', '(']).unwrap_or((named, ""));
    let condition = rest.trim().trim_start_matches('(').trim_end_matches(')');
    (name.split(':').next().unwrap_or(name), Some(condition).filter(|condition| !condition.is_empty()))
}

fn text(text: Option<&str>) -> Field {
    text.map_or(Field::Null, |text| Field::Text(text.trim().to_owned()))
}

fn integer(text: Option<&str>) -> Field {
    text.and_then(|text| text.trim().parse().ok()).map_or(Field::Null, Field::Integer)
}

fn number(value: usize) -> Field {
    i64::try_from(value).map_or(Field::Null, Field::Integer)
}

/// Names in order of appearance; the first is 1.
#[derive(Default)]
struct Numbered<'a> {
    names: Vec<&'a str>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Numbered<'a> {
    fn id(&mut self, name: &'a str) -> usize {
        *self.ids.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "Package: a\nVersion: 1\nSection: games\nMaintainer: Zoë <z@example.org>\n\
        Architecture: amd64\nDepends: b (>= 1) | c:any, d\nSize: 12\nTag: x,\n  folded: yes\nDescription: An a\n\n\
        Package: b\nVersion: 2\nSection: games\nMaintainer: Zoë <z@example.org>\nProvides: c\n\n";

    #[test]
    fn a_dump_becomes_rows() {
        let catalogue = Catalogue::parse(DUMP);
        let counts: Vec<usize> = catalogue.tables.iter().map(|table| table.rows.len()).collect();
        assert_eq!(counts, [1, 1, 2, 4]);
        let lines: Vec<String> = catalogue.tables[3]
            .rows
            .iter()
            .map(|row| row.iter().map(copy_text).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "1 1 depends 1 1 b >= 1",
                "2 1 depends 1 2 c \\N",
                "3 1 depends 2 1 d \\N",
                "4 2 provides 1 1 c \\N"
            ]
        );
        assert_eq!(catalogue.tables[0].rows[0][2], Field::Text("z@example.org".into()));
        assert_eq!(catalogue.tables[2].rows[1][6], Field::Null);
    }

    #[test]
    fn text_survives_copy() {
        assert_eq!(copy_text(&Field::Text("a\tb\\N\n".into())), "a\\tb\\\\N\\n");
    }

    #[test]
    fn rows_are_written_in_batches() {
        let directory = tempfile::tempdir().unwrap();
        let batches = Catalogue::parse(DUMP).tables[3].write(directory.path(), 3).unwrap();
        assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 1]);
        let text = std::fs::read_to_string(&batches[1].path).unwrap();
        assert_eq!(text, "4\t2\tprovides\t1\t1\tc\t\\N\n");
    }
}
