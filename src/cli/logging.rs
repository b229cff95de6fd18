//! Where log lines go: text for a terminal, JSON lines on request, journald fields under systemd.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Arguments, Color, Verb};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Fields in the journal: `DATABASE=`, `RUN_ID=`, `JOB=`.
    Journald,
}

/// Starts logging to stderr or the journal. The daemon says what it does; other verbs only what a person must know.
pub(super) fn start(arguments: &Arguments) {
    let daemon = matches!(arguments.verb, Verb::Run { .. });
    let level = match (daemon, arguments.verbose) {
        (true, 0) | (false, 1) => LevelFilter::INFO,
        (false, 0) => LevelFilter::WARN,
        (true, 1) | (false, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let colour = match arguments.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal(),
    };
    // Other crates speak only when something is wrong.
    let ours = move |meta: &tracing::Metadata<'_>| {
        // A command's answer says how its run ended; the daemon's line about it would say it twice.
        let is_answered = !daemon && meta.target() == "backstop::job" && level < LevelFilter::INFO;
        let limit = match meta.target().starts_with("backstop") {
            true if is_answered => LevelFilter::OFF,
            true => level,
            false => LevelFilter::WARN.min(level),
        };
        *meta.level() <= limit
    };
    let filter = tracing_subscriber::filter::filter_fn(ours);
    let subscriber = Registry::default().with(layer(format(&arguments.verb), colour).with_filter(filter));
    // A second call, as in tests, finds a subscriber in place; that one serves as well.
    let _ = subscriber.try_init();
}

fn format(verb: &Verb) -> Format {
    let Verb::Run { log_format } = verb else { return Format::Text };
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    log_format.unwrap_or(if under_systemd { Format::Journald } else { Format::Text })
}

fn layer(format: Format, colour: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let text = || fmt::layer().with_writer(io::stderr).with_ansi(colour).with_target(false).boxed();
    match format {
        Format::Text => text(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).with_target(false).boxed(),
        Format::Journald => match tracing_journald::layer() {
            Ok(journal) => journal.with_field_prefix(None).with_syslog_identifier("backstop".to_owned()).boxed(),
            // Without a journal the lines must still go somewhere.
            Err(_) => text(),
        },
    }
}
