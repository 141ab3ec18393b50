"""Runtimes: what makes a session of a model, and calls it."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List

from harness_backends.agent.frames import Header


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self) -> None:
        # Wheels from 1.29 on report usage unless told not to, before the import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import numpy
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(4)
        self.np, self.ort, self.version = numpy, onnxruntime, onnxruntime.__version__

    def create(self, path: str, options: Header) -> Any:
        """Return a session for the model in a file.

        Options: threads, provider, provider_options, session_config (the runtime's own keys) and
        profile, a file name's beginning, where the session is to be profiled.
        """
        provider = options["provider"]
        known = self.ort.get_available_providers()
        if provider not in known:  # ONNX Runtime would fall back to another and only warn
            raise ValueError("no provider %r here, only %s" % (provider, ", ".join(known)))
        opts = self.ort.SessionOptions()
        opts.intra_op_num_threads = options["threads"]
        opts.inter_op_num_threads = 1
        opts.execution_mode = self.ort.ExecutionMode.ORT_SEQUENTIAL
        opts.log_severity_level = 4
        for key, value in options["session_config"].items():
            opts.add_session_config_entry(key, value)
        if "profile" in options:
            opts.enable_profiling = True
            opts.profile_file_prefix = options["profile"]
        chosen = [(provider, options["provider_options"])]
        session = self.ort.InferenceSession(path, opts, providers=chosen)
        if session.get_providers()[0] != provider:
            raise ValueError("provider %r did not take the model" % provider)
        return session

    def call(self, session: Any, feed: Header) -> Callable[[], Any]:
        """Return a function of no arguments that runs one inference and returns its outputs."""
        names = [out.name for out in session.get_outputs()]
        return lambda: session.run(names, feed)


RUNTIMES = {"onnxruntime": OnnxRuntime}


def node_times(events: List[Header]) -> List[Header]:
    """Return name, operator and microseconds of every execution, per node of a profile."""
    nodes: Dict[str, Header] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            own = {"name": name[: -len("_kernel_time")], "op": event["args"]["op_name"], "us": []}
            nodes.setdefault(name, own)["us"].append(event["dur"])
    return list(nodes.values())
