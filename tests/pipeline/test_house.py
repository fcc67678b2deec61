"""The house rules: dvc.yaml says what the code does, imports point down, and every subject has its one module."""

import ast
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stages.lib.core import stage as stage_module
from support.settings import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = sorted(path for room in ("stages", "inference") for path in (ROOT / room).rglob("*.py"))
ITEM = re.compile(r"\$\{[^}]+\}")
PACKAGES = ("reporting", "evaluation", "export", "training", "base", "data", "model", "rendering", "settings", "core")
# What a folder among a stage's deps brings that the stage does not need: not worth a line for each of the others.
NOT_NEEDED_BY_ANY = {"core/checks.py"}
NOT_NEEDED = {
    "config": {
        "settings/choose.py",
        *(f"evaluation/metrics/{name}.py" for name in ("comparison", "perplexity", "safety")),
    },
    "train": {"training/packing.py"},
    "base": {
        "base/pinning.py",
        *(f"model/{name}.py" for name in ("allocator", "device", "inference_memory", "widening")),
    },
    "convert": {"export/llama_server.py"},
    "verify": {"model/weights.py", *(f"export/{name}.py" for name in ("adapter_gguf", "merging", "provenance"))},
    "score": {"evaluation/metrics/comparison.py"},
    "report": {
        *(f"settings/{name}.py" for name in ("choose", "config", "evaluate", "predict", "template", "track")),
        *(f"evaluation/metrics/{name}.py" for name in ("perplexity", "safety")),
    },
}


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def listed(name: str, *keys: str) -> list[str]:
    """What a stage of dvc.yaml lists under these keys, without DVC's options."""
    return [next(iter(e)) if isinstance(e, dict) else e for key in keys for e in body(name).get(key, [])]


def imported(path: Path) -> set[str]:
    """The full names of the modules that a file imports anywhere, `from a import b` as both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def first_party(path: Path) -> set[Path]:
    """The project's files that a file imports, and those that they import."""
    found, todo = set(), [path]
    while todo:
        current = todo.pop()
        found.add(current)
        files = (ROOT / f"{name.replace('.', '/')}.py" for name in imported(current))
        todo += [file for file in files if file.is_file() and file not in found]
    return found


def files_of(dep: str) -> set[str]:
    """The code files that a dep of dvc.yaml stands for."""
    path = ROOT / dep
    files = [path] if path.is_file() else path.rglob("*")
    return {file.relative_to(ROOT).as_posix() for file in files if file.suffix in (".py", ".jinja")}


def guard(name: str, monkeypatch) -> tuple[set[str], list[Path]]:
    """Config sections and paths that a stage's own last line binds."""
    bound = {}
    monkeypatch.setattr(stage_module, "run", lambda main, **arguments: bound.update(arguments))
    monkeypatch.delitem(sys.modules, f"stages.{name}", raising=False)
    runpy.run_module(f"stages.{name}", run_name="__main__")
    return set(bound.get("sections", ())), list(bound.get("paths", ()))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_code_and_hardly_more(name):
    modules = {file.relative_to(ROOT).as_posix() for file in first_party(ROOT / f"stages/{name}.py")}
    beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/lib").rglob("*.jinja")}
    # page.html.jinja is page.py's
    needed = modules | {file for file in beside if f"{file.split('.')[0]}.py" in modules}
    code = [dep for dep in listed(name, "deps") if dep.startswith("stages/")]
    brought = set().union(*map(files_of, code))
    assert needed <= brought
    more = {file.removeprefix("stages/lib/") for file in brought - needed} - NOT_NEEDED_BY_ANY
    assert more == NOT_NEEDED.get(name, set())
    assert ("llama.cpp/pin.json" in listed(name, "deps")) == ("stages/lib/export/llamacpp.py" in modules)


def test_dvc_yaml_lists_at_most_a_hundred_deps_on_code():
    assert sum(dep.startswith("stages/") for name in STAGES for dep in listed(name, "deps")) <= 100


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("stages/lib/reporting/page.html.jinja", {"report"}),
        ("stages/lib/reporting/charts.py", {"report"}),
        ("stages/lib/settings/export.py", {"config", "report"}),  # a quant type
        ("stages/lib/settings/predict.py", {"config", "predict", "report"}),  # an evaluation setting
        ("data/safety/rubric.yaml", {"score"}),
        ("stages/lib/evaluation/metrics/bootstrap.py", {"config", "score", "report"}),
        ("stages/lib/data/preparation/card.md.jinja", {"prepare"}),
        ("stages/lib/training/trainer.py", {"train"}),
        ("stages/lib/core/paths.py", set(STAGES)),
    ],
)
def test_what_an_edit_makes_stale(edited, stale):
    """The table of CONTRIBUTING.md; what depends on these stages runs again only where their outputs change."""
    named = {name for name in STAGES for dep in listed(name, "deps") if edited == dep or edited.startswith(f"{dep}/")}
    assert named == stale
    assert edited in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_the_params_and_paths_that_dvc_yaml_lists(name, monkeypatch):
    sections, paths = guard(name, monkeypatch)
    assert sections == set(listed(name, "params"))
    known = [Path(ITEM.sub("ITEM", entry)) for entry in listed(name, "deps", "outs", "metrics", "plots")]
    for path in paths:
        if path.as_posix() not in ("dvc.yaml", "params.yaml"):  # DVC refuses the one and compares values of the other
            assert any(path == other or path in other.parents for other in known), path
    for entry in listed(name, "outs", "metrics", "plots"):
        out = Path(ITEM.sub("ITEM", entry))
        assert any(path in (out, *out.parents) for path in paths), out


