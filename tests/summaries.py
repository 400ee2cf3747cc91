"""What TensorBoard reads of a folder."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def points(folder, tag):
    """Returns the curve of a tag, `[(step, value)]`."""
    events = EventAccumulator(str(folder), {"tensors": 0}).Reload()  # all of them
    return [
        (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
        for event in events.Tensors(tag)
    ]
