//! Documents that are made from the program itself: schema, completions, manual page.

use clap::Command;
use serde_json::Value;

use super::Answer;
use crate::{
    error::{Error, ExitCode},
    policy,
};

/// `backstop schema`.
pub(super) fn schema() -> Answer {
    let schema = policy::schema();
    let text = format!("{schema:#}");
    Answer::new("schema", schema, "the JSON Schema of the policy file", text)
}

/// `backstop completions SHELL`.
pub(super) fn completions(shell: clap_complete::Shell, command: &mut Command) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "backstop", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new("completions", Value::from(script.clone()), format!("completions for {shell}"), script)
}

/// `backstop man`: the page of the program and of each verb, one after the other.
pub(super) fn man(command: &Command) -> Result<Answer, Error> {
    let mut page = Vec::new();
    let failed = |source| Error::new(ExitCode::Defect, "the manual page cannot be made").because(source);
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for verb in command.get_subcommands() {
        let named = verb.clone().display_name(format!("backstop-{}", verb.get_name()));
        let verb_page = clap_mangen::Man::new(named);
        verb_page.render_synopsis_section(&mut page).map_err(failed)?;
        verb_page.render_description_section(&mut page).map_err(failed)?;
        verb_page.render_options_section(&mut page).map_err(failed)?;
    }
    let page = String::from_utf8_lossy(&page).into_owned();
    Ok(Answer::new("man", Value::from(page.clone()), "the manual page", page))
}
