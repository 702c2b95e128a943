"""How fast are gradients of random-weight nets, and how fast is a standard error made of them?

Three workloads of 3×3 convolutions and ReLU: 32 layers of 16 channels, 16 layers of 1 channel, 64
layers of 32 channels. Every route of the package is timed beside PyTorch's grouped convolution (8
nets side by side) and a plain PyTorch loop, where PyTorch is installed; all in turn within one run,
the median of the repeats. Every contestant draws its own weights and inputs; the time with given
weights is apart. Before anything is timed, gradients of PyTorch and of every route are compared on
the same weights. README.md beside this file says how to read the table.

    python benchmarks/sampling.py [--repeats 5] [--nets 1500] [--json PATH] [--plot PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erftheory import Activation, Chain, Conv, exact, sample
from erftheory.empirical.nets.draw import draw
from erftheory.empirical.nets.plan import plan
from erftheory.empirical.sampled import cone as windows
from erftheory.empirical.sampled.engine import Engine, gradients
from erftheory.empirical.sampled.program import nets
from erftheory.empirical.sampled.routes import NAMES, Layout, choose
from erftheory.empirical.sampled.sampling import gradients as sampled

try:
    import torch
except ImportError:
    torch = None

WORKLOADS = {"wide": (32, 16), "narrow": (16, 1), "deep": (64, 32)}  # layers, channels
GROUPED = {"wide": 8, "narrow": 32, "deep": 4}  # nets side by side in PyTorch
TARGET = 0.003  # relative standard error of the ERF's std


def network(depth: int):
    return Chain(Conv(3), Activation("relu")) * depth


def flops(depth: int, channels: int) -> float:
    """Multiply-adds count 2: forward and backward over the cone, first and last layer narrow."""
    total = 0
    for layer in range(1, depth + 1):
        pixels = (2 * (depth - layer) + 1) ** 2
        inner = 1 if layer == 1 else channels
        outer = 1 if layer == depth else channels
        total += 2 * 9 * inner * outer * pixels
    return 2.0 * total


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_peak(size: int = 2048) -> float:
    """FLOP/s of one large single-precision product."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    product(a).block_until_ready()
    best = min(timed(lambda: product(a).block_until_ready()) for _ in range(7))
    return 2 * size**3 / best


# ---- the package ------------------------------------------------------------------------------


def whole(name: str, route: str, count: int) -> tuple[Callable[[], Any], int, float, int]:
    """Draw and run `count` nets or more: the call, how many, seconds to compile, bytes."""
    depth, channels = WORKLOADS[name]
    made = nets(network(depth).graph, channels, "gaussian", "he", route=route)
    steps = made.steps
    index = jnp.arange(steps * made.width, dtype=jnp.uint32).reshape(steps, made.width)
    key, end = jax.random.key(0), jnp.uint32(2**31)
    jax.clear_caches()
    start = time.perf_counter()
    program = made.compiled.lower(key, index, end, None).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis().temp_size_in_bytes

    count = max(count, index.size)

    def call() -> Any:
        for _ in sampled(network(depth), 0, count, channels=channels, route=route):
            pass

    return call, count, seconds, memory * made.calls


