//! What a curious program in a guest can reach over vsock: prints what answered.
//!
//! `guest-probe ports FIRST LAST`: the ports of the host that accept a stream, one a line.
//! `guest-probe connect CID PORT`: `connected`, or the error.
//! `guest-probe bind CID`: `bound` when the kernel lets the program call itself another guest, or the error.

use std::env::args;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use vsock::{VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// VMADDR_PORT_ANY of vsock(7).
const ANY_PORT: u32 = u32::MAX;

fn main() -> Result<()> {
    match args().nth(1).as_deref() {
        Some("ports") => {
            for port in argument(2)?..=argument(3)? {
                if VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port).is_ok() {
                    println!("{port}");
                }
            }
        }
        Some("connect") => match VsockStream::connect_with_cid_port(argument(2)?, argument(3)?) {
            Ok(_) => println!("connected"),
            Err(error) => println!("{error}"),
        },
        Some("bind") => match VsockListener::bind(&VsockAddr::new(argument(2)?, ANY_PORT)) {
            Ok(_) => println!("bound"),
            Err(error) => println!("{error}"),
        },
        _ => bail!("usage: guest-probe ports FIRST LAST | connect CID PORT | bind CID"),
    }
    Ok(())
}

fn argument<T: FromStr<Err: Send + Sync + std::error::Error + 'static>>(place: usize) -> Result<T> {
    let text = args().nth(place).with_context(|| format!("argument {place} is missing"))?;
    text.parse().with_context(|| format!("{text:?} is not a number"))
}