@pytest.mark.parametrize("name", STAGES)
def test_stage_script_and_command_have_one_name(name):
    assert body(name)["cmd"].split()[:3] == ["python", "-m", f"stages.{name}"]
    assert (ROOT / f"stages/{name}.py").read_text().startswith(f'"""{name}: ')


def test_every_script_is_a_stage():
    assert {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)


def upstream(name: str) -> set[str]:
    """The stages whose outputs a stage of dvc.yaml depends on, and theirs."""
    deps = [ITEM.sub("*", dep) for dep in listed(name, "deps")]
    outs = {other: [ITEM.sub("*", out) for out in listed(other, "outs", "metrics")] for other in STAGES}
    made = {out for listed_outs in outs.values() for out in listed_outs}
    # A dep that one stage makes by its very name is not one of another stage's many.
    direct = {
        other
        for other in outs
        for out in outs[other]
        for dep in deps
        if out == dep or out.startswith(f"{dep}/") or (dep not in made and (fnmatch(out, dep) or fnmatch(dep, out)))
    }
    return direct.union(*map(upstream, direct - {name}))


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"config"}))
def test_no_stage_slips_past_the_config_guard(name):
    assert "config" in upstream(name)


def test_who_may_import_whom():
    stages = {f"stages.{path.stem}" for path in (ROOT / "stages").glob("[!_]*.py")}
    for path in CODE:
        names = imported(path)
        assert not names & stages, path  # nobody imports a stage
        assert path.parts[-2] == "inference" or not any(name.startswith("inference") for name in names), path


def test_imports_between_packages_point_down():
    assert {path.name for path in (ROOT / "stages/lib").iterdir() if path.is_dir()} - {"__pycache__"} == set(PACKAGES)
    for path in (ROOT / "stages/lib").rglob("*.py"):
        package = path.relative_to(ROOT / "stages/lib").parts[0]
        for name in imported(path):
            if name.startswith("stages.lib.") and package in PACKAGES:
                assert PACKAGES.index(name.split(".")[2]) >= PACKAGES.index(package), f"{path} imports {name}"


def test_tests_mirror_the_code():
    assert {path.name for path in (ROOT / "tests/lib").iterdir() if path.is_dir()} <= {*PACKAGES, "__pycache__"}
    for path in (ROOT / "tests").rglob("*.py"):
        assert "conftest" not in imported(path), path


def test_what_needs_no_torch_imports_none():
    """A report, a table or a download must not wait for torch to load."""
    free = ["settings", "core", "rendering", "reporting", "data", "evaluation/metrics"]
    modules = [path for room in free for path in sorted((ROOT / "stages/lib" / room).rglob("*.py"))]
    names = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in modules]
    code = "; ".join([*(f"import {name}" for name in names), "import sys; sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("spelling", "owner"),
    [
        ("apply_chat_template", "chat.py"),
        (".from_pretrained(", "loading.py"),
        ('"llama-quantize"', "llamacpp.py"),
        ('params.yaml"', "paths.py"),
        ('"dvc.yaml"', "paths.py"),
        ('Path("/proc/cpuinfo")', "resources.py"),
    ],
)
def test_every_subject_has_its_one_module(spelling, owner):
    assert {path.name for path in CODE if spelling in path.read_text()} == {owner}


def test_modules_and_functions_are_small():
    """Parameters are ruff's to count (PLR0913)."""
    for path in CODE:
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def pins(name: str) -> set[tuple[str, str]]:
    """The packages of a requirements file, and what it pins each to."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    pinned = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {(canonicalize_name(pin.name), str(pin.specifier)) for pin in pinned}


def test_requirements_are_exact_pins_and_the_lock_has_them_all():
    lock = pins("requirements.lock")
    assert pins("requirements.txt") | pins("requirements-dev.txt") < lock
    assert all(specifier.startswith("==") and not set(specifier) & set(",+") for _, specifier in lock)
