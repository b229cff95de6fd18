//! What the command line answered: exit code, the JSON document on stdout, and what went to stderr.

use serde_json::Value;

/// An answer in machine form.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) json: Value,
    /// Shown when a test fails.
    #[expect(dead_code, reason = "read by `Debug`")]
    stderr: String,
}

impl Answer {
    pub(super) fn of(output: std::process::Output) -> Self {
        let stdout = String::from_utf8(output.stdout).expect("answers are UTF-8");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().expect("the program was not killed");
        let json = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}), exit {code}:\n{stdout}\n{stderr}"));
        Self { code, json, stderr }
    }

    /// It must be a success; gives the result.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Value {
        assert_eq!((self.code, &self.json["status"]), (0, &Value::from("success")), "{self:#?}");
        &self.json["result"]
    }

    /// It must be the error with this exit code; gives message, causes and hints in one text.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32) -> String {
        assert_eq!((self.code, &self.json["status"]), (code, &Value::from("error")), "{self:#?}");
        assert_eq!(self.json["exit_code"], code, "{self:#?}");
        let hints = self.json["recovery"]["suggestions"].as_array().expect("an error has suggestions, if none");
        let hints: Vec<&str> = hints.iter().filter_map(Value::as_str).collect();
        format!(
            "{}\n{}\n{}",
            self.json["message"].as_str().unwrap(),
            self.json["error"].as_str().unwrap(),
            hints.join("\n")
        )
    }
}
