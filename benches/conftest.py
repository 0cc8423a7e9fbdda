"""A stopwatch for what runs once per training step: the best of several rounds, as a rate."""

import time

import pytest

ROUNDS = 5


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
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        best = min(seconds)
        reporter.write_line(
            f"{request.node.name}: {best * 1000:.2f} ms, {items / best:,.0f} {of}/s"
        )

    return measure
