"""One training loop: targets alone for the dense model, a teacher's outputs too for a student."""

from harness.training.loop import fit
from harness.training.predicting import predict, predict_tensors
from harness.training.soft import SoftTargets, Views, student_loss
from harness.training.threads import torch_kept, use_all_cores

__all__ = [
    "SoftTargets",
    "Views",
    "fit",
    "predict",
    "predict_tensors",
    "student_loss",
    "torch_kept",
    "use_all_cores",
]
