//! The one executable; see [`cyrbk`].

fn main() -> std::process::ExitCode {
    cyrbk::cmd::main()
}
