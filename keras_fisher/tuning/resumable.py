"""What the tuners share: a search resumes, whichever process began it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_fisher.tuning.fingerprint import Fingerprint, check_fingerprint
from keras_fisher.tuning.oracle import is_worker


class ResumableTuner(keras_tuner.Tuner):
    """A tuner whose search resumes, alone or as the chief of several machines."""

    def check_search(self, fingerprint: Fingerprint, callbacks: Any) -> None:
        """Raises unless the folder has no results of another search.

        Raises:
            ValueError: if the fingerprint has changed and a trial has finished, or a callback
                would restore one trial in another.
        """
        for callback in keras.tree.flatten(callbacks):
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                raise ValueError(
                    "`callbacks` must not contain BackupAndRestore: all trials would share its "
                    "folder, and a trial could continue another. The search itself resumes. "
                    f"Received: {callback!r}"
                )
        has_results = is_worker() or self.oracle.end_order
        check_fingerprint(Path(self.project_dir), fingerprint, is_begun=bool(has_results))

    def _get_tuner_fname(self) -> str:
        # keras-tuner resumes if this file exists, and names it differently alone and as the chief.
        name = super()._get_tuner_fname()
        return name if is_worker() else str(Path(self.project_dir, "tuner0.json"))
