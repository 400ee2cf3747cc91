"""What TensorBoard shows of a run, point by point."""

import pytest
from experiment.run import record, tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests import reference
from tests.recipes.tiny import Killed, tiny, trained
from tests.summaries import points

RUN = tiny(  # ceil(150 / 32) = 5 steps in each of four epochs
    alpha=0.1,
    noise=0.5,
    monitored=100,
    gradient_batches=1,
    measures={"fisher_trace": {"freq": 3, "num_examples": 20}},
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The figures of a run, and its folder."""
    out = tmp_path_factory.mktemp("finished")
    return trained(RUN, out), out / RUN.name


def curve(folder, tag):
    """The curve of a tag, `[(step, about the value)]`."""
    found = points(folder / "tensorboard", tag)
    return [(step, pytest.approx(value, nan_ok=True)) for step, value in found]


@pytest.mark.slow
def test_every_figure_has_a_point_at_every_epoch(finished):
    figures, folder = finished
    assert {"loss", "val_accuracy", "penalty", "noisy_accuracy"} <= figures["history"].keys()
    for key, values in figures["history"].items():
        whole = [float("nan") if value is None else value for value in values]
        assert list(enumerate(whole)) == curve(folder, f"epoch_{key}")


@pytest.mark.slow
@pytest.mark.parametrize("at_a_time", [1, pytest.param(5, marks=reference.several_steps_only)])
def test_steps_are_written_at_every_tenth(finished, tmp_path, at_a_time):
    run = tiny("together", measures={}, steps_per_execution=at_a_time)
    folder = tmp_path / run.name if at_a_time > 1 else finished[1]
    if at_a_time > 1:
        trained(run, tmp_path)
    assert [step for step, _ in curve(folder, "batch_loss")] == [10, 20]


@pytest.mark.slow
def test_curves_over_steps_are_those_that_were_measured(finished):
    figures, folder = finished
    history = figures["curves"]["fisher_trace"]["history"]
    assert [step for step, *_ in history] == [3, 6, 9, 12, 15, 18]
    assert [(step, value) for step, value, *_ in history] == curve(folder, "fisher_trace")


@pytest.mark.slow
def test_a_run_is_one_entry_of_the_list(finished):
    _, folder = finished
    assert all(path.is_file() for path in (folder / "tensorboard").iterdir())


@pytest.mark.slow
def test_the_table_names_what_tells_runs_apart_and_the_final_figures(finished):
    figures, folder = finished
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    data = found.SummaryMetadata("_hparams_/experiment").plugin_data.content
    shown = plugin_data_pb2.HParamsPluginData.FromString(data).experiment
    names = [info.name for info in shown.hparam_infos]
    assert names == ["seed", "learning_rate", "alpha", "method", "value"]
    tags = [info.name.tag for info in shown.metric_infos]
    assert tags == ["best/validation_accuracy", "best/test_accuracy", "final/test_accuracy"]
    for tag in tags:
        moment, key = tag.split("/")
        assert curve(folder, tag) == [(RUN.epochs, figures[moment][key])]
    data = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    assert session.group_name == RUN.name
    assert session.hparams["alpha"].number_value == 0.1


@pytest.mark.slow
def test_a_run_that_was_killed_has_every_epoch(tmp_path, monkeypatch):
    def kill(self, epoch):
        save(self, epoch)
        if epoch == 1:
            raise Killed

    save = record.Record._save
    with monkeypatch.context() as killing:
        killing.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        killing.setattr(record.Record, "_save", kill)
        killing.setattr(
            tensorboard.ScalarWriter, "close", lambda self: None
        )  # what is in memory is lost
        with pytest.raises(Killed):
            trained(RUN, tmp_path)
        lost = curve(tmp_path / RUN.name, "epoch_loss")
    assert [step for step, _ in lost] == [0, 1]
    trained(RUN, tmp_path)
    found = curve(tmp_path / RUN.name, "epoch_loss")
    assert [step for step, _ in found] == [0, 1, 2, 3]
