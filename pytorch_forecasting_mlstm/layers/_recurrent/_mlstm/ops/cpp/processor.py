"""What identifies the processor of this machine."""

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["processor"]

_CPUINFO = Path("/proc/cpuinfo")
#: The lines that do not change with time, on x86 and on ARM.
_LINES = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")


@cache
def processor() -> str:
    """Return the model and the instructions of the processor, as far as the system tells.

    Libraries are compiled for a processor, and tested on it, in folders that machines may share.
    """
    lines = [platform.machine(), platform.processor()]
    with suppress(OSError), _CPUINFO.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():  # the next core follows
                break
            if line.startswith(_LINES):
                lines.append(line.strip())
    return "\n".join(lines)
