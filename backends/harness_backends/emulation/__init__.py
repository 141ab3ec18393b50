"""An emulated 64-bit ARM machine: a Debian root with ONNX Runtime, run by QEMU's user mode.

`build.build_root` makes it, `root.find_root` finds it, and `ArmRoot.argv` starts a Python in it.
Its time says nothing of a board's; what it can tell is how many instructions a call executes
(`agent/counting.py` on the emulated side, `insncount.c` in QEMU).
"""
