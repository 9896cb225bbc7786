//! vamosd: registry, control plane, keeper of vhost-user sessions, spawner of cells.
