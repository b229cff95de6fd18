//! What is wrong with a policy, and how a person sees it: file, line, column, the line itself, a caret, the likely fix.
//!
//! [`Findings`] gathers while a policy is checked, so that everything comes out in one go; [`Problems`] is the result,
//! in the order of the files. A newcomer would report what only follows from another problem; ask `is_damaged` first.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::source::{At, Source};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is allowed but unwise.
    Warning,
}

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the key path in front.
    pub message: String,
    /// The likely fix.
    pub help: Option<String>,
    /// The key path; none where the file could not be read or parsed.
    pub key: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: usize,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    mark: Range<usize>,
}

impl Problem {
    /// A problem with a file as a whole.
    pub(super) fn of_file(file: &Path, message: String) -> Self {
        let (text, mark, file) = (String::new(), 0..0, file.to_owned());
        Self { severity: Severity::Error, message, help: None, key: None, file, line: 0, column: 0, text, mark }
    }

    fn of_span(source: &Source, span: Range<usize>, is_broken: bool, message: String) -> Self {
        let excerpt = source.excerpt(span, is_broken);
        Self {
            line: excerpt.line,
            column: excerpt.column,
            text: excerpt.text,
            mark: excerpt.mark,
            ..Self::of_file(source.path, message)
        }
    }

