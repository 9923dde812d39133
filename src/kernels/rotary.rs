//! Rotary position embedding: queries and keys are rotated by angles that depend on their positions.

use multiversion::multiversion;

/// Rotates each head of one token: components `i` and `i + width / 2` are a point that is rotated by the `i`-th angle.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn rotate(heads: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let half = cosines.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for (((x, y), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
            (*x, *y) = (*x * cosine - *y * sine, *y * cosine + *x * sine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_moves_the_first_half_onto_the_second() {
        let mut heads = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        rotate(&mut heads, &[0.0, 1.0], &[1.0, 0.0]);
        assert_eq!(heads, [-3.0, 2.0, 1.0, 4.0, -7.0, 6.0, 5.0, 8.0]);
    }
}
