//! From cron text to a croner pattern, with messages that name the field.
//!
//! croner accepts more than cron does (`MON` as a minute, empty list entries) and its messages name no field. So each
//! field is checked here, names become numbers, and croner gets numbers only. Day fields may also use croner's `L`
//! (last day), `LW` and `15W` (working days), `5#2` and `5L` (second, last Friday).
//!
//! A newcomer would extend croner's error texts; a text that reaches croner from here cannot fail.

use chrono::{NaiveDate, NaiveDateTime};
use croner::{Cron, CronComponent, parser::CronParser};

/// A field: what it is called and which values it has. `names` begin at `min`.
struct Field {
    name: &'static str,
    min: u16,
    max: u16,
    names: &'static [&'static str],
    allowed: &'static str,
}

const DAY_OF_MONTH: usize = 3;
const DAY_OF_WEEK: usize = 5;
const FIELDS: [Field; 6] = [
    Field { name: "second", min: 0, max: 59, names: &[], allowed: "0–59" },
    Field { name: "minute", min: 0, max: 59, names: &[], allowed: "0–59" },
    Field { name: "hour", min: 0, max: 23, names: &[], allowed: "0–23" },
    Field { name: "day of month", min: 1, max: 31, names: &[], allowed: "1–31" },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        allowed: "1–12 or JAN–DEC",
    },
    Field {
        name: "day of week",
        min: 0,
        max: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        allowed: "0–7 or SUN–SAT",
    },
];

/// The last year a schedule is asked about; croner keeps a byte for each year in each of what may be 10,000 schedules.
const LAST_YEAR: u16 = 2199;

/// The pattern, and whether it is fixed in second, minute and hour.
pub(super) fn read(text: &str) -> Result<(Cron, bool), String> {
    let text = nickname(text)?.unwrap_or(text);
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    match fields.len() {
        0 => return Err("it is empty".to_owned()),
        5 => fields.insert(0, "0"),
        6 => {}
        n => {
            let s = if n == 1 { "" } else { "s" };
            return Err(format!(
                "it has {n} field{s}; write 5 (minute, hour, day of month, month, day of week), or 6 with leading seconds"
            ));
        }
    }
    let fields: Vec<String> = (0..6).map(|i| field(i, fields[i])).collect::<Result<_, _>>()?;
    let fixed = fields[..3].iter().all(|field| !field.contains(['*', '-', '/']));
    Ok((pattern(&fields.join(" "))?, fixed))
}

fn nickname(text: &str) -> Result<Option<&'static str>, String> {
    if !text.starts_with('@') {
        return Ok(None);
    }
    match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok(Some("0 0 1 1 *")),
        "@monthly" => Ok(Some("0 0 1 * *")),
        "@weekly" => Ok(Some("0 0 * * 0")),
        "@daily" | "@midnight" => Ok(Some("0 0 * * *")),
        "@hourly" => Ok(Some("0 * * * *")),
        _ => Err("it is none of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`".to_owned()),
    }
}

fn pattern(numbers: &str) -> Result<Cron, String> {
    let mut cron = CronParser::new().parse(numbers).map_err(|error| error.to_string())?;
    cron.pattern.years = CronComponent::new(1, LAST_YEAR, 0, 0);
    cron.pattern.years.parse("*").map_err(|error| error.to_string())?;
    let start: NaiveDateTime = NaiveDate::from_ymd_opt(2000, 1, 1).expect("it is a date").into();
    match cron.find_next_occurrence(&start, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err("it never fires, because no such day exists".to_owned()),
    }
}

