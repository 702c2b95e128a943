"""The ERF record: both storage forms, values, comparison, files."""

import json
import math
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erftheory.erf import ERF, ErrorBound

ROUNDING = ErrorBound("rounding", 1e-15)


def uniform(k, n):
    return reduce(np.convolve, [np.ones(k) / k] * n)


def make(**given_):
    options = {"signal": "variance", "method": "spectrum", "error": ROUNDING, "offset": (0, 0)}
    return ERF(**(options | given_))


def stack(k, n, ndim=2, **options):
    first = (-(n * (k - 1) // 2),) * ndim
    return make(marginals=(uniform(k, n),) * ndim, offset=first, **options)


def field(size, padding, stride=(1, 1)):
    return SimpleNamespace(size=size, padding=padding, stride=stride, center=(0,) * len(size))


densities = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.integers(0, 5), min_size=n, max_size=n).filter(any)
)
offsets = st.integers(-4, 4)


@st.composite
def erfs(draw, ndim=2, separable=None):
    sides = [np.array(draw(densities), float) for _ in range(ndim)]
    offset = tuple(draw(offsets) for _ in range(ndim))
    if draw(st.booleans()) if separable is None else separable:
        return make(marginals=sides, offset=offset)
    return make(map=reduce(np.multiply.outer, sides), offset=offset)


def test_separable_measures_do_not_build_the_map():
    erf = stack(3, 64)
    assert erf.std == pytest.approx((math.sqrt(128 / 3),) * 2, rel=1e-13)
    erf.size(), erf.mass_radius(0.5), erf.area_ratio(0.5), erf.gaussian_fit()
    assert erf.mean == pytest.approx((0, 0), abs=1e-12)
    assert erf.covariance == pytest.approx(np.eye(2) * 128 / 3)
    assert "map" not in vars(erf)
    assert erf.map == pytest.approx(np.outer(uniform(3, 64), uniform(3, 64)), rel=1e-12)
    assert repr(erf) == (
        "ERF(129x129 at (-64, -64), variance signal, std (6.53, 6.53), spectrum, "
        "rounding error <= 1e-15)"
    )


def test_a_huge_separable_map_answers_and_refuses_to_be_built():
    side = np.exp(-((np.arange(60_001) - 30_000.0) ** 2) / 2 / 141.0**2)
    erf = make(marginals=(side, side))
    assert erf.std == pytest.approx((141, 141))
    assert erf.size() == pytest.approx(4.406 * 141, rel=1e-3)
    assert erf.distance(erf.gaussian_fit()) < 1e-12
    with pytest.raises(ValueError, match="at most"):
        _ = erf.map


def test_general_forms_agree():
    values = np.random.default_rng(3).random((4, 5))
    calls = []
    lazy = make(map=lambda: calls.append(1) or values)
    assert "lazy" in repr(lazy)
    assert not calls
    eager = make(map=values)
    assert lazy == eager
    assert lazy.std == eager.std
    assert len(calls) == 1
    assert eager.map.sum() == pytest.approx(1, abs=1e-15)
    assert eager.covariance[0, 1] != 0
    assert hash(lazy) == hash(eager)


@given(erfs(), offsets)
def test_std_does_not_depend_on_the_offset(erf, shift):
    moved = make(map=erf.map, offset=tuple(o + shift for o in erf.offset))
    assert moved.std == pytest.approx(erf.std, abs=1e-7)
    assert moved.mean == pytest.approx([m + shift for m in erf.mean])


@settings(deadline=None)
@given(erfs(), erfs(), erfs())
def test_total_variation_is_a_metric(a, b, c):
    assert a.distance(a) == 0
    assert a.distance(b) == pytest.approx(b.distance(a), abs=1e-15)
    assert a.distance(c) <= a.distance(b) + b.distance(c) + 1e-14
    assert a.distance(b, "kolmogorov") <= a.distance(b) + 1e-14


def test_distance_aligns_by_offset():
    a = make(marginals=([0.5, 0.5],), offset=(0,))
    assert a.distance(make(marginals=([0.5, 0.5],), offset=(1,))) == 0.5
    far = make(marginals=([1.0],), offset=(9,))
    assert a.distance(far) == 1
    assert a.distance(far, "kullback_leibler") == math.inf
    wide = make(marginals=([0.25] * 4,), offset=(-1,))
    assert a.distance(wide, "kullback_leibler") == pytest.approx(math.log(2))
    assert a.distance(wide, "kolmogorov") == pytest.approx(0.25)


