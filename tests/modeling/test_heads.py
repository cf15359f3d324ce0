# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from modeling_alibi_dinov2 import (
    Dinov2AlibiBackbone,
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiImageProcessor,
    Dinov2AlibiModel,
)
from tests.comparison import assert_close, first_tensor, largest_difference
from tests.modeling.transformers_names import enable_checkpointing

SAME_WEIGHTS = "the same operations on the same weights"
HEADS = [Dinov2AlibiBackbone, Dinov2AlibiForImageClassification, Dinov2AlibiForSemanticSegmentation]


def body_of(head, tiny_model, **overrides) -> Dinov2AlibiModel:
    """The plain model with the weights of a head's body."""
    body = tiny_model(**overrides)
    weights = head.state_dict() if isinstance(head, Dinov2AlibiBackbone) else head.dinov2_with_registers.state_dict()
    body.load_state_dict(weights)
    return body


# --- backbone -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [{"out_features": ["stem", "stage2", "stage3"]}, {"out_indices": [0, 2, 3]}])
@pytest.mark.parametrize("registers", [0, 4])
def test_feature_maps_are_the_chosen_hidden_states_laid_out_as_the_image(tiny_model, random_pixels, choice, registers):
    backbone = tiny_model(Dinov2AlibiBackbone, num_register_tokens=registers, **choice)
    body, pixels = body_of(backbone, tiny_model, num_register_tokens=registers), random_pixels(2, 3, 5)
    with torch.no_grad():
        maps = backbone(pixels).feature_maps
        states = body(pixels, output_hidden_states=True).hidden_states
        assert backbone.channels == [48, 48, 48]
        assert len(maps) == 3
        for feature_map, stage in zip(maps, (0, 2, 3), strict=True):
            assert feature_map.shape == (2, 48, 3, 5)
            tokens = body.layernorm(states[stage])
            for row, column in ((0, 0), (0, 4), (2, 1)):
                token = tokens[:, 1 + registers + row * 5 + column]
                assert_close(feature_map[:, :, row, column], token, 0.0, SAME_WEIGHTS)


def test_the_last_stage_is_the_default(tiny_model, random_pixels):
    backbone, pixels = tiny_model(Dinov2AlibiBackbone), random_pixels(1, 2, 3)
    with torch.no_grad():
        (feature_map,) = backbone(pixels).feature_maps
        tokens = body_of(backbone, tiny_model)(pixels).last_hidden_state[:, 5:]
    assert_close(feature_map.flatten(2).transpose(1, 2), tokens, 0.0, SAME_WEIGHTS)


def test_feature_maps_without_norm_and_without_reshaping(tiny_model, random_pixels):
    backbone = tiny_model(
        Dinov2AlibiBackbone, out_features=["stage1"], apply_layernorm=False, reshape_hidden_states=False
    )
    pixels = random_pixels(1, 2, 3)
    with torch.no_grad():
        (feature_map,) = backbone(pixels).feature_maps
        states = body_of(backbone, tiny_model)(pixels, output_hidden_states=True).hidden_states
    assert_close(feature_map, states[1], 0.0, SAME_WEIGHTS)


def test_feature_maps_of_overlapping_patches(tiny_model, random_pixels):
    backbone = tiny_model(Dinov2AlibiBackbone, patch_stride=7)
    assert backbone(random_pixels(1, 2, 3)).feature_maps[0].shape == (1, 48, 3, 5)


def test_feature_maps_roll_with_the_image(tiny_model, random_pixels):
    backbone, pixels = tiny_model(Dinov2AlibiBackbone, out_features=["stage1", "stage3"]), random_pixels(1, 3, 5)
    with torch.no_grad():
        rolled = backbone(pixels.roll((14, 28), dims=(2, 3))).feature_maps
        for actual, expected in zip(rolled, backbone(pixels).feature_maps, strict=True):
            assert_close(actual, expected.roll((1, 2), dims=(2, 3)), 2e-5, "float32 sums in another order")


def test_hidden_states_and_attentions_of_the_backbone(tiny_model, random_pixels):
    backbone, pixels = tiny_model(Dinov2AlibiBackbone, attn_implementation="eager"), random_pixels(1, 2, 3)
    output = backbone(pixels)
    assert output.hidden_states is None
    assert output.attentions is None
    output = backbone(pixels, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(1, 11, 48)] * 4
    assert [weights.shape for weights in output.attentions] == [(1, 3, 11, 11)] * 3


