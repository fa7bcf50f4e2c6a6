// SPDX-License-Identifier: GPL-2.0

//! Tests that the dashboard and the alerts only use metrics of the exporter, and that the manual
//! lists all of these.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::commands::export::metrics;

/// Names of metrics, with those of their labels.
type Names = BTreeMap<String, BTreeSet<String>>;

/// Returns the content of a file. `path` is relative to the crate.
fn file(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the words of a query outside of quotes.
fn words(query: &str) -> Vec<String> {
    let plain: String = query.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    plain.split(|c| !of_word(c)).map(str::to_string).collect()
}

/// Checks that a query only uses metrics that exist, and labels that they have: `name=`,
/// `by (name)`.
fn check(query: &str, names: &Names) {
    let words = words(query);
    let metrics: Vec<_> = words
        .iter()
        .filter(|word| word.starts_with("drr_"))
        .collect();
    assert!(!metrics.is_empty(), "no metric in {query}");
    let mut labels = BTreeSet::from(["job", "instance"].map(String::from));
    for metric in metrics {
        let of_metric = names.get(metric);
        labels.extend(
            of_metric
                .unwrap_or_else(|| panic!("no {metric}: {query}"))
                .clone(),
        );
    }
    for part in query.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap_or_default();
        for matcher in matchers.split(", ") {
            let label = matcher.split(['=', '!']).next().unwrap_or_default();
            assert!(labels.contains(label), "label '{label}' in {query}");
        }
    }
    for part in query.split("by (").skip(1) {
        for label in part.split(')').next().unwrap_or_default().split(", ") {
            assert!(labels.contains(label), "label '{label}' in {query}");
        }
    }
}

/// Checks that the metrics of a query have the labels that its legend shows: `{{name}}`.
fn check_legend(legend: &str, query: &str, names: &Names) {
    for part in legend.split("{{").skip(1) {
        let label = part.split("}}").next().unwrap_or_default();
        let has = |word: &String| names.get(word).is_some_and(|labels| labels.contains(label));
        assert!(words(query).iter().any(has), "{legend} of {query}");
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let names = metrics::tests::names();
    let dashboard: Value = serde_json::from_str(&file("grafana/drr.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut asked = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            check(query, &names);
            check_legend(
                target["legendFormat"].as_str().expect("a legend"),
                query,
                &names,
            );
            asked.extend(words(query));
        }
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        if let Some(query) = variable["definition"].as_str() {
            check(query, &names);
        }
    }
    for metric in [
        "drr_mismatches_total",
        "drr_differed_pages_total",
        "drr_unproven_pages_total",
        "drr_misses_total",
        "drr_whole_writes_total",
    ] {
        assert!(asked.contains(metric), "{metric} has no panel");
    }
}

#[test]
fn the_alerts_ask_for_what_there_is() {
    let names = metrics::tests::names();
    let rules = file("grafana/alerts.yml");
    let queries: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(queries.len(), 3);
    for metric in ["drr_mismatches_total", "drr_differed_pages_total", "drr_up"] {
        let asks = |query: &&str| words(query).iter().any(|word| word == metric);
        assert!(queries.iter().any(asks), "{metric} has no alert");
    }
    for query in queries {
        check(query, &names);
    }
}

#[test]
fn the_manual_names_each_metric() {
    let manual = file("../../Documentation/drrctl/drrctl.rst");
    for name in metrics::tests::names().keys() {
        assert!(manual.contains(&format!("\n{name} ")), "{name} isn't in it");
    }
    for word in words(&manual)
        .iter()
        .filter(|word| word.starts_with("drr_"))
    {
        assert!(
            metrics::tests::names().contains_key(word),
            "{word} is in it"
        );
    }
}

#[test]
#[should_panic(expected = "no drr_moon_total")]
fn what_is_not_there_is_noticed() {
    check("rate(drr_moon_total[5m])", &metrics::tests::names());
}

#[test]
#[should_panic(expected = "label 'colour'")]
fn labels_that_are_not_there_are_noticed() {
    check("sum by (colour) (drr_up)", &metrics::tests::names());
}
