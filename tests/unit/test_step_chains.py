"""The contract of steps, whatever order they come in: a decision and weights make it again."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from harness.compression.running import tensors_of
from harness.compression.steps import parse_step
from harness.compression.steps.base import Context, Work
from harness.data.split import Data, Split
from harness.models.network import Network
from harness.models.resnet import ResNet
from harness.tasks.base import Task
from harness.tasks.objective import make_objective
from support.networks import IMAGE, PaddedResNet, network
from support.steps import context
from support.tiny import RECIPE

MADE = {
    "resnet": lambda: ResNet(3, 2, 5, (8, 16, 32)),
    "padded": lambda: PaddedResNet(False, 2),
    "padded inline": lambda: PaddedResNet(True, 2),
}
ODD = (
    "depthwise", "grouped", "gated", "dense", "flattened", "sequence", "volume", "perceptron",
    "transformer", "fused", "shared_keys", "encoder", "mixer", "shared", "shuffled", "halves",
    "gru", "lstm", "frozen", "bare",
)  # fmt: skip
RESIDUAL = {
    "all": "rewrite depth:params=90% prune:params=70% low-rank:params=90% sparsify:zeros=50% "
    "prune:params=80%",
    "backwards": "prune:macs=80%,scope=uniform low-rank:params=95%,scheme=spatial "
    "sparsify:pattern=2:4,exclude=conv1 depth:params=95% prune:ratio=20%,criterion=fpgm rewrite",
    "twice": "depth:macs=95% low-rank:params=90% prune:params=80%,criterion=taylor "
    "sparsify:zeros=60%,scope=layer rewrite:only=dead+shortcuts+norms+nodes sparsify:zeros=70%",
}
OTHERS = {
    "prune, sparsify, prune": "rewrite prune:ratio=20% sparsify:zeros=50% prune:ratio=20%",
    "sparsify, fold, prune": "sparsify:zeros=30%,scope=layer rewrite:only=norms "
    "prune:ratio=20%,scope=uniform,criterion=l1 sparsify:zeros=60%",
}
CASES = [(name, chain) for name in MADE for chain in RESIDUAL.values()]
CASES += [(name, chain) for name in ODD for chain in OTHERS.values()]
CASES += [(name, f"low-rank:params=95% {OTHERS['prune, sparsify, prune']}")
          for name in ("grouped", "transformer", "sequence", "perceptron", "mixer")]  # fmt: skip


def dense(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network whose norms change what they are given, and a sample."""
    if name in MADE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, example = MADE[name]().eval(), torch.randn(IMAGE)
    else:
        model, example = network(name)
    rng = torch.Generator().manual_seed(0)
    for key, tensor in model.named_buffers():
        if key.endswith("running_var"):
            tensor.add_(torch.rand(tensor.shape, generator=rng) / 2)
    return model, example


def setting(model: nn.Module, example: torch.Tensor) -> Context:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, *example.shape[1:], generator=rng)
    classes = tensors_of(model, example)[0].shape[1]
    split = Split(inputs, torch.arange(16) % classes)
    data = Data("random", split, split, split, "classification", classes, "0" * 64)
    return context(Task("any", Network(model, "any"), data, make_objective(data), RECIPE), model)


def with_other_values(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view(parameter.shape))
    return model


@pytest.mark.parametrize(("name", "chain"), CASES)
def test_decisions_and_weights_make_a_chain_again(name: str, chain: str) -> None:
    model, example = dense(name)
    given = setting(model, example)
    work, again = Work(model), Work(with_other_values(dense(name)[0]))
    for step in map(parse_step, chain.split()):
        before = {key: tensor.clone() for key, tensor in work.module.state_dict().items()}
        # Sorted, as a file may have it.
        decision = json.loads(json.dumps(step.decide(work, given), sort_keys=True))
        after, again = step.apply(work, decision, given), step.rebuild(again, decision, given)
        for key, tensor in work.module.state_dict().items():
            assert torch.equal(before[key], tensor)
        assert (after.sparse, after.simplified) == (again.sparse, again.simplified)
        assert set(after.sparse) <= dict(after.module.named_parameters()).keys()
        assert not any(module.training for module in after.module.modules())
        work = after
        again.module.load_state_dict(work.module.state_dict())
        pairs = zip(*(tensors_of(one.module, example) for one in (work, again)), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        with_other_values(again.module)
