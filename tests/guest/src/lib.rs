//! Programs that tests run inside guests. A package of its own because it is compiled for guests, and what
//! boots guests must not be: it knows neither the lab nor the platform.