# --- classification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("registers", [0, 4])
def test_classification_reads_the_class_token_and_the_mean_patch(tiny_model, random_pixels, registers):
    model = tiny_model(Dinov2AlibiForImageClassification, num_labels=5, num_register_tokens=registers)
    pixels, labels = random_pixels(2, 3, 4), torch.tensor([1, 4])
    with torch.no_grad():
        tokens = body_of(model, tiny_model, num_register_tokens=registers)(pixels).last_hidden_state
        features = torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(dim=1)], dim=1)
        expected = features @ model.classifier.weight.T + model.classifier.bias
        output = model(pixels, labels=labels)
    assert_close(output.logits, expected, 1e-5, "one matrix product, float32")
    assert_close(output.loss, torch.nn.functional.cross_entropy(expected, labels), 1e-5, "float32 logits")
    assert model(pixels).loss is None


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_classes_may_be_of_any_integer_dtype(tiny_model, random_pixels, dtype):
    model, pixels = tiny_model(Dinov2AlibiForImageClassification, num_labels=5), random_pixels(2, 2, 2)
    with torch.no_grad():
        output = model(pixels, labels=torch.tensor([1, 4]).to(dtype))
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([1, 4]))
    assert_close(output.loss, expected, 0.0, "the same operation")


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool, torch.float32])
def test_marks_of_several_classes_may_be_of_any_dtype(tiny_model, random_pixels, dtype):
    model, pixels = tiny_model(Dinov2AlibiForImageClassification, num_labels=3), random_pixels(2, 2, 2)
    labels = torch.tensor([[1, 0, 1], [0, 0, 1]])
    with torch.no_grad():
        output = model(pixels, labels=labels.to(dtype))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, labels.float())
    assert_close(output.loss, expected, 0.0, "the same operation")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_values_may_be_of_any_dtype(tiny_model, random_pixels, dtype):
    model, pixels = tiny_model(Dinov2AlibiForImageClassification, num_labels=1), random_pixels(2, 2, 2)
    output = model(pixels, labels=torch.tensor([3, 200]).to(dtype))
    expected = (output.logits.detach()[:, 0] - torch.tensor([3.0, 200.0])).square().mean()
    assert_close(output.loss, expected, 1e-2, "float32 squares of about 20,000")
    output.loss.backward()


# --- segmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_stride", [None, 7])
def test_segmentation_is_linear_in_the_normalised_patch_features(tiny_model, random_pixels, patch_stride):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=3, patch_stride=patch_stride)
    model.batch_norm.running_mean.uniform_(-1, 1)
    model.batch_norm.running_var.uniform_(0.5, 2)
    pixels = random_pixels(2, 3, 4)
    grid_size = (3, 4) if patch_stride is None else (5, 7)
    with torch.no_grad():
        tokens = body_of(model, tiny_model, patch_stride=patch_stride)(pixels).last_hidden_state[:, 5:]
        norm = model.batch_norm
        tokens = (tokens - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        logits = tokens @ model.classifier.weight[:, :, 0, 0].T + model.classifier.bias
        logits = logits.transpose(1, 2).unflatten(2, grid_size)
        expected = torch.nn.functional.interpolate(logits, size=(42, 56), mode="bilinear", align_corners=False)
        assert_close(model(pixels).logits, expected, 1e-5, "a convolution against a matrix product, float32")


def test_segmentation_loss_leaves_the_ignored_pixels_out(tiny_model, random_pixels):
    model, pixels = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=3), random_pixels(2, 3, 4)
    labels = torch.randint(0, 3, (2, 42, 56), generator=torch.Generator().manual_seed(0))
    labels[:, :20] = 255
    with torch.no_grad():
        output = model(pixels, labels=labels)
        scores = output.logits.log_softmax(dim=1).gather(1, labels.clamp(max=2)[:, None])[:, 0]
    assert_close(output.loss, -scores[:, 20:].mean(), 1e-5, "float32 mean of 2,464 pixels")
    assert model(pixels).loss is None


def test_the_ignored_label_is_a_choice(tiny_model, random_pixels):
    choices = {"num_labels": 3, "semantic_loss_ignore_index": 0}
    model, pixels = tiny_model(Dinov2AlibiForSemanticSegmentation, **choices), random_pixels(1, 2, 2)
    labels = torch.ones(1, 28, 28, dtype=torch.long)
    with torch.no_grad():
        all_pixels = model(pixels, labels=labels).loss
        labels[:, :14] = 0
        lower_half = model(pixels, labels=labels).loss
        scores = model(pixels).logits.log_softmax(dim=1)[0, 1]
    assert_close(all_pixels, -scores.mean(), 1e-5, "float32 mean")
    assert_close(lower_half, -scores[14:].mean(), 1e-5, "float32 mean")