def test_gaussian_fit_improves_with_depth():
    fits = [stack(3, n).gaussian_fit() for n in (4, 16, 64)]
    assert fits[0].total_variation > 3.5 * fits[1].total_variation > 12 * fits[2].total_variation
    assert 0.99 < fits[2].peak_ratio < 1
    assert 0.9999 < fits[2].r_squared < 1
    built = make(map=stack(3, 64).map, offset=(-64, -64)).gaussian_fit()
    assert built.total_variation == pytest.approx(fits[2].total_variation, rel=1e-9)
    assert built.r_squared == pytest.approx(fits[2].r_squared, rel=1e-12)
    assert stack(3, 64).distance(fits[2]) == pytest.approx(fits[2].total_variation, rel=1e-12)


def test_kullback_leibler_uses_known_logs():
    log = -np.abs(np.arange(-3, 4)) * 400.0
    q = make(marginals=(np.exp(log),), offset=(-3,), log_map=lambda: log)
    p = make(marginals=(np.ones(7),), offset=(-3,))
    wanted = -math.log(7) - log.mean()
    assert p.distance(q, "kullback_leibler") == pytest.approx(wanted)
    assert np.isfinite(q.log_map).all()
    assert q.map[0] == 0


def test_area_ratio_by_hand():
    uniform_map = make(marginals=(np.ones(5), np.ones(5)))
    assert uniform_map.area_ratio(9 / 25) == 9 / 25
    assert uniform_map.area_ratio(0.37) == 1
    # A 5 × 5 window of a 15 × 15 receptive field, whose centre is the window's corner (0, 0).
    window = make(marginals=(np.ones(5),) * 2, receptive_field=field((15, 15), (7, 7)))
    assert window.box == ((-7, 7), (-7, 7))
    assert window.area_ratio(0.15) == 4 / 225
    # On an image, unit (2, 2) with stride 2 looks from −3 to 11 and the image is the whole.
    image = make(
        marginals=(np.ones(5),) * 2,
        receptive_field=field((15, 15), (7, 7), (2, 2)),
        metadata={"unit": (2, 2)},
    )
    assert image.box == ((-3, 11), (-3, 11))
    assert image.area_ratio(0.03) == 1 / 25
    # The centre of −1 … 2 is 0.5: pixel 1, the upper one, as in an even map without a field.
    even = {"marginals": ([0, 0, 1, 0],), "offset": (-1,)}
    assert make(**even, receptive_field=field((4,), (1,), (1,))).area_ratio(0.9) == 1 / 4
    assert make(**even).area_ratio(0.9) == 1 / 4
    endless = make(marginals=(np.ones(5),) * 2, receptive_field=field((math.inf,) * 2, (0, 0)))
    assert endless.area_ratio(9 / 25) == 9 / 25


def test_signed_maps():
    erf = make(map=[-1.0, 3.0, -1.0], offset=(-1,), signal="gradient")
    assert erf.map.tolist() == [-1, 3, -1]
    assert math.isnan(erf.std[0])
    assert erf.covariance[0, 0] == -2
    assert erf.size(0.3) == 3
    assert erf.mass_radius(0.61) == 1
    with pytest.raises(ValueError, match="variance"):
        erf.gaussian_fit()
    with pytest.raises(ValueError, match="negative"):
        make(map=[-1.0, 3.0, -1.0], offset=(-1,))


def test_holes_and_log_map():
    reached = np.array([True, False, True])
    erf = make(marginals=(reached / 2, reached / 2), holes=lambda: (~reached, ~reached))
    assert (erf.holes == ~np.outer(reached, reached)).all()
    assert ((erf.log_map == -np.inf) == erf.holes).all()
    assert stack(3, 2).holes is None
    with pytest.raises(ValueError, match="holes: got shape"):
        _ = make(map=np.ones((2, 2)), holes=np.zeros(3)).holes


def test_given_covariance_and_stderr():
    erf = make(map=np.full((2, 2), 3.0), stderr=np.full((2, 2), 1.2), covariance=4 * np.eye(2))
    assert erf.std == (2, 2)
    assert erf.stderr == pytest.approx(np.full((2, 2), 0.1))


