//! Much data through the link of an emulated guest, both ways, byte for byte.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use vamos_e2e::{ALPHA, SHOP, Stage, psql, same};

use crate::Case;

pub const CASES: &[Case] = &[
    ("transfer::three_hundred_mebibytes_come_out_unchanged", out),
    ("transfer::random_bytes_go_in_and_come_back", there_and_back),
];

/// Repetitions of a row's eight digits.
const REPEATED: usize = 8192;

/// Bytes of a row with its end of line, as psql prints it.
const ROW_BYTES: usize = REPEATED * 8 + 1;

/// Rows of one statement's result: psql keeps a result in memory until it is whole.
const ROWS: usize = (50 << 20) / ROW_BYTES + 1;

/// Statements.
const PARTS: usize = 6;

/// Spreads row numbers over 32 bits, so that no two rows are alike.
const SPREAD: u64 = 2_654_435_761;

/// Time for it under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

fn out(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    let sent = stage.host()?.counter(ALPHA, "bytes_sent")?;
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT $part * {ROWS} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < ($part + 1) * {ROWS}) \
         SELECT replace(hex(zeroblob({REPEATED})), '00', printf('%08x', (i * {SPREAD}) & 4294967295)) FROM n"
    );
    let script = format!(
        "for part in $(seq 0 {}); do psql {SHOP} -v ON_ERROR_STOP=1 -At -c \"{sql}\"; done | sha256sum",
        PARTS - 1
    );
    let printed = vm.start(&script, PATIENCE)?.wait()?.success()?;
    same("SHA-256 of what came out", printed.split_whitespace().next().unwrap_or_default(), expected())?;
    let sent = stage.host()?.counter(ALPHA, "bytes_sent")? - sent;
    ensure!(sent > 300 << 20, "the device has sent {sent} bytes only");
    Ok(())
}

/// SHA-256 of the rows, computed here.
fn expected() -> String {
    let mut hash = Sha256::new();
    for row in 1..=(ROWS * PARTS) as u64 {
        let digits = format!("{:08x}", row.wrapping_mul(SPREAD) & 0xffff_ffff);
        hash.update(digits.repeat(REPEATED));
        hash.update("\n");
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn there_and_back(stage: &Stage) -> Result<()> {
    let vm = stage.alpha()?;
    psql(vm, SHOP, "CREATE TABLE noise (id integer PRIMARY KEY, words text)")?;
    vm.run("head -c 50331648 /dev/urandom | base64 -w 65536 >/tmp/noise")?;
    let script = format!(
        "psql {SHOP} -q -v ON_ERROR_STOP=1 -c \"\\copy noise (words) from '/tmp/noise'\" && \
         psql {SHOP} -v ON_ERROR_STOP=1 -At -c 'SELECT words FROM noise ORDER BY id' | \
         cmp - /tmp/noise && wc -c </tmp/noise && rm /tmp/noise"
    );
    let bytes = vm.start(&script, PATIENCE)?.wait()?.success()?;
    let bytes: u64 = bytes.trim().parse().context(bytes)?;
    ensure!(bytes > 64 << 20, "only {bytes} bytes went in");
    psql(vm, SHOP, "DROP TABLE noise").map(|_| ())
}
