"""The models of a run: their names, in the order in which they are shown, and where each lies below models/."""

from stages.lib.core import paths

BASE = "base"
ADAPTER = "adapter"  # laid over the base
TUNED = "tuned"  # merged, or trained whole
EXTRA = (ADAPTER, paths.F16)  # `verify` holds them equal to TUNED
IN_TRANSFORMERS = (BASE, ADAPTER, TUNED)  # the others are GGUFs
REPORT_SLOTS = 12  # how many models dvc.yaml's report can name: a stage cannot have a list of deps of variable length


def evaluated(types: list[str], extra: list[str]) -> dict[str, str]:
    """Name of every model that is evaluated -> its path below models/; of EXTRA those that are named."""
    places = {BASE: paths.BASE, ADAPTER: paths.ADAPTER, TUNED: paths.MERGED}
    places |= {kind: paths.gguf(kind) for kind in verified(types)}
    asked = {name: path for name, path in places.items() if name in extra or name not in EXTRA}
    return {name: path.relative_to(paths.MODELS).as_posix() for name, path in asked.items()}


def verified(types: list[str]) -> list[str]:
    """Every GGUF that is verified."""
    return [paths.F16, *types]


def report_slots(types: list[str], extra: list[str]) -> list[str]:
    """Evaluated names, the last one repeated up to REPORT_SLOTS.

    A folder of all models as the report's dep would show it those of quant types that are no longer in the list.
    """
    names = list(evaluated(types, extra))
    return names + names[-1:] * (REPORT_SLOTS - len(names))
