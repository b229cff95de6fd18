//! argv in, exit code out.

fn main() -> std::process::ExitCode {
    backstop::cli::main()
}
