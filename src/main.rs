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
    let args: Vec<_> = std::env::args_os().collect();
    let is_backupd = |arg: &std::ffi::OsString| {
        std::path::Path::new(arg).file_name() == Some("backupd".as_ref())
    };
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if nix::unistd::getuid().is_root() {
        let u = nix::unistd::User::from_name("cyrus").unwrap().unwrap();
        nix::unistd::setgid(u.gid).unwrap();
        nix::unistd::setuid(u.uid).unwrap();
    }
    if args.first().is_some_and(is_backupd) {
        std::process::exit(cyrbk::cmd::backupd::run(&args).into());
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
