//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use prost::Message;
use prost_build::Config;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    for file in ["hello.proto", "policy.proto"] {
        Config::new().compile_fds(protox::compile([file], ["proto"])?)?;
    }
    let cell = protox::compile(["cell.proto"], ["proto"])?;
    Config::new().extern_path(".vamos.policy.v1", "crate::policy").compile_fds(cell)?;
    let edge = protox::compile(["edge.proto"], ["proto"])?;
    Config::new()
        .extern_path(".vamos.policy.v1", "crate::policy")
        .extern_path(".vamos.cell.v1", "crate::cell")
        .compile_fds(edge)?;
    if env::var_os("CARGO_FEATURE_GRPC").is_some() {
        control_plane(Path::new(&env::var("OUT_DIR")?))?;
    }
    Ok(())
}

/// Generates the gRPC services and keeps their descriptors, for server reflection.
fn control_plane(out: &Path) -> Result<(), Box<dyn Error>> {
    let control = protox::compile(["control.proto"], ["proto"])?;
    fs::write(out.join("control.bin"), control.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".vamos.policy.v1", "crate::policy")
        .extern_path(".vamos.cell.v1", "crate::cell")
        .extern_path(".vamos.edge.v1", "crate::edge")
        .compile_fds(control)?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(protox::compile(["etcd.proto"], ["proto"])?)?;
    Ok(())
}
