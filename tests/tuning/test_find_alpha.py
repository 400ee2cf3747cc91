"""The search for alpha, beside the same trainings in one piece."""

import json
import sys

import keras
import keras_tuner
import numpy as np
import pytest

import keras_fisher as kf
from keras_fisher.tuning.alpha_plan import AlphaPlan, count_trained_epochs, score
from keras_fisher.tuning.alpha_tuner import _skip_epochs
from tests.processes import free_addresses, printed, start

ALPHAS = [0.003, 0.03, 0.3, 3.0]
EPOCHS = 12
EPOCHS_OF_SEARCH = 6 + 6 + EPOCHS + EPOCHS  # of four alphas
EAGERLY = keras.backend.backend() == "tensorflow"  # few steps take less time than to compile one
generator = np.random.default_rng(0)
X = generator.normal(size=(96, 5)).astype("float32")
Y = np.argmax(X[:, :3] + generator.normal(size=(96, 3)), axis=1)
DATA, VALIDATION = (X[:64], Y[:64]), (X[64:], Y[64:])


def build_model(alpha):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(8, activation="tanh")
    model = kf.FisherPenaltyModel(
        keras.Sequential([hidden, keras.layers.Dense(3)]), alpha, update_freq=3, seed=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=EAGERLY)
    return model


def find(folder, alphas=ALPHAS, build=build_model, data=DATA, **arguments):
    given = {"epochs": EPOCHS, "objective": "val_loss", "verbose": 0, "shuffle": False}
    given |= {"validation_data": VALIDATION, "alphas": alphas, "directory": folder}
    return kf.tuning.find_alpha(build, data, **given | arguments)


