//! Client of paravirtual SQL: many sessions over one link.
