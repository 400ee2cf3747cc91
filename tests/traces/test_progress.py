"""The progress bar of what takes long."""

import functools

import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.traces import FisherTraceMeter, progress
from tests import nets
from tests.traces.measures import MEASURES


@pytest.fixture
def measured():
    net = nets.plain("dense")
    return net, (nets.inputs("dense", batch=10), nets.labels(batch=10))


@pytest.mark.matrix
@pytest.mark.parametrize("measure", MEASURES)
def test_a_function_that_takes_long_shows_how_many_examples_are_done(
    measure, measured, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", 0)
    net, data = measured
    measure(net, data, batch_size=5)
    shown = capsys.readouterr().out
    assert "5/10" in shown
    assert "10/10" in shown
    assert "example" in shown


def test_the_examples_asked_for_are_what_it_counts_to(measured, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", 0)
    net, data = measured
    kf.fisher_trace(net, data, batch_size=4, num_examples=7)
    assert "7/7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("measure", "shown"),
    [
        (functools.partial(kf.spectral_density, num_probes=3, num_steps=4), "12/12"),
        (kf.sharpness, "/Unknown"),
    ],
)
def test_what_takes_many_products_shows_how_many_are_done(
    measure, shown, measured, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", 0)
    net, data = measured
    measure(net, data)
    said = capsys.readouterr().out
    assert shown in said
    assert "product" in said
    assert "example" not in said


@pytest.mark.parametrize(
    ("measure", "seconds"),
    [
        (functools.partial(kf.fisher_trace, batch_size=5), 1e6),
        (kf.fisher_trace, 0),
        (lambda net, data: FisherTraceMeter(net)(data, batch_size=5), 0),
    ],
    ids=["short", "over with its first batch", "of a meter"],
)
def test_other_measurements_show_nothing(measure, seconds, measured, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", seconds)
    measure(*measured)
    assert capsys.readouterr().out == ""


def test_callbacks_show_nothing(measured, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", 0)
    net, (x, y) = measured
    measuring = [
        kf.callbacks.FisherTrace((x, None)),
        kf.callbacks.LabelNoiseMonitor(x, y, np.arange(10) < 5),
    ]
    history = net.fit(x, y, verbose=0, callbacks=measuring).history
    assert {"fisher_trace", "gradient_norm_ratio"} <= history.keys()
    assert capsys.readouterr().out == ""
