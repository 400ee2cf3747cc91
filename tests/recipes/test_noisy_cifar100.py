"""The noisy-labels recipe, on a few digits."""

import json
import urllib.error
import urllib.request

import experiment
import noisy_cifar100
import numpy as np
import pytest

import keras_fisher as kf

TINY = {
    "--num-train": 150,
    "--width": 8,
    "--epochs": 4,
    "--drops": 3,
    "--seeds": 0,
    "--monitored": 150,
    "--steps-per-execution": 1,
    "--gradient-batches": 1,
}


def run(out, *arguments):
    tiny = [str(part) for option in TINY.items() for part in option]
    noisy_cifar100.main([*tiny, *arguments, "--out", str(out)])
    return json.loads((out / "results.json").read_text())["runs"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run(out, "--methods", "baseline", "fp", "mixup")


def test_one_run_per_method_leaves_its_record(finished):
    out, runs = finished
    assert [r["method"] for r in runs] == ["baseline", "fp", "mixup"]
    for r in runs:
        folder = out / r["name"]
        assert {path.name for path in folder.iterdir()} == {
            "results.json",
            "settings.json",
            "tensorboard",
            "time.json",
        }
        assert list((folder / "tensorboard" / "train").glob("events.*"))
        assert all(len(values) == 4 for values in r["history"].values())


def test_record_holds_the_quantities_of_figure_5_and_table_3(finished):
    _, runs = finished
    for r in runs:
        assert {"clean_accuracy", "noisy_accuracy", "gradient_norm_ratio", "penalty"} <= set(
            r["history"]
        )
        assert r["best"]["validation_accuracy"] == max(r["history"]["val_accuracy"])
        assert 0 <= r["best"]["test_accuracy"] <= 1
        ratio = r["final"]["clean_gradient_norm"] / r["final"]["noisy_gradient_norm"]
        assert r["final"]["gradient_norm_ratio"] == pytest.approx(ratio)


def test_only_penalised_runs_have_a_penalty(finished):
    penalties = {r["method"]: r["final"]["penalty"] for r in finished[1]}
    assert penalties["fp"] > 0
    assert penalties["baseline"] == penalties["mixup"] == 0


def test_learning_rate_drops_by_ten(finished):
    rates = finished[1][0]["history"]["learning_rate"]
    assert rates[2] == pytest.approx(10 * rates[3])


def test_table_and_picture_show_every_method(finished):
    out, _ = finished
    table = (out / "table.md").read_text()
    assert "| 50% | mlp | test accuracy at the end |" in table
    assert "41.74 | 52.31 | 45.94 | 60.18 | 58.46" in table
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_not_run_again(finished, monkeypatch):
    out, runs = finished
    monkeypatch.setattr(noisy_cifar100, "run_one", None)
    assert run(out, "--methods", "baseline", "fp", "mixup") == runs


def test_parts_of_a_grid_are_put_together(finished):
    out, runs = finished
    names = [r["name"] for r in run(out, "--methods", "gp_r")]
    assert names == sorted([*(r["name"] for r in runs), "mlp-noise50-gp_r-0.1-seed0"])


@pytest.mark.parametrize("method", ["fp", "mixup"])
def test_interrupted_run_ends_like_one_that_was_not(finished, tmp_path, monkeypatch, method):
    monkeypatch.setattr(experiment, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    bar = experiment.EpochBar

    class Interrupting(bar):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "EpochBar", Interrupting)
    with pytest.raises(SystemExit, match="same command goes on"):
        run(tmp_path, "--methods", method)
    assert len(list(tmp_path.glob("*/progress.json"))) == 1
    monkeypatch.setattr(experiment, "EpochBar", bar)
    (resumed,) = run(tmp_path, "--methods", method)
    (uninterrupted,) = (r for r in finished[1] if r["method"] == method)
    assert resumed == uninterrupted


def test_folder_of_other_settings_is_refused_and_left_alone(finished):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    with pytest.raises(SystemExit, match=r"--out.*epochs is 4 there"):
        run(out, "--epochs", "5")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before


def test_missing_data_without_network_says_what_to_do(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match=r"TFDS_DATA_DIR[\s\S]*--preset demo"):
        run(tmp_path / "out", "--dataset", "cifar100")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--noise", "1.5"),
        ("--fp", "-1"),
        ("--epochs", "0"),
        ("--num-train", "100000"),
        ("--batch-size", "151"),
        ("--seeds", ""),
    ],
)
def test_impossible_setting_is_refused_by_name(tmp_path, option, value):
    name = option.strip("-").replace("-", "[-_]")
    with pytest.raises(SystemExit, match=f"error: `.*{name}` must"):
        run(tmp_path, *f"{option} {value}".split())
    assert not list(tmp_path.glob("*/results.json"))


@pytest.mark.parametrize("option", [["--methods", "dropout"], ["--dataset", "mnist"]])
def test_unknown_choice_is_refused_with_the_choices(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        run(tmp_path, *option)
    assert "invalid choice" in capsys.readouterr().err


def test_help_shows_the_defaults_of_the_preset(capsys):
    with pytest.raises(SystemExit):
        noisy_cifar100.main(["--preset", "paper", "--help"])
    shown = capsys.readouterr().out
    assert "vgg11" in shown
    assert "1000.0" in shown


def test_paper_preset_spans_the_ranges_of_the_paper():
    runs = noisy_cifar100.grid(noisy_cifar100.PRESETS["paper"])
    of_vgg = [r for r in runs if r.network == "vgg11" and r.noise == 0.25]
    assert [r.value for r in of_vgg if r.method == "gp_x"] == [10, 30, 100, 300, 1000]
    assert [r.value for r in of_vgg if r.method == "mixup"] == [0.4, 0.8, 1.6, 3.2, 6.4]
    assert len(runs) == 2 * 2 * (1 + 5 + 5 + 4 + 4)


@pytest.mark.parametrize(
    ("network", "epochs"),
    [("vgg11", (80, 120, 160, 200, 240, 280)), ("wide_resnet", (150, 225))],
)
def test_paper_preset_drops_the_rate_of_each_network_as_appendix_g2_does(network, epochs):
    paper = noisy_cifar100.PRESETS["paper"]
    schedule = noisy_cifar100.learning_rate_drops(
        noisy_cifar100.Run(network, 0.5, "fp", 0.1, 0), paper
    ).schedule
    drops = [e for e in range(1, paper.epochs) if schedule(e) < 0.5 * schedule(e - 1)]
    assert tuple(drops) == epochs


@pytest.mark.parametrize("network", noisy_cifar100.NETWORKS)
def test_every_network_takes_a_penalised_step(network):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(8, 32, 32, 3)).astype("float32")
    examples = kf.data.Examples(images, generator.integers(0, 100, 8).astype("int32"))
    splits = kf.data.Splits(examples, examples, examples, 100)
    settings = noisy_cifar100.Settings(
        **{**vars(noisy_cifar100.PRESETS["paper"]), "width": 1, "batch_size": 8}
    )
    step = noisy_cifar100.Run(network, 0.5, "fp", 0.1, 0)
    logs = noisy_cifar100.build_model(step, settings, splits).train_on_batch(
        examples.x, examples.y, return_dict=True
    )
    assert np.isfinite(logs["loss"])
    assert logs["penalty"] > 0
