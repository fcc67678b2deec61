"""The house rules: dvc.yaml says what the code does, and every subject has its one module."""

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

from conftest import ROOT
from stages.lib import stage as stage_module

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = sorted(path for room in ("stages", "inference") for path in (ROOT / room).rglob("*.py"))
ITEM = re.compile(r"\$\{[^}]+\}")


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


def guard(name: str, monkeypatch) -> tuple[set[str], list[Path]]:
    """Config sections and paths that a stage's own last line binds."""
    bound = {}
    monkeypatch.setattr(stage_module, "run", lambda main, **arguments: bound.update(arguments))
    monkeypatch.delitem(sys.modules, f"stages.{name}", raising=False)
    runpy.run_module(f"stages.{name}", run_name="__main__")
    return set(bound.get("sections", ())), list(bound.get("paths", ()))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_each_module_that_it_imports(name):
    modules = {file.relative_to(ROOT).as_posix() for file in first_party(ROOT / f"stages/{name}.py")}
    assert {dep for dep in listed(name, "deps") if dep.endswith(".py") and dep.startswith("stages/")} == modules
    beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/lib").glob("*.jinja")}
    owned = {file for file in beside if f"{file.split('.')[0]}.py" in modules}  # page.html.jinja is page.py's
    assert {dep for dep in listed(name, "deps") if dep.endswith(".jinja")} == owned
    assert ("llama.cpp/pin.json" in listed(name, "deps")) == ("stages/lib/llamacpp.py" in modules)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_the_params_and_paths_that_dvc_yaml_lists(name, monkeypatch):
    sections, paths = guard(name, monkeypatch)
    assert sections == set(listed(name, "params"))
    known = [Path(ITEM.sub("ITEM", entry)) for entry in listed(name, "deps", "outs", "metrics", "plots")]
    for path in paths:
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
        if out == dep or (dep not in made and (fnmatch(out, dep) or fnmatch(dep, out)))
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


def test_text_split_and_metric_modules_need_no_torch():
    modules = ("boilerplate", "normalise", "quality", "personal", "split", "records", "readers", "parquet", "cleaning",
               "ngrams", "deduplicate", "decontaminate", "selection", "statistics", "card", "data_drawing", "show",
               "download", "sample", "sources", "medqa", "exam", "similarity", "perplexity", "safety", "measures",
               "bootstrap", "comparison", "gates", "results", "page", "drawing", "evaluation_drawing", "model_card",
               "config", "tracking")  # fmt: skip
    code = "; ".join(
        [*(f"import stages.lib.{name}" for name in modules), "import sys; sys.exit('torch' in sys.modules)"]
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("spelling", "owner"),
    [
        ("apply_chat_template", "chat.py"),
        (".from_pretrained(", "models.py"),
        ('"llama-quantize"', "llamacpp.py"),
        ('params.yaml"', "paths.py"),
    ],
)
def test_every_subject_has_its_one_module(spelling, owner):
    assert [path.name for path in CODE if spelling in path.read_text()] == [owner]


def test_modules_are_small():
    for path in CODE:
        limit = 200 if path.parent.name == "lib" else 100
        assert len(path.read_text().splitlines()) <= limit, path


def test_requirements_are_exact_pins():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
