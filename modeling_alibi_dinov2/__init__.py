# SPDX-License-Identifier: Apache-2.0
"""ALiBi-DINOv2 for Hugging Face Transformers. Importing this package registers it with the Auto classes."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
)

from .configuration_alibi_dinov2 import Dinov2AlibiConfig
from .image_processing_alibi_dinov2 import Dinov2AlibiImageProcessor
from .modeling_alibi_dinov2 import (
    Dinov2AlibiBackbone,
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiModel,
)

AutoConfig.register(Dinov2AlibiConfig.model_type, Dinov2AlibiConfig, exist_ok=True)
AutoImageProcessor.register(
    Dinov2AlibiConfig, image_processor_classes={"pil": Dinov2AlibiImageProcessor}, exist_ok=True
)
AutoModel.register(Dinov2AlibiConfig, Dinov2AlibiModel, exist_ok=True)
AutoBackbone.register(Dinov2AlibiConfig, Dinov2AlibiBackbone, exist_ok=True)
AutoModelForImageClassification.register(Dinov2AlibiConfig, Dinov2AlibiForImageClassification, exist_ok=True)
AutoModelForSemanticSegmentation.register(Dinov2AlibiConfig, Dinov2AlibiForSemanticSegmentation, exist_ok=True)

__all__ = [
    "Dinov2AlibiBackbone",
    "Dinov2AlibiConfig",
    "Dinov2AlibiForImageClassification",
    "Dinov2AlibiForSemanticSegmentation",
    "Dinov2AlibiImageProcessor",
    "Dinov2AlibiModel",
]
