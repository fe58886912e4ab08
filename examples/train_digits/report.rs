//! The table, and what it says about the fusions.

use crate::network::Fusion;
use crate::training::Run;

/// AUC and share of 9s on top that the same recipe came to in PyTorch, from one seed.
const PYTORCH: [(Fusion, f64, f64); 2] = [(Fusion::Attention, 0.980, 0.951), (Fusion::GatedAttention, 0.987, 0.976)];

/// Of some numbers.
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// None where there are none.
    fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        let (&least, &greatest) = (numbers.first()?, numbers.last()?);
        // The same one twice where their number is odd.
        let middle = [(numbers.len() - 1) / 2, numbers.len() / 2];
        let median = middle.map(|index| numbers[index]).iter().sum::<f64>() / 2.0;
        Some(Spread { median, least, greatest })
    }
}

/// Runs of one fusion are next to each other, in the order of their seeds.
fn of(runs: &[Run], fusion: Fusion) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |run| run.fusion == fusion)
}

/// A line for each fusion: medians and ranges over the seeds.
pub(crate) fn table(runs: &[Run]) -> String {
    let heading = ["fusion", "loss", "AUC", "range", "PyTorch", "top instance is a 9", "range", "PyTorch"];
    let mut table = line(heading);
    for fusion in Fusion::ALL {
        let loss = Spread::of(of(runs, fusion).filter_map(|run| run.losses.last().copied()));
        let auc = Spread::of(of(runs, fusion).map(|run| run.scores.auc));
        let (Some(loss), Some(auc)) = (loss, auc) else { continue };
        let top = Spread::of(of(runs, fusion).filter_map(|run| run.scores.top_is_wanted));
        let (top, top_range) = match top {
            Some(Spread { median, least, greatest }) => {
                (percent(median), format!("{} – {}", percent(least), percent(greatest)))
            }
            None => ("no weights".into(), String::new()),
        };
        let pytorch = PYTORCH.iter().find(|(of, ..)| *of == fusion);
        table += &line([
            fusion.name(),
            &format!("{:.3}", loss.median),
            &format!("{:.3}", auc.median),
            &format!("{:.3} – {:.3}", auc.least, auc.greatest),
            &pytorch.map_or(String::new(), |(_, auc, _)| format!("{auc:.3}")),
            &top,
            &top_range,
            &pytorch.map_or(String::new(), |(_, _, top)| percent(*top)),
        ]);
    }
    table
}

fn line([fusion, loss, auc, auc_range, auc_pytorch, top, top_range, top_pytorch]: [&str; 8]) -> String {
    let line = format!(
        "{fusion:<15}  {loss:<5}  {auc:<5}  {auc_range:<13}  {auc_pytorch:<7}  {top:<19}  {top_range:<15}  {top_pytorch}"
    );
    format!("{}\n", line.trim_end())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// How attention compares with mean and max, and gated with ungated; empty where there are no two to compare.
pub(crate) fn findings(runs: &[Run]) -> String {
    let pairs = [
        (Fusion::Attention, Fusion::Mean),
        (Fusion::Attention, Fusion::Max),
        (Fusion::GatedAttention, Fusion::Mean),
        (Fusion::GatedAttention, Fusion::Max),
        (Fusion::GatedAttention, Fusion::Attention),
    ];
    let comparisons: String = pairs.into_iter().map(|(fusion, other)| comparison(runs, fusion, other)).collect();
    if comparisons.is_empty() {
        return comparisons;
    }
    format!("MIVC's article finds attention ahead of mean and max. Here, by AUC on the same seeds:\n{comparisons}\n")
}

/// Runs of one seed are compared, as they started alike and saw the bags in the same order.
fn comparison(runs: &[Run], fusion: Fusion, other: Fusion) -> String {
    let pairs = of(runs, fusion).zip(of(runs, other));
    let differences: Vec<f64> = pairs.map(|(run, other)| run.scores.auc - other.scores.auc).collect();
    let Some(Spread { median, least, greatest }) = Spread::of(differences.iter().copied()) else {
        return String::new();
    };
    let verdict = if least > 0.0 {
        "ahead"
    } else if greatest < 0.0 {
        "behind"
    } else {
        "mixed"
    };
    let (seeds, ahead) = (differences.len(), differences.iter().filter(|&&difference| difference > 0.0).count());
    let names = format!("{} against {}", fusion.name(), other.name());
    format!("  {names:<33}  {median:+.3} (median), higher on {ahead} of {seeds} seeds: {verdict}\n")
}
