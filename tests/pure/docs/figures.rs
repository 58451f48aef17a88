//! Figures name the command that makes them, and are the same wherever they stand.

use std::fs;

use super::{lines, pages, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("it is text")
}

/// The cells of the row that begins with `name`, without emphasis.
fn row(text: &str, name: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.starts_with(&format!("| {name} |")));
    let line = line.unwrap_or_else(|| panic!("there is a row {name}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().replace("**", "")).collect()
}

fn number(cell: &str) -> f64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell} is a number"))
}

/// `0 of 7,427`
fn bad_of(cell: &str) -> (u64, u64) {
    let (bad, all) = cell.split_once(" of ").unwrap_or_else(|| panic!("{cell} has both numbers"));
    let number = |text: &str| text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text} is a number"));
    (number(bad), number(all))
}

#[test]
fn what_it_costs_is_the_same_in_readme_and_in_the_page_about_performance() {
    let (readme, page) = (read("README.md"), read("docs/performance.md"));
    let (_, costs) = readme.split_once("## What it costs").expect("README says what it costs");
    let rows = costs.lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for line in rows {
        let name = line.split('|').nth(1).expect("a row has cells").trim();
        let (here, there) = (row(costs, name), row(&page, name));
        assert_eq!(here[1..4], there[1..4], "{name}: plain, floor and guarded");
        let ratio = number(&here[3]) / number(&here[1]);
        assert!((ratio - number(&here[4])).abs() <= 0.051, "{name}: guarded / plain is {ratio:.2}");
        count += 1;
    }
    assert!(count >= 4, "only {count} rows were compared");
}

#[test]
fn the_totals_of_the_kill_tables_are_those_of_the_tables() {
    let (readme, page) = (read("README.md"), read("docs/reliability.md"));
    let totals: Vec<_> = row(&page, "**all**").iter().skip(1).map(|cell| bad_of(cell)).collect();
    let figures = |name: &str| {
        let cells = row(&readme, name);
        (number(&cells[2]), number(&cells[1]))
    };
    let sum = |of: &[(u64, u64)]| {
        of.iter().fold((0.0, 0.0), |(bad, all), (b, a)| (bad + f64::from(*b as u32), all + f64::from(*a as u32)))
    };
    assert_eq!(figures("plain git 2.47: 19 operations"), sum(&totals[..1]));
    assert_eq!(figures("the same with jin-txn: git 2.39, 2.47, 2.55"), sum(&totals[1..4]));
}

/// What makes figures.
const MAKERS: [&str; 8] = ["benches/", "cargo ", "JIN_", "tests/", "fuzz/", "strace", "perf", "getconf"];

#[test]
fn every_table_of_figures_stands_in_a_section_that_names_the_command() {
    let mut wrong = Vec::new();
    for page in pages() {
        let (mut heading, mut names_one, mut figures) = (String::new(), false, None);
        let mut end = |heading: &str, names_one: bool, figures: Option<usize>| {
            let at = figures.filter(|_| !names_one);
            wrong.extend(at.map(|at| format!("{}:{at}: {heading}", page.path.display())));
        };
        for (at, in_code, line) in lines(&page.text) {
            if line.starts_with('#') && !in_code {
                end(&heading, names_one, figures);
                (heading, names_one, figures) = (line.to_owned(), false, None);
            }
            let mut spans = line.split('`').skip(1).step_by(2);
            names_one |= spans.any(|span| MAKERS.iter().any(|maker| span.contains(maker)));
            names_one |= in_code && MAKERS.iter().any(|maker| line.contains(maker));
            if line.starts_with("| --- | ---:") {
                figures = Some(at);
            }
        }
        end(&heading, names_one, figures);
    }
    assert!(wrong.is_empty(), "these tables do not say how they were made: {wrong:#?}");
}
