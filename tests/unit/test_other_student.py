"""A teacher and a quite different student: VGG16 to the small CNN, on a subset."""

from __future__ import annotations

from dataclasses import replace

import torch

from harness.compression.steps import parse_step
from harness.compression.steps.base import Work
from harness.data.split import Split
from harness.models.network import Network
from harness.models.small_cnn import SmallCnn
from harness.models.vgg import build
from harness.tasks.base import Reduction, Task
from support.steps import context
from support.tiny import tiny


def stripes(count: int) -> Split:
    """Return noisy images `[count, 3, 32, 32]` of three kinds of stripes."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    waves = torch.sin(torch.arange(32) * torch.tensor([0.3, 0.8, 1.5])[:, None])
    images = waves[labels][:, None, None, :].expand(count, 3, 32, 32)
    return Split(images + 0.5 * torch.randn(count, 3, 32, 32, generator=rng), labels)


def vgg_task() -> Task:
    task, split = tiny(), stripes(48)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build((3, 32, 32), 3).eval()
    network.classifier.weight.data *= 100  # untrained, it would be undecided about everything
    network.classifier.bias.data.zero_()
    data = replace(task.data, train=split, validation=split, test=split)
    return replace(
        task, network=Network(network, "vgg16"), data=data, reduction=Reduction(0.5, "random")
    )


def test_vgg16_teaches_the_small_cnn_on_half_of_the_samples() -> None:
    task = vgg_task()
    teacher = task.model()
    given = context(task, teacher)
    work = Work(teacher)
    decisions = []
    for text in ("student:model=small-cnn", "distil:epochs=12,lr=0.05,weight=1,temperature=2"):
        step = parse_step(text)
        decisions.append(step.decide(work, given))
        before, work = work.module, step.apply(work, decisions[-1], given)
    assert isinstance(work.module, SmallCnn)
    assert (decisions[1]["samples"], decisions[1]["of"]) == (24, 48)
    with torch.inference_mode():
        samples = task.data.train.batch(torch.arange(48))
        taught, untaught, right = (
            network(samples).softmax(1) for network in (work.module, before, teacher)
        )
    # It learnt from outputs alone, so it comes nearer to its teacher.
    assert (taught - right).abs().mean() < 0.5 * (untaught - right).abs().mean()