class Counter(keras.callbacks.Callback):
    """Counts epochs over all copies, and ends the search after some of them."""

    def __init__(self, last=None):
        super().__init__()
        self.epochs, self.last = [], last

    def __deepcopy__(self, memo):
        return self

    def on_epoch_begin(self, epoch, logs=None):
        if len(self.epochs) == self.last:
            raise KeyboardInterrupt
        self.epochs.append(epoch)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search: its result, its folder and the epochs that it trained."""
    counter, folder = Counter(), tmp_path_factory.mktemp("searched")
    return find(folder, callbacks=[counter]), folder, len(counter.epochs)


@pytest.mark.slow
def test_the_search_continues_with_the_best_of_whole_trainings(searched):
    histories, models = {}, {}
    for alpha in ALPHAS:
        models[alpha] = build_model(alpha)
        histories[alpha] = (
            models[alpha]
            .fit(*DATA, validation_data=VALIDATION, epochs=EPOCHS, shuffle=False, verbose=0)
            .history["val_loss"]
        )
    at_half = {alpha: score(histories[alpha][:6], 6) for alpha in ALPHAS}
    at_end = {alpha: score(histories[alpha], EPOCHS) for alpha in ALPHAS}
    best = min(sorted(ALPHAS, key=at_half.get)[:2], key=at_end.get)

    found = searched[0]
    assert found.alpha == found.model.alpha == pytest.approx(best)
    for weight, expected in zip(found.model.weights, models[best].weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert [trial.alpha for trial in found.trials] == ALPHAS
    assert sorted(trial.epochs for trial in found.trials) == [6, 6, EPOCHS, EPOCHS]
    for trial in found.trials:
        expected = score(histories[trial.alpha][: trial.epochs], trial.epochs)
        assert trial.score == pytest.approx(expected, rel=1e-5)
    assert f"{best:.3g}" in next(line for line in str(found).splitlines() if "*" in line)


def run(plan, curve):
    """The trials of a search in which a function of alpha and epochs is the score."""
    scores = {}
    while new := [trial for trial in plan.list_trials(scores) if trial not in scores]:
        scores[new[0]] = curve(*new[0])
    return [*scores]


@pytest.mark.parametrize("epochs", [2, 7, 48])
def test_the_best_two_at_half_are_trained_to_the_end(epochs):
    plan = AlphaPlan(epochs, tuple(ALPHAS))
    trials = run(plan, lambda alpha, epochs: -abs(np.log(alpha / 0.2)))
    half = -(-epochs // 2)
    assert trials == [*((alpha, half) for alpha in ALPHAS), (0.3, epochs), (0.03, epochs)]
    assert count_trained_epochs(trials) == plan.count_epochs()


def test_three_alphas_cost_two_and_a_half_trainings():
    assert AlphaPlan(48, (0.03, 0.1, 0.3)).count_epochs() == 2.5 * 48


@pytest.mark.slow
def test_every_epoch_is_counted_and_a_finished_search_trains_nothing(searched):
    found, folder, epochs = searched
    assert epochs == EPOCHS_OF_SEARCH
    again = find(folder, callbacks=[Counter(last=0)])
    assert again.trials == found.trials
    np.testing.assert_array_equal(again.model.weights[0], found.model.weights[0])


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [4, 20])
def test_a_killed_search_repeats_only_the_part_it_was_in(tmp_path, searched, killed_after):
    expected = searched[0]
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path / "killed", callbacks=[Counter(killed_after)])
    counter = Counter()
    found = find(tmp_path / "killed", callbacks=[counter])
    assert found.trials == expected.trials
    np.testing.assert_array_equal(found.model.weights[0], expected.model.weights[0])
    longest = AlphaPlan(EPOCHS, ()).half
    repeated = len(counter.epochs) + killed_after - EPOCHS_OF_SEARCH
    assert 0 <= repeated <= longest


@pytest.mark.slow
def test_further_alphas_are_added_to_a_finished_search(tmp_path, caplog, monkeypatch):
    first = find(tmp_path, [30.0, 1e-6], epochs=4)
    assert "The best alpha, 1e-06, is the smallest of the search" in caplog.text
    counter, shown = Counter(), []
    monkeypatch.setattr(keras.utils.Progbar, "update", lambda bar, epochs, _: shown.append(epochs))
    found = find(tmp_path, [30.0, 1e-6, 0.1], epochs=4, callbacks=[counter])
    assert [(trial.alpha, trial.epochs) for trial in found.trials] == [
        (1e-6, 4),
        (0.1, 4),
        (30.0, 4),
    ]
    assert found.alpha == min(found.trials, key=lambda trial: trial.score).alpha
    assert counter.epochs == [0, 1, 2, 3]
    assert shown[-1] == AlphaPlan(4, (30.0, 1e-6, 0.1)).count_epochs()
    assert set(first.trials) < set(found.trials)


def slower(alpha):
    model = build_model(alpha)
    model.optimizer.learning_rate = 0.05
    return model


def wider(alpha):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([keras.layers.Dense(9), keras.layers.Dense(3)])
    model = kf.FisherPenaltyModel(backbone, alpha, update_freq=3, seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"build": slower}, "model"),
        ({"build": wider}, "model"),
        ({"data": (X[:64], 2 - Y[:64])}, "y"),
        ({"validation_data": (X[32:64], Y[32:64])}, "validation_data"),
        ({"batch_size": 8, "shuffle": True}, "batch_size, shuffle"),
        ({"objective": "val_accuracy"}, "objective"),
    ],
)
def test_the_folder_of_another_search_is_refused(searched, changed, named):
    found, folder, _ = searched
    message = f"`directory` must be a new folder .* a search with another {named}. Choose"
    with pytest.raises(ValueError, match=message):
        find(folder, **changed)
    assert find(folder, callbacks=[Counter(last=0)]).trials == found.trials


def test_a_missing_objective_is_named_after_one_epoch(tmp_path):
    counter, objective = Counter(), keras_tuner.Objective("val_f1", "max")
    message = "`objective` must be one of .*val_loss.* Received: 'val_f1'. Compile with further"
    with pytest.raises(ValueError, match=message):
        find(tmp_path, objective=objective, callbacks=[counter])
    assert len(counter.epochs) == 1


def ignores_alpha(alpha):
    return build_model(0.5)


def averaging(alpha):
    model = build_model(alpha)
    model.compile(keras.optimizers.SGD(use_ema=True), model.loss)
    return model


def uncompiled(alpha):
    model = build_model(alpha)
    return kf.FisherPenaltyModel(model.backbone, alpha)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 1}, ValueError, "`epochs` must be an integer >= 2"),
        ({"alphas": [0.1]}, ValueError, "`alphas` must list at least two values"),
        ({"alphas": 0.1}, TypeError, "`alphas` must list numbers"),
        ({"validation_data": None}, ValueError, "`validation_data` must be given"),
        ({"build": 3}, TypeError, "`build_model` must be a function of alpha"),
        ({"alphas": [0.1, -1]}, ValueError, "`alphas` must be positive"),
        ({"build": ignores_alpha}, ValueError, "compiled model with the alpha .* alpha=0.5"),
        ({"build": uncompiled}, ValueError, "compiled=False"),
        ({"build": averaging}, ValueError, "optimizer that has use_ema=False"),
        ({"build": lambda alpha: keras.Sequential()}, TypeError, "must return a FisherPenalty"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        find(tmp_path, **arguments)


def test_a_worker_does_not_delete_the_search_it_shares(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner1")
    with pytest.raises(ValueError, match="`overwrite` must be False for a worker"):
        find(tmp_path, overwrite=True)


# ---- Several processes ---------------------------------------------------------------------------

PROGRAM = ("-m", "tests.tuning.test_find_alpha")


def main(folder):
    """Searches, and prints the trials: the program of each member of a search."""
    found = find(folder)
    print(json.dumps(None if found is None else found.trials))


@pytest.mark.slow
def test_a_chief_and_its_workers_find_what_one_process_finds(tmp_path, searched):
    host, port = free_addresses(1)[0].split(":")
    there = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    members = [
        start(*PROGRAM, tmp_path / "shared", KERASTUNER_TUNER_ID=name, **there)
        for name in ("chief", "tuner0", "tuner1")
    ]
    chief, *workers = [json.loads(printed(member).splitlines()[-1]) for member in members]
    assert workers == [None, None]
    assert chief == [list(trial) for trial in searched[0].trials]


if __name__ == "__main__":
    main(sys.argv[1])


def record_fits(monkeypatch, record):
    """Calls `record(x)` before each `fit`, and returns its results by the first epoch."""
    seen, fit = {}, kf.FisherPenaltyModel.fit

    def recorded(self, x, **options):
        seen.setdefault(options["initial_epoch"], []).append(record(x))
        return fit(self, x, **options)

    monkeypatch.setattr(kf.FisherPenaltyModel, "fit", recorded)
    return seen


@pytest.mark.slow
def test_a_candidate_continues_in_the_middle_of_an_endless_dataset(tmp_path, monkeypatch):
    batches = kf.data.training_batches(*DATA, batch_size=16, seed=0)
    seen = record_fits(monkeypatch, lambda x: np.array(next(iter(x))[1]).tolist())
    find(tmp_path, [0.03, 0.3], data=batches, epochs=4, steps_per_epoch=3)
    expected = [np.array(y).tolist() for _, y in batches.take(7)]
    assert seen == {0: [expected[0]] * 2, 2: [expected[6]] * 2}


@pytest.mark.slow
def test_a_candidate_continues_with_other_random_numbers(tmp_path, monkeypatch):
    seen = record_fits(monkeypatch, lambda _: np.random.random())  # noqa: NPY002
    find(tmp_path, [0.03, 0.3], epochs=2)
    assert len(set(seen[0])) == 1
    assert len({*seen[0], *seen[1]}) == 3


def test_the_rest_of_a_dataset_begins_where_the_epochs_ended():
    data = pytest.importorskip("tensorflow").data.Dataset
    finite, unknown = data.range(12), data.range(12).filter(lambda _: True)
    endless = unknown.repeat()
    for dataset in (finite, unknown, endless):
        rest = [int(number) for number in _skip_epochs(dataset, 2, 3).take(12)]
        assert rest == [*range(6, 12), *range(6)]
    assert _skip_epochs(finite, 5, 12) is finite


def test_tensorboard_has_a_folder_for_each_alpha(tmp_path):
    pytest.importorskip("tensorflow", reason="keras.callbacks.TensorBoard writes with it")
    board = keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False)
    find(tmp_path / "search", [0.03, 0.3], epochs=2, callbacks=[board])
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "alpha-0.03",
        "alpha-0.3",
    ]


def test_a_callback_that_would_restore_one_alpha_in_another_is_refused(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="`callbacks` must not contain BackupAndRestore"):
        find(tmp_path, callbacks=[backup])


class Batches(keras.utils.PyDataset):
    num_batches = 4

    def __getitem__(self, index):
        return DATA


def test_a_part_of_a_dataset_that_cannot_be_skipped_is_no_epoch(tmp_path):
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be 4, .*Batches, or None"):
        find(tmp_path, data=Batches(), steps_per_epoch=2)


def test_validation_data_must_be_the_same_for_all(tmp_path):
    with pytest.raises(TypeError, match=r"`validation_data` must be .* again and again"):
        find(tmp_path, validation_data=iter([VALIDATION]))


def test_data_that_cannot_be_continued_is_refused(tmp_path):
    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return DATA

    for data, message in ((iter([DATA]), "read again and again"), (Endless(), "be finite, or")):
        with pytest.raises(TypeError, match=message):
            find(tmp_path, data=data, steps_per_epoch=1)
