import re
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mim_jax.data.dataset import Dataset, from_lesions
from mim_jax.data.folder import from_folder, list_images


def put(path, seed=0, side=40):
    """A picture of noise; Pillow cannot know every suffix, so the format is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg", ".jfif") else "PNG")
    return path


def tree(root, names):
    for seed, name in enumerate(names):
        put(root / name, seed)
    return root


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path / "data", ["mpox/1.png", "mpox/2.png", "measles/1.png", "other/1.png"])


def read(root, **options):
    return from_folder(root, **({"size": 32, "positive": "mpox"} | options))


def test_what_counts_as_an_image_and_in_which_order(tmp_path):
    wanted = [
        "Chicken pox/deep/er/x.JPEG",
        "mpox/B.Png",
        "mpox/a b.jfif",
        "mpox/ä ö.webp",
        "mpox/c.TIFF",
        "mpox/c.bmp",
        "mpox/c.tif",
        "mpox/z.JPG",
    ]
    root = tree(tmp_path, wanted)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "._a b.jfif", ".hidden.png"):
        (root / "mpox" / name).write_bytes(b"no image")
    put(root / ".cache" / "x.png")
    put(root / "__MACOSX" / "mpox" / "x.png")
    dataset = read(root)
    assert dataset.names.tolist() == sorted(wanted)
    assert dataset.class_counts() == {"Chicken pox": 1, "mpox": 7}
    assert dataset.unusable == () and dataset.group_problems == () and not dataset.grouped
    # Everything that is skipped is counted, except files beside the class folders.
    (root / "manifest.csv").write_text("")
    assert list_images(root).passed_over == [
        (".cache", "a hidden or system folder; files in it: 1"),
        ("__MACOSX", "a hidden or system folder; files in it: 1"),
        ("mpox/.DS_Store", "a hidden file"),
        ("mpox/._a b.jfif", "a hidden file"),
        ("mpox/.hidden.png", "a hidden file"),
        ("mpox/Thumbs.db", "no image suffix"),
        ("mpox/notes.txt", "no image suffix"),
    ]
    assert [name for name, _ in dataset.passed_over] == [n for n, _ in list_images(root).passed_over]
    assert dataset.groups.tolist() == dataset.names.tolist()
    assert dataset.images.shape == (8, 32, 32, 3) and dataset.images.dtype == np.uint8
    assert dataset.positives.tolist() == list(range(1, 8)) and dataset.negatives.tolist() == [0]


LEFTOVERS = """@eaDir  #recycle  #snapshot  @Recycle  .@__thumb  $RECYCLE.BIN  System Volume Information
RECYCLER  lost+found  __MACOSX  .Trashes  .Trash-1000  Network Trash Folder  ~snapshot  Temporary Items
.stversions  .dropbox.cache  .tmp.drivedownload  .ipynb_checkpoints"""


@pytest.mark.parametrize("leftover", re.split(r"  |\n", LEFTOVERS))
def test_what_systems_leave_behind_is_neither_a_class_nor_trained_on(root, leftover):
    before = read(root)
    put(root / leftover / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    put(root / "mpox" / leftover / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    put(root / "mpox" / leftover / "1.jpg")
    after = read(root)
    assert after.digest() == before.digest() and after.unusable == ()
    assert dict(after.passed_over) == {
        leftover: "a hidden or system folder; files in it: 1",
        f"mpox/{leftover}": "a hidden or system folder; files in it: 2",
    }
    with pytest.raises(ValueError, match=r"it has measles, mpox, other: .* not read: "):
        read(root, positive=leftover)


def test_a_name_is_the_same_however_its_accents_are_composed(tmp_path):
    names = ["Läsion/é 1.png", "Läsion/e 2.png", "Läsion/z.png", "Zürich/1.png"]
    found = {}
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        root = tree(tmp_path / form, [unicodedata.normalize(form, name) for name in names])
        rows = [unicodedata.normalize(other, f"{name},Müller {i % 2}") for i, name in enumerate(names)]
        (root / "manifest.csv").write_text("\n".join(["file,group", *rows]), encoding="utf-8")
        found[form] = read(root, positive=unicodedata.normalize(other, "Läsion"))
        assert found[form].group_problems == () and len(set(found[form].groups)) == 2
        assert len(found[form].positives) == 3
        pattern = unicodedata.normalize(other, "^(é) ")
        assert "Läsion/é" in read(root, positive="Läsion", group_pattern=pattern).groups
    assert found["NFC"].digest() == found["NFD"].digest()
    assert found["NFD"].names.tolist() == sorted(unicodedata.normalize("NFC", name) for name in names)
    put(root / unicodedata.normalize("NFC", names[0]))
    with pytest.raises(ValueError, match=r"two files have the name 'Läsion/é 1\.png', in two spellings"):
        read(root, positive="Läsion")


def test_class_folders_that_are_links_are_the_reason_given(root, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for label in ("mpox", "other"):
        (linked / label).symlink_to(root / label)
    with pytest.raises(ValueError, match=r"hold no images: .*; not read: mpox \(a link to a folder,"):
        read(linked)
    (tmp_path / "texts" / "mpox").mkdir(parents=True)
    (tmp_path / "texts" / "mpox" / "1.txt").touch()
    with pytest.raises(ValueError, match=r"not read: mpox/1\.txt \(no image suffix\)"):
        read(tmp_path / "texts")


def test_threads_keep_images_beside_their_names(root):
    many = tree(root, [f"mpox/{i:03}.png" for i in range(40)])
    dataset = read(many, size=40)
    for name, image in zip(dataset.names, dataset.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(many / name)))


def test_unusable_files_are_listed_and_left_out(root, tmp_path):
    (root / "mpox" / "0.jpg").write_bytes(b"This is a text.")
    Image.new("RGB", (9, 9)).save(root / "measles" / "small.png")
    Image.new("RGB", (50, 50)).save(root / "measles" / "old.gif")
    put(root / "stray.png")
    outside = put(tmp_path / "outside" / "secret.png")
    (root / "mpox" / "link.png").symlink_to(outside)
    (root / "mpox" / "inner.png").symlink_to(root / "mpox" / "1.png")
    (root / "linked").symlink_to(outside.parent)
    (root / "loop").symlink_to(root)
    done = []
    dataset = read(root, size=40, progress=lambda i, n: done.append((i, n)))
    assert dict(dataset.unusable) == {
        "linked": "a link to a folder, which is not followed; put the folder itself here",
        "loop": "a link to a folder, which is not followed; put the folder itself here",
        "measles/old.gif": "GIF content; JPEG, PNG, WEBP, BMP or TIFF is needed",
        "measles/small.png": "9x9 pixels; at least 32x32 are needed",
        "mpox/0.jpg": "text content; JPEG, PNG, WEBP, BMP or TIFF is needed",
        "mpox/link.png": "a link out of the data folder, which is not followed; put the file itself here",
        "stray.png": "not in a class folder",
    }
    kept = ["measles/1.png", "mpox/1.png", "mpox/2.png", "mpox/inner.png", "other/1.png"]
    assert dataset.names.tolist() == kept
    for name, image in zip(kept, dataset.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))
    assert done == [(i, 8) for i in range(1, 9)]
    with pytest.raises(
        ValueError, match=r"7 unusable files .*linked: a link to a folder, .*loop: .*fix or remove"
    ):
        read(root, strict=True)


def test_missing_and_numeric_groups_of_a_manifest_and_a_comma_without_quotes(root):
    put(root / "mpox" / "3.png", 7)
    groups = ["NaN", "17", "17.0", "N/A"]
    names = ["mpox/1.png", "mpox/2.png", "mpox/3.png", "other/1.png"]
    table = [",file,group", *(f"0,{name},{group}" for name, group in zip(names, groups, strict=True))]
    (root / "manifest.csv").write_text("\n".join(table))  # as pandas writes it, with its index
    dataset = read(root)
    found = dict(zip(dataset.names.tolist(), dataset.groups.tolist(), strict=True))
    assert [found[name] for name in names] == ["mpox/1.png", "17", "17", "other/1.png"]
    assert ("mpox/1.png", "no group in the manifest; a group of its own") in dataset.group_problems
    (root / "manifest.csv").write_text("file,group\nmpox/1.png,p1\nmpox/2.png,Doe, John\n")
    with pytest.raises(
        ValueError, match=r"manifest\.csv cannot be read .* line 3 has more cells than columns"
    ):
        read(root)
    (root / "manifest.csv").write_text('file,group\nmpox/1.png,p1,\nmpox/2.png,"Doe, John"\n')
    assert "Doe, John" in read(root).groups


def test_manifest_gives_groups_and_its_slips_are_reported(root):
    put(root / "mpox" / "3.png", 7)
    accented = unicodedata.normalize("NFC", "mpox/é.png")
    put(root / unicodedata.normalize("NFD", accented), 8)
    rows = [
        "\ufeffGroup, file ,remark",
        "p1,mpox/1.png,x",
        "p1,mpox\\2.png,",
        "p1,./measles/1.png",
        "p2," + accented,
        "p3,mpox/gone.png",
        ",other/1.png",
        "p4,mpox/1.png",
    ]
    (root / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = read(root)
    assert dataset.grouped
    assert dict(zip(dataset.names.tolist(), dataset.groups.tolist(), strict=True)) == {
        "measles/1.png": "p1",
        "mpox/1.png": "p1",
        "mpox/2.png": "p1",
        "mpox/3.png": "mpox/3.png",
        accented: "p2",
        "other/1.png": "other/1.png",
    }
    assert dataset.group_problems == (
        ("mpox/1.png", "in the manifest twice, as 'p1' and 'p4'; the first counts"),
        ("mpox/3.png", "not in the manifest; a group of its own"),
        ("mpox/gone.png", "in the manifest, but not among the images"),
        ("other/1.png", "no group in the manifest; a group of its own"),
    )
    (root / "manifest.csv").rename(root / "groups.txt")
    assert not read(root).grouped
    assert read(root, manifest="groups.txt").groups.tolist() == dataset.groups.tolist()


def test_group_pattern(tmp_path):
    root = tree(
        tmp_path,
        ["mpox/MKP_17_01.jpg", "mpox/MKP_17_02.jpg", "mpox/MKP_3_01.jpg", "hfmd/HFM_17_01.jpg", "hfmd/x.jpg"],
    )
    dataset = read(root, group_pattern=r"^[A-Z]+_(\d+)_\d+")
    assert dataset.groups.tolist() == ["hfmd/17", "hfmd/x.jpg", "mpox/17", "mpox/17", "mpox/3"]
    assert dataset.grouped
    assert dataset.group_problems == (("hfmd/x.jpg", "does not match the group pattern; a group of its own"),)
    # An explicit pattern takes precedence over a manifest that happens to be there.
    (root / "manifest.csv").write_text("file,group\nmpox/MKP_3_01.jpg,p\n")
    assert read(root, group_pattern=r"_(\d+)_").groups.tolist() == dataset.groups.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manifest": "none.csv"}, "none.csv cannot be read"),
        (
            {"manifest": "semicolons.csv"},
            "needs columns file and group, separated by commas; found file;group",
        ),
        ({"manifest": "latin.csv"}, "cannot be read as CSV in UTF-8"),
        ({"manifest": "elsewhere.csv"}, "gives a group for none of the 4 images: .*'measles/1.png'"),
        ({"group_pattern": "("}, "is not a regular expression"),
        ({"group_pattern": r"\d+"}, "has 0 groups: put parentheses around one part"),
        ({"group_pattern": "patient(.)"}, "matches none of the 4 file names, such as '1'"),
        ({"group_pattern": "(.)", "manifest": "elsewhere.csv"}, "leave one empty"),
        (
            {"positive": "monkeypox"},
            "no class 'monkeypox'; it has measles, mpox, other: .*--config.data.positive",
        ),
    ],
)
def test_wrong_settings_have_a_sentence(root, options, message):
    (root / "semicolons.csv").write_text("file;group\nmpox/1.png;p1\n")
    (root / "latin.csv").write_bytes("file,group\nmpox/é.png,p1\n".encode("latin-1"))
    (root / "elsewhere.csv").write_text("file,group\n/mnt/photographs/1.png,p1\n")
    with pytest.raises(ValueError, match=message):
        read(root, **options)


def test_wrong_roots_have_a_sentence(root, tmp_path):
    with pytest.raises(ValueError, match=r"does not exist: give --config\.data\.root=FOLDER"):
        read(tmp_path / "absent")
    with pytest.raises(ValueError, match="is not a folder"):
        read(root / "mpox" / "1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither folders nor images"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds 2 images, but no class folder"):
        read(root / "mpox")
    (tmp_path / "empty" / "mpox").mkdir()
    with pytest.raises(
        ValueError, match="hold no images: files must end in one of bmp, jfif, jpeg, jpg, png"
    ):
        read(tmp_path / "empty")
    for name in ("1.png", "2.png"):
        (root / "mpox" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"'mpox' in .* has no usable image \(mpox/1.png: an empty file"):
        read(root)
    shutil.rmtree(root / "mpox")
    (root / "mpox").symlink_to(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"'mpox' in .* no usable image \(mpox: a link to a folder"):
        read(root)


def test_only_the_positive_class_is_no_error_but_visible(tmp_path):
    dataset = read(tree(tmp_path, ["mpox/1.png", "mpox/2.png"]))
    assert len(dataset) == 2 and dataset.negatives.size == 0


def test_names_that_are_not_utf8_stay_printable(root):
    put(root / "mpox" / "\udcff.png", 9)
    dataset = read(root)
    assert "mpox/\\xff.png" in dataset.names
    dataset.digest()
    "".join(dataset.names.tolist() + dataset.groups.tolist()).encode("utf-8")


def test_select_and_digest(root):
    dataset = read(root)
    picked = dataset.select(np.array([3, 1]))
    assert picked.names.tolist() == ["other/1.png", "mpox/1.png"]
    assert picked.labels.tolist() == ["other", "mpox"]
    np.testing.assert_array_equal(picked.images, dataset.images[[3, 1]])
    assert dataset.select(dataset.labels == "mpox").names.tolist() == ["mpox/1.png", "mpox/2.png"]
    assert len({dataset.digest(), picked.digest(), dataset.select(dataset.negatives).digest()}) == 3
    assert dataset.select(np.arange(4)).digest() == dataset.digest() == read(root).digest()

    def changed(**columns):
        fields = {name: getattr(dataset, name).copy() for name in ("images", "labels", "groups", "names")}
        for name, value in columns.items():
            fields[name][0] = value
        return Dataset(**fields, source="elsewhere", positive="mpox").digest()

    assert changed() == dataset.digest()
    assert changed(groups="g") != dataset.digest() != changed(images=dataset.images[0] ^ 1)
    assert changed(labels="mpox") != dataset.digest() != changed(names="n")


def test_list_images(root):
    (root / "mpox" / "note.txt").touch()
    assert list_images(root / "mpox") == (["1.png", "2.png"], [], [])
    assert list_images(root).passed_over == [("mpox/note.txt", "no image suffix")]


def test_lesions_are_a_dataset_with_groups():
    dataset = from_lesions(size=32, positives=6, negatives=20, seed=0)
    assert len(dataset.positives) == 6 and len(dataset.negatives) == 20
    assert dataset.grouped and dataset.positive == "mpox" and "procedural" in dataset.source
    assert dataset.images.shape == (26, 32, 32, 3) and len(dataset.class_counts()) == 19
    assert from_lesions(size=32, positives=6, negatives=20, seed=0).digest() == dataset.digest()
