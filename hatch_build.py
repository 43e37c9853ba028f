"""Compile the C++ kernel while a wheel is built.

A wheel for Linux holds a library for each instruction set. Without a compiler, and on other
systems, the wheel is pure Python, and layers compute in PyTorch. An editable installation writes
the libraries into the source tree, into a folder that Git ignores.
"""

import importlib.util
import os
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CPP = Path("pytorch_forecasting_mlstm", "layers", "_recurrent", "_mlstm", "ops", "cpp")
_VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"


class KernelBuildHook(BuildHookInterface):
    """Add compiled libraries to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernel, and name the platform in the tag of the wheel."""
        if os.environ.get(_VARIABLE, "").strip() == "0":
            return
        packaged = _load_packaged(Path(self.root))
        self._scratch = TemporaryDirectory()
        is_editable = version == "editable"
        folder = packaged.FOLDER if is_editable else Path(self._scratch.name)
        platform = sysconfig.get_platform()  # such as linux-x86_64
        machine = platform.split("-")[-1]
        if is_editable and packaged.are_current(machine):
            return
        try:
            libraries = packaged.write_libraries(folder, machine)
        except (packaged.CompilerError, OSError) as error:
            self.app.display_warning(f"The kernel is not compiled: {error}")
            return
        if not is_editable:
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
            for library in libraries:
                build_data["force_include"][str(library)] = str(
                    _CPP / packaged.FOLDER.name / library.name
                )

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled; the wheel has a copy."""
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def _load_packaged(root: Path) -> ModuleType:
    """Load a module of the package without the package, which needs torch."""
    name = "_kernel_build"
    folder = root / _CPP
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return import_module(f"{name}.packaged")
