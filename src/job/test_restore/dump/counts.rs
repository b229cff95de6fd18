//! Rows of tables as a proof tells them.
//!
//! A newcomer would tell only the sum; one empty table among many is what people look for later.

use std::fmt::Write;

/// Tables that are named; the largest ones.
const NAMED: usize = 100;

/// The counts as a proof keeps them, the largest tables first.
pub(super) fn told(mut counts: Vec<(String, u64)>) -> String {
    counts.sort_by(|(one, few), (other, many)| many.cmp(few).then_with(|| one.cmp(other)));
    let rows: u64 = counts.iter().map(|(_, rows)| rows).sum();
    let mut text = format!("{} tables, {rows} rows", counts.len());
    for (number, (table, rows)) in counts.iter().take(NAMED).enumerate() {
        let separator = if number == 0 { ": " } else { ", " };
        write!(text, "{separator}{table} {rows}").expect("a string takes all");
    }
    if counts.len() > NAMED {
        write!(text, " and {} more", counts.len() - NAMED).expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_the_largest_first() {
        let counts = [("public.a", 1), ("public.b", 20), ("public.c", 0)].map(|(table, rows)| (table.to_owned(), rows));
        assert_eq!(told(counts.to_vec()), "3 tables, 21 rows: public.b 20, public.a 1, public.c 0");
        assert_eq!(told(Vec::new()), "0 tables, 0 rows");
        let many = (0..150).map(|number| (format!("t{number:03}"), 1)).collect();
        assert!(told(many).ends_with("t099 1 and 50 more"));
    }
}