/// One field with its names as numbers.
fn field(index: usize, text: &str) -> Result<String, String> {
    if text.split(',').any(str::is_empty) {
        return Err(format!("{} has an empty entry in `{text}`", FIELDS[index].name));
    }
    let entries = text.split(',').map(|entry| {
        special(index, entry).unwrap_or_else(|| FIELDS[index].entry(entry)).map_err(|reason| {
            if entry == text || reason.contains('`') { reason } else { format!("{reason}, not `{entry}`") }
        })
    });
    Ok(entries.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// The forms that only days have; `None` when it is not one of them.
fn special(index: usize, entry: &str) -> Option<Result<String, String>> {
    let upper = entry.to_ascii_uppercase();
    let field = &FIELDS[index];
    match index {
        DAY_OF_MONTH if upper == "L" || upper == "LW" => Some(Ok(upper)),
        DAY_OF_MONTH => Some(field.number(upper.strip_suffix('W')?).map(|day| format!("{day}W"))),
        DAY_OF_WEEK => {
            let (day, nth) = upper.split_once('#').or_else(|| Some((upper.strip_suffix('L')?, "L")))?;
            if !["1", "2", "3", "4", "5", "L"].contains(&nth) {
                return Some(Err(format!("day of week `{entry}` must end in `#1` to `#5`")));
            }
            Some(field.number(day).map(|day| format!("{day}#{nth}")))
        }
        _ => None,
    }
}

impl Field {
    /// `*`, `5`, `1-5`, `*/5` or `1-30/5`.
    fn entry(&self, entry: &str) -> Result<String, String> {
        let Some((range, step)) = entry.split_once('/') else { return self.range(entry) };
        let step = digits(step)
            .filter(|step| (1..=self.max).contains(step))
            .ok_or_else(|| format!("{} cannot step by `{step}`; a step must be 1–{}", self.name, self.max))?;
        if range != "*" && !range.contains('-') {
            let proposal = format!("{range}-{}/{step}", self.max);
            return Err(format!("{} `{entry}` needs a range before the step, such as `{proposal}`", self.name));
        }
        Ok(format!("{}/{step}", self.range(range)?))
    }

    /// `*`, `5` or `1-5`.
    fn range(&self, text: &str) -> Result<String, String> {
        if text == "*" {
            return Ok(text.to_owned());
        }
        let Some((first, last)) = text.split_once('-') else { return Ok(self.number(text)?.to_string()) };
        let (from, mut to) = (self.number(first)?, self.number(last)?);
        if from > 0 && last.eq_ignore_ascii_case("SUN") {
            to = 7;
        }
        if from > to {
            let top = if self.max == 7 { 6 } else { self.max };
            let proposal = format!("{from}-{top},{}-{to}", self.min);
            return Err(format!("{} range `{text}` runs backwards; write `{proposal}`", self.name));
        }
        Ok(format!("{from}-{to}"))
    }

    fn number(&self, text: &str) -> Result<u16, String> {
        let by_name = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|at| at as u16 + self.min);
        by_name
            .or_else(|| digits(text))
            .filter(|number| (self.min..=self.max).contains(number))
            .ok_or_else(|| format!("{} must be {}", self.name, self.allowed))
    }
}

/// A number of digits only; `parse` would also take `+5`.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::super::Schedule;

    proptest! {
        #[test]
        fn any_text_is_either_refused_or_fires(
            text in r"([0-9*/,LW#-]{1,4}|[1-5],[1-3]|\*|SUN|MON-FRI|\*/[0-9]){1}( ([0-9*/,LW#-]{1,3}|[1-9]|\*|FRI|1?[0-9]-2[0-9])){3,6}",
        ) {
            if let Ok(schedule) = Schedule::parse(&text, Tz::UTC) {
                let start = "2026-11-20T12:00:00Z".parse().unwrap();
                prop_assert!(schedule.next(start).unwrap() > start && schedule.latest(start).unwrap() <= start, "{}", text);
            }
        }
    }

    #[test]
    fn a_mistake_names_its_field_and_says_what_is_allowed() {
        let long = "write 5 (minute, hour, day of month, month, day of week), or 6 with leading seconds";
        for (text, reason) in [
            ("61 * * * *", "minute must be 0–59"),
            ("0,61 * * * *", "minute must be 0–59, not `61`"),
            ("0 24 * * *", "hour must be 0–23"),
            ("0 0 0 * *", "day of month must be 1–31"),
            ("0 0 ? * MON", "day of month must be 1–31"),
            ("0 0 1 13 *", "month must be 1–12 or JAN–DEC"),
            ("0 0 * * SUNDAY", "day of week must be 0–7 or SUN–SAT"),
            ("MON * * * *", "minute must be 0–59"),
            ("60 0 0 * * *", "second must be 0–59"),
            ("+5 * * * *", "minute must be 0–59"),
            ("-5 * * * *", "minute must be 0–59"),
            ("1,,2 * * * *", "minute has an empty entry in `1,,2`"),
            ("*/0 * * * *", "minute cannot step by `0`; a step must be 1–59"),
            ("*/90 * * * *", "minute cannot step by `90`; a step must be 1–59"),
            ("5/15 * * * *", "minute `5/15` needs a range before the step, such as `5-59/15`"),
            ("0 22-2 * * *", "hour range `22-2` runs backwards; write `22-23,0-2`"),
            ("0 0 * * FRI-TUE", "day of week range `FRI-TUE` runs backwards; write `5-6,0-2`"),
            ("0 0 * * 5#6", "day of week `5#6` must end in `#1` to `#5`"),
            ("0 0 30 2 *", "it never fires, because no such day exists"),
            ("0 0 31 4,6 *", "it never fires, because no such day exists"),
            ("", "it is empty"),
            ("0 2 * *", &format!("it has 4 fields; {long}")),
            ("0 0 2 * * SUN 2027", &format!("it has 7 fields; {long}")),
            ("@reboot", "it is none of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`"),
        ] {
            let error = Schedule::parse(text, Tz::UTC).unwrap_err().to_string();
            assert_eq!(error, format!("`{text}`: {reason}"));
        }
    }

    #[test]
    fn the_same_schedule_may_be_written_in_many_ways() {
        let start = "2026-11-20T12:00:00Z".parse().unwrap();
        let fires = |text: &str| {
            let schedule = Schedule::parse(text, Tz::UTC).unwrap();
            std::iter::successors(schedule.next(start), |&at| schedule.next(at)).take(20).collect::<Vec<_>>()
        };
        for (one, other) in [
            ("0 2 * * SUN", "0 2 * * 0"),
            ("0 2 * * sun", "0 0 2 * * 7"),
            ("0 2 * * FRI-SUN", "0 2 * * 0,5,6"),
            ("0 2 * * SUN-TUE", "0 2 * * 0-2"),
            ("0 0 1 JAN,Jul *", "0 0 1 1,7 *"),
            ("@daily", "0 0 * * *"),
            ("@MIDNIGHT", "0 0 * * *"),
            ("@hourly", "0 0-23 * * *"),
            (" 0  2\t* * * ", "0 2 */1 * *"),
            ("0 0 29 2 *", "0 0 29 FEB *"),
            ("0 0 * * MON#1", "0 0 * * 1#1"),
            ("0 0 * * FRI#L", "0 0 * * 5L"),
            ("0 0 15W * *", "0 0 15w * *"),
        ] {
            assert_eq!(fires(one), fires(other), "`{one}` and `{other}`");
        }
    }

    #[test]
    fn the_last_day_of_a_month_is_found() {
        let schedule = Schedule::parse("0 0 L * *", Tz::UTC).unwrap();
        let next = schedule.next("2027-02-10T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(next.to_rfc3339(), "2027-02-28T00:00:00+00:00");
    }
}
