"""The export of a model of Llama-3-8B's size, rehearsed: `python -m bench.export_8b` writes bench/export_8b.json.

Random weights of exactly its shapes with its real vocabulary, in four bfloat16 shards, and a LoRA adapter of rank 64
on every linear layer; then merge, convert, quantise, load, generate, verify. The same at the shapes of Llama-3.2-1B,
beside PEFT's merge. Takes about 75 GB of disk, and data/prepared (`dvc repro prepare`).
"""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from bench.measuring import measure
from bench.memory import LLAMA_3_8B
from bench.vocabulary import llama3_tokenizer
from stages.lib.base.pinning import pin_of
from stages.lib.core import paths
from stages.lib.core.files import read_json, write_json
from stages.lib.core.resources import llama_cpp_build, processor
from stages.lib.model import weights
from stages.lib.settings.template import Template
from stages.lib.settings.train import LINEAR
from stages.lib.training import shapes

RESULT = Path(__file__).with_suffix(".json")
SHAPE = LLAMA_3_8B | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 500000.0,
                      "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "hidden_act": "silu",
                      "bos_token_id": 128000, "eos_token_id": [128001, 128009], "dtype": "bfloat16"}  # fmt: skip
SMALL = SHAPE | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True}
R, ROUNDS = 64, 3
TAKE = """
import sys
from pathlib import Path
from bench.export_8b import template
from stages import base
from stages.lib.settings.model import Folder, Model
source, target, metrics, pin = sys.argv[1:]
model = Model("random", "none", source, hub=None, folder=Folder(source, pin), gguf=None, scratch=None)
base.main(model, template(), 1, Path(), Path(target), Path(metrics))
"""
OURS = """
import sys
from pathlib import Path
from stages import merge
merge.main(*map(Path, sys.argv[1:]))
"""
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(target)
"""
CONVERT = """
import sys
from pathlib import Path
from stages.lib.export import adapter_gguf, llamacpp
base, adapter, merged, f16, lora = map(Path, sys.argv[1:])
notice = {"chatdoctor.notice": "random weights"}
llamacpp.convert(merged, f16, notice)
adapter_gguf.convert_adapter(base, adapter, "lora", lora, notice)
"""
QUANTIZE = """
import sys
from pathlib import Path
from stages.lib.export import llamacpp
llamacpp.quantize(Path(sys.argv[1]), Path(sys.argv[2]), "q4_K_M", {})
"""
VERIFY = """
import sys
from contextlib import suppress
from pathlib import Path
from stages import verify
from stages.lib.core import paths
from stages.lib.core.errors import UserError
from stages.lib.settings.verify import Verify
folder = Path(sys.argv[1])
files = verify.Files(paths.PREPARED, *(folder / name for name in ("base", "adapter", "merged", "gguf", "metrics")))
with suppress(UserError):  # a check that does not hold is in its file too
    verify.main(Verify(dialogues=4, prompts=2, max_new_tokens=4, context=512), files, Path(sys.argv[2]).name)
"""


def main() -> None:
    """Measure everything; write and print the result."""
    machine = {"processor": processor(), "load_before": os.getloadavg()[0]}
    machine |= {"free_disk_gb": shutil.disk_usage(tempfile.gettempdir()).free / 1e9, "system": platform.release()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = beside_peft(folder / "1b")
        large = rehearsal(folder / "8b")
    write_json(RESULT, {"machine": machine, "1B": small, "8B": large})
    print(json.dumps({"machine": machine, "1B": small, "8B": large}, indent=1))


def beside_peft(folder: Path) -> dict:
    """Seconds and memory of ours and PEFT's merge in turn, the medians of their ratios; then the export of ours."""
    make(SMALL, folder, shards=1)
    rounds: list[dict] = []
    for _ in range(ROUNDS):
        one = {}
        for name, code in (("peft", PEFT), ("ours", OURS)):
            shutil.rmtree(folder / "merged", ignore_errors=True)
            one[name] = step(code, folder / "base", folder / "adapter", folder / "merged")
        rounds.append(one)
        logging.info("1B: %s", one)
    ratio = {key: median(one["peft"][key] / one["ours"][key] for one in rounds) for key in ("seconds", "peak_mb")}
    seen = {"rounds": rounds, "peft_to_ours": ratio} | exported(folder)
    shutil.rmtree(folder)
    return seen


def rehearsal(folder: Path) -> dict:
    """The disk's own speed, seconds and memory of taking the base and of merging, and the export of what was merged."""
    make(SHAPE, folder, shards=4)
    seen = {"base_gb": size(folder / "base"), "copy": copied(folder / "base", folder / "copy")}
    pin = pin_of(folder / "base", folder / "hashes.json")
    seen["base"] = step(TAKE, folder / "base", folder / "taken", folder / "base.json", pin)
    shutil.rmtree(folder / "taken")
    seen["merge"] = step(OURS, folder / "base", folder / "adapter", folder / "merged")
    seen["merge_to_copy"] = seen["merge"]["seconds"] / seen["copy"]["seconds"]
    logging.info("8B: %s", seen)
    seen |= exported(folder)
    seen["chain_minutes"] = sum(seen[name]["seconds"] for name in ("merge", "convert", "quantize")) / 60
    return seen


