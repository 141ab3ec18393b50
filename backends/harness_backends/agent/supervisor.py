"""The supervisor: what the other side talks to; it imports no runtime.

Requests: open, close (a worker), lock, unlock, put, ping; any other goes to the worker it names.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import traceback
from typing import Dict

from harness.measurement.lockfile import LockFile
from harness_backends.agent import frames
from harness_backends.agent.child import Child
from harness_backends.agent.frames import Header
from harness_backends.agent.machine import machine_facts
from harness_backends.agent.store import Store


class Supervisor:
    """One connection's end on the device.

    Args:
        setup: What this process was started with, modules included. "launch": the argument list
            that starts a Python here; "folder" and "limit_bytes": of the store; "locks": the lock's
            folder; "watchdog_s": how long nothing may be heard, None for ever.
    """

    def __init__(self, setup: Header) -> None:
        self._setup = setup
        self._launch = [os.path.expanduser(setup["launch"][0]), *setup["launch"][1:]]
        self._ear = frames.Ear(sys.stdin.buffer)
        self._mouth = frames.Mouth(frames.take_stdout())
        self._store = Store(setup["folder"], setup["limit_bytes"])
        self._workers: Dict[str, Child] = {}

    def serve(self) -> None:
        """Answer requests until standard input ends; then end all workers."""
        if self._setup["watchdog_s"] is not None:
            self._start(self._watch)
        self._mouth.begin()
        self._mouth.say({
            "ok": True, "id": 0, "python": platform.python_version(), "pid": os.getpid(),
            "machine": machine_facts(),
        })  # fmt: skip
        while True:
            head = frames.read_header(self._ear.read)
            if head is None:
                return
            header, size = head
            if "worker" in header and header["op"] not in ("open", "close"):
                self._pass_on(header, size)
            else:
                self._answer(header, size)

    def end(self) -> None:
        """End all workers; the kernel frees the lock."""
        for child in list(self._workers.values()):
            child.kill()

    def _answer(self, header: Header, size: int) -> None:
        try:
            getattr(self, "_do_" + header["op"])(header, size)
        except Exception as error:
            self._mouth.say(dict(frames.failure(error), id=header["id"]))

    def _do_ping(self, header: Header, size: int) -> None:
        """Hear that the other side is there."""

    def _do_open(self, header: Header, size: int) -> None:
        """Start a worker; its hello is the reply."""
        setup = dict(
            self._setup, main="harness_backends.agent.worker", id=header["id"],
            runtime=header["runtime"], parent=os.getpid(),
        )  # fmt: skip
        self._workers[header["worker"]] = Child(self._launch, setup, self._mouth)

    def _do_close(self, header: Header, size: int) -> None:
        child = self._workers.pop(header["worker"], None)
        if child is not None:
            child.kill()
        self._say_done(header)

    def _do_put(self, header: Header, size: int) -> None:
        self._store.put(self._ear.read, size, header["sha256"])
        self._say_done(header)

    def _do_lock(self, header: Header, size: int) -> None:
        """Wait for the lock in a thread of its own, so that the end of the line is still heard."""

        def wait() -> None:
            try:
                self._lock = LockFile(self._setup["locks"])
                self._lock.take(header["alone"])
                self._say_done(header)
            except OSError as error:
                self._mouth.say(dict(frames.failure(error), id=header["id"]))

        self._start(wait)

    def _do_unlock(self, header: Header, size: int) -> None:
        self._lock.close()
        self._say_done(header)

    def _pass_on(self, header: Header, size: int) -> None:
        child = self._workers.get(header["worker"])
        if child is None:
            self._mouth.say({"ok": False, "kind": "WorkerEnded", "message": "", "code": 0,
                             "garbled": False, "id": header["id"]})  # fmt: skip
            self._ear.read(size)
        else:
            child.pass_on(header, self._ear.read, size)

    def _say_done(self, header: Header) -> None:
        self._mouth.say({"ok": True, "id": header["id"]})

    def _watch(self) -> None:
        """End everything when the other side has gone without a word."""
        while self._ear.silence_s < self._setup["watchdog_s"]:
            time.sleep(0.5)
        self.end()
        os._exit(1)

    def _start(self, run: object) -> None:
        thread = threading.Thread(target=run)  # type: ignore[arg-type]
        thread.daemon = True
        thread.start()


def main(setup: Header) -> None:
    """Run a supervisor to its end."""
    supervisor, code = Supervisor(setup), 0
    try:
        supervisor.serve()
    except (OSError, frames.NotTheProtocol):
        pass  # the line is gone
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    finally:
        supervisor.end()
        os._exit(code)  # whatever a thread waits for
