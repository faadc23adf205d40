// From a score to a decision, as in mim_jax/decide/decision.py, for one fold.

export const MPOX_LIKE = "mpox_like", NOT_MPOX_LIKE = "not_mpox_like", CANNOT_TELL = "cannot_tell", UNUSABLE = "unusable";

// `calibration` is the one in app.json, or null; `why` in the result is the reason for the decision.
export function decide(score, calibration) {
  if (!Number.isFinite(score)) return { decision: UNUSABLE, pValue: null, why: "not_finite" };
  const scores = (calibration?.scores ?? []).flat();
  const pValue = scores.length ? (1 + scores.filter((value) => value <= score).length) / (scores.length + 1) : null;
  const told = (decision, why) => ({ decision, pValue, why });
  if (!calibration) return told(CANNOT_TELL, "uncalibrated");
  let like;
  if (calibration.rule === "calibrated") {
    // Rounded first: 0.29 * 100 is 28.999999999999996 in floating point, but 29 is meant.
    const rank = Math.floor(Number((calibration.miss_rate * (scores.length + 1)).toFixed(9)));
    if (!scores.length || rank === 0) return told(CANNOT_TELL, "too_few");
    like = Math.round(pValue * (scores.length + 1)) > rank;
  } else {
    if (calibration.lower === null) return told(CANNOT_TELL, "too_few");
    like = score > calibration.lower;
  }
  if (!like) return told(NOT_MPOX_LIKE, "below");
  if (calibration.upper === null || score > calibration.upper) return told(MPOX_LIKE, "above");
  return told(CANNOT_TELL, "between");
}
