//! Compiles `proto/sql.proto` with protox, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let messages = protox::compile(["sql.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(messages)?;
    Ok(())
}
