"""The device that models run on, and the memory that is free there."""

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import torch

from stages.lib.core.errors import UserError

GPU_FILES = Path("/dev")  # where Linux has a file for each of NVIDIA's GPUs
DRIVERS = {"12": "525", "13": "580"}  # the least driver by torch's CUDA; source: CUDA Toolkit release notes, table 2


def device() -> str:
    """`cuda` where torch can use a GPU, else `cpu`.

    Raises UserError where the machine has a GPU that torch cannot use, and that CUDA_VISIBLE_DEVICES does not hide: on
    a CPU the same work would take days, silently.
    """
    if torch.cuda.is_available():
        return "cuda"
    if _hidden() or not (found := driver()):
        return "cpu"
    cuda = torch.version.cuda
    if cuda is None:
        built, fix = "is built without CUDA", "install a build of it with CUDA"
    else:
        least = DRIVERS.get(cuda.split(".")[0], "a newer one")
        built = f"is built for CUDA {cuda}, which needs driver {least} or newer"
        fix = "update the driver, or install a build of torch for the CUDA that yours has"
    raise UserError(
        f"this machine has a GPU (driver {found}), but torch {torch.__version__} cannot use it: it {built}; {fix}; "
        "with CUDA_VISIBLE_DEVICES= in front of the same command the CPU does the work"
    )


def driver() -> str:
    """The version of NVIDIA's driver (`unknown` where it does not say) on a machine with such a GPU; else nothing."""
    said = ""
    if tool := shutil.which("nvidia-smi"):
        command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
    return said or ("unknown" if any(GPU_FILES.glob("nvidia[0-9]*")) else "")


def free_memory(device: str) -> int:
    """Bytes that are free on the device: of the GPU that this process uses, else of the machine."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def require_free(device: str, size: float, what: str, fix: str) -> None:
    """Raise UserError, which ends with what fixes it, where less than `size` bytes are free on the device."""
    free = free_memory(device)
    if size > free:
        where = "of the GPU's memory" if device == "cuda" else "of memory"
        raise UserError(f"{what} takes about {size / 1e9:.2f} GB {where}, {free / 1e9:.2f} GB are free; {fix}")


def _hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides every GPU: it is empty, or begins with what is no GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles")
