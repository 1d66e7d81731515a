"""What a run shows, and what Ctrl-C and errors do to it."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest
from training import Seen, blobs, fit, small_net

from xpconv import train


def test_progress_is_told_of_everything() -> None:
    seen = Seen()
    history = fit(small_net(), blobs(), progress=seen)
    steps = [[(epoch, step) for step in (1, 2, 3)] for epoch in (1, 2)]
    assert seen.told == [("start", 2, 3), *steps[0], history[0], *steps[1], history[1], ("end", False)]


def test_progress_may_look_at_the_epoch_so_far() -> None:
    class Looking(Seen):
        def on_step(self, epoch: int, step: int) -> None:
            assert self.running is not None
            self.told.append(self.running.result())

    seen = Looking()
    (record,) = fit(small_net(), blobs(), epochs=1, progress=seen)
    looks = seen.told[1:4]
    assert looks[-1] == (record.loss, record.accuracy)
    assert len(set(looks)) == 3


def test_without_a_terminal_there_is_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(small_net(), blobs(), progress=True)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["epoch", "loss", "accuracy", "val", "loss", "val", "accuracy", "seconds"]
    assert [row.split()[:3] for row in rows] == [
        [f"{record.epoch}/{len(history)}", f"{record.loss:.4f}", f"{record.accuracy:.4f}"] for record in history
    ]


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    history = fit(small_net(), blobs(), progress=True)
    shown = capsys.readouterr().out
    assert all(f"{record.loss:.4f}" in shown for record in history)
    assert "2/2" in shown
    assert "━" in shown


class _Pressing(Seen):
    def __init__(self, *at: tuple[int, int]) -> None:
        super().__init__()
        self.at = at

    def on_step(self, epoch: int, step: int) -> None:
        super().on_step(epoch, step)
        if (epoch, step) in self.at:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_the_run_after_a_whole_step(capsys: pytest.CaptureFixture[str]) -> None:
    seen, optimizer, net = _Pressing((2, 2)), train.Adam(), small_net()
    history = fit(net, blobs(), epochs=5, optimizer=optimizer, progress=seen, schedule=train.schedule.Cosine())
    assert history.interrupted
    assert len(history) == 1
    assert seen.told[-2:] == [(2, 2), ("end", True)]
    assert optimizer.steps == 5
    assert optimizer.lr == 1e-3
    assert len({p.version for p in net.parameters().values()}) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capsys.readouterr().err == "stopping after this step; Ctrl-C again leaves at once\n"


def test_a_second_ctrl_c_stops_at_once() -> None:
    class Twice(Seen):
        def on_step(self, epoch: int, step: int) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    seen = Twice()
    with pytest.raises(KeyboardInterrupt):
        fit(small_net(), blobs(), progress=seen)
    assert seen.told == [("start", 2, 3), ("end", True)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_display_that_cannot_print_any_more_goes_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(train.Lines):
        tried = 0

        def _print(self, line: str) -> None:
            self.tried += 1
            if self.tried == 2:
                raise BrokenPipeError

    shown = Gone()
    assert len(fit(small_net(), blobs(), epochs=4, progress=shown)) == 4
    assert shown.tried == 2
    monkeypatch.setattr(sys, "stdout", None)
    assert len(fit(small_net(), blobs(), progress=True)) == 2


def test_ctrl_c_in_the_validation_keeps_the_epoch() -> None:
    class InValidation(Seen):
        def on_epoch(self, record: train.Epoch) -> None:
            signal.raise_signal(signal.SIGINT)

    history = fit(small_net(), blobs(), validation=blobs(seed=1), progress=InValidation())
    assert history.interrupted
    assert [record.epoch for record in history] == [1]


def test_other_threads_and_handlers_are_left_alone() -> None:
    results: list[train.History] = []
    thread = threading.Thread(target=lambda: results.append(fit(small_net(), blobs())))
    thread.start()
    thread.join()
    assert len(results[0]) == 2
    own = signal.signal(signal.SIGINT, lambda number, frame: results.clear())
    try:
        assert len(fit(small_net(), blobs(), progress=_Pressing((1, 1)))) == 2
        assert not results
    finally:
        signal.signal(signal.SIGINT, own)


def test_an_error_in_a_step_ends_the_display_and_restores_the_rate() -> None:
    def broken(x: Any, rng: np.random.Generator) -> Any:
        raise RuntimeError("no more images")

    seen, optimizer = Seen(), train.SGD(0.5)
    with pytest.raises(RuntimeError, match="no more images"):
        fit(small_net(), blobs(), augment=broken, progress=seen, optimizer=optimizer, schedule=train.schedule.Cosine())
    assert seen.told[-1] == ("end", True)
    assert optimizer.lr == 0.5