def exported(folder: Path) -> dict:
    """Each further step's seconds and memory, sizes of the GGUFs, tokens a second, and what `verify` measures."""
    f16, lora, q4 = (folder / "gguf" / paths.gguf(kind).name for kind in (paths.F16, paths.LORA, "q4_K_M"))
    f16.parent.mkdir()
    seen: dict = {"convert": step(CONVERT, folder / "base", folder / "adapter", folder / "merged", f16, lora)}
    seen["quantize"] = step(QUANTIZE, f16, q4)
    seen |= {"f16_gb": f16.stat().st_size / 1e9, "q4_K_M_gb": q4.stat().st_size / 1e9}
    seen |= {f"{name}_tokens_per_second": speed(file) for name, file in (("q4_K_M", q4), ("f16", f16))}
    logging.info("%s: %s", folder.name, seen)
    for name in (paths.F16, "q4_K_M"):
        measured = step(VERIFY, folder, Path(name))
        seen[f"verify_{name}"] = measured | read_json(paths.verification(folder / "metrics", name))
        logging.info("%s: verify %s: %s", folder.name, name, seen[f"verify_{name}"])
    return seen


def step(code: str, *arguments: Path | str) -> dict:
    """Seconds and memory (MB) of a piece of Python, what was read before forgotten by the system where it lets us."""
    forget_files()
    return measure([sys.executable, "-c", code, *map(str, arguments)])


def copied(source: Path, target: Path) -> dict:
    """The same of the system's own copy of a folder, which is then deleted."""
    forget_files()
    seen = measure(["cp", "-r", str(source), str(target)])
    shutil.rmtree(target)
    return seen


def forget_files() -> None:
    """Write out and drop the system's cache of files, which only root may."""
    os.sync()
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")


def speed(gguf: Path) -> dict[str, float]:
    """Tokens a second of llama.cpp while it reads a prompt of 64, and while it writes 16."""
    command = [llama_cpp_build() / "bin/llama-bench", "-m", gguf, "-p", "64", "-n", "16", "-r", "2", "-o", "json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"prompt" if row["n_prompt"] else "answer": row["avg_ts"] for row in rows}


def size(folder: Path) -> float:
    """GB of the files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


def make(config: dict, folder: Path, shards: int) -> None:
    """Write a base of random bfloat16 weights with its tokenizer, and an adapter with small random factors."""
    torch.manual_seed(1)
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    llama3_tokenizer(base, template())
    write_json(base / "config.json", config)
    write_json(base / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    names, places = list(of_model(config).items()), {}
    for number in range(1, shards + 1):
        part = names[len(names) * (number - 1) // shards : len(names) * number // shards]
        name = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
        tensors = {key: tensor(key, shape) for key, shape in part}
        save_file(tensors, base / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    if shards > 1:
        write_json(base / weights.INDEX, {"metadata": {}, "weight_map": places})
    factors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in shapes.of_layer(config).items():
            module = f"base_model.model.model.layers.{layer}.{place(name)}"
            factors[f"{module}.lora_A.weight"] = torch.empty(R, inputs).normal_(0, 0.01)
            factors[f"{module}.lora_B.weight"] = torch.empty(outputs, R).normal_(0, 0.01)
    save_file(factors, adapter / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": R,
        "lora_alpha": 2 * R,
        "target_modules": list(LINEAR),
    }
    write_json(adapter / "adapter_config.json", settings)
    write_json(adapter / weights.BASE, {"sha256": weights.digest(base)})


def template() -> Template:
    """Llama-3's own."""
    return Template(**OmegaConf.to_object(OmegaConf.load("conf/template/llama3.yaml")))


def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Random weights, but norms of ones: else all tokens are as good as equally likely, whatever is done to them."""
    made = torch.empty(shape, dtype=torch.bfloat16)
    return made.fill_(1) if name.endswith("norm.weight") else made.normal_(0, 0.02)


def place(name: str) -> str:
    """A linear layer's module within its decoder layer."""
    return f"{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}"


def of_model(config: dict) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a Llama, by name."""
    hidden = config["hidden_size"]
    made = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        made |= {f"{prefix}{place(name)}.weight": sides for name, sides in shapes.of_layer(config).items()}
        made |= {f"{prefix}{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    made["model.norm.weight"] = (hidden,)
    return made if config["tie_word_embeddings"] else made | {"lm_head.weight": made["model.embed_tokens.weight"]}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main()
