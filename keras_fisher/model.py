"""`FisherPenaltyModel`: any Keras model, trained with a gradient-norm penalty."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

# Knows the model that a layer is called in; Keras has no public name for it.
from keras.src.backend.common.global_state import get_global_attribute

# Marks a `build` that Keras calls only after tracing `call` with what the model was called with:
# shapes alone do not tell the dtypes. Keras has no public name for it.
from keras.src.utils.python_utils import default as built_by_call

from keras_fisher import _arguments, _probabilities, autodiff, likelihoods, penalties
from keras_fisher._labels import (
    check_classes,
    checked_labels,
    counted_labels,
    is_text,
    known_outputs,
    only_labels,
)
from keras_fisher._logging import warn, warn_once
from keras_fisher._masks import present
from keras_fisher._metrics import LatestValue
from keras_fisher._state import PenaltyState
from keras_fisher._stateless import Stateless
from keras_fisher._step import (
    Connected,
    HeldLabels,
    Inputs,
    LabelSeed,
    MeanNll,
    MicroBatches,
    PartSeed,
    StepKind,
    apart,
    each_dense,
    fewer,
    length,
    share_of,
)
from keras_fisher._watch import StepWatch, with_teller
from keras_fisher.autodiff import PenaltyGradients
from keras_fisher.likelihoods import Likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.trainers import Trainer

if TYPE_CHECKING:
    from keras_fisher.autodiff.tensorflow_replicas import Replica

_UPDATE_FREQ, _UPDATE_FREQ_OF_A_SHARE = 10, 1
_FIT = inspect.signature(keras.Model.fit)
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
_AS_PENALISED = (
    "as the penalised likelihood is (say which it is with likelihood= to penalise it all the same; "
    "a saved model is loaded with compile=False)"
)
_GRADIENTS = ("exact", "finite_difference")
_HALF_PRECISION = ("float16", "bfloat16")
_OTHER_GENERATORS = (
    "The random states that were saved are left alone: they are of {saved} generators (layers of "
    "dropout and noise, and drawn labels), and this model has {found}."
)
_WEIGHTS_OF_ANOTHER = (
    "The file must hold the weights of a FisherPenaltyModel, its alpha and its step. Received: a "
    "file without them. Load the weights of a plain model, such as the backbone {!r}, with "
    "model.backbone.load_weights(...)."
)
_ONE_OUTPUT = (
    "Wrap the part with one of them: of a functional model, "
    "keras.Model(backbone.inputs, backbone.outputs[0])."
)
_NOT_PREPROCESSED = (
    "The preprocessor of {!r}, which its own `fit` applies, is not applied by FisherPenaltyModel: "
    "map the data with backbone.preprocessor first."
)
_IGNORED = (
    "The penalty of {!r} is ignored, which is trained as a layer of {!r}: a FisherPenaltyModel is "
    "penalised in its own `fit` alone. Give the larger model to a FisherPenaltyModel instead, with "
    "the plain backbone as its layer."
)
_DIFFERENCE_OF_ROUNDED = (
    "gradient='finite_difference' takes the difference of two gradients, which {} rounds: in a "
    "deep network it may be off by as much as it is large. gradient='exact' is not."
)


@keras.saving.register_keras_serializable(package="keras_fisher")
class FisherPenaltyModel(Trainer):
    """Trains `backbone` with a penalty on the squared norm of the mini-batch gradient.

    It minimises eq. 3 of Jastrzebski et al., "Catastrophic Fisher Explosion" (ICML 2021),

        (1/B) sum_i l(x_i, y_i) + alpha ||(1/B) sum_i g(x_i, y^_i)||^2,

    where l is the compiled loss, g the gradient of the negative log-likelihood with respect to the
    weights and y^_i a label drawn from the model's own prediction ("fp"). The cousins of section 4
    take the given labels ("gp"), uniform ones ("gp_r"), or the given ones and the gradient with
    respect to the inputs ("gp_x"). As in section 2, the gradient of the second term is recomputed
    every `update_freq` steps and reused in between.

    Made and compiled in the scope of a `tf.distribute.MirroredStrategy` or
    `MultiWorkerMirroredStrategy`, it trains on many devices what one device would train on the same
    batches: gradients are those of the whole batch before they are squared. Each device draws its
    own labels.

    Everything else is the backbone's: `compile`, `fit`, `evaluate`, `predict` and `save` behave as
    on any Keras model. Logs hold the plain `loss` and, during training, `penalty`, the latest
    squared norm (without alpha).

    Example:
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
        alpha: The weight of the penalty: a number of at least 0, or a
            `keras.optimizers.schedules.LearningRateSchedule` of the training step.
        penalty: "fp", "gp", "gp_x", "gp_r" (section 4) or a `keras_fisher.penalties.Penalty`.
        update_freq: Every how many steps the penalty's gradient is recomputed; `None` for 10, as in
            the paper, and for 1 where `penalty_batch_size` is a share of the batch.
        penalty_batch_size: How many examples, the first of the batch, the penalty is taken on;
            `None` for all. All examples share the step's forward pass (unless they are taken in
            micro-batches). Fewer get a forward pass of their own, in which dropout draws the same
            numbers and batch normalisation uses the statistics of those examples and moves none.
            (`penalty_batch_size=1, update_freq=1` is eq. 6, `penalty_batch_size=128,
            update_freq=1` is appendix E.) A share of the batch costs as much less, and alpha keeps
            its meaning (see Scaling): 1/32 is what docs/performance.md recommends where time
            counts.
        micro_batch_size: On how many examples at a time the penalty is differentiated, which
            bounds the memory that it takes; `None` for all at once. See Memory.
        gradient: "exact" (double backpropagation) or "finite_difference" (two first-order
            gradients: cheaper, and for operations that have no second derivative, but rough in half
            precision).
        likelihood: A `keras_fisher.likelihoods.Likelihood`; `None` infers it from the compiled
            loss.
        seed: The seed of the drawn labels; `None` for a random one.
        name: The model's name.
        **kwargs: Passed to `keras.Model`.

    Raises:
        TypeError: if `backbone` is no Keras model, or a number has another type.
        ValueError: if `alpha` is negative or not finite, `penalty` or `gradient` is unknown,
            `update_freq` or `micro_batch_size` is below 1, `penalty_batch_size` is below 1 and no
            share of the batch, or `backbone` has no trainable weights or several outputs, or is or
            holds a `FisherPenaltyModel`; in
            `compile`, if the loss has no known likelihood or, without a given one, is no mean; or,
            under a strategy that mirrors variables, for `steps_per_execution`, `jit_compile`,
            gradient accumulation, losses that are no mean, and micro-batches with synchronized
            batch normalisation; in training, if "gp_x" finds no floating-point input or "gp_r" no
            finite label set.
        NotImplementedError: in training, if an operation has no second derivative and `gradient`
            is "exact".

    Scaling: losses and likelihoods are means over the batch (and over the positions of an example,
    as in Keras's losses). With one label per example the penalty of one batch under sampled labels
    has the mean Tr(F)/B; "gp_x" carries 1/B against the per-example mean. A negative value of a
    schedule counts as 0. All squares are summed in float32 or better. With an integer
    `penalty_batch_size` n that mean is Tr(F)/n, so that alpha n/B in the place of alpha penalises
    as much as the whole batch does. With a share, the penalty (in the logs too) is the squared norm
    times n/B, n = share * B: the same alpha penalises as much. (Not so under "gp" and "gp_r", where
    the gradients of examples have another mean than 0.)

    Smaller batches: the expected penalty is that of a full batch, whose size B is the largest of
    this `fit` so far. A last batch of b < B examples has the squared norm times b/B; with a share,
    the penalty is taken on that share of the b examples and multiplied by their number over B; with
    an integer n > b, it is multiplied by b/n. The model saves B, for steps of `train_on_batch`.

    Padding is no data. Positions that Keras masks, whose sample weight is 0, or whose label the
    loss ignores (`ignore_class`) belong neither to the likelihood nor to its mean: the penalty is
    that of the other positions alone, and an example without any is no example. Other sample
    weights, class weights and loss weights act on the plain loss alone.

    A finite difference needs a third gradient where weights (for "gp_x", inputs) are exactly 0 and
    have a gradient, as biases at the first step: inputs of 0 may then put a ReLU on its kink, and
    both gradients are taken on one side of it.

    Memory: with a `micro_batch_size` a computation of the penalty takes no more memory than one of
    as many examples, beside a plain step and two copies of the weights, and up to one and a half
    times as long. Each micro-batch has a forward pass of its own: its labels, its numbers in
    dropout and its statistics in batch normalisation, of which it moves none.

    Loading weights also brings back alpha, the step counter, the kept gradient and the states of
    random generators; set `model.alpha` afterwards to go on with another one.

    A layer that wraps its own `call` in a `tf.function` and was traced before training keeps
    TensorFlow's moments there: call such a model for the first time in `fit`.
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
        likelihood: Likelihood | None = None,
        seed: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        _check_backbone(backbone)
        if likelihood is not None and not isinstance(likelihood, Likelihood):
            raise TypeError(
                "`likelihood` must be a keras_fisher.likelihoods.Likelihood (Categorical(), "
                "Bernoulli(), Gaussian() or one of your own) or None. "
                f"Received: {likelihood!r}"
            )
        if getattr(backbone, "preprocessor", None) is not None:
            warn_once(_NOT_PREPROCESSED.format(backbone.name))
        # Keras wraps the optimizer in a loss scale by the policy of the model that is compiled.
        kwargs.setdefault("dtype", backbone.dtype_policy)
        super().__init__(name=name, autocast=False, **kwargs)
        self.backbone = backbone
        self._penalty = penalties.get(penalty)
        self._penalty_batch_size = _arguments.check_count_or_share(
            "penalty_batch_size", penalty_batch_size
        )
        self._micro_batch_size = (
            None
            if micro_batch_size is None
            else _arguments.check_integer("micro_batch_size", micro_batch_size, low=1)
        )
        self._gradient = _arguments.check_choice("gradient", gradient, _GRADIENTS)
        if gradient == "finite_difference" and backbone.compute_dtype in _HALF_PRECISION:
            warn_once(_DIFFERENCE_OF_ROUNDED.format(backbone.compute_dtype))
        self.seed = _arguments.check_seed(seed)
        self.likelihood: Any = likelihood
        self._likelihood_given = likelihood is not None
        self._label_seed = LabelSeed(self.seed)
        self._penalty_metric = LatestValue("penalty")
        self._evaluating = False
        if update_freq is None:
            is_share = isinstance(self._penalty_batch_size, float)
            update_freq = _UPDATE_FREQ_OF_A_SHARE if is_share else _UPDATE_FREQ
        self._state = PenaltyState(_arguments.check_integer("update_freq", update_freq, low=1))
        self._watch = StepWatch()
        self._schedule: LearningRateSchedule | None = None
        self.alpha = alpha
        self.built = backbone.built

    @property
    def penalty(self) -> Penalty:
        """What is penalised."""
        return self._penalty

    @property
    def penalty_batch_size(self) -> int | float | None:
        """How many examples, or what share of them, the penalty is taken on; `None` for all."""
        return self._penalty_batch_size

    @property
    def micro_batch_size(self) -> int | None:
        """On how many examples at a time the penalty is differentiated; `None` for all."""
        return self._micro_batch_size

    @property
    def gradient(self) -> str:
        """How the penalty is differentiated."""
        return self._gradient

    @property
    def update_freq(self) -> int:
        """Every how many steps the penalty's gradient is recomputed."""
        return self._state.update_freq

    @property
    def alpha(self) -> float:
        """The weight of the penalty in the next step; set it to a number or a schedule.

        A number acts on the next step, without a retrace. Exchanging a schedule (for a number or
        another schedule) or setting one traces the step anew.
        """
        autodiff.synchronise(self)
        alpha = self._state.alpha if self._schedule is None else self._scheduled(self._schedule)
        # By way of its shortest decimal form, a float32 reads as the number that was set.
        return float(str(ops.convert_to_numpy(alpha)))

    @alpha.setter
    def alpha(self, value: float | LearningRateSchedule) -> None:
        autodiff.synchronise(self)
        was_scheduled = self._schedule is not None
        if isinstance(value, LearningRateSchedule):
            self._schedule = value
        else:
            accepted = "at least 0 and finite, or a LearningRateSchedule"
            self._state.alpha.assign(_arguments.check_non_negative("alpha", value, accepted))
            self._schedule = None
        if (was_scheduled or self._schedule is not None) and self.train_function is not None:
            self.make_train_function(force=True)

    def _skip_non_finite(self, value: bool) -> None:
        """Whether to skip steps that are not finite; `keras_fisher.callbacks.NonFiniteGuard`."""
        if value and self._is_distributed:
            raise ValueError(
                "`action` must be 'stop' under a tf.distribute strategy that mirrors variables. "
                "Received: action='skip'"
            )
        if value != self._watch.skips:
            self._watch.skips = value
            if self.train_function is not None:
                self.make_train_function(force=True)

    @property
    def inputs(self) -> Any:
        """The backbone's symbolic inputs, if it is functional or a built `keras.Sequential`."""
        return self.backbone.inputs

    @property
    def input_shape(self) -> Any:
        """The shape of the backbone's input."""
        return self.backbone.input_shape

    @property
    def outputs(self) -> Any:
        """The backbone's symbolic outputs: a list of one."""
        return self.backbone.outputs

    @property
    def output_shape(self) -> Any:
        """The shape of the backbone's output."""
        return self.backbone.output_shape

    @property
    def output_names(self) -> list[str]:
        """The name of a functional backbone's output, by which `compile` takes losses."""
        return self.backbone.output_names

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.Layer:
        """Returns a layer of the backbone, or by its own name the backbone itself."""
        if index is None and name == self.backbone.name:
            return self.backbone
        return self.backbone.get_layer(name, index)

    @built_by_call
    def build(self, input_shape: Any) -> None:
        """Builds the backbone for inputs of a shape, or of a structure of shapes."""
        if not self.backbone.built:
            inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
            with self._variables_scope():
                self.compute_output_spec(inputs)

    def build_from_config(self, config: Any) -> None:
        """Builds the backbone as `get_build_config` described."""
        super().build_from_config(config)
        self.built = self.backbone.built

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the backbone's output."""
        context = get_global_attribute("current_call_ctx")
        if training and context is not None and context.entry_layer is not self:
            warn_once(_IGNORED.format(self.name, context.entry_layer.name))
        _check_preprocessed(self.backbone, inputs)
        outputs = self.backbone(inputs, training=training)
        if isinstance(outputs, list | tuple | dict):
            raise ValueError(
                f"`backbone` must have one output, a tensor. Received: {self.backbone.name!r}, "
                f"which returned a {type(outputs).__name__} of {len(outputs)}. {_ONE_OUTPUT}"
            )
        return outputs

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does, and infers the likelihood."""
        try:
            super().compile(*args, **kwargs)
            self._check_parts()
            if not self._likelihood_given:
                self.likelihood = likelihoods.from_loss(self.loss)
                _arguments.check_mean(self.loss, _MEANS, _AS_PENALISED)
            self._watch.doubted = _probabilities.doubted(self.likelihood, self.backbone)
        except Exception:
            self.compiled = False  # not with this loss and the likelihood of the one before
            raise

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does; labels given as arrays are checked beforehand.

        Warns of the first step whose loss, penalty or outputs went wrong, by the end of its epoch.
        `keras_fisher.callbacks.NonFiniteGuard` can stop there, or skip such steps.
        """
        given = _FIT.bind(self, *args, **kwargs).arguments
        y = given.get("y")
        if self.likelihood is not None and hasattr(only_labels(y), "__array__"):
            check_classes(self.likelihood, y, known_outputs(self.backbone))
        _check_preprocessed(self.backbone, given.get("x"))
        given["callbacks"] = with_teller(given.get("callbacks"), self._watch)
        autodiff.synchronise(self)
        self._state.full_size.assign(0)  # batches may be smaller than those of another fit
        try:
            return super().fit(**{name: value for name, value in given.items() if name != "self"})
        finally:
            self._skip_non_finite(False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the plain loss; a label outside the classes fails the step.

        Under XLA, which has no assertions, the loss of such a label is NaN instead.
        """
        if y is None:
            raise ValueError("`y` must be given: the labels of the batch. Received: y=None")
        bound = self.likelihood.class_bound(only_labels(y), y_pred)
        labels = checked_labels(self.likelihood, y, y_pred)
        loss = super().compute_loss(x, labels, y_pred, sample_weight, training)
        if bound is None:
            return loss
        values = counted_labels(self.likelihood, only_labels(y))
        return autodiff.nan_unless_below(loss, values, bound)

    def compile_from_config(self, config: Any) -> None:
        """Compiles as `get_compile_config` described."""
        # Keras leaves this to models that override `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes room for the penalty's gradient, outside the traced step."""
        self._check_parts()
        is_made = self.train_function is not None and not force
        if self.backbone.built and not is_made:
            with self._variables_scope():
                self._state.allocate(self._penalised_weights())
        return super().make_train_function(force)

    def _take_step(self, data: Any, kind: StepKind | None = None) -> None:
        """Takes one optimisation step on eq. 3; with alpha 0, the plain step of Keras.

        It is of a `_step_kind`, or of that which the variables tell where it is taken.
        """
        self._create_variables(data)
        self._follow_schedule()
        before = self._statistics() if self._watch.skips else []
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._state.see_batch(length(x))
        is_due = self._state.is_due() if kind is None else kind == StepKind.NEW_PENALTY
        autodiff.cond(
            self._state.alpha > 0.0 if kind is None else kind != StepKind.NO_PENALTY,
            lambda: self._penalised_step(x, y, sample_weight, is_due),
            lambda: self._plain_step(x, y, sample_weight),
        )
        is_finite = self._note()
        for variable, value in before:
            variable.assign(ops.where(is_finite, ops.convert_to_tensor(variable), value))
        self._state.count_step()

    def test_step(self, *args: Any) -> Any:
        """Evaluates one batch; the penalty is no part of it."""
        with self._without_penalty_metric():
            return super().test_step(*args)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; the penalty is no part of it."""
        with self._without_penalty_metric():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.test_on_batch` does; the penalty is no part of it."""
        with self._without_penalty_metric():
            return super().test_on_batch(*args, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The compiled metrics and, in training, the penalty."""
        metrics = super().metrics
        if self._evaluating:
            return [metric for metric in metrics if metric is not self._penalty_metric]
        return metrics

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports the backbone, which is all that inference needs."""
        return self.backbone.export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "backbone": serialize(self.backbone),
            "alpha": self.alpha if self._schedule is None else serialize(self._schedule),
            "penalty": serialize(self.penalty),
            "update_freq": self.update_freq,
            "penalty_batch_size": self.penalty_batch_size,
            "micro_batch_size": self.micro_batch_size,
            "gradient": self.gradient,
            "likelihood": serialize(self.likelihood) if self._likelihood_given else None,
            "seed": self.seed,
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "trainable": self.trainable,
            "activity_regularizer": serialize(self.activity_regularizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FisherPenaltyModel:
        """Returns the model that `get_config` described."""
        return cls(
            **{
                key: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
                if isinstance(value, dict)
                else value
                for key, value in config.items()
            }
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves what exact resuming needs beyond weights and optimizer."""
        self._state.save(store, self.weights)
        store["penalty"] = ops.convert_to_numpy(self._penalty_metric.latest)
        for index, state in enumerate(self._random_states()):
            store[f"random_state_{index}"] = ops.convert_to_numpy(state)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Loads weights as `keras.Model.load_weights` does.

        The kept gradient is loaded with them, unless only a part of them is (`skip_mismatch=True`,
        or an error): then it is recomputed at the next step.
        """
        is_whole = False
        self._state.forget()  # for files that hold weights alone
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            is_whole = not (skip_mismatch or kwargs)
        finally:
            if not is_whole:
                self._state.forget()

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        if "alpha" not in store:
            raise ValueError(_WEIGHTS_OF_ANOTHER.format(self.backbone.name))
        with self._variables_scope():
            self._state.load(store, self.trainable_weights, self.weights)
        self._penalty_metric.update_state(store["penalty"][()])
        states = self._random_states()
        saved = sum(key.startswith("random_state_") for key in store.keys())  # noqa: SIM118
        if saved != len(states):
            warn(_OTHER_GENERATORS.format(saved=saved, found=len(states)))
            return
        for index, state in enumerate(states):
            state.assign(store[f"random_state_{index}"])

    @property
    def _is_built_before_training(self) -> bool:
        return self.backbone.built and not self._evaluating

    def _check_parts(self) -> None:
        if self._is_distributed and self.micro_batch_size is not None:
            _check_no_synchronized_layer(self.backbone)

    def _random_states(self) -> list[keras.Variable]:
        """The states of every seed generator, of dropout layers too, which Keras does not save."""
        weights = {id(weight) for weight in self.weights}
        return [v for v in self._moved_variables if id(v) not in weights]

    def _own_variables(self) -> list[keras.Variable]:
        return [*self._state.variables, *self._watch.variables]

    def _penalised_weights(self) -> list[keras.Variable]:
        weights = list(self.trainable_weights)
        if not weights:
            raise ValueError(_no_trainable_weights(self.backbone))
        return weights

    def _create_variables(self, data: Any) -> None:
        """Creates what does not exist yet: neither branch of a step can."""
        if not self.backbone.built:
            self(keras.utils.unpack_x_y_sample_weight(data)[0], training=False)
        weights = self._penalised_weights()
        self._state.allocate(weights)
        if not self.optimizer.built:
            self.optimizer.build(weights)

    def _follow_schedule(self) -> None:
        if self._schedule is not None:
            self._state.alpha.assign(self._scheduled(self._schedule))

    def _scheduled(self, schedule: LearningRateSchedule) -> Any:
        return ops.maximum(schedule(ops.convert_to_tensor(self._state.step)), 0.0)

    def _plain_step(self, x: Any, y: Any, sample_weight: Any) -> None:
        self._apply(self._plain_gradients(x, y, sample_weight))

    def _penalised_step(self, x: Any, y: Any, sample_weight: Any, is_due: Any) -> None:
        connected = Connected()
        gradients = autodiff.cond(
            is_due,
            lambda: connected.only(self._penalised_gradients(x, y, sample_weight)),
            lambda: connected.only(self._plain_gradients(x, y, sample_weight)),
        )
        self._apply(connected.all(self._with_penalty(gradients, connected.indices)))

    def _apply(self, gradients: Sequence[Any]) -> None:
        """Takes the step, unless it is to be skipped."""

        def apply() -> None:
            self._apply_gradients(gradients)

        # A dynamic loss scale skips steps itself, and has to see those that overflow.
        if self._watch.skips and not self._scales_dynamically:
            autodiff.cond(self._watch.may_step(gradients, self._state), apply, lambda: None)
        else:
            apply()

    def _note(self) -> Any:
        """Remembers a step that went wrong, and returns whether this one is finite."""
        return self._watch.note(self._state, self._penalty_metric.latest, self._scales_dynamically)

    def _statistics(self) -> list[tuple[keras.Variable, Any]]:
        """What a forward pass moves, and how it is now: statistics of layers, and metrics."""
        variables = [*self.non_trainable_weights, *self.metrics_variables]
        return [(variable, ops.copy(variable)) for variable in variables]

    def _step_kind(self) -> Any:
        self._follow_schedule()
        none, kept, new = (kind.value for kind in StepKind)
        penalised = ops.where(self._state.is_due(), new, kept)
        return ops.where(self._state.alpha > 0.0, penalised, none)

    def _steps_on_replicas(self) -> Sequence[Callable[[Replica, Any], Any]]:
        return [
            functools.partial(self._replica_step, is_due=False, is_penalised=False),
            functools.partial(self._replica_step, is_due=False, is_penalised=True),
            functools.partial(self._replica_step, is_due=True, is_penalised=True),
        ]

    def _replica_step(self, replica: Replica, data: Any, is_due: bool, is_penalised: bool) -> None:
        """One replica's part of a step; the optimizer adds up what the replicas give it."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._state.see_batch(replica.total)
        differentiate = self._penalised_gradients if is_due else self._plain_gradients
        gradients = replica.present(differentiate(x, y, sample_weight, replica))
        if is_penalised:
            connected = Connected()
            penalised = self._with_penalty(
                connected.only(gradients), connected.indices, replica.count
            )
            gradients = connected.all(penalised)
        if self._scales_dynamically:
            gradients = replica.all_or_none_finite(gradients)
        self._apply_gradients(gradients)
        self._note()
        self._state.count_step()

    def _plain_gradients(
        self, x: Any, y: Any, sample_weight: Any, replica: Replica | None = None
    ) -> Any:
        return autodiff.gradients(
            lambda: self._training_loss(x, y, sample_weight, replica)[0], self.trainable_weights
        )

    def _penalised_gradients(
        self, x: Any, y: Any, sample_weight: Any, replica: Replica | None = None
    ) -> Any:
        """The gradients of the plain loss; those of the penalty are kept."""
        # Read before the forward pass moves them: seeds for the same dropout mask, statistics.
        state = [(v, ops.copy(v)) for v in self._replayed_variables]
        where = present(self.likelihood, only_labels(y), sample_weight)
        if self.penalty_batch_size is None and self.micro_batch_size is None:
            result = self._differentiated(
                x,
                HeldLabels(self.likelihood, self.penalty, y, self._label_seed, where),
                state,
                lambda _, inputs: self._training_loss(inputs, y, sample_weight, replica),
                self.trainable_weights,
                self._mean_nll(length(x), replica),
                replica,
            )
            self._keep(result)
            return result.loss
        gradients = self._plain_gradients(x, y, sample_weight, replica)
        first, replica = self._first(length(x), replica)
        x, y, where = each_dense(lambda tensor: tensor[:first], (x, only_labels(y), where))
        mean = self._mean_nll(first, replica)
        weights = [ops.copy(variable) for variable in self.trainable_weights]
        if self.micro_batch_size is None:
            result = self._differentiated(
                x,
                HeldLabels(self.likelihood, self.penalty, y, self._label_seed, where),
                state,
                lambda at, inputs: (None, self._call_at(state, at, inputs)),
                weights,
                mean,
                replica,
            )
        else:
            result = self._differentiated_in_parts(
                self.micro_batch_size, (x, y, where), state, weights, mean, replica
            )
        self._keep(result)
        return gradients

    def _first(self, examples: Any, replica: Replica | None) -> tuple[Any, Replica | None]:
        """Returns how many examples the penalty is taken on here, and a replica of those."""
        size = self.penalty_batch_size
        if size is None:
            return examples, replica
        total = examples if replica is None else replica.total
        # Of this batch and not of a full one, whose size XLA does not know; `_mean_nll` makes up.
        size = share_of(total, size) if isinstance(size, float) else fewer(size, total)
        return (size, None) if replica is None else replica.first(size)

    def _mean_nll(self, examples: Any, replica: Replica | None) -> MeanNll:
        """Returns a mean over these examples whose penalty is that of a full batch."""
        full = ops.convert_to_tensor(self._state.full_size)
        if isinstance(self.penalty_batch_size, int):
            full = fewer(self.penalty_batch_size, full)
        return MeanNll(examples if replica is None else replica.total, full, replica)

    def _keep(self, result: PenaltyGradients) -> None:
        self._state.keep(result.penalty)
        self._penalty_metric.update_state(result.squared_norm)

    def _differentiated(
        self,
        x: Any,
        labels: HeldLabels,
        state: Sequence[tuple[Any, Any]],
        evaluate: Callable[[Sequence[Any], Any], tuple[Any, Any]],
        weights: Sequence[Any],
        mean: MeanNll,
        replica: Replica | None,
    ) -> PenaltyGradients:
        """Differentiates the penalty on these examples; `evaluate` gives the loss and outputs."""
        inputs = Inputs(x)
        floating = inputs.floating() if self.penalty.wrt == "inputs" else None

        def objective(at: Sequence[Any], at_inputs: Sequence[Any]) -> tuple[Any, Any]:
            loss, outputs = evaluate(at, inputs.replaced(at_inputs))
            return loss, mean(*labels.nll(outputs))

        def shifted_nll(at: Sequence[Any], at_inputs: Sequence[Any]) -> Any:
            return mean(*labels.nll(self._call_at(state, at, inputs.replaced(at_inputs))))

        if self.gradient == "exact":
            return autodiff.penalty_gradients(
                objective, weights, floating, self._loss_scale(), replica
            )
        return autodiff.penalty_gradients_by_difference(
            objective,
            shifted_nll,
            weights,
            floating,
            self._loss_scale(),
            self.backbone.compute_dtype,
            replica,
        )

    def _differentiated_in_parts(
        self,
        size: int,
        examples: tuple[Any, Any, Any],
        state: Sequence[tuple[Any, Any]],
        weights: Sequence[Any],
        mean: MeanNll,
        replica: Replica | None,
    ) -> PenaltyGradients:
        """Differentiates the penalty on (x, y, where there is data), one micro-batch at a time."""
        parts = MicroBatches(length(examples[0]), size)
        statistics = {id(weight) for weight in self.weights}
        seed = self._label_seed.next()
        wrt_inputs = self.penalty.wrt == "inputs"

        def part(index: Any) -> autodiff.Part:
            own = [(v, value if id(v) in statistics else apart(value, index)) for v, value in state]
            x, y, where = parts.part(index, examples)
            inputs = Inputs(x)
            labels = HeldLabels(self.likelihood, self.penalty, y, PartSeed(seed, index), where)
            fractions: Any = None

            def nll(at: Sequence[Any], shifted_inputs: Sequence[Any]) -> Any:
                nonlocal fractions
                outputs = self._call_at(own, at, inputs.replaced(shifted_inputs))
                values, found = labels.nll(outputs)
                if fractions is None:  # held, as labels are
                    fractions = ops.ones_like(values) if found is None else found
                added = parts.mean(index, values)
                return added if replica is None else replica.part(added)

            def counts() -> list[Any]:
                with_data = ops.cast(fractions > 0, fractions.dtype)
                return [parts.sum(index, fractions), parts.sum(index, with_data)]

            return autodiff.Part(nll, counts, inputs.floating() if wrt_inputs else None)

        return autodiff.penalty_gradients_in_parts(
            part,
            parts.count,
            weights,
            mean.factor,
            wrt_inputs=wrt_inputs,
            exact=self.gradient == "exact",
            scale=self._loss_scale(),
            precision=self.backbone.compute_dtype,
            replica=replica,
        )

    def _training_loss(
        self, x: Any, y: Any, sample_weight: Any, replica: Replica | None = None
    ) -> tuple[Any, Any]:
        """One forward pass: the loss to differentiate and the outputs; metrics are updated.

        On several replicas the losses add up to the mean over all examples.
        """
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        if replica is not None:
            # Keras has multiplied it by this; 1/3 is one of single precision there.
            loss = loss / ops.cast(1.0 / replica.count, loss.dtype)
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss, sample_weight=length(x))
        self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        if replica is not None:
            loss = replica.part(loss)
        self._watch.see(loss, y_pred, replica)
        return self.optimizer.scale_loss(loss), y_pred

    def _call_at(self, state: Sequence[tuple[Any, Any]], weights: Sequence[Any], x: Any) -> Any:
        """The outputs in training mode at other weights; no variable of the model moves."""
        mapping = [*zip(self.trainable_weights, weights, strict=True), *state]
        with Stateless(mapping, fixed=self._assigned_before_replay):
            return self(x, training=True)

    def _with_penalty(
        self, gradients: list[Any], indices: Sequence[int], replicas: int = 1
    ) -> list[Any]:
        """Adds alpha times a replica's share of the kept gradient, as the optimizer scales it."""
        scale = self._loss_scale()
        factor = self._state.alpha * (1.0 if scale is None else scale)
        kept = [ops.convert_to_tensor(self._state.gradients[index]) for index in indices]
        return [
            g + ops.cast((ops.cast(factor, k.dtype) / replicas) * k, g.dtype)
            for g, k in zip(gradients, kept, strict=True)
        ]

    def _loss_scale(self) -> Any:
        """The factor that the optimizer expects gradients to carry, a tensor, or `None` for 1."""
        scale = self.optimizer.scale_loss(1.0)
        return None if isinstance(scale, float) and scale == 1.0 else ops.convert_to_tensor(scale)

    @property
    def _scales_dynamically(self) -> bool:
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    @contextlib.contextmanager
    def _without_penalty_metric(self) -> Iterator[None]:
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before


def _check_backbone(backbone: Any) -> None:
    if not isinstance(backbone, keras.Model):
        raise TypeError(f"`backbone` must be a keras.Model. Received: {backbone!r}")
    if backbone.built and not backbone.trainable_weights:
        raise ValueError(_no_trainable_weights(backbone))
    outputs = getattr(backbone, "outputs", None)
    if outputs is not None and len(outputs) > 1:
        raise ValueError(
            f"`backbone` must have one output. Received: {backbone.name!r} with {len(outputs)}. "
            f"{_ONE_OUTPUT}"
        )
    inner = [layer for layer in backbone._flatten_layers() if isinstance(layer, FisherPenaltyModel)]
    if inner:
        raise ValueError(
            "`backbone` must neither be nor hold a FisherPenaltyModel, whose own penalty would be "
            f"ignored. Received: {backbone.name!r}, with {inner[0].name!r}. Wrap its plain "
            "`backbone`."
        )


def _check_preprocessed(backbone: keras.Model, x: Any) -> None:
    """Refuses strings, or a dataset of them, for a task of KerasHub, whose `fit` preprocesses."""
    if getattr(backbone, "preprocessor", None) is None:
        return
    if hasattr(x, "element_spec"):
        x = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
    if any(map(is_text, keras.tree.flatten(x))):
        raise ValueError(
            "`x` must be preprocessed for a backbone that has a `preprocessor`, which "
            f"FisherPenaltyModel does not apply. Received: strings for {backbone.name!r}. Map the "
            "data with backbone.preprocessor first."
        )


def _check_no_synchronized_layer(backbone: keras.Model) -> None:
    for layer in backbone._flatten_layers():
        if getattr(layer, "synchronized", False):
            raise ValueError(
                "`micro_batch_size` must be None under tf.distribute with synchronized batch "
                "normalisation, which waits for replicas that may have fewer parts. "
                f"Received: the layer {layer.name!r}"
            )


def _no_trainable_weights(backbone: keras.Model) -> str:
    return f"`backbone` must have trainable weights. Received: {backbone.name!r}, which has none"
