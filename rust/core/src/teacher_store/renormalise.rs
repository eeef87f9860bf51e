//! From the stored classes of a token to a distribution.

use half::f16;

/// Renormalises the k + 1 classes of one token in fp32: writes k log-probabilities to `out` and returns the tail's.
/// `None` when none of the k has any mass: no distribution is known there.
pub fn renormalise(logp: &[f16], tail: f16, out: &mut [f32]) -> Option<f32> {
    for (out, value) in out.iter_mut().zip(logp) {
        *out = value.to_f32();
    }
    let tail = tail.to_f32();
    let highest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return None;
    }
    let highest = highest.max(tail);
    let mass: f32 = out.iter().map(|value| (value - highest).exp()).sum::<f32>() + (tail - highest).exp();
    let norm = highest + mass.ln();
    for value in out {
        *value -= norm;
    }
    Some(tail - norm)
}
