"""The data sheet of the report as HTML: where images are from, what was wrong, who is in which split."""

from collections.abc import Mapping, Sequence
from typing import Any

from mim_jax import figures, page

_SPLITS = {
    "train": "train",
    "held_out": "held out of training",
    "test": "test, plain",
    "augmented": "test, augmented",
    "negatives": "test, others",
    "train_groups": "groups in train",
    "test_groups": "groups in test",
}


def split_section(results: Mapping[str, Any]) -> str:
    """Table 1 of the paper."""
    splits = results["splits"]
    columns = {key: words for key, words in _SPLITS.items() if any(split.get(key) for split in splits)}
    rows = [
        page.row(f"fold {split['fold'] + 1}", (page.text(split[key]) for key in columns)) for split in splits
    ]
    words = (
        "No group of images (a patient, say) is on both sides of a split."
        if results["data"]["grouped"]
        else "The splits were made without regard to groups (patients, say): images of one may be on both "
        "sides, which would make every figure here look better than it is."
    )
    table = page.table("Table 1. Images in each split", ["", *columns.values()], rows)
    return page.section("Who is in which split", words, table)


def data_section(results: Mapping[str, Any]) -> str:
    """Source, counts, and everything that was left out, joined or noticed."""
    data = results["data"]
    rows = [
        page.row(page.text(name), [group_of(results, name), f"{n:,}", f"{data['groups'][name]:,}"])
        for name, n in data["classes"].items()
    ]
    total = sum(data["classes"].values())
    words = (
        f"Source: {page.text(data['source'])}; {total:,} images of {len(data['classes'])} classes, trained "
        f"on {page.text(data['positive'])} alone. Digest of images, labels and groups: "
        f"<code>{page.text(data['digest'])}</code>. Images of one group (a patient, or near-duplicates) "
        "count as one in every interval."
    )
    positive = page.text(data["positive"])
    facts = [
        _count(
            data["unusable"], "Every file could be used", "file could not be used", "files could not be used"
        ),
        _count(
            data["duplicates"],
            "No near-duplicates were put into one group",
            "set of near-duplicates was put into one group",
            "sets of near-duplicates were each put into one group",
        ),
        _count(
            data["left_out"],
            f"No other image shares a group with {positive}",
            f"image was left out of the test for sharing a group with {positive}",
            f"images were left out of the test for sharing a group with {positive}",
        ),
        _count(
            data["group_problems"], "No problem with groups", "problem with groups", "problems with groups"
        ),
    ]
    return page.section(
        "Data sheet",
        words,
        page.bullets([*map(page.text, data["remarks"]), *facts]),
        page.details(
            "Images of each class",
            page.table("Table. Images of each class", ["class", "kind", "images", "groups"], rows, "grouped"),
        ),
        _listing("Files that could not be used", ["file", "reason"], data["unusable"]),
        _listing("Groups that do not fit", ["what", "why"], data["group_problems"]),
        _listing(
            "Near-duplicates that were put into one group",
            ["set", "images"],
            [(place, ", ".join(names)) for place, names in enumerate(data["duplicates"], start=1)],
        ),
        _listing("Images left out", ["", "image"], list(enumerate(data["left_out"], start=1))),
    )


def group_of(results: Mapping[str, Any], name: str) -> str:
    """The group of classes that a class belongs to, HTML."""
    if name == results["data"]["positive"]:
        return "training class"
    return page.text(figures.groups_of_classes(results).get(name, "other classes"))


def _count(items: Sequence[object], none: str, one: str, many: str) -> str:
    return f"{f'{len(items):,} {one if len(items) == 1 else many}' if items else none}."


def _listing(title: str, header: Sequence[str], items: Sequence[Sequence[object]]) -> str:
    rows = [page.row(page.text(first), [page.text(second)]) for first, second in items]
    return page.details(f"{title} ({len(rows)})", page.table(f"Table. {title}", header, rows, "words"))
