//! How much water did the household use?
//!
//! A mechanical water meter has a fixed number of digits and starts again at zero
//! after its highest value. Given the readings in order of time, compute the total
//! use. A reading lower than the one before means that the meter has passed zero
//! once. Because meters are read often, a step of more than half of the meter's
//! range is taken for a misreading and reported with its position, not added up.

use std::fmt;

/// A reading that the meter cannot plausibly have reached from the one before.
#[derive(Debug, PartialEq, Eq)]
pub struct Misreading {
    /// Position of the reading in the list, counted from zero.
    pub position: usize,
    pub value: u64,
}

impl fmt::Display for Misreading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading {} is implausible", self.position)
    }
}

impl std::error::Error for Misreading {}

/// Returns the total use shown by the readings of a meter with `digits` digits.
pub fn total_use(digits: u32, readings: &[u64]) -> Result<u64, Misreading> {
    let range = 10_u64.pow(digits);
    let misreading = |position| Misreading {
        position,
        value: readings[position],
    };

    if let Some(position) = readings.iter().position(|&value| value >= range) {
        return Err(misreading(position));
    }

    let mut total = 0;
    for (index, pair) in readings.windows(2).enumerate() {
        // Adding the range before subtracting keeps the unsigned difference
        // from going below zero when the meter has rolled over.
        let step = (pair[1] + range - pair[0]) % range;
        if step > range / 2 {
            return Err(misreading(index + 1));
        }
        total += step;
    }
    Ok(total)
}

fn main() {
    assert_eq!(total_use(4, &[9_950, 9_990, 25, 100]), Ok(150));
    assert_eq!(total_use(4, &[]), Ok(0));
    assert_eq!(total_use(4, &[7, 7]), Ok(0));

    let slip = total_use(4, &[500, 450]).unwrap_err();
    assert_eq!((slip.position, slip.value), (1, 450));
    println!("{slip}");

    assert!(total_use(3, &[1_000]).is_err());
}
