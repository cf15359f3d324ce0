# SPDX-License-Identifier: Apache-2.0
"""A linear segmentation head on frozen features: batch norm, dropout and a 1×1 convolution, trained on pixels.

Optimiser, learning rate, epochs, batch size, dropout of whole channels and masks of the size that the model sees are
those of the published benchmark (tldr-group/dino-saw, `dinosaw/benchmarks/benchmark.py`). Unlike there, images keep
their proportions, the last batch counts, and it is the last epoch that is kept, not the best on the validation images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, image_processor
from alibi_dinov2.features.weights import require_same_tensors
from alibi_dinov2.io.files import new_file, new_folder
from evaluation.semantics.miou import VOID
from modeling_alibi_dinov2 import Dinov2AlibiForSemanticSegmentation, Dinov2AlibiModel


@dataclass(frozen=True)
class HeadSettings:
    """How a head is trained. The weight decay is the default of PyTorch's AdamW; the learning rate stays constant.

    `pixels_per_patch` is how many rows and columns of logits and mask the loss has per patch: those that the backbone
    saw if not given, as was published. Fewer are faster by their square and reduce fine detail only.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    pixels_per_patch: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or (self.pixels_per_patch or 1) < 1:
            raise ValueError(
                f"Epochs, batch size and pixels per patch are {self.epochs}, {self.batch_size} and "
                f"{self.pixels_per_patch}; they must be 1 or more."
            )


