"""The emulated ARM machine, and boards that are made of it: each does what it says."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from harness_backends.agent import counting
from harness_backends.emulation.root import ArmRoot
from support.board.kinds import BOOT_ID
from support.board.loopback import Loopback
from support.board.machine import Board
from support.onnx_files import node, save_graph

BOOT_ID_CODE = f"print(open('/{BOOT_ID}').read()[:8])"
COUNTING = """\
import json, sys
sys.path.insert(0, {folder!r})
import numpy, onnxruntime
from counting import InstructionCounter
counter, found = InstructionCounter(sys.argv[1]), []
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
feed = {{"x": numpy.ones((1, 3, 12, 12), "float32")}}
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    call = lambda: session.run(None, feed)
    counter.count(call, 16)  # Python and the allocator settle
    found.append(counter.count(call, 12))
print(json.dumps(found))
"""


def run_in(root: ArmRoot, code: str, *args: str, counts: Path | None = None) -> str:
    argv = [*root.argv("cortex-a76", counts), "-c", code, *args]
    ended = subprocess.run(
        argv, env={**os.environ, **root.environment()}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def convolution(path: Path, width: int) -> Path:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(width, 3, 3, 3)),
        "v": rng.normal(size=(2 * width, width, 3, 3)),
    }
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b v", "y")]
    return save_graph(path, nodes, (3, 12, 12), weights, batch=1)


@pytest.fixture(scope="module")
def counted(
    arm_root: ArmRoot, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[list[int]], list[list[int]]]:
    """Instructions of 12 calls of 3 models, in two processes: two equal ones and a wider one."""
    folder = tmp_path_factory.mktemp("counted")
    widths = {"one": 16, "same": 16, "wider": 17}
    paths = [str(convolution(folder / f"{name}.onnx", width)) for name, width in widths.items()]
    code = COUNTING.format(folder=str(Path(counting.__file__).parent))
    first, second = (
        json.loads(run_in(arm_root, code, str(counts), *paths, counts=counts))
        for counts in (folder / "first", folder / "second")
    )
    return first, second


def test_counts_repeat_from_call_to_call(counted: tuple[list[list[int]], ...]) -> None:
    for calls in counted[0]:
        assert (max(calls) - min(calls)) / statistics.median(calls) < 5e-3


def test_counts_repeat_from_process_to_process_and_from_model_to_model(
    counted: tuple[list[list[int]], ...],
) -> None:
    equal = [statistics.median(calls) for found in counted for calls in found[:2]]
    assert (max(equal) - min(equal)) / min(equal) < 1e-3


def test_a_wider_model_counts_more(counted: tuple[list[list[int]], ...]) -> None:
    for one, _, wider in counted:
        assert statistics.median(wider) > 1.01 * statistics.median(one)


def test_the_emulated_python_starts_another_like_itself(arm_root: ArmRoot) -> None:
    code = (
        "import platform, subprocess, sys\n"
        "print(platform.machine())\n"
        "if len(sys.argv) > 1:\n"
        "    sys.stdout.flush(); subprocess.run([*sys.argv[1:], '-c', sys.orig_argv[2]], check=1)"
    )
    told = run_in(arm_root, code, *arm_root.argv("cortex-a53"))
    assert told.split() == ["aarch64", "aarch64"]


def test_the_host_s_libraries_are_not_asked_of_the_guest(
    arm_root: ArmRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nonsense")
    assert run_in(arm_root, "import os; print(os.environ.get('LD_LIBRARY_PATH'))") == "None"


def test_a_board_without_ssh_is_an_argument_list(board: Board) -> None:
    code = "import platform; print(platform.machine(), open('/proc/device-tree/model').read())"
    told = subprocess.run([*board.pipe_argv(), "-c", code], capture_output=True, text=True)
    assert told.stdout.strip("\0\n") == "aarch64 Raspberry Pi 5 Model B Rev 1.0"


def test_a_jetson_has_two_cores_off(orin: Board) -> None:
    code = (
        "import os; print(os.cpu_count(), open('/sys/devices/system/cpu/possible').read(),"
        "open('/var/lib/nvpmodel/status').read(), open('/etc/nv_tegra_release').read())"
    )
    told = subprocess.run([*orin.pipe_argv(), "-c", code], capture_output=True, text=True).stdout
    assert told.startswith("4 0-5\n pmode:0001")


def test_a_login_lands_on_the_board(ssh_board: Loopback) -> None:
    told = ssh_board.ssh(
        "uname -m; python3 -c 'import onnxruntime as o; print(o.__version__)'; exit 3"
    )
    assert (told.returncode, told.stderr) == (3, "")
    assert told.stdout.split() == ["aarch64", "1.31.1"]


def test_its_python_can_start_itself_again(ssh_board: Loopback) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '--version'])"
    assert ssh_board.ssh(f'python3 -c "{code}"').stdout == "Python 3.11.2\n"


def test_two_boards_don_t_disturb_each_other_or_the_root(board: Board, orin: Board) -> None:
    board.throttle()
    board.take_cores_offline()
    code = "import os; print(os.cpu_count(), os.path.exists('/etc/nv_tegra_release'))"
    told = [
        subprocess.run([*one.pipe_argv(), "-c", code], capture_output=True, text=True).stdout
        for one in (board, orin)
    ]
    assert told == ["2 False\n", "4 True\n"]


def test_rc_files_may_print(ssh_board: Loopback) -> None:
    ssh_board.board.change(noise="Welcome to 'Board OS'\n")
    assert ssh_board.ssh("echo then").stdout == "Welcome to 'Board OS'\nthen\n"


def test_a_board_may_have_no_python(ssh_board: Loopback) -> None:
    ssh_board.board.change(python=False)
    told = ssh_board.ssh("python3 --version")
    assert told.returncode == 127
    assert "not found" in told.stderr


def test_its_python_may_have_no_runtime(ssh_board: Loopback) -> None:
    ssh_board.board.change(runtime=False)
    told = ssh_board.ssh("python3 -c 'import onnxruntime'")
    assert "No module named 'onnxruntime'" in told.stderr


def test_its_python_may_say_that_it_is_old(ssh_board: Loopback) -> None:
    ssh_board.board.change(python_version=(3, 6, 9))
    code = "import platform, sys; print(sys.version_info[:2], platform.python_version())"
    code += "; print(sys.version_info >= (3, 8), sys.version_info.major)"
    assert ssh_board.ssh(f"python3 -c '{code}'").stdout == "(3, 6) 3.6.9\nFalse 3\n"


def test_its_runtime_may_say_that_it_is_old(ssh_board: Loopback) -> None:
    ssh_board.board.change(runtime_version="1.4.0")
    code = "import onnxruntime as o; print(o.__version__, o.InferenceSession.__name__)"
    assert ssh_board.ssh(f"python3 -c '{code}'").stdout == "1.4.0 InferenceSession\n"


def test_memory_may_be_short(ssh_board: Loopback) -> None:
    ssh_board.board.change(memory_bytes=2 << 30)
    code = "print(len(bytes(1 << 20))); bytes(3 << 30)"
    told = ssh_board.ssh(f"python3 -c '{code}'")
    assert told.stdout == "1048576\n"
    assert "MemoryError" in told.stderr


def test_its_cpu_may_lack_what_its_files_promise(board: Board) -> None:
    words = "0x4e809400, 0xd65f03c0"  # sdot v0.4s, v0.16b, v0.16b; ret
    code = (
        "import ctypes, mmap, struct\n"
        f"page = mmap.mmap(-1, 4096, prot=7); page.write(struct.pack('<2I', {words}))\n"
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    )
    assert subprocess.run([*board.pipe_argv(), "-c", code]).returncode == 0
    board.change(cpu="cortex-a53")
    assert subprocess.run([*board.pipe_argv(), "-c", code]).returncode == -signal.SIGILL


@pytest.mark.parametrize("mounted", [True, False])
def test_the_disk_may_be_full(mounted: bool, ssh_board: Loopback) -> None:
    if not mounted:
        ssh_board.board.unshare = None
    elif ssh_board.board.unshare is None:
        pytest.skip("mount namespaces aren't allowed here")
    ssh_board.board.change(disk_bytes=1 << 16)
    code = "import tempfile; f = tempfile.TemporaryFile(buffering=0); print(f.write(bytes(1000)))"
    told = ssh_board.ssh(f"python3 -c '{code}; [f.write(bytes(9999)) for _ in range(20)]'")
    assert told.stdout == "1000\n"
    assert ("No space left on device" if mounted else "File too large") in told.stderr


def test_a_killed_link_ends_ssh_and_what_hangs_on_its_pipe(ssh_board: Loopback) -> None:
    with connected(ssh_board, "echo begun; cat") as client:
        ssh_board.kill_connections()
        assert client.wait(timeout=20) == 255
    assert ssh_board.board.wait_until_idle() == []
    assert ssh_board.ssh("echo again").stdout == "again\n"


def test_a_frozen_link_is_silent_until_ssh_notices(ssh_board: Loopback) -> None:
    alive = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"]
    with connected(ssh_board, "echo begun; sleep 300", *alive) as client:
        ssh_board.freeze_connections()
        assert client.wait(timeout=20) == 255
        assert any(one == "sleep 300" for one in ssh_board.board.processes())
        ssh_board.thaw_connections()
        assert ssh_board.ssh("echo again").stdout == "again\n"


def test_a_reboot_ends_everything_and_changes_the_boot_id(ssh_board: Loopback) -> None:
    ask = f'python3 -c "{BOOT_ID_CODE}"'
    before = ssh_board.ssh(ask).stdout
    with connected(ssh_board, "echo begun; sleep 300") as client:
        ssh_board.reboot()
        assert client.wait(timeout=20) == 255
    assert ssh_board.board.processes() == []
    assert (before, ssh_board.ssh(ask).stdout) == ("00000000\n", "00000001\n")


def test_a_board_that_is_off_refuses(ssh_board: Loopback) -> None:
    ssh_board.stop()
    assert "Connection refused" in ssh_board.ssh("echo").stderr
    ssh_board.start()
    assert ssh_board.ssh("echo on").stdout == "on\n"


def test_a_changed_host_key_is_refused(ssh_board: Loopback) -> None:
    ssh_board.change_host_key()
    told = ssh_board.ssh("echo")
    assert told.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in told.stderr
    ssh_board.know_host()
    assert ssh_board.ssh("echo known").stdout == "known\n"


def test_an_unknown_host_key_is_refused(ssh_board: Loopback) -> None:
    ssh_board.forget_host()
    told = ssh_board.ssh("echo")
    assert told.returncode == 255
    assert "host key is known" in told.stderr


def test_a_wrong_user_key_is_refused(ssh_board: Loopback) -> None:
    ssh_board.refuse_key()
    told = ssh_board.ssh("echo")
    assert told.returncode == 255
    assert "Permission denied (publickey)" in told.stderr
    ssh_board.accept_key()
    assert ssh_board.ssh("echo in").stdout == "in\n"


def test_what_a_login_leaves_behind_is_seen(ssh_board: Loopback) -> None:
    ssh_board.ssh("sleep 300 >/dev/null 2>&1 </dev/null & echo gone")
    assert ssh_board.board.wait_until_idle(0.2) == ["sleep 300"]
    ssh_board.board.end_processes()
    assert ssh_board.board.processes() == []


def test_nothing_stays_of_a_board(arm_root: ArmRoot, tmp_path: Path) -> None:
    board = Board(tmp_path / "board", arm_root)
    sleeper = subprocess.Popen([*board.pipe_argv(), "-c", "import time; time.sleep(300)"])
    while not any("sleep" in one for one in board.processes()):
        time.sleep(0.01)
    board.close()
    assert sleeper.wait(timeout=20) == -9
    assert list(tmp_path.iterdir()) == []
    assert (arm_root.system / "usr/bin/python3.11").exists()


class connected:
    """An `ssh` that runs a command which first prints a line."""

    def __init__(self, board: Loopback, command: str, *options: str) -> None:
        self._argv = ["ssh", "-T", *options, "board", command]
        self._environment = board.environment

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.client = subprocess.Popen(
            self._argv, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.client.stdout is not None
        self.client.stdout.readline()
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.kill()
        self.client.communicate()
