//! The platform with real cells: vamosd's library starts vamos-cell behind every wall, process guests attach.
//! Run as root, because that is who starts cells.

mod daemon;
mod damage;
mod death_of_vamosd;
mod exhaustion;
mod front_ends;
mod idle;
mod isolation;
mod keeper;
mod leases;
mod life;
mod migration;
mod snapshots;
mod support;
mod volumes;
