"""Build llama.cpp from the pinned source archive: `python llama.cpp/build.py`.

Unpacks the tree to src/ and its binaries and libraries to build/; does nothing where they are already
there. It is built with CUDA where nvcc and a GPU are there, else for the CPU; what is built stays so. GGML_CUDA=1 or 0
in the environment decides instead, and builds anew what is not so.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEVICES = Path("/dev")  # where Linux has a file for each of NVIDIA's GPUs
CUDA = Path("/usr/local/cuda")  # where NVIDIA's installer puts it
TARGETS = ["llama-quantize", "llama-imatrix", "llama-perplexity", "llama-server", "llama-cli", "llama-bench", "mtmd"]
BESIDE = ["convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py", "models"]  # linked to build/
OPTIONS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_CURL=OFF",
]
# GCC 12 drops the stores of the tile configuration before `ldtilecfg`, so that on a processor with AMX each product
# of a quantised matrix would end in an illegal instruction; without it more processors read a GGUF alike, too.
WITHOUT_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")


def main(here: Path = HERE) -> None:
    """Fetch, verify, unpack, configure and build; exits with one sentence where that cannot be done."""
    pin = json.loads((here / "pin.json").read_text())
    stamp = here / "build" / "stamp.json"
    built = json.loads(stamp.read_text()) if stamp.is_file() else {}
    cuda, why = with_cuda(built)
    wanted = pin | {"cuda": cuda, "beside": BESIDE, "options": [*OPTIONS, *WITHOUT_AMX]}
    if built == wanted:
        return
    print(f"llama.cpp: building {'with CUDA' if cuda else 'for the CPU'}: {why}", flush=True)
    compiler, nvcc = find_compiler(), find_nvcc() if cuda else None
    if cuda and not nvcc:
        sys.exit(
            "llama.cpp/build.py: no nvcc found, CUDA's compiler (tried $CUDACXX, PATH, /usr/local/cuda/bin); "
            "install the CUDA toolkit, or build for the CPU with GGML_CUDA=0"
        )
    source = here / "src" / pin["sha256"][:12]
    if not source.is_dir():
        unpack(archive(here / "src", pin), source)
    stamp.unlink(missing_ok=True)
    library = any((here / "build").glob("bin/*ggml-cuda*"))
    if built.get("cuda", cuda or library) != cuda:  # without a stamp it was killed
        shutil.rmtree(here / "build")  # else its CUDA library would outlast it
    build(source / "vendor" / "llama.cpp", here / "build", compiler, nvcc)
    for name in BESIDE:
        link = here / "build" / name
        link.unlink(missing_ok=True)
        link.symlink_to(source / "vendor" / "llama.cpp" / name)
    stamp.write_text(json.dumps(wanted) + "\n")  # last: a killed build has no stamp and is taken up again


def with_cuda(built: dict) -> tuple[bool, str]:
    """Whether to build with CUDA, and why; `built` is the stamp of what is there, if anything is."""
    if asked := os.environ.get("GGML_CUDA"):
        return asked not in ("0", "OFF"), f"GGML_CUDA={asked}"
    if "cuda" in built:
        return built["cuda"], "as it was before"
    gpu = shutil.which("nvidia-smi") is not None or any(DEVICES.glob("nvidia[0-9]*"))
    there = {"GPU": gpu, "nvcc": find_nvcc() is not None}
    missing = [name for name, found in there.items() if not found]
    return not missing, f"there is no {' and no '.join(missing)}" if missing else "nvcc and a GPU are there"


def find_nvcc() -> str | None:
    """Path of CUDA's compiler, also where its installer leaves it out of PATH; None where there is none."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path=CUDA / "bin")


def find_compiler() -> str:
    """Path of the C++ compiler that CMake will be told to use."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            return path
    sys.exit(
        "llama.cpp/build.py: no C++ compiler found (tried $CXX, c++, g++, clang++); "
        "install one, e.g. `apt-get install g++`"
    )


def knows(compiler: str, flags: tuple[str, ...]) -> bool:
    """Whether a compiler takes these flags: that of another processor, or an old one, does not."""
    command = [compiler, *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


def archive(folder: Path, pin: dict) -> Path:
    """The verified source archive; downloaded with pip where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pin['package'].replace('-', '_')}-{pin['version']}.tar.gz"
    if not path.is_file():
        requirement = f"{pin['package']}=={pin['version']}"
        # --no-binary: the wheel does not carry llama.cpp's sources.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", pin["package"]]
        print(f"llama.cpp: downloading {requirement}", flush=True)
        if subprocess.run([*command, "--dest", str(folder), requirement]).returncode:
            sys.exit(
                f"llama.cpp/build.py: pip could not download {requirement}; check the network and the package index"
            )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin["sha256"]:
        path.unlink()
        sys.exit(
            f"llama.cpp/build.py: {path.name} has sha256 {found}, but llama.cpp/pin.json expects {pin['sha256']}; "
            "nothing was kept: run again to download it anew, or fix the pin"
        )
    return path


def unpack(path: Path, target: Path) -> None:
    """Unpack the archive's only top folder as `target`, which appears complete or not at all."""
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    with tarfile.open(path) as tar:
        # Debian 12's Python 3.11.2 knows no filters; what is unpacked there has the pinned hash too.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(temporary)
    (top,) = temporary.iterdir()
    top.rename(target)
    temporary.rmdir()
    path.unlink()


def build(tree: Path, folder: Path, compiler: str, nvcc: str | None) -> None:
    """Configure with CMake and build with Ninja, both from the interpreter's own environment where they are."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    options = [*OPTIONS, f"-DCMAKE_CXX_COMPILER={compiler}", f"-DGGML_CUDA={'ON' if nvcc else 'OFF'}"]
    options += [f"-DCMAKE_CUDA_COMPILER={nvcc}"] if nvcc else []
    if knows(compiler, WITHOUT_AMX):
        flags = " ".join(WITHOUT_AMX)
        options += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"]
    steps = [
        ["cmake", "-S", tree, "-B", folder, "-G", "Ninja", "--log-level=WARNING", *options],
        ["cmake", "--build", folder, "--target", *TARGETS],
    ]
    for step in steps:
        command = [shutil.which(step[0], path=path) or step[0], *map(str, step[1:])]
        if subprocess.run(command, env=os.environ | {"PATH": path}).returncode:
            sys.exit(f"llama.cpp/build.py: `{' '.join(map(str, step[:2]))}` failed; its messages stand above")


if __name__ == "__main__":
    main()