def test_labels_of_another_size_are_refused(tiny_model, random_pixels):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=3)
    with pytest.raises(ValueError, match=r"`labels` .*size \(3, 4\), the pixels \(42, 56\).*nearest-neighbour"):
        model(random_pixels(1, 3, 4), labels=torch.zeros(1, 3, 4, dtype=torch.long))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_segmentation_labels_may_be_of_any_integer_dtype(tiny_model, random_pixels, dtype):
    choices = {"num_labels": 3, "semantic_loss_ignore_index": 100}
    model, pixels = tiny_model(Dinov2AlibiForSemanticSegmentation, **choices), random_pixels(1, 2, 2)
    labels = torch.randint(0, 3, (1, 28, 28), generator=torch.Generator().manual_seed(0))
    labels[:, :5] = 100
    with torch.no_grad():
        output = model(pixels, labels=labels.to(dtype))
    expected = torch.nn.functional.cross_entropy(output.logits, labels, ignore_index=100)
    assert_close(output.loss, expected, 1e-6, "float32 sum, divided by the number of pixels")


def test_labels_that_are_all_ignored_change_nothing(tiny_model, random_pixels):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=3).train()
    loss = model(random_pixels(1, 2, 2), labels=torch.full((1, 28, 28), 255, dtype=torch.uint8)).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.count_nonzero() == 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("num_labels", "labels", "said"),
    [
        (3, torch.zeros(1, 28, 28), r"dtype torch.float32; classes must be integers.*`labels.long\(\)`"),
        (3, torch.zeros(1, 1, 28, 28, dtype=torch.long), r"shape \(1, 1, 28, 28\).*one \(height, width\) map for each"),
        (1, torch.zeros(1, 28, 28, dtype=torch.long), "`num_labels` is 1; .* 2 classes or more.*background"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tiny_model, random_pixels, num_labels, labels, said):
    with pytest.raises(ValueError, match=said):
        tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=num_labels)(random_pixels(1, 2, 2), labels=labels)


def test_segmentation_learns_a_small_picture(tiny_model, random_pixels):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=2, classifier_dropout=0.0).train()
    pixels = random_pixels(1, 4, 4)
    labels = torch.zeros(1, 56, 56, dtype=torch.long)
    labels[:, :28] = 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model(pixels, labels=labels).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_dropout_of_the_head_acts_in_training_only(tiny_model, random_pixels):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, num_labels=2, classifier_dropout=0.5)
    pixels = random_pixels(1, 2, 3)
    with torch.no_grad():
        assert_close(model(pixels).logits, model(pixels).logits, 0.0, "no dropout in evaluation")
        model.dropout.train()
        assert largest_difference(model(pixels).logits, model(pixels).logits) > 1e-2


# --- what all heads share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head_class", HEADS)
def test_a_head_starts_from_the_weights_of_a_plain_model(tiny_model, random_pixels, tmp_path, head_class):
    body = tiny_model()
    body.save_pretrained(tmp_path)
    head = head_class.from_pretrained(tmp_path)
    for name, tensor in body.state_dict().items():
        prefix = "" if head_class is Dinov2AlibiBackbone else "dinov2_with_registers."
        assert torch.equal(head.state_dict()[prefix + name], tensor), name


@pytest.mark.parametrize("head_class", HEADS)
def test_a_head_survives_save_and_load(tiny_model, random_pixels, tmp_path, head_class):
    head, pixels = tiny_model(head_class, num_labels=3, out_features=["stage1", "stage3"]), random_pixels(1, 2, 3)
    head.save_pretrained(tmp_path)
    loaded = head_class.from_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(first_tensor(loaded(pixels)), first_tensor(head(pixels)), 0.0, SAME_WEIGHTS)


@pytest.mark.parametrize("head_class", HEADS)
@pytest.mark.parametrize("attn_implementation", ["eager", "alibi_blockwise"])
def test_a_head_gives_the_same_on_every_attention_path(tiny_model, random_pixels, head_class, attn_implementation):
    head, pixels = tiny_model(head_class, num_labels=3), random_pixels(2, 3, 4)
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[:, -3:] = 0
    with torch.no_grad():
        expected = first_tensor(head(pixels, attention_mask=mask))
        assert largest_difference(expected, first_tensor(head(pixels))) > 1e-3
        head.set_attn_implementation(attn_implementation)
        actual = first_tensor(head(pixels, attention_mask=mask))
    assert_close(actual, expected, 1e-5, "the same sums in another order, float32")


