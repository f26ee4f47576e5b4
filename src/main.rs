//! temporary
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Serve(cyrbk::cmd::serve::ServeArgs),
    Passwd {
        #[arg(short = 'C')]
        config: std::path::PathBuf,
        user: String,
    },
}
fn main() -> anyhow::Result<()> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if nix::unistd::getuid().is_root() {
        let u = nix::unistd::User::from_name("cyrus").unwrap().unwrap();
        nix::unistd::setgid(u.gid).unwrap();
        nix::unistd::setuid(u.uid).unwrap();
    }
    match Cli::parse() {
        Cli::Serve(a) => cyrbk::cmd::serve::run(&a),
        Cli::Passwd { config, user } => {
            let s = cyrbk::config::Settings::load(&config, "cyrbk")?;
            let names = cyrbk::cmd::site::name_policy(&s);
            cyrbk::cmd::passwd::run(
                cyrbk::cmd::passwd::Request {
                    user: &user,
                    file: &s.password_file,
                    names: &names,
                    remove: false,
                },
                std::io::stdin().lock(),
                false,
            )
        }
    }
}
