# SPDX-License-Identifier: Apache-2.0
"""What the student is to match: the teacher's tokens, and how far the student's are from them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn
from transformers import PreTrainedModel

from alibi_dinov2.io.tensor_store import TensorStore

PATCHES = "patches"
FLIPS, TURNS = (False, True), range(4)


@dataclass(frozen=True)
class TokenWeights:
    """Which tokens are compared, and what each kind counts in the loss; patch tokens count 1.

    Args:
        class_token: weight of the class token.
        registers: weight of the registers.
        layers: numbers of the layers whose output is compared too (1 for the first).
        layer: weight of these layers together.
    """

    class_token: float = 0.0
    registers: float = 0.0
    layers: tuple[int, ...] = ()
    layer: float = 1.0

    def by_name(self) -> dict[str, float]:
        """Weights of the kinds of token that count, under the names of `read_tokens`."""
        weights = {PATCHES: 1.0, "class_token": self.class_token, "registers": self.registers}
        weights |= {f"layer_{number}": self.layer / len(self.layers) for number in self.layers}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def require_in(self, layers: int, registers: int) -> None:
        """Raise a `ValueError` unless a model with so many layers and registers has these tokens."""
        if not all(1 <= number <= layers for number in self.layers):
            raise ValueError(f"layers is {list(self.layers)}; the teacher has layers 1 to {layers}.")
        if self.registers > 0 and registers == 0:
            raise ValueError(f"register_weight is {self.registers}, but the teacher has no registers; leave it at 0.")


def read_tokens(
    model: nn.Module, pixel_values: torch.Tensor, names: Collection[str], num_prefix_tokens: int
) -> dict[str, torch.Tensor]:
    """Tokens of `(B, 3, H, W)` pixels by kind, from one forward pass.

    Args:
        model: stock DINOv2 or ALiBi-DINOv2.
        pixel_values: normalised.
        names: `"patches"`, `"class_token"`, `"registers"` (all normalised) and `"layer_<n>"` (patch tokens after the
            n-th layer, not normalised).
        num_prefix_tokens: class token and registers.

    Returns:
        `(B, tokens, D)` each.
    """
    deep = any(name.startswith("layer_") for name in names)
    # Hidden states are asked for only where they are used: they keep every layer's output alive.
    outputs = model(pixel_values=pixel_values, **({"output_hidden_states": True} if deep else {}))
    last = outputs.last_hidden_state
    kinds = {
        "class_token": last[:, :1],
        "registers": last[:, 1:num_prefix_tokens],
        PATCHES: last[:, num_prefix_tokens:],
    }
    if deep:
        kinds |= {f"layer_{n}": state[:, num_prefix_tokens:] for n, state in enumerate(outputs.hidden_states)}
    return {name: kinds[name] for name in names}


def normalise(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """uint8 pixels `(B, 3, H, W)` -> float32, as the image processor's rescaling and normalisation."""
    shape = (1, -1, 1, 1)
    mean_, std_ = (torch.tensor(values, device=pixels.device).view(shape) for values in (mean, std))
    return (pixels.float() / 255 - mean_) / std_


def cosine_loss(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 − cosine over tokens (arXiv 2603.16840, section 4).

    Args:
        student, target: `(B, tokens, D)`, any floating dtype; compared in float32.

    Returns:
        A scalar in [0, 2]: 0 when the tokens point the same way.
    """
    return 1 - nn.functional.cosine_similarity(student.float(), target.float(), dim=-1).mean()


def token_losses(
    student: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], weights: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum that is trained on, and the loss of each kind of token by itself."""
    losses = {name: cosine_loss(student[name], target[name]) for name in weights}
    return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum(), losses


def dihedral(pixels: torch.Tensor, flip: bool, turns: int) -> torch.Tensor:
    """`(…, S, S)` mirrored or not, then turned by so many times 90°."""
    return torch.rot90(pixels.flip(-1) if flip else pixels, turns, dims=(-2, -1))


def undo_dihedral(tokens: torch.Tensor, flip: bool, turns: int) -> torch.Tensor:
    """Patch tokens `(B, n·n, D)` of transformed pixels -> in the order of the pixels' own patches."""
    side = round(tokens.shape[1] ** 0.5)
    grid = torch.rot90(tokens.unflatten(1, (side, side)), -turns, dims=(1, 2))
    return (grid.flip(2) if flip else grid).flatten(1, 2)


def in_low_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Matrix weights in the dtype that autocast would cast them to in every forward pass; all results stay the same."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(dtype)
    return model


class Target:
    """The teacher's tokens for uint8 crops, its zeroed channels 0 in the patch tokens.

    Args:
        teacher: frozen, in evaluation mode, on its device.
        keep: `(D,)`, 0 for channels put to zero and 1 for the others.
        mean, std: of the teacher's image processor.
        average: whether tokens are averaged over the eight flips and 90° turns of the crop, turned back: what of the
            position does not turn with the image cancels out. Eight forward passes instead of one.
        store: where targets are kept for crops that come again, in half precision, or nothing.
        identity: what else decides the target, such as the checksum of the teacher's weights; part of the store's keys.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        keep: torch.Tensor,
        mean: list[float],
        std: list[float],
        average: bool = False,
        store: TensorStore | None = None,
        identity: str = "",
    ) -> None:
        self.teacher, self.keep = teacher, keep
        self.mean, self.std = mean, std
        self.transforms = list(product(FLIPS, TURNS)) if average else [(False, 0)]
        self.store, self.identity = store, f"{identity} {len(self.transforms)}"
        self.num_prefix_tokens = 1 + getattr(teacher.config, "num_register_tokens", 0)

    def __call__(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Tokens `(B, tokens, D)` of the kinds that `read_tokens` names, for `(B, 3, S, S)` uint8 pixels."""
        tokens = self.stored(pixels, names) if self.store else self.compute(pixels, names)
        # Outside inference mode: the loss keeps the target for its backward pass.
        return {name: value * self.keep if name == PATCHES else value.clone() for name, value in tokens.items()}

    @torch.inference_mode()
    def compute(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The teacher's tokens, averaged over the transforms."""
        total: dict[str, torch.Tensor] = {}
        for flip, turns in self.transforms:
            seen = normalise(dihedral(pixels, flip, turns), self.mean, self.std)
            tokens = read_tokens(self.teacher, seen, names, self.num_prefix_tokens)
            for name, value in tokens.items():
                if name not in ("class_token", "registers"):
                    value = undo_dihedral(value, flip, turns)
                total[name] = total[name] + value.float() if name in total else value.float()
        return {name: value / len(self.transforms) for name, value in total.items()}

    def stored(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """As `compute`, from the store where it has a crop; all values are rounded as the store rounds them.

        If one crop of a batch is missing the whole batch is computed, so that an interrupted run and its resumption
        compute the same batches and round them alike.
        """
        assert self.store is not None
        keys = [self.store.key(crop, f"{self.identity} {sorted(names)}") for crop in pixels]
        found = [self.store.read(key) for key in keys]
        if None in found:
            computed = {name: value.half().cpu() for name, value in self.compute(pixels, names).items()}
            for number, key in enumerate(keys):
                if found[number] is None:
                    tokens = {name: value[number].clone() for name, value in computed.items()}
                    self.store.write(key, tokens)
                    found[number] = tokens
        # Autocast cannot stack half precision on every device.
        return {
            name: torch.stack([tokens[name].float() for tokens in found if tokens]).to(pixels.device) for name in names
        }
