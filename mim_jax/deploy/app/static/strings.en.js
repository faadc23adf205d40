// Every word of the page, in English.

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
export const number = (value, digits = 4) => value.toFixed(digits).replace("-", "\u2212");

const listed = (words) => words.map((word) => word.replaceAll("_", " ")).join(", ");

export const METRICS = {
  combined: "All joined", features: "Features", color: "Colours", features_color: "Features and colours",
  ssim_hbd: "SSIM+HBD", ssim: "SSIM", hbd: "HBD", mae: "MAE", mse: "MSE",
};

export const TEXT = {
  title: "Mpox picture check",
  tag: "Research software. Not a medical device.",
  lead: "This page compares a picture of a skin spot with pictures of mpox. The picture stays on this device: nothing is uploaded or stored.",
  guidance_title: "A picture it can use",
  guidance: [
    "Close: the spot in the middle, skin all around it.",
    "From straight above, not from the side.",
    "Sharp and in good, white light, without flash.",
  ],
  take: "Take a picture",
  choose: "Choose a picture",
  crop_title: "Put the spot into the dashed square",
  crop_help: "Move the picture with a finger, the mouse or the arrow keys. Pinch, or use the slider or the + and \u2212 keys, to zoom in.",
  crop_area: "Your picture. Arrow keys move it, plus and minus zoom in and out.",
  zoom: "Zoom in",
  check: "Check this picture",
  another: "Use another picture",
  back: "Choose another part of it",
  working_title: "Comparing",
  working: "The middle of the picture is hidden and filled in from what is around it. This takes some seconds.",
  preparing: "Getting ready. This is needed once and takes longer the first time.",
  proving: (done, of) => `Testing itself on known pictures: ${done} of ${of}.`,
  ready: "Ready, also offline.",
  ready_online: "Ready.",
  result_images: "What was compared",
  original: "Your picture",
  masked: "Middle hidden",
  inpainted: "Middle filled in",
  map: "Where they agree",
  map_legend: "Dark blue: the same. Yellow: different.",
  map_alt: (value) => `Map of agreement between your picture and the one with its middle filled in; on average ${number(value)} of 1.`,
  unlikeness: "Where it is unlike the training pictures",
  unlikeness_legend: "Dark blue: alike. Yellow: unlike.",
  unlikeness_alt: (value) => `Map of where your picture is unlike the training pictures; on average ${number(value)} of 1.`,
  accuracy: ({ positive, auroc, low, high, folds }) => `How good it is: in tests by cross-validation (${folds} ${folds === 1 ? "fold" : "folds"}) the AUROC of ${positive} against the other pictures was ${auroc.toFixed(2)}, 95\u00a0% interval ${low.toFixed(2)} to ${high.toFixed(2)} (0.5 = chance, 1 = perfect).`,
  unseparated: ({ unseparated }) => unseparated.length
    ? `What it cannot separate: more than half of the test pictures of ${listed(unseparated)} were called mpox-like or \u201ccannot tell\u201d.`
    : "In these tests it called at least half of the pictures of every other class not mpox-like.",
  scale_title: "How similar",
  scale_caption: (score, n, positive) => `The bars are the scores of ${n} groups of ${positive} pictures that the program had not seen. This picture has ${score}.`,
  scale_caption_none: (score) => `This picture has ${score}. There are no calibration scores to compare it with.`,
  scale_alt: (score, lower, upper) => `Scale of similarity. This picture: ${score}. Like the training pictures above ${lower}${upper ? `, mpox-like above ${upper}` : ""}.`,
  you: "this picture",
  threshold: "threshold",
  upper: "mpox-like above",
  fewer: "less similar",
  more: "more similar",
  details: "Numbers and guarantees",
  similarities: "Similarities (1 = identical)",
  p_value: (value, n) => `p-value ${number(value)}, from ${n} calibration scores: about that share of mpox pictures like those it was calibrated on score as low as this one, or lower.`,
  seconds: (value) => `Computed on this device in ${value.toFixed(2)} s.`,
  version: (app) => `mim_jax ${app.mim_jax}, fold ${app.fold}, weights ${app.weights}.`,
  print: "Print or save this page",
  not_title: "What this is not",
  not: [
    "It is not a medical device and not a diagnosis. No one has approved it for use on patients.",
    "It knows mpox pictures only. It can be wrong in both directions, and about other skin diseases it knows nothing.",
    "If you are worried, or have a fever, swollen glands or a rash that spreads, see a doctor, whatever it says here.",
  ],
  decisions: {
    mpox_like: {
      heading: "Resembles pictures of mpox",
      words: [
        "The filled-in middle is as much like the hidden one as it is for most pictures of mpox that the program had not seen. Other skin diseases can look the same to it.",
        "Please call a doctor or a clinic and tell them about the spot. Until then keep it covered and avoid close skin contact.",
      ],
    },
    not_mpox_like: {
      heading: "Does not resemble its pictures of mpox",
      words: [
        "The filled-in middle is less like the hidden one than it is for most pictures of mpox. The program learned from mpox pictures alone, so it cannot say what the spot is instead.",
        "This does not rule out mpox. If the spot is new, hurts or spreads, or you had close contact with somebody who has mpox, see a doctor all the same.",
      ],
    },
    cannot_tell: {
      heading: "Cannot tell",
      words: ["The program does not know. Please do not read anything into it, and let a doctor look at the spot."],
    },
    unusable: {
      heading: "This picture cannot be used",
      words: ["Nothing was compared, so this says nothing about the spot."],
    },
  },
  // For a network that was trained on drawn pictures; the notice stands above.
  drawn: {
    mpox_like: "Resembles its drawn pictures",
    not_mpox_like: "Does not resemble its drawn pictures",
    words: ["This copy shows how the app works. Whatever is on the picture, it says nothing about it."],
  },
  why: {
    above: "",
    below: "",
    between: "The score lies between two limits: too high to call it unlike mpox, too low to keep false alarms rare.",
    uncalibrated: "This copy of the app was made without calibration: it can measure, but has no threshold to decide by.",
    too_few: "There were too few calibration pictures for any guarantee.",
    not_finite: "The computation gave no number.",
  },
  missed: (rate, positive) => `The threshold is set to miss about ${percent(rate)} of ${positive} pictures like those it was calibrated on. Pictures from other cameras or other people may be missed more often.`,
  reasons: {
    empty_file: "The file is empty. Choose another one.",
    large_file: "The file is larger than 64 MB. Choose a smaller one.",
    several_frames: "The file is animated or has several pages. Save one picture of it by itself as JPEG or PNG.",
    not_a_picture: "This browser cannot open the file as a picture. Save it as JPEG or PNG and try again.",
    too_many_pixels: ({ width, height }) => `The picture has ${width} \u00d7 ${height} pixels, and at most 50 million are possible. Make it smaller.`,
    too_small: ({ side, least }) => `The chosen square is ${side} ${side === 1 ? "pixel" : "pixels"} wide, and at least ${least} are needed. Choose a larger part, or take the picture again from closer.`,
    screenshot: ({ flat }) => `It looks like a screenshot or a drawing: ${percent(flat)} of its pixels equal their neighbours. Use the photograph itself.`,
    underexposed: ({ lit }) => `It is too dark: only ${percent(lit)} of it is lit. Take it again in more light.`,
    overexposed: ({ burnt }) => `It is overexposed: ${percent(burnt)} of its middle is plain white. Take it again without flash or direct sun.`,
    blurred: ({ sharpness, limits }) => `It is blurred (sharpness ${sharpness.toPrecision(2)}, at least ${limits.LEAST_SHARPNESS} is needed). Hold the camera still, let it focus, and take it again.`,
    not_skin: ({ skin }) => `It does not look like skin: only ${percent(skin)} of it has the colours of skin. Fill the picture with skin, in white light and in colour.`,
  },
  refused_title: "This app will not work here",
  refused: {
    seal: (off) => `It tested itself on known pictures, and its results were off by ${Number(off).toPrecision(2)}. On this device it would be wrong, so it decides nothing. Try another browser or device.`,
    pixels: "This browser changes the pixels that a page reads, as a protection of privacy. Every result would be wrong. Allow this page to read images, or use another browser.",
    failed: (message) => `It could not be loaded (${message}). Load the page again; if that does not help, use another browser.`,
    score: (message) => `The comparison failed (${message}). Load the page again.`,
  },
};

// What is said otherwise where a frozen network compares the whole picture; without MIM nothing is filled in.
const WHOLE = {
  similarities: "Scores of features and colours (0 = the median training picture that was held out); similarities of the filled-in middle (1 = identical)",
  words: {
    mpox_like: "The picture is about as near to the nearest training pictures of mpox as pictures of mpox that the program had not seen. Other skin diseases can look the same to it.",
    not_mpox_like: "The picture is farther from the training pictures of mpox than most pictures of mpox are. The program learned from mpox pictures alone, so it cannot say what the spot is instead.",
  },
};
const FROZEN = {
  crop_title: "Put the spot into the middle",
  working: "The picture is compared with training pictures of mpox. This takes some seconds.",
  similarities: "Scores (0 = the median training picture that was held out)",
};

// Adjusts the words to the detector that `app` holds.
export function adopt(app) {
  if (!app.outputs.includes("unlikeness")) return;
  Object.assign(TEXT, { similarities: WHOLE.similarities }, app.mim_size ? {} : FROZEN);
  for (const [decision, words] of Object.entries(WHOLE.words)) TEXT.decisions[decision].words[0] = words;
}
