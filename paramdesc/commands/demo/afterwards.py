"""What can be done with a trained model: each use is tried, and works or does not."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from paramdesc.commands.demo.model import Reader
from paramdesc.commands.demo.variants import Variant

__all__ = ["USES", "try_all"]

Check = Callable[[Variant, Reader, Tensor], bool]


def try_all(variant: Variant, model: Reader, images: Tensor) -> list[bool]:
    """Whether each of `USES` works for `model`: it raises nothing and gives the same scores."""
    model.eval()
    return [works(use, variant, model, images) for use in USES.values()]


def works(use: Check, variant: Variant, model: Reader, images: Tensor) -> bool:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # some versions of torch warn of TorchScript
            return use(variant, model, images)
    except Exception:  # what torch raises differs for each use
        return False


def pickles(variant: Variant, model: Reader, images: Tensor) -> bool:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.equal(torch.load(file, weights_only=False)(images), model(images))


def scripts(variant: Variant, model: Reader, images: Tensor) -> bool:
    scripted = torch.jit.script(model)
    return torch.allclose(scripted(images), model(images), atol=1e-4)


def exports(variant: Variant, model: Reader, images: Tensor) -> bool:
    program = torch.export.export(model, (images,))
    return torch.allclose(program.module()(images), model(images), atol=1e-4)


def serves(variant: Variant, model: Reader, images: Tensor) -> bool:
    """Whether requests share one evaluation of the kernel, and use new weights at once."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with variant.serving_scope(model):
            model(images)
            kernel = model.cell.weight_hh
            model(images)
            is_shared = model.cell.weight_hh is kernel
            for parameter in model.parameters():
                parameter.mul_(1.5)
            answers = model(images)
        return is_shared and torch.equal(answers, model(images))
    finally:
        model.load_state_dict(state)


USES: dict[str, Check] = {
    "pickle": pickles,
    "TorchScript": scripts,
    "torch.export": exports,
    "cached serving": serves,
}
