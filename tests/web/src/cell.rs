//! The cell of these tests: the real one.

fn main() {
    if let Err(error) = vamos_cell::live() {
        eprintln!("web-cell: {error:#}");
        std::process::exit(1);
    }
}
