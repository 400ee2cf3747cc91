"""`FisherPenaltyModel`: any Keras model, trained with a gradient-norm penalty."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_fisher import backend, likelihoods, penalties
from keras_fisher.likelihoods import Likelihood, probability_checks
from keras_fisher.likelihoods.likelihood import check_likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.training import model_checks
from keras_fisher.training.health import StepHealth, add_health_warning
from keras_fisher.training.labels import LabelSeedGenerator
from keras_fisher.training.penalised_model import PenalisedModel
from keras_fisher.training.random_states import load_random_states, save_random_states
from keras_fisher.training.state import PenaltyState
from keras_fisher.training.step import PenalisedStep, PenaltySettings
from keras_fisher.utils import arguments
from keras_fisher.utils.labels import check_labels_of_fit, get_symbolic_output
from keras_fisher.utils.optimizers import averages_weights

_FIT = inspect.signature(keras.Model.fit)
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
_AS_PENALISED = (
    "like the penalised likelihood (pass likelihood= to penalise it anyway, or compile=False to "
    "load a saved model)"
)
_GRADIENTS = ("exact", "finite_difference")


@keras.saving.register_keras_serializable(package="keras_fisher")
class FisherPenaltyModel(PenalisedModel):
    """Trains `backbone` with a penalty on the squared norm of the mini-batch gradient.

    It minimises eq. 3 of Jastrzebski et al., "Catastrophic Fisher Explosion" (ICML 2021),

        (1/B) sum_i l(x_i, y_i) + alpha ||(1/B) sum_i g(x_i, y^_i)||^2,

    where l is the compiled loss, g the gradient of the negative log-likelihood with respect to the
    weights and y^_i a label drawn from the model's own prediction. This is the Fisher penalty,
    "fp". The other penalties of section 4 use the given labels ("gp"), uniformly drawn labels
    ("gp_r"), or the given labels and the gradient with respect to the inputs ("gp_x"). As in
    section 2, the gradient of the second term is recomputed every `update_freq` steps and reused in
    between.

    `compile`, `fit`, `evaluate`, `predict` and `save` behave as on any Keras model. The logs hold
    the plain `loss` and, in training, `penalty`: the latest squared norm, without alpha.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model = kf.FisherPenaltyModel(backbone, alpha=0.1, seed=0)
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
        >>> history = model.fit(x, y, epochs=2, verbose=0)
        >>> sorted(history.history)
        ['loss', 'penalty']
        >>> model.alpha = 0.2  # at any time, also from a callback
        >>> model.predict(x, verbose=0).shape
        (64, 3)

    Args:
        backbone: The model to train, in place: functional, sequential or subclassed, with one
            output. `model.backbone` is the same object.
        alpha: The weight of the penalty: a non-negative number, or a
            `keras.optimizers.schedules.LearningRateSchedule` of the training step, whose negative
            values count as 0.
        penalty: "fp", "gp", "gp_x", "gp_r" (section 4) or a `keras_fisher.penalties.Penalty`.
        update_freq: The number of steps between two computations of the penalty's gradient. `None`
            means 10, as in the paper, or 1 if `penalty_batch_size` is a share of the batch.
        penalty_batch_size: An integer n penalises the first n examples of the batch; a float up to
            1.0 this share of them, rounded, and at least one; `None` all. Fewer examples cost
            proportionally less. They use a separate forward pass, which draws the same dropout
            masks, normalises with their own statistics and updates no moving statistics.
        micro_batch_size: The number of examples to differentiate the penalty on at a time, which
            limits its memory; `None` for all at once. Each micro-batch uses a separate forward
            pass, with its own labels, dropout masks and batch statistics.
        gradient: "exact" (double backpropagation) or "finite_difference" (two first-order
            gradients). The latter is cheaper and needs no second derivatives, but is inaccurate in
            half precision.
        max_penalty_ratio: The largest norm of alpha times the penalty's gradient, relative to the
            norm of the loss's gradient; `None` for no limit. Where alpha exceeds it, the step uses
            the alpha that reaches it, measured when the penalty is computed. At that step, with a
            limit below 1, such as 0.7, the sum of both gradients points downhill on the loss of the
            mini-batch, which makes an alpha that is too large less harmful. See `penalty_ratio`.
        likelihood: A `keras_fisher.likelihoods.Likelihood`; `None` infers it from the compiled
            loss.
        seed: The seed of the drawn labels; `None` for a random one.
        name: The model's name.
        **kwargs: Passed to `keras.Model`.

    Raises:
        TypeError: if `backbone` is not a Keras model, or a number has the wrong type.
        ValueError: if an argument is out of range, or `backbone` has no trainable weights, has
            several outputs, or contains a `FisherPenaltyModel`. In `compile`: if the likelihood of
            the loss is unknown, or the loss is not a mean and `likelihood` is `None`. In training:
            if "gp_x" finds no floating-point input, or "gp_r" no finite label set.
        NotImplementedError: in training, if an operation has no second derivative and `gradient`
            is "exact". In `compile`: if a layer renormalises batches, and `gradient` is "exact".

    Scaling: Losses and likelihoods are means over the batch, and over the positions of an example.
    With one label per example and sampled labels, the mean of the penalty over draws is Tr(F)/B
    for a batch of B examples. If `penalty_batch_size` is an integer n, the mean is Tr(F)/n:
    multiply alpha by n/B for the same effect. If it is a share of the batch, the model itself
    multiplies the penalty by n/B, also in the logs, and the mean stays the same. Under "gp" and
    "gp_r" the gradients of the examples do not have mean zero, so the same alpha on a share is a
    weaker penalty. Under "gp_x" the penalty is 1/B times the mean over examples
    of the squared norm, on fewer examples too if alpha is multiplied as for "fp".

    Smaller batches: In a batch of b < B examples the squared norm is multiplied by b/B, so that its
    expected value under "fp" is the same as for a full batch. B is the size of the largest batch so
    far, in this `fit` or, with `train_on_batch`, since the last `fit`; it is saved with the model.

    Padding: Positions that Keras masks, whose sample weight is 0, or whose label the loss ignores
    (`ignore_class`) are excluded from the likelihood and from its mean. Other sample weights, class
    weights and loss weights affect only the plain loss.

    Several devices: In the scope of a `tf.distribute.MirroredStrategy` or
    `MultiWorkerMirroredStrategy`, gradients are averaged over the whole batch before they are
    squared. Each device draws its own labels. `compile` refuses `steps_per_execution`,
    `jit_compile`, gradient accumulation, gradient clipping and losses that are not a mean.

    Resuming: Loading weights restores alpha, the step counter, the kept gradient and the states of
    random generators. `compile` and `set_weights` discard the kept gradient; call one of them after
    you change the weights in another way, such as `backbone.load_weights`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        alpha: float | LearningRateSchedule = 0.01,
        *,
        penalty: str | Penalty = "fp",
        update_freq: int | None = None,
        penalty_batch_size: int | float | None = None,
        micro_batch_size: int | None = None,
        gradient: str = "exact",
        max_penalty_ratio: float | None = None,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        model_checks.check_backbone(backbone, FisherPenaltyModel)
        # Keras decides by the compiled model's policy whether to scale the loss.
        kwargs.setdefault("dtype", backbone.dtype_policy)
        super().__init__(name=name, autocast=False, **kwargs)
        self.backbone = backbone
        self._settings = PenaltySettings(
            penalties.get(penalty),
            arguments.check_count_or_share("penalty_batch_size", penalty_batch_size),
            None
            if micro_batch_size is None
            else arguments.check_integer("micro_batch_size", micro_batch_size, low=1),
            arguments.check_choice("gradient", gradient, _GRADIENTS),
        )
        model_checks.warn_of_rounding(gradient, self._precision)
        self.seed = arguments.check_seed(seed)
        self.likelihood = check_likelihood(likelihood)
        self._likelihood_given = likelihood is not None
        if update_freq is None:
            update_freq = 1 if isinstance(self.penalty_batch_size, float) else 10
        update_freq = arguments.check_integer("update_freq", update_freq, low=1)
        if max_penalty_ratio is not None:
            max_penalty_ratio = arguments.check_positive("max_penalty_ratio", max_penalty_ratio)
        self._state = PenaltyState(update_freq, max_penalty_ratio)
        self._health = StepHealth()
        # Attributes, so that Keras tracks them.
        self._label_seed = LabelSeedGenerator(self.seed)
        self._penalty_metric = self._state.metric
        self._step = PenalisedStep(
            self, self._settings, self._state, self._health, self._label_seed
        )
        self.alpha = alpha
        self.built = backbone.built

    @property
    def penalty(self) -> Penalty:
        """The penalty."""
        return self._settings.penalty

    @property
    def penalty_batch_size(self) -> int | float | None:
        """The number or share of examples to penalise; `None` for all."""
        return self._settings.penalty_batch_size

    @property
    def micro_batch_size(self) -> int | None:
        """The number of examples to differentiate the penalty on at a time; `None` for all."""
        return self._settings.micro_batch_size

    @property
    def gradient(self) -> str:
        """How the penalty is differentiated."""
        return self._settings.gradient

    @property
    def update_freq(self) -> int:
        """The number of steps between two computations of the penalty's gradient."""
        return self._state.update_freq

    @property
    def max_penalty_ratio(self) -> float | None:
        """The largest ratio of the penalty's gradient to the loss's; `None` for no limit."""
        return self._state.balance.max_ratio

    @property
    def penalty_ratio(self) -> float:
        """Alpha ||d/dw P|| / ||d/dw l||, over about the last ten computations of the penalty P.

        0 before the first one, and where alpha is 0; at most `max_penalty_ratio`.
        """
        backend.synchronise(self)
        return float(ops.convert_to_numpy(self._state.balance.ratio(self._state.read_alpha())))

    @property
    def alpha(self) -> float:
        """The weight of the penalty in the next step; set it to a number or a schedule.

        The first number above 0 makes Keras trace the penalised step; later numbers do not trace
        again. Setting or replacing a schedule traces the step again.
        """
        backend.synchronise(self)
        # The shortest decimal form of the float32 is the number that was set.
        return float(str(ops.convert_to_numpy(self._state.read_alpha())))

    @alpha.setter
    def alpha(self, value: float | LearningRateSchedule) -> None:
        backend.synchronise(self)
        if self._state.set_alpha(value) and self.train_function is not None:
            self.make_train_function(force=True)

    @property
    def health(self) -> StepHealth:
        """The record of this training's failed steps, such as those with a NaN loss."""
        return self._health

    def skip_non_finite(self, value: bool) -> None:
        """Sets whether this training skips non-finite steps; see `NonFiniteGuard`."""
        if value and self._is_distributed:
            raise ValueError(
                "`action` must be 'stop' under a tf.distribute strategy that mirrors variables. "
                "Received: action='skip'"
            )
        if value:
            model_checks.check_no_buffers(self.backbone)
        if value != self._health.skips:
            self._health.skips = value
            if self.train_function is not None:
                self.make_train_function(force=True)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does, and infers the likelihood."""
        try:
            super().compile(*args, **kwargs)
            self._check_parts()
            if not self._likelihood_given:
                self.likelihood = likelihoods.from_loss(self.loss)
                arguments.check_mean(self.loss, _MEANS, _AS_PENALISED)
            self._health.unverified = probability_checks.find_unverified(
                self.likelihood, self.backbone
            )
            if self._likelihood_given:
                probability_checks.warn_of_activation(self.likelihood, self.backbone)
            self._state.restart()  # the loss may be another one
            self._trained_weights = None
        except Exception:
            self.compiled = False  # the likelihood is still that of the previous loss
            raise

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, after checking labels that are arrays.

        Warns, at the end of the epoch, of the first step whose loss, penalty or outputs are wrong.
        `keras_fisher.callbacks.NonFiniteGuard` can stop training there, or skip such steps.
        """
        given = _FIT.bind(self, *args, **kwargs).arguments
        model_checks.check_compiled(self)
        self._check_labels("y", given.get("y"))
        validation = given.get("validation_data")
        if isinstance(validation, tuple | list) and len(validation) > 1:
            self._check_labels("validation_data", validation[1])
        model_checks.check_preprocessed(self.backbone, given.get("x"))
        given["callbacks"] = add_health_warning(given.get("callbacks"), self._health)
        self._forget_batch_size()
        try:
            return super().fit(**{name: value for name, value in given.items() if name != "self"})
        finally:
            self.skip_non_finite(False)
            self._forget_batch_size()
            if self._averages_weights:
                self._state.forget()  # Keras has replaced the weights by their averages.

    def _forget_batch_size(self) -> None:
        """Prepares for steps that may have another batch size."""
        backend.synchronise(self)
        self._state.full_size.assign(0)

    def _check_labels(self, name: str, y: Any) -> None:
        if self.likelihood is not None:
            check_labels_of_fit(self.likelihood, name, y, get_symbolic_output(self.backbone))

    def compile_from_config(self, config: Any) -> None:
        """Compiles the model from the result of `get_compile_config`."""
        # Models that override `compile` must do this themselves.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Allocates the kept-gradient variables before tracing."""
        self._check_parts()
        self._check_trained_weights()
        is_made = self.train_function is not None and not force
        if self.backbone.built and not is_made:
            model_checks.check_trainable(self.backbone)
            with self._variables_scope():
                self._state.allocate(self.trainable_weights)
        return super().make_train_function(force)

    def test_step(self, *args: Any) -> Any:
        """Evaluates one batch; excludes the penalty."""
        with self._hide_penalty_metric():
            return super().test_step(*args)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; excludes the penalty."""
        with self._hide_penalty_metric():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.test_on_batch` does; excludes the penalty."""
        with self._hide_penalty_metric():
            return super().test_on_batch(*args, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The compiled metrics and, in training, the penalty."""
        metrics = super().metrics
        if self._evaluating:
            return [metric for metric in metrics if metric is not self._penalty_metric]
        return metrics

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        schedule = self._state.schedule
        return {
            "backbone": serialize(self.backbone),
            "alpha": self.alpha if schedule is None else serialize(schedule),
            "penalty": serialize(self.penalty),
            "update_freq": self.update_freq,
            "penalty_batch_size": self.penalty_batch_size,
            "micro_batch_size": self.micro_batch_size,
            "gradient": self.gradient,
            "max_penalty_ratio": self.max_penalty_ratio,
            "likelihood": serialize(self.likelihood) if self._likelihood_given else None,
            "seed": self.seed,
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "trainable": self.trainable,
            "activity_regularizer": serialize(self.activity_regularizer),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> FisherPenaltyModel:
        """Creates the model from the result of `get_config`."""
        return cls(
            **{
                key: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
                if isinstance(value, dict)
                else value
                for key, value in config.items()
            }
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves the state, beyond weights and optimizer, that exact resuming needs."""
        self._state.save(store, self.weights)
        store["penalty_kind"] = self._penalty_kind
        save_random_states(store, self._random_states())

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Loads weights as `keras.Model.load_weights` does.

        The kept gradient is loaded with them. If only some weights are loaded
        (`skip_mismatch=True`, or an error), the next step recomputes it.
        """
        is_whole = False
        self._state.forget()  # for files that hold only weights
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            is_whole = not (skip_mismatch or kwargs)
        finally:
            if not is_whole:
                self._state.forget()

    def set_weights(self, weights: Any) -> None:
        """Sets the weights as `keras.Model.set_weights` does, and discards the kept gradient."""
        super().set_weights(weights)
        self._state.restart()

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        if "alpha" not in store:
            raise ValueError(
                "The file must hold the weights of a FisherPenaltyModel, its alpha and its step. "
                "Received: a file without them. Load the weights of a plain model, such as the "
                f"backbone {self.backbone.name!r}, with model.backbone.load_weights(...)."
            )
        with self._variables_scope():
            self._state.load(store, self.trainable_weights, self.weights)
            # Older files lack it.
            is_known = "penalty_kind" in store.keys()  # noqa: SIM118
            if is_known and not np.array_equal(store["penalty_kind"][()], self._penalty_kind):
                self._state.forget()
        load_random_states(store, self._random_states())

    # ---- Private ---------------------------------------------------------------------------

    def _check_parts(self) -> None:
        if self.gradient == "exact":
            model_checks.check_no_renormalisation(self.backbone)
        if not self._is_distributed:
            return
        check = functools.partial(model_checks.check_no_synchronized_layer, self.backbone)
        if self.micro_batch_size is not None:
            check("`micro_batch_size` must be None")
        if self.gradient == "finite_difference" and not self.run_eagerly:
            check("`gradient` must be 'exact', or run_eagerly True,")

    @property
    def _penalty_kind(self) -> np.ndarray:
        """The labels and the variable of the penalty, as Keras's files store no text."""
        text = f"{self.penalty.labels} {self.penalty.wrt}"
        return np.frombuffer(text.encode(), "uint8")

    @property
    def _averages_weights(self) -> bool:
        return averages_weights(getattr(self, "optimizer", None))

    @contextlib.contextmanager
    def _hide_penalty_metric(self) -> Iterator[None]:
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before
