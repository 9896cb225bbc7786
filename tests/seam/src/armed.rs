//! Orders, and what obeys them.
//!
//! A process obeys what was [`plant`]ed in it, and a file of orders, one a line: `bug NAME`, `die POINT NTH`,
//! `fail POINT NTH`. What has been carried out is struck out of the file first, so that the next process does not do
//! it again and a test sees that it was done. The file is looked at anew each time: it may come and change at any time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Bug, Point};

static ORDERS: OnceLock<PathBuf> = OnceLock::new();
static PLANTED: Mutex<Option<Bug>> = Mutex::new(None);
/// How often each point was passed while there was an order about it.
static PASSED: Mutex<Option<HashMap<&'static str, u64>>> = Mutex::new(None);

/// Makes this process err from now on.
pub fn plant(bug: Option<Bug>) {
    *PLANTED.lock().unwrap_or_else(PoisonError::into_inner) = bug;
}

/// Has this process obey the orders in a file, which need not be there yet. The first file counts.
pub fn obey(orders: &Path) {
    let _ = ORDERS.set(orders.to_owned());
}

fn orders() -> String {
    ORDERS.get().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Whether the code that asks is to err.
pub fn errs(bug: Bug) -> bool {
    *PLANTED.lock().unwrap_or_else(PoisonError::into_inner) == Some(bug)
        || orders().lines().any(|line| line.strip_prefix("bug ") == Some(bug.name()))
}

/// Passes a point: whether the code that asks is to fail there. The process may die here instead.
pub fn fails(point: Point) -> bool {
    let orders = orders();
    let about = |line: &str| line.split(' ').nth(1) == Some(point.name()) && !line.starts_with("bug ");
    let Some((place, order)) = orders.lines().enumerate().find(|(_, line)| about(line)) else { return false };
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let times = passed.get_or_insert_default().entry(point.name()).or_default();
    *times += 1;
    let nth = order.split(' ').nth(2).and_then(|nth| nth.parse().ok()).unwrap_or(1);
    if *times < nth {
        return false;
    }
    *times = 0;
    let mut left: Vec<&str> = orders.lines().collect();
    left.remove(place);
    let left: String = left.into_iter().flat_map(|line| [line, "\n"]).collect();
    if let Some(path) = ORDERS.get()
        && let Err(error) = fs::write(path, left)
    {
        eprintln!("seam: strike out {order:?}: {error}");
    }
    if order.starts_with("die ") {
        // As SIGKILL would: no destructor runs, nothing is flushed.
        process::abort();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_obeyed_once_and_struck_out() {
        let path = std::env::temp_dir().join(format!("vamos-seam-{}", process::id()));
        obey(&path);
        assert!(!fails(Point::Begin) && !errs(Bug::RecordApart));
        fs::write(&path, "bug record-apart\nfail begin 2\nfail begin 1\n").unwrap();
        assert!(errs(Bug::RecordApart) && !errs(Bug::RecordsNothing));
        assert!(!fails(Point::Begin) && !fails(Point::Commit));
        assert!(fails(Point::Begin));
        assert_eq!(fs::read_to_string(&path).unwrap(), "bug record-apart\nfail begin 1\n");
        assert!(fails(Point::Begin) && !fails(Point::Begin));
        fs::remove_file(&path).unwrap();
        plant(Some(Bug::KicksMissed));
        assert!(errs(Bug::KicksMissed) && !errs(Bug::RecordApart));
        plant(None);
        assert!(!errs(Bug::KicksMissed));
    }
}
