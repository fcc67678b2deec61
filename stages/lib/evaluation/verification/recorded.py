"""A model's logits, kept on disk so that the model need not be in memory while another one is compared with it."""

import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.lib.core.resources import require_disk
from stages.lib.evaluation.engines.language_model import LanguageModel


class Recorded:
    """The logits that a model has after each token of some texts."""

    def __init__(self, model: LanguageModel, texts: list[list[int]], folder: Path) -> None:
        """Ask the model, and write its logits into the folder; raises UserError where the disk has no room."""
        self.folder = folder
        self.paths: dict[tuple[int, ...], Path] = {}
        folder.mkdir()
        for number, ids in enumerate(tqdm(texts, desc=f"logits of {model.path.name}")):
            logits = model.logits(ids)
            if not self.paths:
                size = logits.nbytes / len(ids) * sum(map(len, texts))
                require_disk(folder, size, f"comparing {len(texts)} texts token by token")
            path = self.paths[tuple(ids)] = folder / f"{number}.npy"
            np.save(path, logits)

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens of one of the texts, float32, shape (tokens, vocabulary)."""
        return np.load(self.paths[tuple(ids)])

    def close(self) -> None:
        """Give their room on the disk back."""
        shutil.rmtree(self.folder)