def given(name: str, route: str, count: int) -> tuple[Callable[[], Any], int]:
    """Run nets whose weights are there already."""
    depth, channels = WORKLOADS[name]
    graph = network(depth).graph
    made, cone = plan(graph, channels, 1), windows.cone_of(graph, ((0, 0),) * 2)
    function = gradients(graph, made, Engine(Layout(route)), cone, cone.source)
    width = nets(graph, channels, "gaussian", "he", route=route).width
    steps = -(-count // width)
    keys = jax.random.split(jax.random.key(1), (steps, width))
    @jax.jit
    def inputs(keys: jax.Array) -> Any:
        weights = jax.vmap(jax.vmap(lambda k: draw(made, k, "gaussian", "he")))(keys)
        x = jax.random.normal(keys[0, 0], (steps, width, 1, *windows.size_of(cone.source)))
        return weights, x, jnp.ones((steps, width, 1)), keys

    ready = jax.block_until_ready(inputs(keys))
    program = jax.jit(lambda ready: jax.lax.map(lambda row: function(*row)[0], ready))
    program = program.lower(ready).compile()
    return lambda: jax.block_until_ready(program(ready)), steps * width


# ---- PyTorch ----------------------------------------------------------------------------------


def torch_nets(
    name: str, side: int, draws: bool, device: str
) -> tuple[Callable[[], Any], int]:
    """`side` nets as one grouped convolution a layer; 1 is the plain loop."""
    assert torch is not None
    depth, channels = WORKLOADS[name]
    size = 2 * depth + 1

    def fresh() -> list:
        weights = []
        for layer in range(depth):
            inner = 1 if layer == 0 else channels
            outer = 1 if layer == depth - 1 else channels
            scale = (2 / (9 * inner)) ** 0.5
            weights.append(torch.randn(side * outer, inner, 3, 3, device=device) * scale)
        return weights

    kept = fresh()

    def call() -> Any:
        weights = fresh() if draws else kept
        x = torch.randn(1, side, size, size, device=device, requires_grad=True)
        return torch_gradient(x, weights, side)

    return call, side


def torch_gradient(x: Any, weights: list, side: int) -> Any:
    assert torch is not None
    h = x
    for weight in weights:
        h = torch.relu(torch.nn.functional.conv2d(h, weight, groups=side))
    (g,) = torch.autograd.grad(h.sum(), x)
    if g.is_cuda:
        torch.cuda.synchronize()
    return g


def agree() -> float:
    """Largest difference of any route's gradients from PyTorch's, same weights, over the peak."""
    if torch is None:
        return float("nan")
    depth, channels, count = 4, 8, 6
    graph = network(depth).graph
    made, cone = plan(graph, channels, 1), windows.cone_of(graph, ((0, 0),) * 2)
    keys = jax.random.split(jax.random.key(2), count)
    weights = jax.vmap(lambda k: draw(made, k, "gaussian", "he"))(keys)
    x = jax.random.normal(keys[0], (count, 1, *windows.size_of(cone.source)))
    stacks = [np.asarray(run[1]) for run in weights[1]]  # (nets, layers, out, in, 3, 3)
    layers = [torch.tensor(stack[:, i]) for stack in stacks for i in range(stack.shape[1])]
    flat = [layer.reshape(-1, *layer.shape[2:]) for layer in layers]
    theirs = torch_gradient(torch.tensor(np.asarray(x)).reshape(1, count, *x.shape[2:])
                            .requires_grad_(), flat, count)[0].numpy()  # fmt: skip
    worst = 0.0
    for route in NAMES:
        function = gradients(graph, made, Engine(Layout(route)), cone, cone.source)
        for i in [slice(n, n + 1) for n in range(count)] if route == "map" else [slice(None)]:
            own = jax.tree.map(lambda a, i=i: a[i], weights)
            g, plus, _ = function(own, x[i], jnp.ones((count, 1))[i], keys[i])
            ours = np.asarray(g[:, 0] * plus[:, None, None])
            worst = max(worst, float(np.abs(ours - theirs[i]).max() / np.abs(theirs).max()))
    if not worst < 1e-5:
        raise SystemExit(f"gradients differ by {worst} of the peak, nothing timed")
    return worst


# ---- the tables -------------------------------------------------------------------------------


def measure(repeats: int, peak: float, device: str) -> list[dict[str, Any]]:
    rows = []
    for name, (depth, channels) in WORKLOADS.items():
        count = {"wide": 64, "narrow": 4096, "deep": 6}[name]
        calls: dict[str, tuple[Callable[[], Any], int]] = {}
        extra: dict[str, dict[str, Any]] = {}
        auto = choose(jax.devices()[0].platform, channels)
        # the other routes on the deep workload take minutes and say nothing new
        for route in NAMES if name != "deep" else (auto,):
            if route == "lanes" and channels > 4:
                continue
            call, many, seconds, memory = whole(name, route, count)
            calls[route] = (call, many)
            extra[route] = {"compile_seconds": seconds, "memory_bytes": memory,
                            "chosen": route == auto}  # fmt: skip
            if route == auto:
                calls[f"{route}, weights given"] = given(name, route, count)
        if torch is not None:
            where = "cuda" if device == "gpu" else "cpu"
            for label, side in (("torch grouped", GROUPED[name]), ("torch loop", 1)):
                calls[label] = torch_nets(name, side, True, where)
                calls[f"{label}, weights given"] = torch_nets(name, side, False, where)
        times: dict[str, list[float]] = {label: [] for label in calls}
        for call, _ in calls.values():
            call()
        for _ in range(repeats):
            for label, (call, many) in calls.items():
                # PyTorch's calls are short: as many as make a fair share of time
                again = max(1, count // many) if label.startswith("torch") else 1
                start = time.perf_counter()
                for _ in range(again):
                    call()
                times[label].append((time.perf_counter() - start) / (again * many))
        base = statistics.median(times["torch grouped"]) if torch is not None else float("nan")
        for label, values in times.items():
            seconds = statistics.median(values)
            rows.append({
                "workload": name, "depth": depth, "channels": channels, "route": label,
                "seconds_a_net": seconds, "nets_a_second": 1 / seconds,
                "gflops": flops(depth, channels) / seconds / 1e9,
                "share_of_peak": flops(depth, channels) / seconds / peak,
                "times_torch_grouped": seconds / base, **extra.get(label, {}),
            })  # fmt: skip
            show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    line = f"{row['workload']:7s}{row['route']:29s}{row['seconds_a_net'] * 1e3:9.3f} ms a net"
    line += f"{row['gflops']:8.1f} GFLOP/s {row['share_of_peak']:6.1%} of peak"
    line += f"  {row['times_torch_grouped']:6.2f} x torch"
    if "compile_seconds" in row:
        line += f"  compile {row['compile_seconds']:5.1f} s  {row['memory_bytes'] / 2**20:6.0f} MiB"
        line += "  <- chosen" if row["chosen"] else ""
    print(line, flush=True)


def statistical(count: int, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds to 0.3 % standard error of the std, by the package and by plain averages of PyTorch.

    The error of a plain average (one unit behind its ReLU, dead nets, one axis) is measured on the
    same nets, so the ratio of errors is that of two estimators on one set of gradients.
    """
    depth, channels = WORKLOADS["wide"]
    found = {}
    truth = exact(network(depth)).std[0]
    for label, options in (
        ("plain", {"symmetric": False, "paired": False}),
        ("paired", {"symmetric": False}),
        ("symmetric", {"paired": False}),
        ("both", {}),
    ):
        erf = sample(network(depth), 1, count, channels=channels, **options)
        assert erf.std_stderr is not None
        found[f"{label}: relative error of {count} nets"] = erf.std_stderr[0] / truth
        found[f"{label}: deviation from theory, errors"] = (
            (erf.std[0] - truth) / erf.std_stderr[0]
        )
        found[f"{label}: effective nets"] = erf.metadata["effective_samples"]
    mine = next(r["seconds_a_net"] for r in rows if r["workload"] == "wide" and r.get("chosen"))
    name = f"both: relative error of {count} nets"
    found["seconds to 0.3 %, package"] = count * (found[name] / TARGET) ** 2 * mine
    base = [r for r in rows if r["workload"] == "wide" and r["route"] == "torch grouped"]
    if base:
        name = f"plain: relative error of {count} nets"
        plain = count * (found[name] / TARGET) ** 2 * base[0]["seconds_a_net"]
        found["seconds to 0.3 %, plain averages of PyTorch"] = plain
        found["ratio"] = found["seconds to 0.3 %, package"] / plain
    for name, value in found.items():
        print(f"{name:55s} {value:10.4g}", flush=True)
    return found


def plot(rows: list[dict[str, Any]], path: Path, peak: float, device: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {name: f"{d} layers, {c} channel{'s' * (c > 1)}" for name, (d, c) in WORKLOADS.items()}
    for axes, name in zip(figure.subplots(1, 3), WORKLOADS):
        mine = [r for r in rows if r["workload"] == name and "given" not in r["route"]][::-1]
        colours = ["#009E73" if r["route"].startswith("torch") else "#0072B2" for r in mine]
        bars = axes.barh([r["route"] for r in mine], [r["seconds_a_net"] * 1e3 for r in mine],
                         color=colours)  # fmt: skip
        axes.bar_label(bars, [f"{r['seconds_a_net'] * 1e3:.3g}" for r in mine], padding=3)
        axes.set(title=titles[name], xlabel="milliseconds a net")
        axes.set_xlim(0, 1.25 * max(r["seconds_a_net"] for r in mine) * 1e3)
    figure.suptitle(f"Weights drawn, gradient taken; blue: this package, green: PyTorch. {device}, "
                    f"matmul peak {peak / 1e9:.0f} GFLOP/s", fontsize=11)  # fmt: skip
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nets", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options = parser.parse_args(arguments)
    with jax.default_device(jax.devices(options.device)[0]):
        peak = matmul_peak()
        environment = {
            "cores": os.cpu_count(),
            "device": str(jax.devices(options.device)[0]),
            "matmul_peak_gflops": peak / 1e9,
            "python": platform.python_version(),
            "jax": jax.__version__,
            "torch": None if torch is None else torch.__version__,
        }
        print("  ".join(f"{k} {v}" for k, v in environment.items()))
        print(f"gradients of all routes and PyTorch agree to {agree():.1e} of the peak")
        rows = measure(options.repeats, peak, options.device)
        numbers = statistical(options.nets, rows)
    numbers["peak resident memory (MiB)"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    print(f"peak resident memory {numbers['peak resident memory (MiB)']:.0f} MiB")
    if options.json:
        found = {"environment": environment, "rows": rows, "statistics": numbers}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot, peak, environment["device"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
