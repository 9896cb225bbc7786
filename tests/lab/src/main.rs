//! The commands behind the aliases of `.cargo/config.toml`.

fn main() -> anyhow::Result<()> {
    vamos_lab::enter()?;
    Ok(())
}
