//! End-to-end tests on real guests, clients and servers.
