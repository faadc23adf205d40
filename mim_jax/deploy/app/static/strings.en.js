// All texts of the page, in English.

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
export const number = (value, digits = 4) => value.toFixed(digits).replace("-", "\u2212");

const listed = (words) => words.map((word) => word.replaceAll("_", " ")).join(", ");

export const METRICS = {
  combined: "Combined", features: "Features", color: "Colours", features_color: "Features and colours",
  ssim_hbd: "SSIM+HBD", ssim: "SSIM", hbd: "HBD", mae: "MAE", mse: "MSE",
};

export const TEXT = {
  title: "Mpox picture check",
  tag: "Research software. Not a medical device.",
  lead: "This page compares a picture of a skin spot with pictures of mpox. The picture stays on this device: nothing is uploaded or stored.",
  guidance_title: "How to take a usable picture",
  guidance: [
    "Close up: the spot in the middle, with skin all around it.",
    "From straight above, not from the side.",
    "Sharp and in good, white light, without flash.",
  ],
  take: "Take a picture",
  choose: "Choose a picture",
  crop_title: "Put the spot in the dashed square",
  crop_help: "Move the picture with a finger, the mouse or the arrow keys. Pinch, or use the slider or the + and \u2212 keys, to zoom in.",
  crop_area: "Your picture. Arrow keys move it, plus and minus zoom in and out.",
  zoom: "Zoom in",
  check: "Check this picture",
  another: "Use another picture",
  back: "Choose another part of this picture",
  working_title: "Comparing",
  working: "The middle of the picture is hidden and filled in from its surroundings. This takes a few seconds.",
  preparing: "Getting ready. This takes longer the first time.",
  proving: (done, of) => `Self-test on known pictures: ${done} of ${of}.`,
  ready: "Ready, also offline.",
  ready_online: "Ready.",
  result_images: "What was compared",
  original: "Your picture",
  masked: "Middle hidden",
  inpainted: "Middle filled in",
  map: "Where the two agree",
  map_legend: "Dark blue: the same. Yellow: different.",
  map_alt: (value) => `Map of agreement between your picture and the one with its middle filled in; average ${number(value)} out of 1.`,
  unlikeness: "Where it differs from the training pictures",
  unlikeness_legend: "Dark blue: similar. Yellow: different.",
  unlikeness_alt: (value) => `Map of where your picture differs from the training pictures; average ${number(value)} out of 1.`,
  accuracy: ({ positive, auroc, low, high, folds }) => `How accurate it is: in cross-validation (${folds} ${folds === 1 ? "fold" : "folds"}) the AUROC for separating ${positive} from the other pictures was ${auroc.toFixed(2)}, 95\u00a0% interval ${low.toFixed(2)} to ${high.toFixed(2)} (0.5 = chance, 1 = perfect).`,
  unseparated: ({ unseparated }) => unseparated.length
    ? `What it cannot tell apart: more than half of the test pictures of ${listed(unseparated)} were called mpox-like or \u201ccannot tell\u201d.`
    : "In these tests, at least half of the pictures of every other class were called not mpox-like.",
  scale_title: "How similar it is",
  scale_caption: (score, n, positive) => `The bars show the scores of ${n} groups of ${positive} pictures that the program had not seen. This picture scores ${score}.`,
  scale_caption_none: (score) => `This picture scores ${score}. There are no calibration scores to compare it with.`,
  scale_alt: (score, lower, upper) => `Scale of similarity. This picture: ${score}. Like the training pictures above ${lower}${upper ? `, mpox-like above ${upper}` : ""}.`,
  you: "this picture",
  threshold: "threshold",
  upper: "mpox-like above",
  fewer: "less similar",
  more: "more similar",
  details: "Numbers and guarantees",
  similarities: "Similarities (1 = identical)",
  p_value: (value, n) => `p-value ${number(value)}, from ${n} calibration scores: of mpox pictures like those it was calibrated on, about this share score as low as this one, or lower.`,
  seconds: (value) => `Computed on this device in ${value.toFixed(2)} s.`,
  version: (app) => `mim_jax ${app.mim_jax}, fold ${app.fold}, weights ${app.weights}.`,
  print: "Print or save this page",
  not_title: "What this is not",
  not: [
    "It is not a medical device and does not give a diagnosis. It is not approved for use on patients.",
    "It knows only pictures of mpox. It can be wrong in both directions, and it knows nothing about other skin diseases.",
    "If you are worried, or have a fever, swollen glands or a rash that spreads, see a doctor, whatever this page says.",
  ],
  decisions: {
    mpox_like: {
      heading: "Resembles pictures of mpox",
      words: [
        "The filled-in middle matches the hidden one as well as it does for most pictures of mpox that the program had not seen. Other skin diseases can look the same to it.",
        "Please call a doctor or a clinic and tell them about the spot. Until then keep it covered and avoid close skin contact.",
      ],
    },
    not_mpox_like: {
      heading: "Does not resemble the program\u2019s pictures of mpox",
      words: [
        "The filled-in middle matches the hidden one less well than it does for most pictures of mpox. The program learned only from pictures of mpox, so it cannot say what else the spot may be.",
        "This does not rule out mpox. If the spot is new, hurts or spreads, or you had close contact with somebody who has mpox, see a doctor anyway.",
      ],
    },
    cannot_tell: {
      heading: "Cannot tell",
      words: ["The program cannot decide. This result says nothing either way: please have a doctor look at the spot."],
    },
    unusable: {
      heading: "This picture cannot be used",
      words: ["Nothing was compared, so there is no result for the spot."],
    },
  },
  // For a network that was trained on drawn pictures; the notice at the top says so.
  drawn: {
    mpox_like: "Resembles the program\u2019s drawn pictures",
    not_mpox_like: "Does not resemble the program\u2019s drawn pictures",
    words: ["This copy only shows how the app works. Its result says nothing about what is in the picture."],
  },
  why: {
    above: "",
    below: "",
    between: "The score is between two limits: too high to call the picture not mpox-like, too low to keep false alarms rare.",
    uncalibrated: "This copy of the app is not calibrated: it computes a score, but has no threshold for a decision.",
    too_few: "There were too few calibration pictures for any guarantee.",
    not_finite: "The computation did not give a valid number.",
  },
  missed: (rate, positive) => `The threshold is set to miss about ${percent(rate)} of ${positive} pictures like those it was calibrated on. Pictures from other cameras or other people may be missed more often.`,
  reasons: {
    empty_file: "The file is empty. Choose another one.",
    large_file: "The file is larger than 64 MB. Choose a smaller one.",
    several_frames: "The file is animated or has several pages. Save a single picture from it as JPEG or PNG.",
    not_a_picture: "This browser cannot open the file as a picture. Save it as JPEG or PNG and try again.",
    too_many_pixels: ({ width, height }) => `The picture has ${width} \u00d7 ${height} pixels; at most 50 million are allowed. Make it smaller.`,
    too_small: ({ side, least }) => `The chosen square is ${side} ${side === 1 ? "pixel" : "pixels"} wide, but at least ${least} are needed. Choose a larger part, or take the picture again from closer up.`,
    screenshot: ({ flat }) => `It looks like a screenshot or a drawing: ${percent(flat)} of its pixels are identical to their neighbours. Use the original photograph.`,
    underexposed: ({ lit }) => `It is too dark: only ${percent(lit)} of it is bright enough. Take it again in more light.`,
    overexposed: ({ burnt }) => `It is overexposed: ${percent(burnt)} of its middle is pure white. Take it again without flash or direct sun.`,
    blurred: ({ sharpness, limits }) => `It is blurred (sharpness ${sharpness.toPrecision(2)}, at least ${limits.LEAST_SHARPNESS} is needed). Hold the camera still, let it focus, and take it again.`,
    not_skin: ({ skin }) => `It does not look like skin: only ${percent(skin)} of it has the colours of skin. Fill the picture with skin, and take it in colour and in white light.`,
  },
  refused_title: "This app cannot be used here",
  refused: {
    seal: (off) => `In a self-test on known pictures its results were off by ${Number(off).toPrecision(2)}. It would be wrong on this device, so it gives no results. Try another browser or device.`,
    pixels: "To protect privacy, this browser changes the pixels that a page reads, so every result would be wrong. Allow this page to read images, or use another browser.",
    failed: (message) => `It could not be loaded (${message}). Load the page again; if that does not help, use another browser.`,
    score: (message) => `The comparison failed (${message}). Load the page again.`,
  },
};

// Texts that differ if a frozen network compares the whole picture; without MIM nothing is filled in.
const WHOLE = {
  similarities: "Scores of features and colours (0 = median of training pictures held out); similarities of the filled-in middle (1 = identical)",
  words: {
    mpox_like: "The picture is about as near to the nearest training pictures of mpox as pictures of mpox that the program had not seen usually are. Other skin diseases can look the same to it.",
    not_mpox_like: "The picture is farther from the training pictures of mpox than most pictures of mpox are. The program learned only from pictures of mpox, so it cannot say what else the spot may be.",
  },
};
const FROZEN = {
  crop_title: "Put the spot in the middle",
  working: "The picture is compared with training pictures of mpox. This takes a few seconds.",
  similarities: "Scores (0 = median of training pictures held out)",
};

// Adjusts the texts to the detector in `app`.
export function adopt(app) {
  if (!app.outputs.includes("unlikeness")) return;
  Object.assign(TEXT, { similarities: WHOLE.similarities }, app.mim_size ? {} : FROZEN);
  for (const [decision, words] of Object.entries(WHOLE.words)) TEXT.decisions[decision].words[0] = words;
}
