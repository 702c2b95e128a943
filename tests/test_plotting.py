"""The figures: what they show, and that drawing leaves no trace."""

import subprocess
import sys
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest

from erftheory.erf import ERF, ErrorBound

matplotlib = pytest.importorskip("matplotlib")


def make(ndim, n=4, **options):
    side = reduce(np.convolve, [np.ones(3) / 3] * n)
    given = {"marginals": (side,) * ndim, "offset": (-n,) * ndim, "signal": "variance"}
    given["receptive_field"] = SimpleNamespace(
        size=(2 * n + 1,) * ndim, stride=(1,) * ndim, padding=(n,) * ndim
    )
    return ERF(**(given | {"method": "spectrum", "error": ErrorBound("exact")} | options))


@pytest.mark.parametrize(("ndim", "panels"), [(1, 2), (2, 4), (3, 4)])
def test_figures_draw_and_leave_settings_alone(ndim, panels, tmp_path):
    before = dict(matplotlib.rcParams)
    figure = make(ndim).plot()
    figure.savefig(tmp_path / "a.png")
    assert len(figure.axes) == panels
    assert dict(matplotlib.rcParams) == before
    assert "std 1.63" in figure.get_suptitle()
    assert all("(pixels)" in ax.get_xlabel() for ax in figure.axes[:panels] if ax.get_xlabel())


def test_pixels_are_centred_at_their_index():
    figure = make(2).plot()
    image = figure.axes[0].images[0]
    assert list(image.get_extent()) == [-4.5, 4.5, 4.5, -4.5]
    assert np.asarray(image.get_array()) == pytest.approx(make(2).map)
    (box,) = figure.axes[0].patches
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((-4.5, -4.5), 9, 9)
    assert not make(2).plot(box=False).axes[0].patches


def test_profile_and_gaussian():
    lines = {line.get_label(): line for line in make(2).plot().axes[1].lines}
    assert lines["map"].get_ydata() == pytest.approx(make(2).map[4])
    gaussian = lines["Gaussian, same std"].get_ydata()
    assert gaussian.max() == pytest.approx(1 / (2 * np.pi * 8 / 3))
    assert "Gaussian, same std" not in {
        line.get_label() for line in make(2).plot(gaussian=False).axes[1].lines
    }


def test_large_separable_maps_are_cut_before_they_are_built():
    side = np.exp(-((np.arange(60_001) - 30_000.0) ** 2) / 2 / 141.0**2)
    erf = make(2, marginals=(side, side), offset=(-30_000,) * 2, receptive_field=None)
    left, right, *_ = erf.plot().axes[0].images[0].get_extent()
    assert -860 < left < -840 < 840 < right < 860
    assert "map" not in vars(erf)


def test_holes_are_marked():
    reached = np.array([1.0, 0, 1])
    erf = make(2, marginals=(reached,) * 2, holes=(reached == 0,) * 2, receptive_field=None)
    image = erf.plot().axes[0].images[1].get_array()
    assert (image.mask == np.outer(reached, reached).astype(bool)).all()


def test_into_given_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.subplots()
    assert make(2).plot(axes=ax) is figure
    assert len(ax.images) == 1
    with pytest.raises(ValueError, match="axes: got 5, takes 1 to 3"):
        make(2).plot(axes=list(Figure().subplots(5)))


def test_signed_maps_get_a_centred_scale():
    erf = make(1, marginals=None, map=np.outer([-1, 4, -1.0], [-1, 4, -1.0]), offset=(0, 0),
               signal="gradient", receptive_field=None)  # fmt: skip
    low, high = erf.plot().axes[0].images[0].get_clim()
    assert low == -high < 0


def test_html_table_escapes_and_names_units():
    page = make(2, method="<b>")._repr_html_()
    assert "&lt;b&gt;" in page
    assert "std (px)" in page


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, erftheory.erf; print('matplotlib' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_figure_shows_itself_in_jupyter():
    line = np.ones(3) / 3
    error = ErrorBound("exact")
    erf = ERF(offset=(0,), signal="variance", method="hand", error=error, marginals=[line])
    assert erf.plot()._repr_png_().startswith(b"\x89PNG")
