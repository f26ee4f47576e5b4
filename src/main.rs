//! The one executable; see [`cyrbk`].

fn main() {}
