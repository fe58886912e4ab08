use crate::Case;
use crate::inputs::{random_below, small_i32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "shuffles", run: shuffles, bugs: &[] },
    Case { kernel: "shuffles_f64", run: shuffles_f64, bugs: &[] },
    Case { kernel: "votes", run: votes, bugs: &[] },
    Case { kernel: "matches", run: matches, bugs: &[] },
    Case { kernel: "reductions", run: reductions, bugs: &[] },
    Case { kernel: "active", run: active, bugs: &[] },
    Case { kernel: "tiles", run: tiles, bugs: &[] },
];

/// Launches one warp on `values`; row by row, what it wrote must be what `expected` makes of the thread.
fn run(machine: &mut Machine, values: &[i32], expected: &[&dyn Fn(usize) -> i32]) -> Outcome {
    let input = machine.buffer("in", values)?;
    let out = machine.output::<i32>("out", expected.len() * 32)?;
    machine.launch(1, 32, 0, args![input, out])?;
    let out = machine.read::<i32>(out)?;
    for (i, (row, expected)) in out.chunks(32).zip(expected).enumerate() {
        same(&format!("row {i}"), row, &(0..32).map(expected).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn shuffles(machine: &mut Machine) -> Outcome {
    let values = small_i32(32);
    let value = |t: usize| values[t];
    run(
        machine,
        &values,
        &[
            &|t| value(if t >= 3 { t - 3 } else { t }),
            &|t| value(if t + 5 < 32 { t + 5 } else { t }),
            &|t| value(t ^ 6),
            &|t| value(value(t).rem_euclid(32) as usize),
            &|t| value(if t % 8 >= 1 { t - 1 } else { t }),
            &|t| value(if t % 16 < 14 { t + 2 } else { t }),
            &|t| value(t / 8 * 8 + 3),
            &|t| (t >= 3) as i32,
        ],
    )
}

fn shuffles_f64(machine: &mut Machine) -> Outcome {
    let values: Vec<f64> = small_i32(32).into_iter().map(|x| f64::from(x) / 3.0).collect();
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f64>("out", 32)?;
    machine.launch(1, 32, 0, args![input, out])?;
    let expected: Vec<f64> = (0..32).map(|t| values[t ^ 1] + values[31 - t]).collect();
    same("out", &machine.read::<f64>(out)?, &expected)
}

/// The lanes for which something holds.
fn mask(holds: impl Fn(usize) -> bool) -> i32 {
    (0..32).filter(|&lane| holds(lane)).fold(0, |mask, lane| mask | 1 << lane)
}

fn votes(machine: &mut Machine) -> Outcome {
    for values in [small_i32(32), vec![1; 32], vec![0; 32], (0..32).map(|t| t % 2).collect()] {
        let positive = mask(|lane| values[lane] > 0);
        let group = |t: usize| mask(|lane| lane % 2 == t % 2);
        run(
            machine,
            &values,
            &[
                &|_| positive,
                &|_| (positive != 0) as i32,
                &|_| (positive == -1) as i32,
                &|t| positive & group(t),
                &|t| (positive & group(t) != 0) as i32,
                &|t| (positive & group(t) == group(t)) as i32,
            ],
        )?;
    }
    Ok(())
}

fn matches(machine: &mut Machine) -> Outcome {
    for values in [random_below(5, 32), vec![4; 32]] {
        let same = |t: usize| mask(|lane| values[lane] == values[t]);
        let agree = (0..32).all(|t| values[t] == values[0]);
        run(machine, &values, &[&same, &same, &|_| if agree { -1 } else { 0 }, &|_| agree as i32, &|_| -1])?;
    }
    Ok(())
}

fn reductions(machine: &mut Machine) -> Outcome {
    let values = small_i32(32);
    let half = |t: usize| values[t / 16 * 16..][..16].iter().copied();
    run(
        machine,
        &values,
        &[
            &|t| half(t).sum(),
            &|t| half(t).min().unwrap(),
            &|t| half(t).max().unwrap(),
            &|t| half(t).map(|x| x as u32).min().unwrap() as i32,
            &|t| half(t).map(|x| x as u32).max().unwrap() as i32,
            &|t| half(t).fold(-1, |bits, x| bits & x),
            &|t| half(t).fold(0, |bits, x| bits | x),
            &|t| half(t).fold(0, |bits, x| bits ^ x),
        ],
    )
}

fn active(machine: &mut Machine) -> Outcome {
    let values = small_i32(32);
    let here = |t: usize| mask(|lane| (values[lane] > 0) == (values[t] > 0));
    run(machine, &values, &[&here, &|t| (here(t) & mask(|lane| lane < t) != 0) as i32, &|_| -1])
}

fn tiles(machine: &mut Machine) -> Outcome {
    let values = small_i32(32);
    let tile = |t: usize| &values[t / 8 * 8..][..8];
    let ballot = |t: usize| (0..8).filter(|&i| tile(t)[i] > 0).fold(0, |mask, i| mask | 1 << i);
    run(machine, &values, &[&|t| tile(t).iter().sum(), &|t| tile(t)[(t + 1) % 8], &ballot])
}
