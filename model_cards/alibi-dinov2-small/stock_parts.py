# SPDX-License-Identifier: Apache-2.0
"""Everything this package relies on inside Transformers beyond what `from transformers import …` offers, and why.

Nothing here runs. A new release may change these parts without notice; `tests/modeling/test_stock_parts.py` asks each
of them whether it is still there, called and filled in the same way, names the ones that are not, and sees to it that
this list is whole.
"""

from typing import NamedTuple


class StockPart(NamedTuple):
    """A part of Transformers.

    Attributes:
        path: where it is, below `transformers`.
        reason: what this package does with it.
        parameters: what it is called with, by these names.
        attributes: what its instances have.
    """

    path: str
    reason: str
    parameters: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


DINOV2 = "models.dinov2_with_registers.modeling_dinov2_with_registers"
ATTENTION = ("module", "query", "key", "value", "attention_mask", "scaling", "dropout")
IMAGE_CHOICES = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad", "pad_size")

STOCK_PARTS = (
    # --- the model
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersAttention.__init__",
        "the subclass has its projections, so that checkpoints fit",
        ("config",),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersAttention",
        "the subclass computes with them",
        attributes=("config", "q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling", "attention_dropout"),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersAttention.forward",
        "the layers call the subclass as they call it",
        ("hidden_states", "attention_mask", "kwargs"),
    ),
    StockPart(f"{DINOV2}.Dinov2WithRegistersLayer.__init__", "the encoder is made of it", ("config",)),
    StockPart(f"{DINOV2}.Dinov2WithRegistersLayer", "its attention is replaced", attributes=("attention",)),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersLayer.forward",
        "hands the mask and all else, such as `grid_size`, to its attention",
        ("hidden_states", "attention_mask", "kwargs"),
    ),
    StockPart(f"{DINOV2}.Dinov2WithRegistersEncoder", "its layers are walked through", attributes=("layer",)),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersEncoder.forward",
        "runs the layers and records hidden states and attentions",
        ("hidden_states", "attention_mask", "kwargs"),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersModel",
        "its parts have these names here, so that checkpoints fit and its `forward` finds them",
        attributes=("embeddings", "encoder", "layernorm"),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersModel.forward",
        "makes masks, and hands all else, such as `grid_size`, to the encoder",
        ("pixel_values", "bool_masked_pos", "attention_mask", "kwargs"),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersForImageClassification",
        "its parts have these names here, so that checkpoints fit and its `forward` finds them",
        attributes=("num_labels", "dinov2_with_registers", "classifier"),
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersForImageClassification.forward",
        "joins [CLS] and the mean patch, and calls `loss_function(labels, logits, config, num_items_in_batch=…)`",
        ("pixel_values", "labels", "attention_mask", "kwargs"),
    ),
    StockPart(f"{DINOV2}.eager_attention_forward", "is the attention that returns weights", (*ATTENTION, "kwargs")),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersPreTrainedModel._init_weights", "draws the weights that stock has", ("module",)
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersPreTrainedModel._no_split_modules", "names modules that stay on one device"
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersPreTrainedModel._supports_flash_attn", "is declared False: it takes no bias"
    ),
    StockPart(
        f"{DINOV2}.Dinov2WithRegistersPreTrainedModel",
        "the choice of attention is read from here",
        attributes=("config._attn_implementation",),
    ),
    StockPart(
        "modeling_utils.PreTrainedModel._check_and_adjust_attn_implementation",
        "is where a choice of attention passes, when a model is made, loaded and changed, so that it can be refused",
        ("attn_implementation",),
    ),
    StockPart("modeling_utils.PreTrainedModel.loss_function", "is the loss of the classification head"),
    StockPart(
        "modeling_utils.AttentionInterface.get_interface", "finds the attention", ("attn_implementation", "default")
    ),
    StockPart("modeling_utils.AttentionInterface.register", "makes `alibi_blockwise` known", ("key", "value")),
    StockPart("masking_utils.AttentionMaskInterface.register", "gives `alibi_blockwise` its masks", ("key", "value")),
    StockPart("masking_utils.sdpa_mask", "is the mask of `alibi_blockwise`"),
    StockPart(
        "masking_utils.create_bidirectional_mask",
        "makes the backbone's mask; a 4-D mask passes unchanged, which carries the bias",
        ("config", "inputs_embeds", "attention_mask"),
    ),
    StockPart(
        "integrations.flex_attention.compile_friendly_flex_attention",
        "runs the score function that holds the bias",
        ("query", "key", "value", "training", "kwargs"),
    ),
    StockPart("backbone_utils.BackboneMixin", "is what makes a backbone", attributes=("stage_names", "out_features")),
    StockPart("backbone_utils.filter_output_hidden_states", "asks for hidden states, and drops them if not wanted"),
    StockPart("utils.generic.can_return_tuple", "serves `return_dict=False`"),
    StockPart("initialization.trunc_normal_", "draws tokens, unless they are being loaded", ("tensor", "mean", "std")),
    StockPart("initialization.zeros_", "clears tokens, unless they are being loaded", ("tensor",)),
    StockPart("initialization.constant_", "sets slopes, unless they are being loaded", ("tensor", "val")),
    StockPart("initialization.uniform_", "draws slopes, unless they are being loaded", ("tensor", "a", "b")),
    StockPart("modeling_outputs.BackboneOutput", "is returned", ("feature_maps", "hidden_states", "attentions")),
    StockPart("modeling_outputs.BaseModelOutput", "is in annotations"),
    StockPart("modeling_outputs.BaseModelOutputWithPooling", "is in annotations"),
    StockPart(
        "modeling_outputs.SemanticSegmenterOutput", "is returned", ("loss", "logits", "hidden_states", "attentions")
    ),
    # --- the image processor
    StockPart("image_processing_backends.PilBackend", "is the base class", attributes=IMAGE_CHOICES),
    StockPart(
        "image_processing_backends.PilBackend._prepare_images_structure",
        "makes a list of what comes in; two-dimensional arrays are added to what it takes",
        ("images", "expected_ndims"),
    ),
    StockPart(
        "image_processing_backends.PilBackend.fetch_images",
        "opens files and addresses, each by itself; files are opened here, as it makes 8 bits of them",
        ("image_url_or_urls",),
    ),
    StockPart(
        "image_processing_backends.PilBackend._standardize_kwargs",
        "brings choices into their form, when a processor is made and when it is called; a contrast is added",
        ("kwargs",),
    ),
    StockPart(
        "image_processing_backends.PilBackend.process_image",
        "is replaced: makes an array of each image",
        ("image", "do_convert_rgb", "input_data_format", "kwargs"),
    ),
    StockPart(
        "image_processing_backends.PilBackend._preprocess",
        "is called after contrast and rounding of the sides: crops, pads, rescales and normalises",
        ("images", *IMAGE_CHOICES, "kwargs"),
    ),
    StockPart("image_processing_backends.PilBackend.resize", "resizes", ("image", "size", "resample")),
    StockPart("image_processing_utils.BatchFeature", "is returned"),
    StockPart("image_processing_utils.get_size_dict", "reads `size`", ("size", "default_to_square", "param_name")),
    StockPart("image_transforms.center_crop", "crops", ("image", "size", "data_format", "input_data_format")),
    StockPart(
        "image_transforms.get_resize_output_image_size",
        "keeps the aspect ratio",
        ("input_image", "size", "default_to_square", "input_data_format"),
    ),
    StockPart("image_utils.IMAGENET_DEFAULT_MEAN", "is a default"),
    StockPart("image_utils.IMAGENET_DEFAULT_STD", "is a default"),
    StockPart("image_utils.ChannelDimension", "names layouts"),
    StockPart("image_utils.ImageInput", "is in annotations"),
    StockPart("image_utils.PILImageResampling", "names ways of resizing"),
    StockPart("image_utils.SizeDict", "holds sizes", ("height", "width")),
    StockPart("processing_utils.ImagesKwargs", "lists the choices that a call may have"),
    # --- the rest
    StockPart(
        "models.dinov2_with_registers.configuration_dinov2_with_registers.Dinov2WithRegistersConfig",
        "is the base class of the configuration, and validates its fields",
    ),
    StockPart("utils.logging.get_logger", "gives warnings", ("name",)),
    StockPart("utils.versions.require_version", "says which Transformers is needed", ("requirement", "hint")),
)
