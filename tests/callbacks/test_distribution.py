"""Measuring under a strategy of several replicas."""

import pytest

from tests import reference
from tests.processes import printed, start

# Two strategies in one process disturb each other, and devices can be split only at the start.
SCRIPT = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras_fisher as kf
from tests import nets

x, y = nets.inputs("subclassed", batch=16), nets.labels(batch=16)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = nets.plain("subclassed", keras.optimizers.SGD(0.05))
norm = next(la for la in model.layers if isinstance(la, keras.layers.BatchNormalization))
callbacks = [
    kf.callbacks.FisherTrace((x, y), labels="given", freq=2),
    kf.callbacks.EarlyPhase((x, y), 100.0, labels="given", freq=4),
    kf.callbacks.BatchNormRecalibration((x,), batch_size=16),
]
fit = model.fit(
    x, y, batch_size=8, epochs=2, validation_data=(x, y), callbacks=callbacks, verbose=0
)

alone = nets.build("subclassed")
alone.set_weights(model.get_weights())
hidden = keras.ops.convert_to_numpy(alone.hidden(x))
np.testing.assert_allclose(norm.moving_mean, hidden.mean(axis=0), rtol=1e-5)
np.testing.assert_allclose(norm.moving_variance, hidden.var(axis=0), rtol=1e-5)
again = kf.fisher_trace(alone, (x, y), labels="given", likelihood=kf.likelihoods.Categorical())
assert [step for step, _ in callbacks[0].history] == [2, 4]
assert callbacks[1].crossing[0] == 4
assert model.distribute_strategy.num_replicas_in_sync == 2
print(fit.history["fisher_trace"][-1], fit.history["early_fisher_trace"][-1], again.value)
"""


@pytest.mark.slow
@reference.tensorflow_only
def test_two_replicas_measure_what_one_device_does():
    output = printed(start("-c", SCRIPT))
    trace, early, alone = map(float, output.split()[-3:])
    assert abs(trace - alone) <= 1e-5 * alone
    assert early > 0