    /// Adds the likely fix.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the name that was probably meant, if one of the known ones is near.
    pub(super) fn suggest<'n>(&mut self, name: &str, known: impl IntoIterator<Item = &'n str>) -> &mut Self {
        if let Some(meant) = did_you_mean(name, known) {
            self.help = Some(format!("did you mean `{meant}`?"));
        }
        self
    }

    /// The block that a person sees.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = self.file.display().to_string();
        let mut group = Group::with_title(level.primary_title(&*self.message));
        if self.line > 0 {
            let mark = AnnotationKind::Primary.span(self.mark.clone());
            group = group.element(Snippet::source(&*self.text).line_start(self.line).path(path).annotation(mark));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

impl fmt::Display for Problem {
    /// One line for logs: `backstop.toml:3:8: database.orders: unknown key `retenton` (did you mean `retention`?)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Everything that is wrong with a policy that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the files; warnings stand among the errors.
    pub fn list(&self) -> &[Problem] {
        &self.0
    }

    /// All problems as a person sees them, and their count.
    pub fn render(&self, color: bool) -> String {
        let blocks: Vec<String> = self.0.iter().map(|problem| problem.render(color)).collect();
        format!("{}\n\n{}", blocks.join("\n\n"), self.count())
    }

    /// `3 errors and 1 warning in 2 files`.
    pub fn count(&self) -> String {
        let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let files: BTreeSet<&Path> = self.0.iter().map(|problem| problem.file.as_path()).collect();
        let of = |severity| self.0.iter().filter(|problem| problem.severity == severity).count();
        let counts = [(of(Severity::Error), "error"), (of(Severity::Warning), "warning")];
        let told = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, noun)| plural(count, noun));
        format!("{} in {}", told.collect::<Vec<_>>().join(" and "), plural(files.len(), "file"))
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The known name that is nearest to a name, if any is near.
pub fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let nearness = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let scored = known.into_iter().map(|known| (nearness(known), known)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// What is found while a policy is checked.
pub(super) struct Findings<'s, 't> {
    sources: &'s [Source<'t>],
    found: Vec<Found>,
    damaged: HashSet<(usize, String)>,
    broken_lines: HashSet<(usize, usize)>,
    /// Takes the help for a problem that is not told.
    sink: Problem,
}

struct Found {
    file: usize,
    offset: usize,
    problem: Problem,
    /// What the problem may not repeat.
    secret: Option<String>,
}

impl Found {
    fn without_secret(mut self) -> Problem {
        if let Some(secret) = &self.secret {
            self.problem.message = self.problem.message.replace(secret, "***");
            self.problem.help = self.problem.help.map(|help| help.replace(secret, "***"));
        }
        self.problem
    }
}

impl<'s, 't> Findings<'s, 't> {
    /// Nothing found yet.
    pub(super) fn new(sources: &'s [Source<'t>]) -> Self {
        let sink = Problem::of_file(Path::new(""), String::new());
        Self { sources, found: Vec::new(), damaged: HashSet::new(), broken_lines: HashSet::new(), sink }
    }

    /// The files.
    pub(super) fn sources(&self) -> &'s [Source<'t>] {
        self.sources
    }

    /// Whether something stands at a path.
    pub(super) fn is_written(&self, at: &At) -> bool {
        self.sources[at.file()].value(at).is_some()
    }

    /// Whether a list stands at a path.
    pub(super) fn is_list(&self, at: &At) -> bool {
        self.sources[at.file()].value(at).is_some_and(|value| value.is_array())
    }

    /// The text at a path, as it is written.
    pub(super) fn text(&self, at: &At) -> Option<&str> {
        self.sources[at.file()].value(at).and_then(|value| value.as_str())
    }

    /// Something that is no TOML. Only the first of a line is told, and nothing else about that line.
    pub(super) fn broken(&mut self, file: usize, span: Range<usize>, message: &str) {
        let source = &self.sources[file];
        if self.broken_lines.insert((file, source.line_of(span.start))) {
            let problem = Problem::of_span(source, span.clone(), true, message.to_owned());
            self.found.push(Found { file, offset: span.start, problem, secret: None });
        }
    }

    /// Whether some file is not TOML, so that nothing can be said about what is missing.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// The value at a path is wrong.
    pub(super) fn error(&mut self, at: &At, message: impl fmt::Display) -> &mut Problem {
        let span = self.sources[at.file()].value_span(at);
        self.add(Severity::Error, at, span, message)
    }

    /// The key at a path is wrong; the message is about the table it stands in.
    pub(super) fn key_error(&mut self, at: &At, message: impl fmt::Display) -> &mut Problem {
        let span = self.sources[at.file()].key_span(at);
        self.add(Severity::Error, &at.parent(), span, message)
    }

    /// The value at a path is allowed but unwise.
    pub(super) fn warning(&mut self, at: &At, message: impl fmt::Display) -> &mut Problem {
        let span = self.sources[at.file()].value_span(at);
        self.add(Severity::Warning, at, span, message)
    }

    fn add(&mut self, severity: Severity, at: &At, span: Range<usize>, message: impl fmt::Display) -> &mut Problem {
        let (file, source) = (at.file(), &self.sources[at.file()]);
        if self.broken_lines.contains(&(file, source.line_of(span.start))) {
            return &mut self.sink;
        }
        let key = at.to_string();
        let message = if key.is_empty() { message.to_string() } else { format!("{key}: {message}") };
        let mut problem = Problem::of_span(source, span.clone(), false, message);
        problem.severity = severity;
        problem.key = Some(key).filter(|key| !key.is_empty());
        let secret = source.secret(at).map(str::to_owned);
        self.found.push(Found { file, offset: span.start, problem, secret });
        &mut self.found.last_mut().expect("it was pushed just now").problem
    }

    /// Remembers that the value at a path was wrong and is left out.
    pub(super) fn damage(&mut self, at: &At) {
        self.damaged.insert((at.file(), at.to_string()));
    }

    /// Whether the value at a path is missing only because it, or what it stands in, was wrong.
    pub(super) fn is_damaged(&self, at: &At) -> bool {
        let is_here = || self.damaged.contains(&(at.file(), at.to_string()));
        !self.damaged.is_empty() && (is_here() || (!matches!(at, At::File(_)) && self.is_damaged(&at.parent())))
    }

    /// Everything that was found, in the order of the files, each once.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        let place = |found: &Found| (found.file, found.offset, found.problem.severity);
        self.found.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.problem.message.cmp(&b.problem.message)));
        self.found.dedup_by(|a, b| a.file == b.file && a.problem == b.problem);
        self.found.into_iter().map(Found::without_secret).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::{Policy, Problems, Severity};

    fn problems(text: &str) -> Problems {
        Policy::parse(vec![("backstop.toml".into(), text.to_owned())]).unwrap_err()
    }

    #[test]
    fn a_problem_is_one_line_in_a_log_and_a_block_on_a_terminal() {
        let problems = problems("[database.a]\nretenton = 1");
        let problem = problems.list().iter().find(|problem| problem.severity == Severity::Error).unwrap();
        assert_eq!(
            problem.to_string(),
            "backstop.toml:2:1: database.a: unknown key `retenton` (did you mean `retention`?)"
        );
        insta::assert_snapshot!(problem.render(false), @r#"
        error: database.a: unknown key `retenton`
         --> backstop.toml:2:1
          |
        2 | retenton = 1
          | ^^^^^^^^
          |
          = help: did you mean `retention`?
        "#);
        let colored = problem.render(true);
        assert!(colored.contains("\u{1b}[") && colored.contains("unknown key `retenton`"), "{colored:?}");
    }

    #[test]
    fn a_problem_is_told_to_machines_too() {
        let problems = problems("[database.a]\nretenton = 1");
        let json = serde_json::to_value(&problems).unwrap();
        let error = json.as_array().unwrap().iter().find(|problem| problem["severity"] == "error").unwrap();
        assert_eq!(error["file"], "backstop.toml");
        assert_eq!((&error["line"], &error["column"]), (&2.into(), &1.into()));
        assert_eq!((&error["key"], &error["help"]), (&"database.a".into(), &"did you mean `retention`?".into()));
    }

    #[test]
    fn the_count_tells_errors_and_warnings() {
        assert_eq!(problems("[database.a]\nretenton = 1").count(), "1 error and 1 warning in 1 file");
        assert_eq!(problems("database = 1\ndaemon = 2").count(), "2 errors in 1 file");
    }

    #[test]
    fn a_secret_is_never_repeated_however_wrongly_it_was_written() {
        for text in [
            "[database.a]\npassword = \"hunter2\"",
            "[database.a]\npassword = hunter2",
            "[database.a]\npassword = \"hunter2",
            "[database.a]\npassword: \"hunter2\"",
            "[database.a]\npassword = { value = \"hunter2\" }",
            "[database.a]\npassword = [\"hunter2\"]",
            "[database.a]\npasword = \"hunter2\"",
            "[database.a]\npassword = \"file:hunter2\"",
            "[database.a]\nconnection = \"postgresql://backup:hunter2@db/orders\"",
            "[database.a]\nconnection = \"host=db password=hunter2\"",
            "[database.a]\nconnection = host=db password=hunter2",
            "[database.a]\nconection = \"host=db password='hunter2'\"",
            "[database.a]\nengine = \"postgresql://backup:hunter2@db/orders\"",
            "[database.a]\npgbackrest = { secrets = { PGBACKREST_REPO1_S3_KEY = \"hunter2\" }, reposs = 1 }",
            "[database.a.pgbackrest.secrets]\nPGBACKREST_REPO1_CIPHER_PASS = \"hunter2\"",
            "database.a = { password = \"hunter2\", retenton = 1, stall = 5 }",
        ] {
            let problems = problems(text);
            let json = serde_json::to_string(&problems).unwrap();
            let lines: String = problems.list().iter().map(ToString::to_string).collect();
            for told in [problems.to_string(), problems.render(true), json, lines, format!("{problems:?}")] {
                assert!(!told.contains("hunter2"), "{text}\n{told}");
            }
        }
    }
}
