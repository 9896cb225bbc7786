//! The files that the owner's guest carries, and the psql commands that use them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::catalogue::{Batch, Catalogue, Field};
use super::questions::{QUESTIONS, lookup};
use super::{CATALOG, INDEXES, SCHEMA};
use crate::limits::COPY_ROWS_MAX;
use crate::{Guest, Vm};

/// Packages looked up one by one.
const LOOKUPS: usize = 400;

/// Where the files are in the guest.
const DATA: &str = "/data";

/// Time for a batch, and for the questions, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Printed by psql between answers.
const NEXT_ANSWER: &str = "-- next answer";

/// What the guest is given to do.
#[derive(Debug)]
pub struct Workload {
    batches: Vec<Batch>,
    files: Vec<PathBuf>,
    /// The statements of the lookups.
    pub lookups: Vec<String>,
}

impl Workload {
    /// Writes the files into `directory` on the host.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(catalogue: &Catalogue, directory: &Path) -> Result<Self> {
        let mut batches = Vec::new();
        for table in &catalogue.tables {
            batches.extend(table.write(directory, COPY_ROWS_MAX)?);
        }
        let packages = &catalogue.table("package")?.rows;
        let every = packages.len().div_ceil(LOOKUPS).max(1);
        let lookups: Vec<String> = packages
            .iter()
            .step_by(every)
            .filter_map(|package| match &package[1] {
                Field::Text(name) => Some(lookup(name)),
                _ => None,
            })
            .collect();
        let questions: Vec<String> =
            QUESTIONS.iter().map(|question| format!("\\echo {NEXT_ANSWER}\n{};\n", question.sql)).collect();
        let texts = [
            ("schema.sql", SCHEMA.to_owned()),
            ("indexes.sql", INDEXES.to_owned()),
            ("questions.sql", questions.concat()),
            ("lookups.sql", lookups.iter().map(|statement| format!("{statement};\n")).collect()),
        ];
        let mut files: Vec<PathBuf> = batches.iter().map(|batch| batch.path.clone()).collect();
        for (name, text) in texts {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            files.push(path);
        }
        Ok(Self { batches, files, lookups })
    }

    /// Puts the files into a guest.
    #[must_use]
    pub fn carry(&self, guest: Guest) -> Guest {
        self.files.iter().fold(guest, |guest, path| guest.file(inside(path), path))
    }

    /// The pieces of the load.
    #[must_use]
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Creates the tables.
    #[must_use]
    pub fn create(&self) -> String {
        format!("psql {CATALOG} -q -v ON_ERROR_STOP=1 -f {DATA}/schema.sql")
    }

    /// Creates the indexes.
    #[must_use]
    pub fn index(&self) -> String {
        format!("psql {CATALOG} -q -v ON_ERROR_STOP=1 -f {DATA}/indexes.sql")
    }

    /// Loads one batch and returns the seconds that psql says it took.
    ///
    /// # Errors
    /// When it fails, or another number of rows was copied.
    pub fn copy(&self, vm: &Vm, batch: &Batch) -> Result<f64> {
        let copy = format!("\\copy {} from '{}'", batch.table, inside(&batch.path));
        let script = format!("psql {CATALOG} -v ON_ERROR_STOP=1 -c '\\timing on' -c \"{copy}\"");
        let said = vm.start(&script, PATIENCE)?.wait()?.success().context(script)?;
        let tag = format!("COPY {}", batch.rows);
        ensure!(said.lines().any(|line| line == tag), "{tag} expected, psql says:\n{said}");
        said.lines()
            .find_map(|line| line.strip_prefix("Time: ")?.split_whitespace().next()?.parse::<f64>().ok())
            .map(|milliseconds| milliseconds / 1000.0)
            .with_context(|| format!("no time in what psql says:\n{said}"))
    }

    /// Asks all questions in one session and returns the answers.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn ask(&self, vm: &Vm) -> Result<Vec<String>> {
        let said = self.session(vm, "questions.sql")?;
        Ok(said.split(&format!("{NEXT_ANSWER}\n")).skip(1).map(str::to_owned).collect())
    }

    /// Looks all packages up in one session.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn look_up(&self, vm: &Vm) -> Result<String> {
        self.session(vm, "lookups.sql")
    }

    fn session(&self, vm: &Vm, file: &str) -> Result<String> {
        let script = format!("psql {CATALOG} -v ON_ERROR_STOP=1 -At -F '\t' -f {DATA}/{file}");
        vm.start(&script, PATIENCE)?.wait()?.success().context(script)
    }
}

/// A data file's path in the guest.
fn inside(path: &Path) -> String {
    format!("{DATA}/{}", path.file_name().unwrap_or_default().to_string_lossy())
}
