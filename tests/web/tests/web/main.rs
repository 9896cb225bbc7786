//! A client, an edge, a cell, an agent and a server in the guest: all real, all of one test process or its children.

mod evil;
mod losses;
mod objects;
mod serving;
mod support;
mod tls;