@pytest.mark.parametrize("head_class", [Dinov2AlibiForImageClassification, Dinov2AlibiForSemanticSegmentation])
def test_hidden_states_and_attentions_of_a_head(tiny_model, random_pixels, head_class):
    head, pixels = tiny_model(head_class, attn_implementation="eager", num_labels=3), random_pixels(1, 2, 3)
    output = head(pixels, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(1, 11, 48)] * 4
    assert [weights.shape for weights in output.attentions] == [(1, 3, 11, 11)] * 3
    assert head(pixels).hidden_states is None
    assert_close(head(pixels, return_dict=False)[0], output.logits, 0.0, SAME_WEIGHTS)


@pytest.mark.parametrize("head_class", HEADS)
def test_a_head_refuses_pixels_that_do_not_fit(tiny_model, head_class):
    with pytest.raises(ValueError, match="height 30; it must be a multiple of the patch size, 14 pixels"):
        tiny_model(head_class)(torch.zeros(1, 3, 30, 28))


@pytest.mark.parametrize("head_class", [Dinov2AlibiForImageClassification, Dinov2AlibiForSemanticSegmentation])
def test_gradient_checkpointing_in_a_head(tiny_model, random_pixels, head_class):
    gradients = []
    for checkpointing in (False, True):
        head = tiny_model(head_class, num_labels=3, classifier_dropout=0.0).train()
        if checkpointing:
            enable_checkpointing(head)
        head(random_pixels(2, 3, 4)).logits.square().mean().backward()
        gradients.append(head.dinov2_with_registers.embeddings.patch_embeddings.projection.weight.grad)
    assert gradients[0].count_nonzero() > 0
    assert_close(gradients[1], gradients[0], 1e-7, "the same operations run twice")


# --- pipelines ------------------------------------------------------------------------------------------------------


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


@pytest.fixture
def processor():
    return Dinov2AlibiImageProcessor(size={"shortest_edge": 56}, do_center_crop=False)


def test_the_feature_extraction_pipeline_returns_the_tokens(tiny_model, processor, image):
    model = tiny_model()
    extract = pipeline("image-feature-extraction", model=model, image_processor=processor)
    with torch.no_grad():
        expected = model(**processor(image, return_tensors="pt")).last_hidden_state
    assert_close(np.array(extract(image)), expected, 1e-5, "one image alone, perhaps on another device")


def test_the_classification_pipeline_ranks_the_labels(tiny_model, processor, image):
    model = tiny_model(Dinov2AlibiForImageClassification, id2label={0: "pore", 1: "fibre", 2: "matrix"})
    ranking = pipeline("image-classification", model=model, image_processor=processor)(image)
    with torch.no_grad():
        probabilities = model(**processor(image, return_tensors="pt")).logits.softmax(dim=-1)[0]
    assert {entry["label"] for entry in ranking} == {"pore", "fibre", "matrix"}
    scores = [entry["score"] for entry in ranking]
    assert_close(np.array(scores), probabilities.sort(descending=True).values, 1e-5, "one image alone")


def test_the_segmentation_pipeline_works_with_the_processor_of_a_checkpoint(tiny_model, image):
    """Whose centre crop leaves parts of the image out."""
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, id2label={0: "pore", 1: "fibre", 2: "matrix"})
    segments = pipeline("image-segmentation", model=model, image_processor=Dinov2AlibiImageProcessor())(image)
    masks = np.stack([np.asarray(segment["mask"]) for segment in segments])
    assert masks.shape[1:] == (90, 130)
    assert ((masks > 0).sum(axis=0) == 1).all()


def test_the_segmentation_pipeline_returns_masks_of_the_size_of_the_image(tiny_model, processor, image):
    model = tiny_model(Dinov2AlibiForSemanticSegmentation, id2label={0: "pore", 1: "fibre", 2: "matrix"})
    segments = pipeline("image-segmentation", model=model, image_processor=processor)(image)
    masks = np.stack([np.asarray(segment["mask"]) for segment in segments])
    assert masks.shape[1:] == (90, 130)
    assert ((masks > 0).sum(axis=0) == 1).all()  # every pixel belongs to one class
    assert {segment["label"] for segment in segments} <= {"pore", "fibre", "matrix"}
