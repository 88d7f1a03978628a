"""The strip of pictures that a training of NSA leaves every few epochs."""

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from pnilib.apps.report import save_figure
from pnilib.nsa.detector import NSA
from pnilib.nsa.samples import Samples
from pnilib.nsa.training import network_input, predicted
from pnilib.plots.nsa import draw_strip

__all__ = ["draw_progress"]

N_SHOWN = 6


@torch.no_grad()
def draw_progress(model: NSA, images: list[ndarray], epoch: int, file: Path) -> None:
    """Input, label and prediction of some samples, the same in each strip; none of them was trained on."""
    assert model.network is not None
    fresh = Samples(images, model.config, model.rules, epoch=2**31 - 1)
    drawn = [fresh.draw(int(i)) for i in np.linspace(0, len(images) - 1, N_SHOWN).round()]
    pixels = torch.stack([torch.from_numpy(pasted.image).movedim(2, 0) for _, pasted, _ in drawn])
    training = model.network.training
    maps = model.network.eval()(network_input(pixels.to(model.device)))
    model.network.train(training)
    shown = predicted(maps, model.config.patch_task.loss)[:, 0].cpu().numpy()
    labels = [label for _, _, label in drawn]
    top = max(1.0, float(max(label.max() for label in labels)))
    title = f"{model.config.task}, epoch {epoch}: loss {model.history[-1]['loss']:.3g}"
    rows: dict[str, list[ndarray]] = {"label": labels, "prediction": list(shown)}
    save_figure(draw_strip([p.image for _, p, _ in drawn], rows, (0.0, top), title=title), file)