class LinearHead(nn.Module):
    """Features -> logits of patches; its tensors are named like those of `Dinov2AlibiForSemanticSegmentation`."""

    def __init__(self, channels: int, num_classes: int, dropout: float = HeadSettings.dropout) -> None:
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Feature maps `(D, h, w)`, each of its own size -> logits `(1, K, h, w)`, a batch for the batch norm."""
        tokens = torch.cat([image.flatten(1) for image in features], dim=1)
        normalised = self.batch_norm(tokens[None, :, :, None])[..., 0]
        images = normalised.split([image[0].numel() for image in features], dim=2)
        grids = [image.shape[1:] for image in features]
        return [
            self.classifier(self.dropout(image.unflatten(2, grid))) for image, grid in zip(images, grids, strict=True)
        ]


def upsample(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Logits of patches `(1, K, h, w)` -> logits of pixels `(1, K, H, W)`, bilinearly."""
    return nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def train_head(
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    settings: HeadSettings | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> LinearHead:
    """Train a head, or go on with it.

    Args:
        samples: features `(h, w, D)` and mask `(H, W)` of each image, classes 0 to K − 1 or `VOID`; read when needed.
        num_classes: K.
        settings: how to train.
        seed: of weights, order of images and dropout.
        checkpoint: file that the state is written to after each epoch, and read from if it is there; a resumed run
            gives the same head as one that was never stopped. It must be of the same samples, settings and seed.
        device: where to train.
        progress: whether to show a bar.

    Returns:
        The head in evaluation mode.

    Raises:
        ValueError: the checkpoint cannot be read, or the samples do not fit each other.
    """
    settings = settings or HeadSettings()
    # Whoever calls keeps the state of their own random numbers.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = LinearHead(samples[0][0].shape[-1], num_classes, settings.dropout).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        first = load_checkpoint(checkpoint, head, optimizer) if checkpoint and checkpoint.exists() else 0
        epochs = range(first, settings.epochs)
        for epoch in (bar := tqdm(epochs, "head", settings.epochs, initial=first, unit="epoch", disable=not progress)):
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
            batches = torch.randperm(len(samples)).split(settings.batch_size)
            losses = [train_step(head, optimizer, [samples[index] for index in batch.tolist()]) for batch in batches]
            bar.set_postfix(loss=f"{np.mean(losses):.3f}")
            if checkpoint:
                save_checkpoint(checkpoint, head, optimizer, epoch + 1)
    return head.eval()


def train_step(
    head: LinearHead, optimizer: torch.optim.Optimizer, batch: Sequence[tuple[np.ndarray, np.ndarray]]
) -> float:
    """One step on the mean cross entropy of all pixels of a batch that are not void; returns that mean."""
    head.train()
    device = head.classifier.weight.device
    logits = head([torch.from_numpy(features).to(device).permute(2, 0, 1) for features, _ in batch])
    leaves = [image.detach().requires_grad_() for image in logits]
    counted = max(sum(int((mask != VOID).sum()) for _, mask in batch), 1)
    total = 0.0
    # Pixels of one image at a time: those of a whole batch, 21 classes each, would take gigabytes.
    for leaf, (_, mask) in zip(leaves, batch, strict=True):
        target = torch.from_numpy(mask).to(device, torch.long)[None]
        pixels = upsample(leaf, mask.shape)
        loss = nn.functional.cross_entropy(pixels, target, ignore_index=VOID, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    optimizer.zero_grad()
    torch.autograd.backward(logits, [leaf.grad for leaf in leaves])
    optimizer.step()
    return total


@torch.inference_mode()
def predict(head: LinearHead, features: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Features `(h, w, D)` -> classes `(H, W)` uint8 of the pixels of an image of that size."""
    maps = torch.from_numpy(features).to(head.classifier.weight.device).permute(2, 0, 1)
    return upsample(head([maps])[0], size)[0].argmax(0).byte().cpu().numpy()


def save_checkpoint(path: Path, head: LinearHead, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Write head, optimiser and number of epochs done, whole or not at all."""
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    with new_file(path) as temporary:
        save_file(tensors, temporary, metadata={"epochs": str(epochs)})


def load_checkpoint(path: Path, head: LinearHead, optimizer: torch.optim.Optimizer) -> int:
    """Read what `save_checkpoint` wrote into a head and its optimiser; returns the number of epochs done.

    Raises:
        ValueError: the file is damaged, or of another head.
    """
    try:
        with safe_open(path, "pt") as file:
            epochs = int(file.metadata()["epochs"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        head.load_state_dict({name.removeprefix("head."): t for name, t in tensors.items() if name.startswith("head.")})
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of this head ({error}). Remove it to train anew.") from error
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, part = name.split(".")
            state.setdefault(int(index), {})[part] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return epochs


def require_alibi(backbone: Backbone) -> None:
    """Raise a `ValueError` unless a head on this backbone can be saved as `Dinov2AlibiForSemanticSegmentation`."""
    if not isinstance(backbone.model, Dinov2AlibiModel):
        raise ValueError(
            f"{backbone.source} is a {type(backbone.model).__name__}; only the head of a Dinov2AlibiModel can be saved "
            "as a segmenter. Its mIoU can be measured all the same."
        )
    if backbone.removal is not None:
        raise ValueError(f"The head was trained after {backbone.removal.name}, which a saved segmenter would not do.")


def save_segmenter(
    folder: Path, backbone: Backbone, head: LinearHead, size: int, names: Sequence[str], dropout: float
) -> None:
    """Save backbone and head as one `Dinov2AlibiForSemanticSegmentation`, with an image processor.

    Args:
        folder: to be made.
        backbone: an ALiBi-DINOv2 model.
        head: trained on its features.
        size: shortest side in pixels at which it was trained; the processor's.
        names: of the classes.
        dropout: of the head, for whoever trains on.

    Raises:
        ValueError: the backbone is another model, or what was saved differs from what was to be.
        FileExistsError: there is something in the folder already.
    """
    require_alibi(backbone)
    config = type(backbone.model.config).from_dict(backbone.model.config.to_dict())
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.classifier_dropout = dropout
    segmenter = Dinov2AlibiForSemanticSegmentation(config).to(backbone.model.dtype)
    segmenter.dinov2_with_registers.load_state_dict(backbone.model.state_dict())
    segmenter.batch_norm.load_state_dict(head.batch_norm.state_dict())
    segmenter.classifier.load_state_dict(head.classifier.state_dict())
    with new_folder(folder) as temporary:
        segmenter.save_pretrained(temporary)
        image_processor(backbone, size).save_pretrained(temporary)
        saved = Dinov2AlibiForSemanticSegmentation.from_pretrained(temporary, dtype=backbone.model.dtype)
        require_same_tensors(saved, segmenter, "The saved segmenter")