def test_immutable_and_comparable():
    erf = stack(3, 3)
    with pytest.raises(AttributeError, match="immutable"):
        erf.method = "other"
    with pytest.raises(ValueError, match="read-only"):
        erf.map[0, 0] = 1
    assert erf == stack(3, 3)
    binomial = make(marginals=([1, 2, 1], [1, 2, 1]))
    assert binomial == make(map=binomial.map)
    assert erf != stack(3, 3, method="direct")
    assert erf != stack(3, 4)
    assert erf != "ERF"


@settings(deadline=None)
@given(erfs())
def test_files_keep_every_digit(tmp_path_factory, erf):
    path = tmp_path_factory.mktemp("erf") / "one.npz"
    erf.save(path)
    again = ERF.load(path)
    assert again == erf
    assert ("map" in vars(again)) == (not again._separable)
    assert again.std == erf.std


def test_files_keep_the_whole_record(tmp_path):
    erf = make(
        map=lambda: np.random.default_rng(0).random((3, 4)),
        marginals=(np.ones(3), np.ones(4)),
        offset=(-1, 2),
        error=ErrorBound("standard error", 0.1, "of std"),
        holes=(np.zeros(3, bool), np.array([0, 1, 0, 0], bool)),
        log_map=np.zeros((3, 4)),
        covariance=[[2.0, 0.5], [0.5, 1.0]],
        stderr=np.ones((3, 4)),
        std_stderr=(0.1, 1 / 3),
        samples=7,
        receptive_field=field((3, math.inf), (1.5, -2)),
        metadata={"depth": 4, "unit": [0, 1]},
    )
    erf.save(tmp_path / "a")
    again = ERF.load(tmp_path / "a")
    assert again == erf
    assert again.error == erf.error
    assert (again.covariance == erf.covariance).all()
    assert (again.log_map == erf.log_map).all()
    assert all(map(np.array_equal, again.marginals, erf.marginals))
    assert again.metadata == erf.metadata
    assert again.box == erf.box
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    stack(3, 3).save(path)

    def fail(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        stack(3, 9).save(path)
    assert ERF.load(path) == stack(3, 3)
    assert len(list(tmp_path.iterdir())) == 1


def test_wrong_files(tmp_path):
    path = tmp_path / "wrong.npz"
    good = tmp_path / "good.npz"
    stack(3, 3).save(good)
    header = np.array(json.dumps({"format": "other"}))
    np.savez(tmp_path / "foreign.npz", a=np.ones(2))
    np.savez(tmp_path / "version.npz", header=header)
    np.save(tmp_path / "single.npy", np.ones(2))
    contents = [b"", b"text", good.read_bytes()[:300]]
    contents += [(tmp_path / n).read_bytes() for n in ("foreign.npz", "version.npz", "single.npy")]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path: got .*wrong\.npz, takes an \.npz") as caught:
            ERF.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="metadata"):
        stack(3, 2, metadata={"x": object()}).save(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": [[1.0, math.nan]]}, "map: got NaN"),
        ({"map": [[1.0, math.inf]]}, "map: got NaN"),
        ({"map": [[0.0, 0.0]]}, "zero mass and cannot be normalised"),
        ({"map": [[0.1, 0.2, -0.3]], "signal": "gradient"}, "zero mass"),
        ({"map": [1.0]}, "map: got shape"),
        ({"marginals": ([1.0],)}, "marginals: got shape"),
        ({"marginals": ([1.0], [])}, "marginals: got shape"),
        ({"marginals": ([1.0], [1.0]), "map": [[1.0, 2.0]]}, "map: got shape"),
        ({}, "marginals: got None"),
        ({"map": [[1.0]], "offset": [0, 0]}, "offset: got"),
        ({"map": [[1.0]], "offset": (0, 0.5)}, "offset: got"),
        ({"map": [[1.0]], "signal": "power"}, "signal: got 'power', takes one of variance"),
        ({"map": [[1.0]], "covariance": [1.0]}, "covariance: got shape"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_bad_questions():
    erf = stack(3, 3)
    for call, message in [
        (lambda: erf.size(1.5), "threshold: got 1.5"),
        (lambda: erf.mass_radius(0), "t: got 0"),
        (lambda: erf.area_ratio(1), "t: got 1"),
        (lambda: erf.distance(erf, "l2"), "kind: got 'l2'"),
        (lambda: erf.distance(stack(3, 3, ndim=1)), "takes an ERF or GaussianFit of 2 axes"),
        (lambda: erf.distance(3), "other: got int"),
        (lambda: ErrorBound("fuzzy"), "kind: got 'fuzzy'"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
