//! The edge of these tests: the real one.

fn main() {
    if let Err(error) = vamos_edge::live() {
        eprintln!("web-edge: {error:#}");
        std::process::exit(1);
    }
}
