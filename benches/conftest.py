"""Stopwatches: `rate` for what runs once per step, `compare` for ours against a reference."""

import statistics
import time

import pytest
import torch

ROUNDS = 5
PAIRS = 5
NOISY = 0.15  # a spread of the paired ratios above this is measured once more


@pytest.fixture
def rate(request):
    """Return a function that calls `call` a few times and reports how many `items` a second."""

    def measure(call, *, items, of):
        call()
        seconds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
        best = min(seconds)
        _write(
            request,
            f"{request.node.name}: {best * 1000:.2f} ms, {items / best:,.0f} {of}/s",
        )

    return measure


@pytest.fixture
def compare(request):
    """Return a function that times a reference against ours, interleaved, and prints one line.

    `compare(name, reference, ours, parity=None, bound=None, pairs=5)`: both are called without
    arguments, in the order ABBA, on one thread, by the CPU time of this process. The line is
    `name | ref ms | ours ms | ratio (spread) | parity`: the ratio is the median of the paired
    ratios, the spread half the distance between their quartiles over the median. A string as
    `reference` is the reason why there is none: the row says `skipped`.

    `parity(a, b)` gets what both returned and gives a number or a text; by default the largest
    absolute difference of two tensors over the largest value of the reference. With `bound`, the
    bench fails when the ratio is below it. Returns the ratio, None when skipped.
    """

    def measure(name, reference, ours, *, parity=None, bound=None, pairs=PAIRS):
        if isinstance(reference, str):
            _write(request, f"{name} | skipped: {reference}")
            return None
        agreement = _agreement(parity or _relative_difference, reference(), ours())
        times = _paired_times(reference, ours, pairs)
        if _spread(times) > NOISY:
            times = min(times, _paired_times(reference, ours, pairs), key=_spread)
        ratio = statistics.median(_ratios(times))
        _write(
            request,
            f"{name} | {_milliseconds(times, 0)} ms | {_milliseconds(times, 1)} ms"
            f" | {ratio:.2f}x (+-{_spread(times):.0%}) | {agreement}",
        )
        if bound is not None and ratio < bound:
            pytest.fail(f"{name}: {ratio:.2f}x, must be {bound}x", pytrace=False)
        return ratio

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield measure
    torch.set_num_threads(threads)


def _paired_times(reference, ours, pairs):
    times = []
    for k in range(pairs):
        if k % 2 == 0:
            first = _seconds(reference)
            times.append((first, _seconds(ours)))
        else:
            second = _seconds(ours)
            times.append((_seconds(reference), second))
    return times


def _seconds(call):
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _ratios(times):
    return [reference / ours for reference, ours in times]


def _spread(times):
    ratios = _ratios(times)
    if len(ratios) == 1:
        return 0.0
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(ratios)


def _milliseconds(times, side):
    return f"{statistics.median(pair[side] for pair in times) * 1000:,.1f}"


def _agreement(parity, expected, found):
    value = parity(expected, found)
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _relative_difference(expected, found):
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        return "-"
    scale = expected.abs().max().clamp(min=1e-30)
    return float((expected - found).abs().max() / scale)


def _write(request, line):
    request.config.pluginmanager.get_plugin("terminalreporter").write_line(line)
