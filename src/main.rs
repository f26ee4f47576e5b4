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
